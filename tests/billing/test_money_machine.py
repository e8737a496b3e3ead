"""Guests, operators, the provider and the clock in any order: whatever happens, the money comes out right.

A walk is a seeded sequence of steps of two brands that share a provider; in it calls lose their answers or fail, news
come late, twice, in any order or never, processes die at any commit or call, holds run out. From time to time all that
is due is done, and then every invariant holds (`tests/billing/invariants.py`).
"""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from app.access import accounts
from app.access import service as access
from app.access.models import Driver
from app.access.verdict import Accepted, IdTokenValue
from app.billing import cards, payments, sandbox, vouchers, wallets
from app.billing.models import Payment, PaymentOp, SavedCard
from app.billing.provider import OutcomeUnknown, Rejected
from app.billing.stripe_connect import StripeConnect
from app.brands.models import TenantProfile
from app.charging import (
    host_accounts,
    paid,
    service,
    settlement,
    site_hosts,
    startable,
    voucher_starts,
    wallet_starts,
)  # fmt: skip
from app.charging.account import Way
from app.charging.models import CDR, ChargingSession
from app.charging.reports import TransactionReport
from app.demo.cast import NORDLICHT
from app.kernel.clock import utcnow
from app.kernel.errors import LiveryError
from app.kernel.money import half_up
from app.kernel.settings import load_settings
from app.kernel.web import ANONYMOUS
from app.stations import commands
from app.stations import service as stations
from app.stations.models import EVSE
from app.tariffs import service as tariffs
from tenants.redis import Redis
from tenants.scope import Actor
from tests.billing.conftest import ASKS, DECLINED, GOOD, Jobs
from tests.billing.invariants import Unchanged, money_faults, replay_faults
from tests.billing.test_saved_cards import LATER_DECLINED
from tests.cast import PLATES
from tests.charging.crashes import PRICES, VAT, Fate, Killed, MortalDatabase, MortalWire, tariff_of
from tests.charging.test_site_hosts import HOST, TERMS
from tests.conftest import Databases, DatabaseUrls, Proof, settings_environment
from tests.web import CLI, found_brand

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(3600)]
WALKS, STEPS, QUIET_EVERY = 40, 44, 22
FAILS_LATER = "4000000000005126"  # pays, and sends back what is refunded an hour later
RIDERS = 2  # of each brand: drivers with an account, a charging card, and what they give of money
KWH = (0, Decimal("0.4"), Decimal("0.8"), 5, 10, 30, 45, 60)  # below a card's minimum … above the hold
FAULTS = {
    r"POST /v1/checkout/sessions$": ("before", "after", "500", "409", "429"),
    r"POST .*/(capture|cancel|expire)": ("before", "after", "500", "409", "429"),
    r"POST /v1/(customers|payment_intents)$": ("before", "after", "500", "409", "429"),
    r"POST .*/confirm": ("before", "after", "500", "409", "429"),
    r"POST /v1/refunds": ("before", "after", "500", "429", "balance_insufficient"),
    r"POST /v1/(transfers|application_fees)": (
        "before",
        "after",
        "500",
        "409",
        "429",
        "balance_insufficient",
    ),
    r"GET /v1": ("before", "429"),
}
# Minutes: the janitor's, a plug-in's, a payment page's, an hour, a day, a hold's lifetime; mostly a few.
# What fills a wallet is paid back from it: who refunds that at the provider itself lets the wallet go below zero.
BY_CARD = "p.provider not in ('wallet', 'voucher') and p.source_type <> 'wallet'"
CLOCK = (2, 2, 2, 2, 2, 12, 40, 65, 26 * 60, 8 * 24 * 60)


@dataclass
class Place:
    station_id: UUID
    evse_id: UUID
    actor: Actor
    epoch: int = 0
    transaction: str = ""
    meter_wh: Decimal = Decimal(1000)


@dataclass
class Rider:
    """A driver with an account and a charging card."""

    driver: Driver
    token: IdTokenValue

    @property
    def actor(self) -> Actor:
        return accounts.actor_of(self.driver)


