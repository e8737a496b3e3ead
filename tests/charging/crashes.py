"""A guest's whole visit with a death at any step: the steps are counted, never listed by hand.

A step is a moment at which a process can be gone: just before and just after each commit that writes, before a call to
the provider is sent and after it was done but before its answer is heard, before and after a mail is handed over.
What must hold of the money afterwards is listed in `tests/billing/invariants.py`, I1 to I15.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
from sqlalchemy import select, text

from app.access import service as access
from app.access.verdict import IdTokenValue
from app.asgi import FrontDoor
from app.billing import cards, payments, sandbox
from app.billing import service as billing
from app.billing.models import Invoice, Payment, PaymentOp, SavedCard
from app.charging import ingest, paid, service
from app.charging.models import CDR, ChargingSession
from app.charging.reports import ENERGY, Reading, TransactionReport
from app.kernel.clock import utcnow
from app.kernel.settings import Settings
from app.notifications.models import Mail
from app.stations import commands
from app.stations import service as stations
from app.stations.models import EVSE
from app.tariffs import service as tariffs
from tenants.database import Database
from tenants.redis import Redis
from tenants.scope import Actor, Scope
from tests.billing.conftest import GOOD, Jobs
from tests.billing.invariants import Unchanged, WatchedWire, money_faults, replay_faults
from tests.cast import PLATES
from tests.web import CLI, Visitor

START_WH = 1_000
SPENT_WH = 10_000
EMAIL = "driver@a.example"
PRICES = (
    Decimal("0.50"),
    Decimal("0.75"),
)  # a kWh, without VAT: the tariff changes in the middle of every session
VAT = Decimal(20)
# A mail server knows no keys: who dies between handing a mail over and writing that down sends it again, with the same
# Message-ID. The other order would lose mails.
MAIL_OPEN = ("worker: mail handed over", "worker: before commit (notifications.send)")


class Killed(BaseException):
    """The process is gone. No code under test may take it for an ordinary error."""


@dataclass
class Fate:
    """Counts the steps of the mortal processes, and kills at those that are due."""

    kills: frozenset[int] = frozenset()
    process: str = ""
    steps: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        if not self.process:
            return
        name = f"{self.process}: {what}"
        repeated = sum(known.split(" #")[0] == name for known in self.steps)
        self.steps.append(f"{name} #{repeated + 1}" if repeated else name)
        if len(self.steps) - 1 in self.kills:
            self.killed.append(self.steps[-1])
            raise Killed(self.steps[-1])


class MortalDatabase(Database):
    """A process's own view: it can die at a commit, and its clock is `ahead` of ours."""

    def __init__(self, settings: Settings, redis: Redis, fate: Fate) -> None:
        super().__init__(settings, redis=redis)
        self.fate, self.ahead = fate, timedelta()

    @asynccontextmanager
    async def scope(
        self, tenant_id: UUID, actor: Actor, *, now: datetime | None = None, redis: Redis | None = None
    ) -> AsyncIterator[Scope]:
        async with super().scope(tenant_id, actor, now=now or utcnow() + self.ahead, redis=redis) as scope:
            commit, who = scope.db.commit, actor.name or actor.kind

            async def mortal_commit() -> None:
                await scope.db.flush()
                written = text("select pg_current_xact_id_if_assigned() is not null")
                if not (await scope.db.execute(written)).scalar_one():
                    return await commit()
                self.fate.step(f"before commit ({who})")
                await commit()
                self.fate.step(f"after commit ({who})")

            scope.db.commit = mortal_commit
            yield scope


