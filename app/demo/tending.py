"""What the demo's staff did with its stations: limits, monitors, messages, reservations, certificates, updates.

By the verbs that the portal has; the stations answer, and what they answer is what the pages show. So it needs them
there: whoever has not come within half a minute is left alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.access import local_lists
from app.access.models import DriverGroup, IdToken
from app.billing import payments
from app.billing.models import Payment
from app.charging import refunds, reservations, smart_charging
from app.charging.profiles import Period
from app.demo.cast import POWER_W, Box, Company
from app.demo.guests import ASKED_ABOUT
from app.device_model import configuration, displays, monitors
from app.device_model import service as device_model
from app.device_model.paths import parse_path
from app.identity import service as identity
from app.kernel.errors import Invalid, Refused
from app.maintenance import certificates, changes, firmware, logs, policy
from app.stations import alerts, availability, commands, makes, parking
from app.stations.models import EVSE, ChargingStation, Connector, StationConnection, StationQuirk
from tenants.database import Database
from tenants.scope import Actor, Scope

LOG = logging.getLogger("livery.demo")
STAFF = Actor(kind="cli", name="demo")
WAIT_S, SETTLE_S, CARS_COME_S, GUESTS_LEAVE_S = 30, 2.5, 20, 210
HOST = "firmware.livery-works.example"


@dataclass(frozen=True, slots=True)
class Tended:
    """A station that is there."""

    id: UUID
    box: Box
    card: str

    @property
    def is_16(self) -> bool:
        return self.box.version == "1.6"

    @property
    def power_w(self) -> int:
        return POWER_W[self.box.kind] * self.box.evse_count


Deed = Callable[..., Awaitable[object]]


async def tend(database: Database, tenant_id: UUID, company: Company) -> None:
    """Once: what was done before is not done again."""
    async with database.scope(tenant_id, STAFF) as scope:
        if (await scope.db.execute(select(StationQuirk.id).limit(1))).first():
            return
    there = await _who_is_there(database, tenant_id, company)
    if not there:
        return

    async def do(deed: Deed, *arguments: Any) -> None:
        """A refusal is no reason to leave the rest alone."""
        try:
            async with database.scope(tenant_id, STAFF) as scope:
                await deed(scope, *arguments)
        except (Invalid, Refused) as error:
            LOG.info("%s of %s: %s", deed.__name__, company.slug, error)
        except Exception:
            LOG.exception("%s of %s", deed.__name__, company.slug)

    await do(_of_the_brand, company, there)
    for deed in (_read, _watch, _limit, _show, _secure, _upkeep):
        for station in there:
            await do(deed, station)
        await asyncio.sleep(SETTLE_S)
    await do(_send_lists, there)
    await asyncio.sleep(CARS_COME_S)
    for station in there:
        await do(_ask, station)
    await do(_reserve)
    for _ in range(GUESTS_LEAVE_S):
        async with database.scope(tenant_id, STAFF) as scope:
            if await _ask_refund(scope, company):
                break
        await asyncio.sleep(1)


async def _who_is_there(database: Database, tenant_id: UUID, company: Company) -> list[Tended]:
    """In the order of their identities, as the list of stations has them."""
    boxes = {box.identity: box for box in company.boxes}
    card = next(card.value for card in company.cards if card.status == "accepted" and not card.driver)
    query = (
        select(ChargingStation.id, ChargingStation.ocpp_identity)
        .join(StationConnection, StationConnection.station_id == ChargingStation.id)
        .where(StationConnection.is_online, ChargingStation.booted_at.is_not(None))
        .order_by(ChargingStation.ocpp_identity)
    )
    found: list[Tended] = []
    for _ in range(WAIT_S):
        async with database.scope(tenant_id, STAFF) as scope:
            rows = (await scope.db.execute(query)).all()
        found = [Tended(row.id, boxes[row.ocpp_identity], card) for row in rows if row.ocpp_identity in boxes]
        if len(found) == len(boxes):
            break
        await asyncio.sleep(1)
    return found


async def _of_the_brand(scope: Scope, company: Company, there: list[Tended]) -> None:
    await makes.add_quirk(
        scope, vendor="Kaiwerk", model="Poller*", quirk="no_ping",
        note="Firmware 2.x drops the link at each ping; the maker knows.",
    )  # fmt: skip
    await policy.set_policy(
        scope, minimum_profile=1, organisation=company.profile["legal_name"], firmware_hosts=[HOST]
    )
    await configuration.create_template(
        scope, name="Fast chargers", ocpp_version="ocpp2.0.1", model="Sim DC",
        settings={"OCPPCommCtrlr/HeartbeatInterval": "300", "SampledDataCtrlr/TxUpdatedInterval": "15"},
    )  # fmt: skip
    first, last = there[0], there[-1]
    await alerts.raise_alert(scope, last.id, "duplicate_key", "MeterValues names timestamp twice", 3)
    await alerts.raise_alert(
        scope, first.id, "wrong_key", "11 tries from 198.51.100.23 within 15 minutes", 11
    )
    raw = '[2,"{}","MeterValues",{{"connectorId":1,"meterValue":[{{"timestamp":"{}","sampledValue":[]}}]}}]'
    old = next((one for one in there if one.is_16), first)
    for minutes, number in ((190, "8213"), (188, "8214")):
        at = scope.now - timedelta(minutes=minutes)
        await parking.park(
            scope, old.id, received_at=at, ocpp_version="ocpp1.6", action="MeterValues", message_id=number,
            raw=raw.format(number, at.strftime("%Y-%m-%dT%H:%M:%SZ")), error="The connection to the database was lost.",
        )  # fmt: skip


async def _read(scope: Scope, station: Tended) -> None:
    await device_model.request_inventory(scope, station.id)
    status = {"requestedMessage": "StatusNotification"}
    await commands.send_command(scope, station.id, "TriggerMessage", status)
    key = "CpoName" if station.is_16 else "SecurityCtrlr/OrganizationName"
    known = (await policy.get_policy(scope)).organisation
    await device_model.set_variables(scope, station.id, {parse_path(key): known})


async def _watch(scope: Scope, station: Tended) -> None:
    if station.is_16:
        await availability.change(scope, station.id, is_operative=True)
        return
    hot, warm = Decimal(40), Decimal(30)
    evse, load = parse_path("EVSE@1/Temperature"), parse_path("EVSE@1/Power")
    await monitors.set_monitors(scope, station.id, [
        monitors.Wish(path=evse, kind="UpperThreshold", value=hot, severity=3),
        monitors.Wish(path=evse, kind="UpperThreshold", value=warm, severity=6),
        monitors.Wish(path=load, kind="Delta", value=Decimal(station.power_w) / 4, severity=8),
    ])  # fmt: skip
    await monitors.set_monitoring_level(scope, station.id, 7)


async def _limit(scope: Scope, station: Tended) -> None:
    """All of it never above nine tenths; at night a little less for each car."""
    most, each = Decimal(station.power_w), Decimal(POWER_W[station.box.kind])
    await smart_charging.set_profile(scope, station.id, smart_charging.Wish(
        purpose="ChargingStationMaxProfile", periods=(Period(0, most * 9 / 10),),
    ))  # fmt: skip
    midnight = scope.now.replace(hour=0, minute=0, second=0, microsecond=0)
    day = (Period(0, each * 6 / 10), Period(6 * 3600, each), Period(22 * 3600, each * 6 / 10))
    await smart_charging.set_profile(scope, station.id, smart_charging.Wish(
        purpose="TxDefaultProfile", kind="Recurring", recurrency="Daily", periods=day, start_at=midnight,
    ))  # fmt: skip


async def _show(scope: Scope, station: Tended) -> None:
    await smart_charging.ask_composite(scope, station.id, evse_no=1)
    if station.is_16:
        return
    for text in (
        displays.Text(content="Moin! Karte vorhalten oder Code scannen.", state="Idle", language="de"),
        displays.Text(content="Sonntag von 6 bis 8 Uhr: Wartung.", priority="InFront", language="de"),
        displays.Text(content="Parken ist frei, solange Sie laden.", state="Charging", language="de"),
    ):
        await displays.show_message(scope, station.id, text)


async def _ask(scope: Scope, station: Tended) -> None:
    if not station.is_16:
        token = (station.card, "ISO14443")
        await displays.request_customer(scope, station.id, report=True, clear=False, id_token=token)


async def _secure(scope: Scope, station: Tended) -> None:
    await certificates.install_own_ca(scope, station.id)
    await certificates.request_renewal(scope, station.id)
    if station.box.identity.endswith("1"):
        await changes.rotate_key(scope, station.id)


async def _upkeep(scope: Scope, station: Tended) -> None:
    await logs.request_log(scope, station.id)
    if station.box.identity.endswith("1"):
        version = "livery-works-1.9.0.bin" if station.is_16 else "livery-works-2.2.0.bin"
        await firmware.update_firmware(scope, station.id, f"https://{HOST}/{version}")


async def _send_lists(scope: Scope, there: list[Tended]) -> None:
    groups = list((await scope.db.execute(select(DriverGroup.id))).scalars())
    for station, (covers, ids) in zip(there, (("all", []), ("groups", groups[:1])), strict=False):
        await local_lists.cover(scope, station.id, covers, ids)
        await local_lists.send_now(scope, station.id)


async def _reserve(scope: Scope) -> None:
    """Where a place is free: one that holds, one that was taken back."""
    cards = (
        select(IdToken).where(IdToken.status == "accepted").order_by(IdToken.driver_id.is_(None), IdToken.id)
    )
    token = (await scope.db.execute(cards.limit(1))).scalar_one()
    free = (
        select(EVSE)
        .join(Connector, Connector.evse_id == EVSE.id)
        .where(Connector.status == "Available")
        .order_by(EVSE.station_id)
        .limit(2)
    )
    made = [
        await reservations.reserve(
            scope, evse.station_id, id_token_id=token.id, expires_at=scope.now + timedelta(minutes=100),
            evse_id=evse.id,
        )
        for evse in (await scope.db.execute(free)).scalars()
    ]  # fmt: skip
    if len(made) > 1:
        await reservations.cancel(scope, made[-1].id)


async def _ask_refund(scope: Scope, company: Company) -> bool:
    """A colleague of the owner's gives a guest's money back, and here that waits for the owner. False until a guest has
    paid who does not dispute it."""
    paid = (
        select(Payment)
        .where(Payment.state == "captured", ~Payment.method.endswith(ASKED_ABOUT[-4:]))
        .order_by(Payment.id)
    )
    waiting = (await scope.db.execute(paid.limit(1))).scalars().all()
    account = await payments.find_account(scope)
    if account is None or not waiting:
        return False
    account.refund_limit_minor = 100
    member = await identity.find_staff_member(scope, company.people[1].email)
    if member is None:
        return True
    scope.actor = identity.Login(b"", member).actor
    try:
        await refunds.ask_refund(scope, waiting[0].id, "The charger stopped three times before it went on.")
    except Refused as error:
        LOG.info("the refund of %s: %s", company.slug, error)
    return True