@dataclass
class Brand:
    tenant_id: UUID
    account_ref: str
    tariff_id: UUID
    places: list[Place]
    riders: list[Rider]
    price: Decimal = PRICES[0]
    codes: list[tuple[UUID, str]] = field(default_factory=list)  # by their batches
    sessions: dict[UUID, Decimal] = field(default_factory=dict)  # to the price that was shown


@dataclass
class World:
    database: MortalDatabase
    jobs: Jobs
    wire: MortalWire
    chance: random.Random
    brands: list[Brand] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unchanged: Unchanged = field(default_factory=Unchanged)

    # -- how anything happens ------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return utcnow() + self.database.ahead

    def scope(self, brand: Brand, actor: Actor = CLI) -> Any:
        return self.database.scope(brand.tenant_id, actor)

    async def pass_time(self, minutes: float) -> None:
        self.database.ahead += timedelta(minutes=minutes)
        self.jobs.ahead = self.database.ahead
        await sandbox.set_clock(self.database, int(self.database.ahead.total_seconds()))

    async def step(self) -> None:
        """One of what may happen, and mostly what commonly follows: what cannot happen now is passed over."""
        brand = self.chance.choice(self.brands)
        for first, *others in self.chance.sample(DECK, len(DECK)):
            if await self._happens(first, brand):
                for name in others:
                    if self.chance.random() < 0.9:
                        await self._happens(name, brand)
                return

    async def _happens(self, name: str, brand: Brand) -> bool:
        """In a process that may die of it."""
        fate = self.database.fate
        dies = frozenset({self.chance.randrange(8)}) if self.chance.random() < 0.1 else frozenset()
        fate.steps, fate.killed, fate.kills, fate.process = [], [], dies, "somebody"
        try:
            said = await getattr(self, name)(brand)
        except Killed as killed:
            said = f"died: {killed}"
            self.counts["deaths"] += 1
        except OutcomeUnknown as unknown:
            said = f"nobody knows: {unknown}"
            self.counts["lost answers"] += 1
        except LiveryError as refused:
            said = f"refused: {refused.code}"
        finally:
            fate.process, fate.kills = "", frozenset()
        if said is not None:
            self.counts[name] += 1
            self.log.append(f"{name}: {said}")
        return said is not None

    # -- guests --------------------------------------------------------------------------------------------------------

    async def arrive(self, brand: Brand) -> str | None:
        """Somebody presses Pay; the payment page is asked for at once, or by the janitor when this dies."""
        place = self.chance.choice(brand.places)
        price = brand.price
        async with self.scope(brand, Actor(kind="anonymous")) as scope:
            session, op = await paid.request_start(
                scope, place.evse_id, email="driver@a.example", language="en", origin="",
                remote=f"203.0.113.{len(self.log) % 250}",
            )  # fmt: skip
            brand.sessions[session.id] = price
        if op is not None:
            await payments.run_op(self.database, brand.tenant_id, op.id)
        return str(session.id)

    async def pay(self, brand: Brand) -> str | None:
        payment = await self._payment(
            brand, "p.checkout_ref is not null and p.state in ('created','requires_action')"
        )
        if payment is None:
            return None
        card = self.chance.choice((GOOD, GOOD, GOOD, ASKS, DECLINED, FAILS_LATER))
        ref = payment.checkout_ref or ""
        done = await sandbox.pay_checkout(self.database, payment.account_ref, ref, card, "driver@a.example")
        if done["status"] == "authenticate" and self.chance.random() < 0.8:
            succeeds = self.chance.random() < 0.7
            done = await sandbox.authenticate_checkout(
                self.database, payment.account_ref, ref, succeeds=succeeds
            )
        return f"{payment.id} {done['status']}"

    async def come_back(self, brand: Brand) -> str | None:
        payment = await self._payment(brand, "p.checkout_ref is not null")
        if payment is None:
            return None
        await payments.observe(self.database, brand.tenant_id, payment.id)
        return str(payment.id)

    async def give_up(self, brand: Brand) -> str | None:
        session = await self._session(brand, ChargingSession.status == "PENDING")
        if session is None:
            return None
        async with self.scope(brand) as scope:
            await paid.give_up(scope, session.id)
        return str(session.id)

    # -- drivers with an account ---------------------------------------------------------------------------------------

    async def save_card(self, brand: Brand) -> str | None:
        """On the provider's page; who reads what became of it comes later where this dies."""
        self.chance.shuffle(brand.riders)  # who saves a card is who comes next
        rider = brand.riders[0]
        async with self.scope(brand, rider.actor) as scope:
            card = await cards.begin(
                scope, rider.driver, url="http://a.localhost/account/payment", language="en"
            )
        await cards.run_setup(self.database, brand.tenant_id, card.id)
        async with self.scope(brand) as scope:
            known = await scope.db.get_one(SavedCard, (brand.tenant_id, card.id))
        ref, number = known.checkout_ref or "", self.chance.choice((GOOD, LATER_DECLINED, ASKS))
        said = await sandbox.pay_checkout(self.database, brand.account_ref, ref, number, "")
        if said["status"] == "authenticate":
            said = await sandbox.authenticate_checkout(self.database, brand.account_ref, ref, succeeds=True)
        if self.chance.random() < 0.8:
            await cards.observe(self.database, brand.tenant_id, card.id)
            async with self.scope(brand, rider.actor) as scope:
                await cards.make_default(scope, rider.driver.id, card.id)
        return f"{number} {said['status']}"

    async def hold_to_reader(self, brand: Brand) -> str | None:
        """A driver's charging card, where the station lets it charge."""
        free = [place for place in brand.places if not place.transaction]
        if not free:
            return None
        place, rider = self.chance.choice(free), brand.riders[0]
        async with self.scope(brand, place.actor) as scope:
            verdict = await access.plan_authorization(scope, place.station_id, rider.token, 1)
        if not isinstance(verdict, Accepted):
            return f"no: {verdict}"
        return await self._begin(brand, place, rider.token.value)

    async def pay_debt(self, brand: Brand) -> str | None:
        """By the link, on the provider's page."""
        async with self.scope(brand) as scope:
            due = [one for one, _minor in await payments.list_due(scope)]
        if not due:
            return None
        payment = self.chance.choice(due)
        async with self.scope(brand) as scope:
            op = await paid.pay_due(scope, payment.source_id, language="en", origin="")
        if op is not None:
            await payments.run_op(self.database, brand.tenant_id, op.id)
        async with self.scope(brand) as scope:
            ref = (await payments.get_payment(scope, payment.id)).checkout_ref
        if ref is None:
            return f"{payment.id} has no page"
        card = self.chance.choice((GOOD, GOOD, DECLINED))
        done = await sandbox.pay_checkout(self.database, payment.account_ref, ref, card, "")
        return f"{payment.id} {done['status']}"

    async def top_up(self, brand: Brand) -> str:
        rider, amount = self.chance.choice(brand.riders), self.chance.choice(("5.00", "20.00", "50.00"))
        async with self.scope(brand, rider.actor) as scope:
            op = await wallets.top_up(
                scope, amount, success_url="http://a.localhost/w", cancel_url="http://a.localhost/c", language="en",
                remote=f"203.0.113.{len(self.log) % 250}",
            )  # fmt: skip
        await payments.run_op(self.database, brand.tenant_id, op.id)
        return f"{op.payment_id} {amount}"

    async def voucher(self, brand: Brand) -> str:
        """Staff give it away, and a driver redeems it."""
        rider, until = self.chance.choice(brand.riders), f"{self.now + timedelta(days=2):%Y-%m-%d}"
        async with self.scope(brand) as scope:
            batch = await vouchers.issue(
                scope,
                name="Spring",
                amount="4.00",
                code_count=1,
                uses_per_code=1,
                valid_until=until,
                paid_by="brand",
            )
            ((_row, code),) = await vouchers.reveal(scope, batch.id)
        async with self.scope(brand, rider.actor) as scope:
            await vouchers.redeem(scope, code, remote=f"203.0.113.{len(self.log) % 250}")
        return code

    async def start_from_wallet(self, brand: Brand) -> str:
        place, rider, price = self.chance.choice(brand.places), self.chance.choice(brand.riders), brand.price
        async with self.scope(brand, rider.actor) as scope:
            session, _op = await paid.request_start(
                scope, place.evse_id, email="", language="en", origin="", remote=f"203.0.113.{len(self.log) % 250}",
                driver_id=rider.driver.id, keep=await wallet_starts.keeper(scope),
            )  # fmt: skip
            brand.sessions[session.id] = price
        return str(session.id)

    async def start_by_voucher(self, brand: Brand) -> str:
        """A guest's, by a code that others may use too, some of which were revoked meanwhile."""
        place, price = self.chance.choice(brand.places), brand.price
        async with self.scope(brand) as scope:
            if brand.codes and self.chance.random() < 0.2:
                await vouchers.revoke(scope, self.chance.choice(brand.codes)[0])
            if len(brand.codes) < 2 or self.chance.random() < 0.3:
                batch = await vouchers.issue(
                    scope, name="Fair", amount="7.00", code_count=1, uses_per_code=self.chance.choice((1, 2)),
                    valid_until=f"{self.now + timedelta(days=20):%Y-%m-%d}", paid_by="brand", for_guests=True,
                )  # fmt: skip
                brand.codes.append((batch.id, (await vouchers.reveal(scope, batch.id))[0][1]))
        async with self.scope(brand, ANONYMOUS) as scope:
            evse = await startable.get_startable(scope, place.evse_id)
            session = await voucher_starts.request_start(
                scope, evse, Way(), self.chance.choice(brand.codes)[1], email="", language="en", origin="",
                remote=f"203.0.113.{len(self.log) % 250}",
            )  # fmt: skip
            brand.sessions[session.id] = price
        return str(session.id)

    async def pay_back(self, brand: Brand) -> str:
        """What is not spent, to the cards that it came from."""
        rider = self.chance.choice(brand.riders)
        async with self.scope(brand) as scope:
            return str(await wallets.pay_back(scope, rider.driver.id, "moves away"))

    async def repay(self, brand: Brand) -> str | None:
        """By other means, what no card took back."""
        async with self.scope(brand) as scope:
            stuck, refused = await wallets.list_stuck(scope), await payments.list_refused_refunds(scope)
            if not stuck and not refused:
                return None
            record = wallets.repay if stuck else payments.record_repayment
            row = await record(scope, (stuck or refused)[0][0].id, "SEPA 4711")
            return str(row.amount_minor)

    # -- stations ------------------------------------------------------------------------------------------------------

    async def plug_in(self, brand: Brand) -> str | None:
        for place in self.chance.sample(brand.places, len(brand.places)):
            async with self.scope(brand, place.actor) as scope:
                asked = await commands.claim_commands(scope, place.station_id, place.epoch)
            for command in asked:
                async with self.scope(brand, place.actor) as scope:
                    await commands.conclude_command(scope, command.id, "accepted", {"status": "Accepted"})
                if command.action == "RemoteStartTransaction" and not place.transaction:
                    return await self._begin(brand, place, command.payload["idTag"])
        return None

    async def _begin(self, brand: Brand, place: Place, tag: str) -> str:
        began = TransactionReport(
            kind="Started", at=self.now, received_at=self.now, natural_key=f"start{len(self.log)}",
            evse_no=1, connector_no=1, id_token=IdTokenValue(tag), meter_start_wh=place.meter_wh,
        )  # fmt: skip
        while not place.transaction:
            try:
                async with self.scope(brand, place.actor) as scope:
                    verdict = await service.report_transaction(scope, place.station_id, began)
            except Killed:  # whoever took it; the station has no answer and sends it again
                self.counts["deaths"] += 1
            else:
                place.transaction = verdict.ocpp_transaction_id
        async with self.scope(brand) as scope:
            query = select(ChargingSession.id).where(ChargingSession.ocpp_transaction_id == place.transaction)
            brand.sessions.setdefault((await scope.db.execute(query)).scalar_one(), brand.price)
        return place.transaction

    async def end(self, brand: Brand) -> str | None:
        """The session ends with any energy that the time allows."""
        charging = [place for place in brand.places if place.transaction]
        if not charging:
            return None
        place, kwh = self.chance.choice(charging), Decimal(self.chance.choice(KWH))
        await self.pass_time(float(kwh) * 4 + 2)
        transaction = place.transaction
        async with self.scope(brand, place.actor) as scope:
            await service.report_transaction(scope, place.station_id, TransactionReport(
                kind="Ended", at=scope.now, received_at=scope.now, natural_key=f"stop{transaction}",
                ocpp_transaction_id=transaction, meter_stop_wh=place.meter_wh + kwh * 1000,
            ))  # fmt: skip
        place.transaction, place.meter_wh = "", place.meter_wh + kwh * 1000
        return f"{transaction} {kwh} kWh"

    # -- the operator --------------------------------------------------------------------------------------------------

    async def reprice(self, brand: Brand) -> str:
        """Whoever has begun pays what they were shown (I14). Nobody dies of it: what is shown now is known here."""
        self.database.fate.kills = frozenset()
        price = next(price for price in PRICES if price != brand.price)
        async with self.scope(brand) as scope:
            await tariffs.replace_tariff(scope, brand.tariff_id, tariff_of(price))
            await scope.db.commit()
            brand.price = price
        return str(price)

    async def refund(self, brand: Brand) -> str | None:
        payment = await self._payment(brand, "p.source_type <> 'wallet' and p.captured_minor > 0")
        if payment is None:
            return None
        async with self.scope(brand) as scope:
            await settlement.refund(scope, payment.id, "the charger was broken")
        return str(payment.id)

    async def correct(self, brand: Brand) -> str | None:
        """The meter was wrong: half of it was used, or what of that comes to whole cents with VAT and without."""
        async with self.scope(brand) as scope:
            credited = select(CDR.corrects_id).where(CDR.corrects_id.is_not(None))
            query = (
                select(CDR)
                .where(CDR.kind == "cdr", CDR.energy_wh > 0, CDR.id.not_in(credited))
                .order_by(CDR.id)
            )
            cdrs = list((await scope.db.execute(query)).scalars())
            if not cdrs:
                return None
            cdr = self.chance.choice(cdrs)
            await settlement.credit(
                scope, cdr.id, "the meter was wrong", energy_wh=cdr.energy_wh // 800 * 400
            )
        return str(cdr.id)

    async def refund_outside(self, brand: Brand) -> str | None:
        """In the provider's own dashboard."""
        payment = await self._payment(brand, f"{BY_CARD} and p.captured_minor > p.refunded_minor")
        if payment is None:
            return None
        seen = await payments.provider_of(self.database.settings).get_payment(
            payment.account_ref, payment.provider_ref or ""
        )
        left = seen.captured_minor - seen.refunded_minor
        if not left:
            return None
        minor, key = self.chance.choice((left, max(left // 3, 1))), f"dashboard-{len(self.log)}"
        self.wire.of_the_dashboard.add(key)
        provider = payments.provider_of(self.database.settings)
        try:
            await provider.refund(
                payment.account_ref,
                payment.provider_ref or "",
                amount_minor=minor,
                reason="by phone",
                key=key,
            )
        except Rejected as refused:
            return f"the dashboard refuses: {refused.code}"
        return f"{payment.id} {minor}"

    async def paper_outside(self, brand: Brand) -> str | None:
        payment = await self._payment(brand, "p.refunded_outside_minor > 0")
        if payment is None:
            return None
        async with self.scope(brand) as scope:
            await settlement.credit_given_back(scope, payment.id, "given back by phone")
        return str(payment.id)

    async def refund_again(self, brand: Brand) -> str | None:
        async with self.scope(brand) as scope:
            refused = await payments.list_refused_refunds(scope)
            if not refused:
                return None
            await payments.refund_again(scope, refused[0][0].id)
        return str(refused[0][0].id)

    # -- the provider, the clock, the workers --------------------------------------------------------------------------

    async def fault(self, _brand: Brand) -> str:
        path = self.chance.choice(list(FAULTS))
        plan = [
            {"path": path, "fault": self.chance.choice(FAULTS[path]), "times": self.chance.choice((1, 1, 2))}
        ]
        await sandbox.set_faults(self.database, plan)
        return str(plan[0])

    async def short(self, _brand: Brand) -> str:
        """The operator's balance is too small for the next refund."""
        plan = [{"path": r"POST /v1/refunds", "fault": "balance_insufficient", "times": 1}]
        await sandbox.set_faults(self.database, plan)
        return "of money"

    async def news(self, _brand: Brand) -> str | None:
        """Some of what waits, in any order, once, twice or thrice; some of it never."""
        waiting = await self._waiting()
        self.chance.shuffle(waiting)
        for delivery_id, event in waiting:
            copies = self.chance.choice((0, 0, 1, 1, 2, 3))
            for _ in range(copies):
                await self._tell(event)
            if copies or self.chance.random() < 0.3:
                await sandbox.delivered(self.database, delivery_id)
        return f"{len(waiting)} events" if waiting else None

    async def old_news(self, _brand: Brand) -> str | None:
        if not self.told:
            return None
        event = self.chance.choice(self.told)
        await self._tell(event | {"id": f"{event['id']}_{len(self.log)}"})
        return event["type"]

    async def clock(self, brand: Brand) -> str:
        minutes = self.chance.choice(CLOCK)
        await self.pass_time(minutes)
        await self._connect(brand)
        return f"{minutes} minutes"

    async def janitor(self, brand: Brand) -> str:
        name = self.chance.choice(("billing.tidy", "billing.tidy", "billing.sweep", "charging.watch"))
        await self.jobs.gathered.jobs[name](self.database, brand.tenant_id)
        return name

    async def work(self, _brand: Brand) -> str:
        await self.jobs.run(rounds=self.chance.choice((1, 2, 5)))
        return "jobs"

    # -- what is left --------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """The provider answers again, and all that is due is done; charging sessions go on."""
        await sandbox.set_faults(self.database, [])
        for minutes in (2, 2, 65, 2):
            await self.pass_time(minutes)
            for brand in self.brands:
                for name in ("billing.tidy", "charging.watch"):
                    await self.jobs.gathered.jobs[name](self.database, brand.tenant_id)
            await self.jobs.run()
            for delivery_id, event in await self._waiting():
                await self._tell(event)
                await sandbox.delivered(self.database, delivery_id)
            await self.jobs.run()

    async def faults(self) -> list[str]:
        found = [self.wire.faults.pop() for _ in list(self.wire.faults)]
        found += {one for one in self.jobs.failures if not one.endswith(": OutcomeUnknown")}
        for brand in self.brands:
            found += await money_faults(self.database, brand.tenant_id, now=self.now)
            async with self.scope(brand) as scope:
                found += await self.unchanged.faults(scope)
                query = text(  # a share may wait until the platform has the money
                    "select kind, state from livery.payment_op where state not in ('succeeded','failed')"
                    " and not (kind in ('host_transfer','fee_refund') and state = 'planned' and response is not null)"
                )
                found += [f"{row.kind} is {row.state}" for row in await scope.db.execute(query)]
                for cdr in (await scope.db.execute(select(CDR).where(CDR.kind == "cdr"))).scalars():
                    owed = half_up(cdr.energy_wh * brand.sessions[cdr.session_id] * (100 + VAT) / 1000)
                    if cdr.incl_vat_minor != owed:
                        found.append(f"{cdr.energy_wh} Wh cost {cdr.incl_vat_minor}, shown was {owed}")
            log = self.chance.sample(self.told, len(self.told))
            found += await replay_faults(self.database, brand.tenant_id, log[:15], self.jobs.run)
        return found

    async def close(self) -> None:
        """Everybody goes home, and a day later nothing is held."""
        for brand in self.brands:
            while any(place.transaction for place in brand.places):
                await self.end(brand)
        await self.settle()
        await self.pass_time(25 * 60)
        await self.settle()
        await self.pass_time(3 * 24 * 60)  # now the platform has its fees
        await self.settle()

    async def open_ends(self) -> list[str]:
        found = []
        for brand in self.brands:
            async with self.scope(brand) as scope:
                query = select(ChargingSession.status).where(
                    ChargingSession.status.not_in(("COMPLETED", "INVALID"))
                )
                found += [f"a session is {status}" for status in (await scope.db.execute(query)).scalars()]
                query = select(Payment.state).where(
                    Payment.state.not_in((*payments.TAKEN, "failed", "expired", "canceled")),
                    Payment.saved_card_id.is_(None) | (Payment.failure == ""),  # else its driver owes it
                )
                found += [f"a payment is {state}" for state in (await scope.db.execute(query)).scalars()]
                query = select(PaymentOp.kind).where(PaymentOp.state.not_in(("succeeded", "failed")))
                found += [f"a share waits: {kind}" for kind in (await scope.db.execute(query)).scalars()]
                query = select(func.count()).where(
                    PaymentOp.state == "succeeded", PaymentOp.kind == "host_transfer"
                )
                self.counts["shares passed on"] += (await scope.db.execute(query)).scalar_one()
                query = select(func.count()).where(
                    PaymentOp.state == "succeeded", PaymentOp.kind == "host_reversal"
                )
                self.counts["shares taken back"] += (await scope.db.execute(query)).scalar_one()
        return found

    # -- helpers -------------------------------------------------------------------------------------------------------

    async def _payment(self, brand: Brand, which: str) -> Payment | None:
        async with self.scope(brand) as scope:
            query = text(f"select id from livery.payment p where {which} order by id")  # noqa: S608
            ids = list((await scope.db.execute(query)).scalars())
            if not ids:
                return None
            return await payments.get_payment(
                scope, ids[-1] if self.chance.random() < 0.7 else self.chance.choice(ids)
            )

    async def _session(self, brand: Brand, *which: Any) -> ChargingSession | None:
        async with self.scope(brand) as scope:
            query = select(ChargingSession).where(*which).order_by(ChargingSession.id)
            found = list((await scope.db.execute(query)).scalars())
            return self.chance.choice(found) if found else None

    async def _waiting(self) -> list[tuple[str, dict[str, Any]]]:
        async with self.database.sandbox() as db:
            await db.execute(text("update sandbox.delivery set due_at = now()"))
        waiting = await sandbox.take_deliveries(self.database)
        self.told += [event for _id, event in waiting if event not in self.told]
        return waiting

    async def _tell(self, event: dict[str, Any]) -> None:
        body, now = json.dumps(event).encode(), utcnow()
        secret = sandbox.webhook_secret(self.database.settings)
        assert await payments.take_news(
            self.database, body, sandbox.sign(body, secret, int(now.timestamp())), now
        )

    async def _connect(self, brand: Brand) -> None:
        for place in brand.places:
            async with self.scope(brand, place.actor) as scope:
                place.epoch = await stations.connection_opened(
                    scope, place.station_id, node="n", ocpp_version="ocpp1.6", remote="127.0.0.1"
                )

    async def found(self, slug: str, places: int = 3) -> None:
        tenant_id = await found_brand(self.database, slug)
        await payments.open_account(self.database, tenant_id)
        async with self.database.scope(tenant_id, CLI) as scope:
            profile = (await scope.db.execute(select(TenantProfile))).scalar_one()
            for name, value in NORDLICHT.profile.items():
                setattr(profile, name, value)
            account = await payments.find_account(scope)
            assert account is not None
            account.fee_percent, account.fee_fixed_minor = Decimal(5), 10
            await wallets.offer(scope, is_on=True)
            riders = list[Rider]()
            for number in range(RIDERS):
                driver = await access.create_driver(scope, name="Jule", email=f"jule{number}@{slug}.example")
                token = IdTokenValue(f"{slug.upper()}{number}")
                await access.create_id_token(scope, value=token.value, driver_id=driver.id)
                riders.append(Rider(driver, token))
            tariff = await tariffs.create_tariff(scope, tariff_of(PRICES[0]), {"default": True})
            site = await stations.create_location(
                scope, name="Hafen", address="Weg 1", city="Berlin", postal_code="10115", country="DEU",
                time_zone="Europe/Berlin",
            )  # fmt: skip
            host = await site_hosts.save_host(scope, HOST | {"email": f"host@{slug}.example"})
            await site_hosts.add_contract(scope, host.id, site.id, TERMS)
            made = []
            for number in range(places):
                new = await stations.create_station(
                    scope, identity=f"{slug}{number}", location_id=site.id,
                    evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
                )  # fmt: skip
                evse = select(EVSE.id).where(EVSE.station_id == new.station.id)
                evse_id = (await scope.db.execute(evse)).scalar_one()
                made.append(Place(new.station.id, evse_id, Actor.station(new.station.id)))
        await host_accounts.begin(self.database, tenant_id, CLI, host.id, page_url="http://p.localhost/h")
        brand = Brand(tenant_id, account.account_ref, tariff.id, made, riders)
        self.wire.tenants[account.account_ref] = tenant_id
        self.brands.append(brand)
        await self._connect(brand)


VISIT = ("arrive", "pay", "come_back", "work", "plug_in")
WEIGHTS = {
    VISIT: 12, VISIT[:2]: 2, VISIT[1:]: 5, ("plug_in",): 9, ("end", "work"): 14, ("end",): 3, ("news", "work"): 4,
    ("come_back",): 2, ("give_up",): 1, ("reprice",): 2, ("refund", "work"): 2, ("refund",): 1,
    ("correct", "work"): 2, ("correct",): 1, ("refund_outside",): 2, ("refund_again",): 2,
    ("refund_outside", "news", "work", "paper_outside"): 2,
    ("short", "refund", "work", "refund_again", "work"): 2, ("fault",): 4,
    ("save_card", "hold_to_reader", "work"): 4,
    ("save_card", "hold_to_reader", "work", "end", "work", "pay_debt", "come_back", "work"): 4,
    ("hold_to_reader", "work"): 5, ("hold_to_reader",): 1,
    ("pay_debt", "come_back", "work"): 4, ("top_up", "pay", "come_back", "work"): 4, ("voucher",): 3,
    ("start_from_wallet", "work", "plug_in"): 6, ("start_by_voucher", "work", "plug_in"): 5,
    ("pay_back", "work"): 2, ("repay",): 2,
    ("short", "pay_back", "work", "pay_back", "work"): 1, ("short", "refund", "work", "repay"): 1,
    ("short", "top_up", "pay", "come_back", "work", "pay_back", "work", "repay"): 1, ("old_news",): 1, ("clock",): 2,
    ("janitor", "work"): 3, ("work",): 3,
}  # fmt: skip
DECK = [chain for chain, weight in WEIGHTS.items() for _ in range(weight)]


@asynccontextmanager
async def world_of(
    urls: DatabaseUrls, redis_url: str, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    redis = Redis(redis_url)
    settings = load_settings(settings_environment(urls, redis_url)).model_copy(
        update={"host_transfers": True}
    )
    database = MortalDatabase(settings, redis, Fate())
    wire = MortalWire(database, database.fate)
    provider = StripeConnect(database.settings, wire=wire)
    monkeypatch.setattr(payments, "provider_of", lambda _settings: provider)
    jobs = Jobs(database, urls)
    world = World(database, jobs, wire, chance)
    try:
        for slug in ("alpha", "beta"):
            await world.found(slug)
        yield world
    finally:
        jobs.connection.close()
        await database.close()
        await redis.close()


async def test_the_money_comes_out_right_whatever_happens_in_whatever_order(
    databases: Databases, redis_url: str, proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks, counts = proof.share(WALKS, part=20), Counter[str]()
    for number in range(walks):
        chance = proof.random(f"money machine {number}")
        with databases.copy() as urls:
            async with world_of(urls, redis_url, chance, monkeypatch) as world:
                for step in range(1, STEPS + 1):
                    await world.step()
                    if step % QUIET_EVERY == 0 and step < STEPS:
                        await world.settle()
                        wrong = await world.faults()
                        assert not wrong, story(number, world, wrong)
                await world.close()
                wrong = await world.faults() + await world.open_ends()
                assert not wrong, story(number, world, wrong)
                counts += world.counts
    proof.write("money_machine", {"walks": walks, "steps": walks * STEPS, **counts})
    assert counts["deaths"] and counts["end"]
    assert not proof.full or all(counts[name] for chain in WEIGHTS for name in chain), counts


def story(number: int, world: World, wrong: list[str]) -> str:
    """What led there; the seed and the number of the walk lead there again."""
    return "\n".join([f"walk {number}:", *wrong[:10], "after", *world.log[-60:]])
