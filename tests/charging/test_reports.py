"""What stations report becomes sessions: idempotent, in any order, never refused (ocpp.md 2 and 3)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from app.access.verdict import IdTokenValue
from app.billing.models import Invoice, LedgerEntry
from app.charging import cost, ingest, service, settlement
from app.charging.models import CDR, ChargingSession, SessionEvent
from app.charging.reports import ENERGY, POWER, Reading, TransactionReport
from app.kernel.errors import Invalid, Refused
from app.stations import service as stations
from tenants.database import Database
from tenants.scope import Actor
from tests.cast import STAFF, Cast, hire
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio

START = datetime(2026, 6, 1, 8, tzinfo=UTC)
TARIFF = {
    "id": "T", "currency": "EUR",
    "elements": [{"price_components": [{"type": "ENERGY", "price": "0.50", "vat": "19", "step_size": 1}]}],
}  # fmt: skip


def minute(n: float) -> datetime:
    return START + timedelta(minutes=n)


def reading(n: float, wh: float, context: str = "Sample.Periodic") -> Reading:
    return Reading(
        measurand=ENERGY,
        value=Decimal(str(wh)),
        unit="Wh",
        sampled_at=minute(n),
        received_at=minute(n),
        context=context,
    )


def start(cast: Cast, *, key: str = "a", at: float = 0, meter: int = 1_000, evse: int = 1, token: str | None = "",
          **more: Any) -> TransactionReport:  # fmt: skip
    """A 1.6 StartTransaction."""
    return TransactionReport(
        kind="Started", at=minute(at), received_at=minute(at), natural_key=f"start-{key}", evse_no=evse, connector_no=1,
        id_token=None if token is None else IdTokenValue(token or cast.card), meter_start_wh=Decimal(meter), **more,
    )  # fmt: skip


def stop(
    transaction: str | None, *, key: str = "a", at: float = 60, meter: int = 11_000, **more: Any
) -> TransactionReport:
    return TransactionReport(
        kind="Ended", at=minute(at), received_at=minute(at), natural_key=f"stop-{key}", ocpp_transaction_id=transaction,
        meter_stop_wh=Decimal(meter), **more,
    )  # fmt: skip


class Desk:
    """Reports as the gateway hands them in, one transaction each."""

    def __init__(self, database: Database, cast: Cast) -> None:
        self.database, self.cast = database, cast

    async def report(self, report: TransactionReport) -> Any:
        async with self.database.scope(self.cast.tenant_id, Actor.station(self.cast.station_id)) as scope:
            return await service.report_transaction(scope, self.cast.station_id, report)

    async def meter(self, *readings: Reading, evse: int = 1, transaction: str | None = None) -> None:
        async with self.database.scope(self.cast.tenant_id, Actor.station(self.cast.station_id)) as scope:
            await ingest.ingest(scope, self.cast.station_id, evse, transaction, readings)

    async def sessions(self) -> list[ChargingSession]:
        async with self.database.scope(self.cast.tenant_id, STAFF) as scope:
            return list(
                (
                    await scope.db.execute(select(ChargingSession).order_by(ChargingSession.started_at))
                ).scalars()
            )

    async def session(self) -> ChargingSession:
        (only,) = await self.sessions()
        return only

    async def settle(self) -> None:
        for session in await self.sessions():
            async with self.database.scope(self.cast.tenant_id, Actor.job("settle")) as scope:
                await settlement.settle(scope, session.id)

    async def all(self, model: Any) -> list[Any]:
        async with self.database.scope(self.cast.tenant_id, STAFF) as scope:
            return list((await scope.db.execute(select(model))).scalars())

    async def count(self, model: Any) -> int:
        async with self.database.scope(self.cast.tenant_id, STAFF) as scope:
            return (await scope.db.execute(select(func.count()).select_from(model))).scalar_one()


@pytest.fixture
async def desk(database: Database) -> Desk:
    return Desk(database, await hire(database, tariff=TARIFF))


async def test_a_session_ends_in_a_cdr_and_an_invoice_of_the_same_amount(desk: Desk):
    verdict = await desk.report(start(desk.cast))
    assert verdict.id_token_status == "Accepted"
    assert 1 <= int(verdict.ocpp_transaction_id) < 2**31
    await desk.meter(reading(30, 6_000), transaction=verdict.ocpp_transaction_id)
    await desk.report(stop(verdict.ocpp_transaction_id))
    await desk.settle()
    session = await desk.session()
    assert (session.status, session.review, session.energy_wh) == ("COMPLETED", None, 10_000)
    (cdr,) = await desk.all(CDR)
    (invoice,) = await desk.all(Invoice)
    assert (cdr.excl_vat_minor, cdr.incl_vat_minor) == (500, 595)
    assert (invoice.net_minor, invoice.vat_minor, invoice.gross_minor) == (500, 95, 595)
    assert sum(entry.amount_minor for entry in await desk.all(LedgerEntry)) == 0


async def test_a_start_sent_again_answers_with_the_same_transaction(desk: Desk):
    first = await desk.report(start(desk.cast))
    again = await desk.report(start(desk.cast))
    assert again.ocpp_transaction_id == first.ocpp_transaction_id
    assert again.id_token_status == "Accepted"
    assert len(await desk.sessions()) == 1


async def test_the_whole_queue_sent_twice_counts_once(desk: Desk):
    for _ in range(2):
        verdict = await desk.report(start(desk.cast, offline=True))
        for n in range(1, 5):
            await desk.meter(reading(n * 10, 1_000 + n * 2_000), transaction=verdict.ocpp_transaction_id)
        await desk.report(stop(verdict.ocpp_transaction_id, offline=True))
        await desk.settle()
    assert await desk.count(MeterValue) == 4
    assert await desk.count(CDR) == 1
    assert await desk.count(Invoice) == 1
    events = await desk.all(SessionEvent)
    assert sorted(event.kind for event in events) == ["ended", "started"]


async def test_an_unknown_card_is_told_so_and_its_session_is_kept(desk: Desk):
    verdict = await desk.report(start(desk.cast, token="NOBODY"))
    assert verdict.id_token_status == "Invalid"
    assert int(verdict.ocpp_transaction_id) >= 1
    await desk.report(stop(verdict.ocpp_transaction_id, meter=1_000))
    await desk.settle()
    assert (await desk.session()).status == "INVALID"
    assert await desk.count(CDR) == 0


async def test_energy_given_to_a_refused_card_waits_for_staff(desk: Desk):
    verdict = await desk.report(start(desk.cast, token="NOBODY"))
    await desk.report(stop(verdict.ocpp_transaction_id))
    await desk.settle()
    assert (await desk.session()).review == "orphan"
    assert await desk.count(CDR) == 0


async def test_two_transactions_on_one_evse_supersede_the_older(desk: Desk):
    await desk.report(start(desk.cast))
    await desk.meter(reading(20, 3_000))
    await desk.report(start(desk.cast, key="b", at=30, meter=3_000))
    older, newer = await desk.sessions()
    assert (older.status, older.review, older.ended_at) == ("COMPLETED", "superseded", minute(30))
    assert older.energy_wh == 2_000
    assert newer.status == "ACTIVE"


async def test_a_stop_without_a_known_id_finds_its_session_by_card_and_time(desk: Desk):
    await desk.report(start(desk.cast))
    await desk.report(start(desk.cast, key="b", evse=2, token="OTHER"))
    await desk.report(stop(None, id_token=IdTokenValue(desk.cast.card)))
    ended = [session for session in await desk.sessions() if session.status == "COMPLETED"]
    assert [session.evse_no for session in ended] == [1]


async def test_a_stop_for_a_transaction_nobody_started_is_an_orphan_once(desk: Desk):
    for _ in range(2):
        await desk.report(stop("987654"))
    session = await desk.session()
    assert (session.status, session.review, session.energy_wh) == ("COMPLETED", "orphan", None)


async def test_a_late_start_turns_an_orphan_into_a_session(desk: Desk):
    event = TransactionReport(
        kind="Ended", at=minute(60), received_at=minute(60), ocpp_transaction_id="tx-1", evse_no=1, connector_no=1,
        seq_no=2, readings=(reading(60, 11_000, "Transaction.End"),),
    )  # fmt: skip
    await desk.report(event)
    assert (await desk.session()).review == "orphan"
    await desk.report(
        replace(
            event,
            kind="Started",
            at=minute(0),
            seq_no=0,
            id_token=IdTokenValue(desk.cast.card, "ISO14443"),
            readings=(reading(0, 1_000, "Transaction.Begin"),),
            offline=True,
        )
    )
    await desk.settle()
    session = await desk.session()
    assert (session.review, session.energy_wh, session.started_at) == (None, 10_000, minute(0))
    assert await desk.count(Invoice) == 1


@pytest.mark.parametrize("meter", [500, 10**12])
async def test_a_meter_that_cannot_be_stops_before_the_cdr(desk: Desk, meter: int):
    verdict = await desk.report(start(desk.cast))
    await desk.report(stop(verdict.ocpp_transaction_id, meter=meter))
    await desk.settle()
    session = await desk.session()
    assert (session.review, session.energy_wh) == ("implausible", None)
    assert await desk.count(CDR) == 0


async def test_staff_release_with_their_own_figure_and_the_session_is_billed(desk: Desk):
    verdict = await desk.report(start(desk.cast))
    await desk.report(stop(verdict.ocpp_transaction_id, meter=500))
    session = await desk.session()
    async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
        with pytest.raises(Invalid, match="say how many Wh"):
            await service.decide_review(scope, session.id, "release", "the driver's own meter")
    async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
        await service.decide_review(scope, session.id, "release", "the driver's own meter", energy_wh=4_000)
    await desk.settle()
    (cdr,) = await desk.all(CDR)
    assert (cdr.energy_wh, cdr.excl_vat_minor) == (4_000, 200)


async def test_staff_void_a_session_and_nothing_is_billed(desk: Desk):
    await desk.report(stop("987654"))
    session = await desk.session()
    async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
        await service.decide_review(scope, session.id, "void", "a test by the installer")
    await desk.settle()
    assert (await desk.session()).status == "INVALID"
    assert await desk.count(CDR) == 0


async def test_a_session_at_a_free_site_costs_nothing_wherever_it_is_told(desk: Desk):
    """Also where a default tariff would apply, and where the site has its price again before it ends."""

    async def put(is_free: bool) -> None:
        async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
            await stations.update_location(scope, desk.cast.location_id, is_free_vend=is_free)

    async def told() -> tuple[str, int | None, Decimal | None, str]:
        async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
            session = await service.get_session(scope, (await desk.session()).id)
            running = await settlement.running_price(scope, session)
            display = await cost.total(scope, desk.cast.station_id, session.ocpp_transaction_id or "")
            return (
                await settlement.collection_of(scope, session), running.total_cost.incl_minor if running else None,
                display, await settlement.standing_price(scope, session),
            )  # fmt: skip

    await put(True)
    verdict = await desk.report(start(desk.cast))
    await desk.meter(reading(30, 6_000), transaction=verdict.ocpp_transaction_id)
    await put(False)
    assert await told() == ("free", 0, None, "")
    await desk.report(stop(verdict.ocpp_transaction_id))
    assert await told() == ("free", 0, Decimal(0), "")
    await desk.settle()
    (cdr,) = await desk.all(CDR)
    assert (cdr.energy_wh, cdr.incl_vat_minor, cdr.collection, cdr.tariff) == (10_000, 0, "free", None)
    assert await desk.count(Invoice) == await desk.count(LedgerEntry) == 0


async def test_meter_values_of_another_id_belong_to_the_open_session_of_their_evse(desk: Desk):
    await desk.report(start(desk.cast))
    for transaction in (None, "0", "4711"):
        await desk.meter(reading(10 + len(transaction or ""), 2_000), transaction=transaction)
    values = await desk.all(MeterValue)
    assert {value.session_id for value in values} == {(await desk.session()).id}


async def test_the_price_of_the_start_is_billed_also_when_the_tariff_changes_meanwhile(desk: Desk):
    from app.tariffs import service as tariffs

    verdict = await desk.report(start(desk.cast))
    async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
        dearer = TARIFF | {"id": "T2", "elements": [{"price_components": [
            {"type": "ENERGY", "price": "5.00", "vat": "19", "step_size": 1}]}]}  # fmt: skip
        await tariffs.create_tariff(scope, dearer, {"default": True})
    await desk.report(stop(verdict.ocpp_transaction_id))
    await desk.settle()
    (cdr,) = await desk.all(CDR)
    assert cdr.excl_vat_minor == 500


async def test_without_a_tariff_the_cdr_is_zero_and_waits_for_staff(database: Database):
    desk = Desk(database, await hire(database, with_tariff=False))
    verdict = await desk.report(start(desk.cast))
    await desk.report(stop(verdict.ocpp_transaction_id))
    await desk.settle()
    assert (await desk.session()).review == "no_tariff"
    (cdr,) = await desk.all(CDR)
    assert cdr.incl_vat_minor == 0
    assert await desk.count(Invoice) == 0


async def test_a_tenant_without_seller_data_gets_a_receipt_without_a_number(database: Database):
    desk = Desk(database, await hire(database, tariff=TARIFF, with_seller=False))
    verdict = await desk.report(start(desk.cast))
    await desk.report(stop(verdict.ocpp_transaction_id))
    await desk.settle()
    (receipt,) = await desk.all(Invoice)
    assert (receipt.kind, receipt.number, receipt.gross_minor) == ("receipt", None, 595)


async def test_a_credited_cdr_is_corrected_by_new_records_and_the_books_sum_to_zero(desk: Desk):
    verdict = await desk.report(start(desk.cast))
    await desk.report(stop(verdict.ocpp_transaction_id))
    await desk.settle()
    (cdr,) = await desk.all(CDR)
    async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
        await settlement.credit(scope, cdr.id, "the meter was read wrongly", energy_wh=8_000)
    kinds = sorted((c.kind, c.energy_wh, c.incl_vat_minor) for c in await desk.all(CDR))
    assert kinds == [("cdr", 8_000, 476), ("cdr", 10_000, 595), ("credit", -10_000, -595)]
    invoices = sorted((i.kind, i.gross_minor, i.number) for i in await desk.all(Invoice))
    year = datetime.now(UTC).year
    assert invoices == [
        ("credit_note", -595, f"CN-{year}-000001"),
        ("invoice", 476, f"INV-{year}-000002"),
        ("invoice", 595, f"INV-{year}-000001"),
    ]
    assert sum(entry.amount_minor for entry in await desk.all(LedgerEntry)) == 0
    async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
        with pytest.raises(Refused, match="credited already"):
            await settlement.credit(scope, cdr.id, "twice")


async def test_a_start_at_an_offline_station_is_refused_at_once(desk: Desk):
    async with desk.database.scope(desk.cast.tenant_id, STAFF) as scope:
        with pytest.raises(Refused) as refused:
            await service.request_start(scope, evse_id=desk.cast.evse_ids[0])
        assert refused.value.code == "station_offline"


async def test_live_power_is_the_total_or_the_sum_of_the_phases_of_one_instant():
    phases = [
        Reading(
            measurand=POWER,
            value=Decimal(watts),
            unit="W",
            phase=phase,
            sampled_at=minute(1),
            received_at=minute(1),
        )
        for phase, watts in (("L1", 3_600), ("L2", 3_500), ("L3", 3_700), ("N", 5))
    ]
    assert ingest.latest(phases).power_w == 10_800
    total = Reading(
        measurand=POWER, value=Decimal(11_000), unit="W", sampled_at=minute(1), received_at=minute(1)
    )
    assert ingest.latest([*phases, total]).power_w == 11_000