class MortalWire(WatchedWire):
    """The way to the provider: a process can die before it has asked, and before it has heard."""

    def __init__(self, database: Database, fate: Fate) -> None:
        super().__init__(database)
        self.fate = fate

    async def request_with_retries_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None, *_: Any, **__: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        path = re.sub(r"(cs_test|pi|re)_\w+", r"\1_…", urlsplit(url).path)
        self.fate.step(f"{method.upper()} {path} not sent")
        answer = await super().request_with_retries_async(method, url, headers, post_data)
        self.fate.step(f"{method.upper()} {path} done, not heard")
        return answer


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the provider's news arrive. `returns`: the payer's browser comes back from the payment page."""

    name: str
    copies: int
    reverse: bool = False
    returns: bool = True


DELIVERIES = (
    Delivery("lost", 0, returns=False),
    Delivery("once", 1),
    Delivery("thrice", 3),
    Delivery("reversed", 2, reverse=True, returns=False),
)


def tariff_of(price: Decimal) -> dict[str, Any]:
    component = {"type": "ENERGY", "price": str(price), "vat": str(VAT), "step_size": 1}
    return {"currency": "EUR", "elements": [{"price_components": [component]}]}


@dataclass
class Town:
    """One tenant, its processes and the provider; each visit has a station of its own."""

    database: MortalDatabase
    tenant_id: UUID
    door: FrontDoor
    jobs: Jobs
    fate: Fate
    mails: list[str]
    wire: MortalWire
    tariff_id: UUID
    visits: int = 0
    price: Decimal = PRICES[0]
    unchanged: Unchanged = field(default_factory=Unchanged)

    @asynccontextmanager
    async def as_process(self, name: str) -> AsyncIterator[None]:
        self.fate.process = name
        try:
            yield
        finally:
            self.fate.process = ""

    async def set_ahead(self, ahead: timedelta) -> None:
        self.database.ahead = self.jobs.ahead = ahead
        await sandbox.set_clock(self.database, int(ahead.total_seconds()))

    def scope(self, actor: Actor = CLI) -> Any:
        return self.database.scope(self.tenant_id, actor)

    async def reprice(self) -> None:
        """The operator changes the tariff for all who come from now on: by our clock, where the next visit begins."""
        self.price = next(price for price in PRICES if price != self.price)
        async with self.database.scope(self.tenant_id, CLI, now=utcnow()) as scope:
            await tariffs.replace_tariff(scope, self.tariff_id, tariff_of(self.price))

    async def visit(
        self, delivery: Delivery, *kills: int, number: str = "", is_long: bool = False
    ) -> "Visit":
        """A new guest at a new station; the processes die at the steps of these numbers. With a `number` a driver who
        has saved that card; `is_long`: who charges for more than the first hold, and stays for longer."""
        self.visits += 1
        self.fate.kills, self.fate.steps, self.fate.killed = frozenset(kills), [], []
        self.mails.clear()
        await self.set_ahead(timedelta())
        async with self.scope() as scope:
            made = await stations.create_station(
                scope, identity=f"CP{self.visits}",
                evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
            )  # fmt: skip
        actor = Actor.station(made.station.id)
        async with self.scope(actor) as scope:
            epoch = await stations.connection_opened(
                scope, made.station.id, node="n", ocpp_version="ocpp1.6", remote="127.0.0.1"
            )
            query = select(EVSE.code).where(EVSE.station_id == made.station.id)
            code = (await scope.db.execute(query)).scalar_one()
        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.door, client=(f"203.0.113.{self.visits % 250}", 1)),
            base_url="http://door",
        )
        browser = Visitor(client, self.database.settings.host_of("driver", "alpha"), 8000)
        about = (self, delivery, browser, made.station.id, actor, epoch, code, self.price)
        if number and is_long:
            return LongVisit(*about, number=number)
        return ReaderVisit(*about, number=number) if number else Visit(*about)


@dataclass
class Visit:
    town: Town
    delivery: Delivery
    browser: Visitor
    station_id: UUID
    actor: Actor
    epoch: int
    code: str
    price: Decimal
    page: str = ""
    transaction: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)

    # -- the two mortal processes --------------------------------------------------------------------------------------

    async def web(self, name: str, ask: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response | None:
        """None: the request failed, as it does when its process dies."""
        async with self.town.as_process(f"web, {name}"):
            try:
                return await ask()
            except Killed:
                return None

    async def work(self) -> None:
        """Workers, until nothing is due: when one dies its jobs go to the next."""
        while True:
            async with self.town.as_process("worker"):
                try:
                    return await self.town.jobs.run()
                except Killed:
                    continue

    async def recurring(self, name: str) -> None:
        """A killed round is not taken up again: the next one is a round like it."""
        async with self.town.as_process("worker"):
            try:
                job = self.town.jobs.gathered.jobs[name]
                await job(self.town.database, self.town.tenant_id)
            except Killed:
                pass
        await self.work()

    # -- the story -----------------------------------------------------------------------------------------------------

    async def tell(self) -> None:
        """What is not answered with 200 the provider tells again."""
        for _ in range(3):
            async with self.town.database.sandbox() as db:
                await db.execute(text("update sandbox.delivery set due_at = now()"))
            waiting = await sandbox.take_deliveries(self.town.database)
            if self.delivery.reverse:
                waiting.reverse()
            for delivery_id, event in waiting:
                if event not in self.told:
                    self.told.append(event)
                heard = [await self._news(event) for _ in range(self.delivery.copies)]
                if all(heard):
                    await sandbox.delivered(self.town.database, delivery_id)

    async def _news(self, event: dict[str, Any]) -> bool:
        body = json.dumps(event).encode()
        settings = self.town.database.settings
        headers = {
            "Host": settings.host_of("console"),
            "Stripe-Signature": sandbox.sign(
                body, sandbox.webhook_secret(settings), int(utcnow().timestamp())
            ),
        }
        answer = await self.web(f"webhook {event['type']}", lambda: self.browser.client.post(
            "/webhooks/stripe-connect", content=body, headers=headers))  # fmt: skip
        return answer is not None and answer.status_code == 200

    async def press(self, name: str, path: str, form: dict[str, str] | None = None) -> httpx2.Response:
        """A form's button; whoever sees an error page presses again."""
        for _ in range(3):
            answer = await self.web(name, lambda: self.browser.post(path, form))
            if answer is not None:
                return answer
        raise AssertionError(f"{name} never answered")

    async def pay(self) -> None:
        read = await self.browser.read(f"/c/{self.code}")
        answer = await self.press("press Pay", f"/c/{self.code}/start", read)
        assert answer.status_code == 303, answer.text
        target = answer.headers["location"]
        while "/pay/" not in target:  # nobody answered: the page of the session has the way when there is one
            self.page = target
            await self.minutes(2)
            shown = await self.look(target)
            found = re.search(r'href="([^"]+/pay/[^"]+)"', shown)
            target = found.group(1) if found else target
        ref = target.rpartition("/")[2]
        account, checkout = await sandbox.find_checkout(self.town.database, ref) or ("", {})
        self.page = urlsplit(checkout["success_url"]).path
        assert (await sandbox.pay_checkout(self.town.database, account, ref, GOOD, EMAIL))[
            "status"
        ] == "complete"
        await self.tell()
        if self.delivery.returns:
            await self.web("return from payment", lambda: self.browser.get(f"{self.page}?paid=1"))
        await self.work()

    async def look(self, path: str) -> str:
        """The page as the driver sees it (nobody dies)."""
        answer = await self.browser.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def minutes(self, count: float, *, work: bool = True) -> None:
        """Time passes, and the janitor with it."""
        await self.town.set_ahead(self.town.database.ahead + timedelta(minutes=count))
        if work:
            await self.recurring("billing.tidy")
            await self.tell()
            await self.work()

    async def serve(self, action: str) -> dict[str, Any]:
        """The gateway fetches what the station is asked; it takes minutes where somebody died."""
        for _ in range(6):
            async with self.town.scope(self.actor) as scope:
                found = await commands.claim_commands(scope, self.station_id, self.epoch)
            for command in found:
                async with self.town.scope(self.actor) as scope:
                    await commands.conclude_command(scope, command.id, "accepted", {"status": "Accepted"})
                if command.action == action:
                    return command.payload
            await self.minutes(2)
        raise AssertionError(f"the station was never asked: {action}")

    async def begin(self) -> None:
        asked = await self.serve("RemoteStartTransaction")
        now = utcnow() + self.town.database.ahead
        async with self.town.scope(self.actor) as scope:
            verdict = await service.report_transaction(scope, self.station_id, TransactionReport(
                kind="Started", at=now, received_at=now, natural_key="start", evse_no=1, connector_no=1,
                id_token=IdTokenValue(asked["idTag"]), meter_start_wh=Decimal(START_WH),
            ))  # fmt: skip
        assert verdict.id_token_status == "Accepted"
        self.transaction = verdict.ocpp_transaction_id

    async def charge(self) -> None:
        await self.begin()
        await self.work()
        for part in (1, 2):
            if part == 2:
                await self.town.reprice()
            await self.minutes(30, work=False)
            at = utcnow() + self.town.database.ahead
            meter = Decimal(START_WH + SPENT_WH * part // 2)
            reading = Reading(measurand=ENERGY, value=meter, unit="Wh", sampled_at=at, received_at=at,
                              context="Sample.Periodic")  # fmt: skip
            async with self.town.scope(self.actor) as scope:
                await ingest.ingest(scope, self.station_id, 1, self.transaction, [reading])
            await self.work()

    async def stop(self) -> None:
        await self.press("press Stop", f"{self.page}/stop")
        await self.serve("RemoteStopTransaction")
        at = utcnow() + self.town.database.ahead
        async with self.town.scope(self.actor) as scope:
            await service.report_transaction(scope, self.station_id, TransactionReport(
                kind="Ended", at=at, received_at=at, natural_key="stop", ocpp_transaction_id=self.transaction,
                meter_stop_wh=Decimal(START_WH + SPENT_WH),
            ))  # fmt: skip
        await self.work()
        await self.tell()
        await self.work()

    async def settle_up(self) -> None:
        """What a guest has done by now."""

    async def go(self) -> None:
        await self.pay()
        await self.charge()
        await self.stop()
        await self.settle_up()
        for count in (2, 2, 2, 45, 60):  # the janitor's minutes, and what was given up runs out
            await self.minutes(count)
        await self.recurring("charging.watch")
        await self.minutes(2)

    # -- what it came to -----------------------------------------------------------------------------------------------

    async def faults(self) -> list[str]:
        """What differs from money.md; empty where all is well. I1 to I15: `tests/billing/invariants.py`."""
        found, town = list[str](), self.town
        async with self.town.scope() as scope:
            query = select(ChargingSession.id).where(ChargingSession.station_id == self.station_id)
            sessions = [
                await service.get_session(scope, one) for one in (await scope.db.execute(query)).scalars()
            ]
            billed = [one for one in sessions if one.status == "COMPLETED"]
            if len(billed) != 1:
                found.append(f"sessions: {[one.status for one in sessions]}")
            for session in sessions:
                found += await self._session_faults(scope, session)
            query = select(Payment.id).where(Payment.source_id.in_([one.id for one in sessions]))
            own = set((await scope.db.execute(query)).scalars())
            found += await town.unchanged.faults(scope)
        now = utcnow() + town.database.ahead
        found += await money_faults(town.database, town.tenant_id, now=now, only=own)
        found += [town.wire.faults.pop() for _ in list(town.wire.faults)]
        found += await replay_faults(town.database, town.tenant_id, reversed(self.told), town.jobs.run)
        held = await held_at_provider(self.town.database)
        if held:
            found.append(f"still held: {held}")
        is_mail_open = any(step.split(" #")[0] in MAIL_OPEN for step in self.town.fate.killed)
        if len(self.town.mails) != len(set(self.town.mails)) and not is_mail_open:
            found.append(f"mails: {self.town.mails}")
        for session in sessions:
            found += await self._page_faults(session)
        return found

    async def _session_faults(self, scope: Scope, session: ChargingSession) -> list[str]:
        legs = await payments.list_legs(scope, "charging_session", session.id)
        payment = payments.as_one(legs)
        assert payment is not None
        asked = select(PaymentOp).where(PaymentOp.payment_id.in_([leg.id for leg in legs]))
        ops = list((await scope.db.execute(asked)).scalars())
        taken = [one for leg in legs for one in await captures(self.town.database, leg)]
        faults = [f"{op.kind} is {op.state}" for op in ops if op.state not in ("succeeded", "failed")]
        receipts = select(Mail.id).where(Mail.source_id == session.id, Mail.kind == "receipt")
        mails = len((await scope.db.execute(receipts)).all())
        cdrs = list((await scope.db.execute(select(CDR).where(CDR.session_id == session.id))).scalars())
        papers: list[Invoice] = []
        for cdr in cdrs:
            papers += await billing.list_invoices_of(scope, "cdr", cdr.id)
        if session.status == "COMPLETED":
            gross = [paper.gross_minor for paper in papers]
            owed = SPENT_WH // 10 * self.price * (100 + VAT) // 100  # cents
            by_leg = [leg.captured_minor for leg in legs if leg.captured_minor]
            if not (
                taken == by_leg and gross == [cdr.incl_vat_minor for cdr in cdrs] == [sum(taken)] == [owed]
            ):
                faults.append(
                    f"captured {taken}, invoiced {gross}, payment {payment.captured_minor}, owed {owed}"
                )
            if payment.state != "captured" or session.settled_at is None or mails != 1:
                faults.append(f"payment {payment.state}, settled {session.settled_at}, {mails} receipts")
        elif session.status == "INVALID":
            if taken or papers or mails or payment.state not in ("failed", "expired", "canceled"):
                faults.append(f"not started, yet {payment.state}, captured {taken}, {mails} receipts")
        else:
            faults.append(f"left {session.status}")
        return faults

    async def _page_faults(self, session: ChargingSession) -> list[str]:
        async with self.town.scope() as scope:
            link = paid.link_of(scope, session.id)
        shown = await self.look(f"/s/{link}")
        title = (re.search(r"<h1>(.*?)</h1>", shown) or ["", ""])[1]
        wanted = {"COMPLETED": "Finished", "INVALID": "The payment page has closed"}[session.status]
        return [] if title == wanted else [f"the page of a session {session.status} says {title!r}"]


@dataclass
class ReaderVisit(Visit):
    """A driver holds their charging card to the reader, and is away: the card they saved pays, `number` at the
    provider. Where its bank asks for them they come back by the mail's link. The gateway is mortal too, and its station
    tells again what was not answered."""

    number: str = GOOD

    @property
    def card(self) -> IdTokenValue:
        return IdTokenValue(f"CARD{self.town.visits}")

    async def pay(self) -> None:
        """Long before, and nobody dies of it."""
        town = self.town
        mail = f"jule{town.visits}@a.example"
        async with town.scope() as scope:
            driver = await access.create_driver(scope, name="Jule", email=mail)
            await access.create_id_token(scope, value=self.card.value, driver_id=driver.id)
            card = await cards.begin(
                scope, driver, url="http://alpha.localhost/account/payment", language="en"
            )
        await cards.run_setup(town.database, town.tenant_id, card.id)
        async with town.scope() as scope:
            own = await payments.get_own_account(scope)
            ref = (await scope.db.get_one(SavedCard, (town.tenant_id, card.id))).checkout_ref or ""
        await sandbox.pay_checkout(town.database, own.account_ref, ref, self.number, mail)
        if self.number != GOOD:
            await sandbox.authenticate_checkout(town.database, own.account_ref, ref, succeeds=True)
        await cards.observe(town.database, town.tenant_id, card.id)

    async def report(self, kind: str, **told: Any) -> str:
        at = utcnow() + self.town.database.ahead
        report = TransactionReport(kind=kind, at=at, received_at=at, natural_key=kind, **told)  # type: ignore[arg-type]
        while True:
            async with self.town.as_process("gateway"):
                try:
                    async with self.town.scope(self.actor) as scope:
                        verdict = await service.report_transaction(scope, self.station_id, report)
                    return verdict.ocpp_transaction_id
                except Killed:
                    continue

    async def begin(self) -> None:
        self.transaction = await self.report(
            "Started", evse_no=1, connector_no=1, id_token=self.card, meter_start_wh=Decimal(START_WH)
        )
        await self.work()
        await self.tell()
        await self.minutes(2)  # it may have been asked in vain: nobody stops for that
        async with self.town.scope() as scope:
            query = select(ChargingSession.id).where(ChargingSession.station_id == self.station_id)
            self.page = f"/s/{paid.link_of(scope, (await scope.db.execute(query)).scalar_one())}"

    async def stop(self) -> None:
        await self.report(
            "Ended", ocpp_transaction_id=self.transaction, meter_stop_wh=Decimal(START_WH + SPENT_WH)
        )
        await self.work()
        await self.tell()
        await self.work()

    async def settle_up(self) -> None:
        if self.number == GOOD:
            return
        ref, tries = "", 0
        while not ref.startswith("cs_") and tries < 5:
            await self.minutes(2)  # until the mail is there, whoever died
            answer = await self.press("press Go to the payment page", f"{self.page}/pay")
            ref, tries = answer.headers["location"].rpartition("/")[2], tries + 1
        account, _checkout = await sandbox.find_checkout(self.town.database, ref) or ("", {})
        await sandbox.pay_checkout(self.town.database, account, ref, self.number, "")
        await sandbox.authenticate_checkout(self.town.database, account, ref, succeeds=True)
        await self.tell()
        await self.work()


@dataclass
class LongVisit(ReaderVisit):
    """Its hold is a third of what a usual session costs. The car stays plugged in until the first hold runs out, and
    charges on a little: what runs out is taken, and the rest comes with the last leg."""

    async def charge(self) -> None:
        await self.begin()
        await self.work()
        parts = 5
        for part in range(1, parts + 1):
            if part == parts:
                await self.minutes(4 * 24 * 60 + 11.6 * 60 - 40, work=False)  # within an hour of its last six
            await self.minutes(9, work=False)
            if part == 2:
                await self.town.reprice()
            await self.read(SPENT_WH * part // (parts + 1))
            await self.minutes(1)
        await self.minutes(60, work=False)
        await self.read(SPENT_WH * parts // (parts + 1))  # now what runs out is taken
        await self.minutes(5, work=False)
        await self.read(SPENT_WH)
        await self.minutes(2)

    async def settle_up(self) -> None:
        """The card has given all of it."""

    async def read(self, spent_wh: int) -> None:
        at = utcnow() + self.town.database.ahead
        meter = Decimal(START_WH + spent_wh)
        reading = Reading(measurand=ENERGY, value=meter, unit="Wh", sampled_at=at, received_at=at,
                          context="Sample.Periodic")  # fmt: skip
        async with self.town.scope(self.actor) as scope:
            await ingest.ingest(scope, self.station_id, 1, self.transaction, [reading])
        await self.work()
        await self.tell()
        await self.work()


async def captures(database: Database, payment: Payment) -> list[int]:
    """What the provider really took: one balance transaction for each capture."""
    query = text("select t.body from sandbox.object t join sandbox.object c on c.id = t.body->>'source'"
                 " where t.kind = 'balance_transaction' and c.body->>'payment_intent' = :intent")  # fmt: skip
    async with database.sandbox() as db:
        rows = await db.execute(query, {"intent": payment.provider_ref})
        return [row.body["amount"] for row in rows]


async def held_at_provider(database: Database) -> list[str]:
    query = text(
        "select id from sandbox.object where kind = 'payment_intent' and body->>'status' in ("
        "'requires_capture', 'requires_action', 'requires_payment_method', 'requires_confirmation')"
    )
    async with database.sandbox() as db:
        return list((await db.execute(query)).scalars())
