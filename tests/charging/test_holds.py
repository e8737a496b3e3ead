"""No hold is forgotten: whatever keeps a session from ending as it should, what was measured is taken in time."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from html import unescape

import pytest
from sqlalchemy import select, text

from app.access.verdict import IdTokenValue
from app.billing import payments
from app.charging import holds, paid, plausibility, queries, service, settlement
from app.charging import jobs as jobs_of_charging
from app.charging.models import CDR, ChargingSession
from app.charging.reports import TransactionReport
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from app.metering import service as metering
from tests.billing.conftest import Shop, jobs, shop
from tests.charging.test_cap import BEGAN, Visit, begun_without_meter, visit
from tests.surfaces.conftest import house
from tests.web import House

__all__ = ["house", "jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio


async def session_of(visit: Visit) -> ChargingSession:
    async with visit.scope() as scope:
        return await service.get_session(scope, visit.session_id)


async def told(visit: Visit) -> list[tuple[str, str]]:
    """(title, text) of the session's timeline."""
    async with visit.scope() as scope:
        lines = queries.timeline(await queries.events_of(scope, visit.session_id))
    return [(one["title"], one["text"]) for one in lines]


async def minutes_to_the_end(visit: Visit, *, hours: float) -> float:
    """From `BEGAN` until so many hours before the hold ends."""
    ends = (await visit.payment()).capture_before
    assert ends is not None
    return (ends - timedelta(hours=hours) - BEGAN).total_seconds() / 60


# -- a station that cannot be asked to stop ----------------------------------------------------------------------------


async def put(shop: Shop, column: str, value: str = "now()") -> None:
    async with shop.scope() as scope:
        await scope.db.execute(text(f"update livery.charging_station set {column} = {value}"))  # noqa: S608


@pytest.mark.parametrize("column", ["quarantined_at", "retired_at"])
async def test_a_station_that_may_not_be_asked_to_stop_is_settled_within_the_hold_all_the_same(
    visit: Visit, column: str
) -> None:
    await visit.read(130, 47)
    await put(visit.shop, column)
    for minutes in (140, 141, 142):
        await visit.look(minutes)
    assert await visit.stops() == []
    titles = [title for title, _ in await told(visit)]
    assert titles.count("The station could not be asked to stop") == 1
    await visit.look(await minutes_to_the_end(visit, hours=1))
    await visit.shop.jobs.run()
    payment = await visit.payment()
    assert ((await session_of(visit)).status, payment.state, payment.captured_minor) == (
        "COMPLETED",
        "captured",
        2820,
    )
    assert "driver_receivable" not in await visit.shop.balances() and visit.shop.jobs.failures == []


async def test_a_station_that_is_released_from_quarantine_is_asked_to_stop_at_the_next_look(
    visit: Visit,
) -> None:
    await visit.read(130, 47)
    await put(visit.shop, "quarantined_at")
    await visit.look(140)
    await put(visit.shop, "quarantined_at", "null")
    await visit.look(141)
    assert await visit.stops() == ["queued"]


async def page(house: House, visit: Visit, language: str) -> str:
    async with visit.shop.scope() as scope:
        link = paid.link_of(scope, visit.session_id)
    answer = await house.driver("alpha").get(f"/s/{link}", headers={"Accept-Language": language})
    assert answer.status_code == 200
    return unescape(answer.text).replace("\u00a0", " ")


async def test_a_driver_whose_charger_is_being_checked_is_told_what_to_do_in_their_language(
    visit: Visit, house: House
) -> None:
    """On the page, which offers no stop that nobody would hear, and as the answer to one that was pressed before."""
    english = "It cannot be stopped from here right now. To end now, unplug your car, or call us."
    german = "Er lässt sich von hier aus gerade nicht stoppen."
    assert "/stop" in await page(house, visit, "en")
    await put(visit.shop, "quarantined_at")
    shown = await page(house, visit, "en")
    assert english in shown and "/stop" not in shown
    assert german in await page(house, visit, "de")
    async with visit.shop.scope() as scope:
        link = paid.link_of(scope, visit.session_id)
    driver = house.driver("alpha")
    await driver.post(f"/s/{link}/stop", headers={"Accept-Language": "de"})
    answer = unescape((await driver.get(f"/s/{link}", headers={"Accept-Language": "de"})).text)
    assert answer.count(german) == 2 and "Two boxes" not in answer


async def test_staff_read_why_a_station_in_quarantine_is_not_stopped(visit: Visit, house: House) -> None:
    staff = await house.staff("alpha", visit.shop.tenant_id)
    await put(visit.shop, "quarantined_at")
    address = f"/charging-sessions/{public_id('charging_session', visit.session_id)}"
    await staff.open(address)
    await staff.post(f"{address}/stop-requests", {})
    shown = unescape((await staff.open(address)).text)
    assert "Not stopped: Two boxes use this station's identity: until staff decide, it is only read." in shown


# -- what runs is stopped first, and decided then ----------------------------------------------------------------------


async def put_under_review(visit: Visit) -> str:
    async with visit.scope(minutes=10) as scope:
        (await service.get_session(scope, visit.session_id)).review = "start_twice"
    return f"/charging-sessions/{public_id('charging_session', visit.session_id)}"


async def test_a_review_is_not_decided_while_its_car_charges_which_can_be_stopped(
    visit: Visit, house: House
) -> None:
    """Else the car charges on for nobody, at an EVSE that looks free, with its hold let go or its energy unbilled."""
    await visit.read(10, 3)
    path = await put_under_review(visit)
    for decision in ("release", "void"):
        async with visit.scope(minutes=11) as scope:
            with pytest.raises(Refused) as refused:
                await service.decide_review(scope, visit.session_id, decision, "x", energy_wh=3_000)
        assert refused.value.code == "still_runs"
    program = await house.api("alpha", visit.shop.tenant_id, "sessions.manage")
    answer = await program.send(
        "POST", f"/api/v1{path}/review-decisions", json={"decision": "void", "note": "a test"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "still_runs")
    staff = await house.staff("alpha", visit.shop.tenant_id)
    shown = unescape((await staff.open(path)).text)
    assert "It still runs: stop it first, then" in shown and "/review-decisions" not in shown
    answer = await staff.post(f"{path}/review-decisions", {"decision": "void", "note": "a test"})
    assert answer.status_code == 409 and "It still runs: stop it first." in unescape(answer.text)
    assert ((await session_of(visit)).status, (await visit.payment()).state) == ("ACTIVE", "authorized")
    assert (await staff.post(f"{path}/stop-requests")).status_code == 303 and await visit.stops() == [
        "queued"
    ]
    await visit.end(20, 6)
    assert "/review-decisions" in (await staff.open(path)).text
    await staff.post(f"{path}/review-decisions", {"decision": "release", "note": "one start, told twice"})
    await visit.shop.jobs.run()
    assert (await visit.payment()).captured_minor == 360


async def test_a_session_under_review_whose_station_is_dead_is_closed_for_its_silence_and_decided(
    visit: Visit,
) -> None:
    await visit.read(10, 3)
    await put_under_review(visit)
    await put(visit.shop, "retired_at")
    async with visit.scope(minutes=49 * 60) as scope:
        assert await service.close_stuck(scope) == 1
    async with visit.scope(minutes=49 * 60) as scope:
        await service.decide_review(scope, visit.session_id, "release", "as measured")
    await visit.shop.jobs.run()
    assert (await visit.payment()).captured_minor == 180


# -- the station's own word comes later --------------------------------------------------------------------------------


async def test_an_end_that_is_told_after_the_hold_was_taken_stands_in_the_timeline_and_takes_no_more(
    visit: Visit,
) -> None:
    await visit.read(30, 11)
    at = await minutes_to_the_end(visit, hours=1)
    await visit.look(at)
    await visit.shop.jobs.run()
    assert ((await session_of(visit)).status, (await visit.payment()).captured_minor) == ("COMPLETED", 660)
    for _ in range(2):
        await visit.end(at + 10, 39)
    late = [
        text for title, text in await told(visit) if title == "The station told its end after this was closed"
    ]
    assert [one.replace("\u00a0", " ") for one in late] == [
        "its meter stood at 40.00 kWh, 28.00 kWh more than was billed: nothing more is taken"
    ]
    assert (await session_of(visit)).energy_wh == 11_000
    assert await visit.shop.captures(await visit.payment()) == [660]


# -- under review ------------------------------------------------------------------------------------------------------


async def sweep(visit: Visit, minutes: float) -> None:
    async with visit.scope(minutes=minutes) as scope:
        await holds.sweep(scope)
    async with visit.scope(minutes=minutes) as scope:
        await holds.end_undecided(scope, visit.session_id)
    await visit.shop.jobs.run()


async def test_a_review_that_nobody_decides_takes_what_can_be_believed_and_stays_open(
    visit: Visit, house: House
) -> None:
    await visit.read(30, 11)
    session = await visit.end(60, 5)  # a meter that fell
    assert (session.review, session.energy_wh) == ("implausible", None)
    staff = await house.staff("alpha", visit.shop.tenant_id)
    address = f"/charging-sessions/{public_id('charging_session', visit.session_id)}"
    assert "Decide by" in (await staff.open(address)).text
    assert "A card is held for a session under review" in (await staff.open("/")).text
    await sweep(visit, 60 + 22 * 60)
    assert (await visit.payment()).state == "authorized"
    await sweep(visit, 60 + 23 * 60 + 1)
    session, payment = await session_of(visit), await visit.payment()
    assert (session.review, session.energy_wh, payment.state, payment.captured_minor) == (
        "implausible",
        11_000,
        "captured",
        660,
    )
    assert "What was measured is paid" in await page(house, visit, "en")
    assert "Decide by" not in (await staff.open(address)).text
    assert "Decide the review" in (await staff.open(address)).text
    await sweep(visit, 60 + 24 * 60)
    assert (
        await visit.shop.captures(payment) == [660] and "driver_receivable" not in await visit.shop.balances()
    )
    async with visit.shop.scope() as scope:
        with pytest.raises(Refused, match="credit CDR"):
            await service.decide_review(scope, visit.session_id, "release", "I know better", energy_wh=5_000)
    async with visit.shop.scope() as scope:
        await service.decide_review(scope, visit.session_id, "release", "it is right")
        cdr = await settlement.find_cdr(scope, visit.session_id)
        assert cdr is not None
        await settlement.credit(scope, cdr.id, "the stop was right", energy_wh=5_000)
    await visit.shop.jobs.run()
    assert (await visit.payment()).refunded_minor == 360


async def test_who_got_all_of_it_back_is_told_so_though_the_review_is_still_open(
    visit: Visit, house: House
) -> None:
    await visit.read(30, 11)
    await visit.end(60, 5)
    await sweep(visit, 60 + 23 * 60 + 1)
    async with visit.shop.scope() as scope:
        await settlement.refund(scope, (await visit.payment()).id, "the charger was broken")
    assert "You get €6.60 back. It is on its way to your card." in await page(house, visit, "en")
    await visit.shop.jobs.run()
    assert (await session_of(visit)).review == "implausible"
    shown = await page(house, visit, "en")
    assert "What you paid was given back to your card." in shown and "is paid" not in shown


async def test_a_hold_for_which_nothing_can_be_believed_is_let_go_in_time(visit: Visit, house: House) -> None:
    await visit.end(30, 4_000)  # 4 MWh in half an hour, and no reading
    await sweep(visit, 30 + 23 * 60 + 1)
    payment = await visit.payment()
    assert (payment.state, (await session_of(visit)).review) == ("canceled", "implausible")
    assert "nothing is taken" in await page(house, visit, "en")
    assert await visit.shop.balances() == {}


async def test_energy_that_nobody_signed_is_not_taken_where_only_signed_energy_is_billed(
    visit: Visit, house: House
) -> None:
    async with visit.shop.scope() as scope:
        await metering.set_countries(scope, ["DEU"])
    await visit.read(30, 5)
    session = await visit.end(60, 11)
    assert (session.review, session.energy_wh) == ("unverified", 11_000)
    await sweep(visit, 60 + 23 * 60 + 1)
    payment = await visit.payment()
    assert (payment.state, (await session_of(visit)).review) == ("canceled", "unverified")
    assert "nothing is taken" in await page(house, visit, "en")
    assert await visit.shop.balances() == {}


async def test_a_hold_that_ends_sooner_than_staff_have_time_is_taken_six_hours_before(visit: Visit) -> None:
    await visit.read(30, 11)
    await visit.end(60, 5)
    async with visit.shop.scope() as scope:
        payment = await payments.get_payment(scope, (await visit.payment()).id)
        payment.capture_before = BEGAN + timedelta(hours=10)
    await sweep(visit, 3 * 60)
    assert (await visit.payment()).state == "authorized"
    await sweep(visit, 4 * 60 + 1)
    assert (await visit.payment()).captured_minor == 660


@pytest.mark.parametrize(
    ("registers", "stop", "energy"),
    [((3_000, 12_000), 6_000, 11_000), ((3_000, 900_000, 5_000), 6_000, 2_000), ((), 4_000_000, 0),
     ((3_000,), None, 2_000), ((900,), 6_000, 0)],
)  # fmt: skip
def test_what_was_measured_before_it_cannot_be_believed_counts(
    registers: tuple[int, ...], stop: int | None, energy: int
) -> None:
    found = plausibility.measured(plausibility.Evidence(1_000, stop, registers, timedelta(hours=1), 22_000))
    assert found == energy


@pytest.mark.parametrize("told_as", ["Ended", "Updated, then Ended", "Started, then Ended"])
async def test_an_end_that_is_told_after_staff_voided_the_session_is_noted_and_bills_nothing(
    visit: Visit, told_as: str
) -> None:
    """A charger that was offline for two days comes back; the guest was told that nothing is charged."""
    await visit.read(10, 3)
    async with visit.scope(minutes=50 * 60) as scope:
        await service.close_stuck(scope)
    async with visit.scope(minutes=50 * 60 + 1) as scope:
        await service.decide_review(scope, visit.session_id, "void", "installer's test")
    await visit.shop.jobs.run()
    key = (await session_of(visit)).ocpp_transaction_id
    at = BEGAN + timedelta(minutes=51 * 60)
    for kind in told_as.split(", then ")[:-1]:
        async with visit.scope(minutes=51 * 60) as scope:
            await service.report_transaction(scope, visit.station_id, TransactionReport(
                kind=kind, at=at, received_at=at, evse_no=1, connector_no=1, natural_key="start",  # pyright: ignore[reportArgumentType]
                ocpp_transaction_id=key, charging_state="Charging", id_token=IdTokenValue("ANOTHER"),
            ))  # fmt: skip
    session = await visit.end(51 * 60, 20)
    payment = await visit.payment()
    assert (session.status, session.review, session.settled_at) == ("INVALID", None, None)
    assert (payment.state, payment.captured_minor) == ("canceled", 0)
    assert await visit.shop.balances() == {} and visit.shop.jobs.failures == []
    titles = await told(visit)
    late = ("The station told its end after this was closed", "its meter stood at 21.00 kWh")
    assert titles.count(late) == 1 and "Ended" not in [title for title, _ in titles]
    async with visit.scope() as scope:
        assert await settlement.list_papers(scope, visit.session_id) == []
        activity = await scope.db.execute(text("select activity from livery.evse_live"))
        assert activity.scalars().all() == ["idle"]
        assert "nothing is charged" in (await paid.state_words(scope, session, payment))["text"]


# -- who closes and who tells the end wait for each other --------------------------------------------------------------


async def test_an_end_that_is_told_while_the_session_is_closed_for_its_silence_counts(visit: Visit) -> None:
    await visit.read(10, 3)
    is_closed = asyncio.Event()

    async def close() -> None:
        async with visit.scope(minutes=50 * 60) as scope:
            assert await service.close_stuck(scope) == 1
            await scope.db.flush()
            is_closed.set()
            await asyncio.sleep(0.3)

    async def end() -> None:
        await is_closed.wait()
        await visit.end(49 * 60, 20)

    await asyncio.gather(close(), end())
    session, payment = await session_of(visit), await visit.payment()
    assert (session.review, session.energy_wh, session.stopped_reason) == (None, 20_000, "Local")
    assert (payment.state, payment.captured_minor) == ("captured", 1200)


@pytest.mark.parametrize("closes", ["stuck", "unplugged", "hold_ends"])
async def test_what_ends_by_its_own_word_is_not_closed_for_its_silence_in_the_same_moment(
    visit: Visit, closes: str
) -> None:
    await visit.read(10, 3)
    if closes == "unplugged":
        async with visit.shop.scope() as scope:
            at = {"at": BEGAN + timedelta(hours=1)}
            await scope.db.execute(
                text("update livery.connector set status = 'Available', status_at = :at"), at
            )
    is_told = asyncio.Event()
    at = BEGAN + timedelta(minutes=49 * 60)

    async def end() -> None:
        async with visit.scope(minutes=49 * 60) as scope:
            session = await service.get_session(scope, visit.session_id)
            await service.report_transaction(scope, visit.station_id, TransactionReport(
                kind="Ended", at=at, received_at=at, natural_key="stop", meter_stop_wh=Decimal(21_000),
                ocpp_transaction_id=session.ocpp_transaction_id,
            ))  # fmt: skip
            is_told.set()
            await asyncio.sleep(0.3)

    async def close() -> None:
        await is_told.wait()
        async with visit.scope(minutes=50 * 60) as scope:
            if closes == "stuck":
                assert await service.close_stuck(scope) == 0
            elif closes == "unplugged":
                assert await service.close_unplugged(scope) == 0
            else:
                await service.close_silent(scope, visit.session_id)

    await asyncio.gather(end(), close())
    await visit.shop.jobs.run()
    session, payment = await session_of(visit), await visit.payment()
    assert (session.review, session.energy_wh, session.stopped_reason) == (None, 20_000, "Local")
    assert (payment.state, payment.captured_minor) == ("captured", 1200)


async def test_an_end_that_is_told_while_its_undecided_hold_is_taken_changes_nothing_any_more(
    visit: Visit,
) -> None:
    """What was billed and what the session says stay the same energy."""
    await visit.read(10, 3)
    async with visit.scope(minutes=50 * 60) as scope:
        await service.close_stuck(scope)
    is_taken = asyncio.Event()

    async def take() -> None:
        async with visit.scope(minutes=80 * 60) as scope:
            await holds.end_undecided(scope, visit.session_id)
            await scope.db.flush()
            is_taken.set()
            await asyncio.sleep(0.3)

    async def end() -> None:
        await is_taken.wait()
        await visit.end(49 * 60, 20)

    await asyncio.gather(take(), end())
    await visit.shop.jobs.run()
    session, payment = await session_of(visit), await visit.payment()
    assert (session.energy_wh, payment.captured_minor) == (3_000, 180)
    assert "The station told its end after this was closed" in [title for title, _ in await told(visit)]


async def test_each_session_that_fell_silent_is_closed_by_a_job_of_its_own(visit: Visit) -> None:
    await visit.read(10, 3)
    async with visit.shop.scope() as scope:
        await scope.db.execute(
            text("update livery.session_live set reading_at = now() - interval '49 hours'")
        )
    await jobs_of_charging.watch(visit.shop.database, visit.shop.tenant_id)
    assert (await session_of(visit)).status == "ACTIVE"
    await visit.shop.jobs.run()
    assert ((await session_of(visit)).status, (await session_of(visit)).review) == ("COMPLETED", "stuck")


@pytest.mark.parametrize("meter_wh", [None, Decimal(1_000)])
async def test_what_staff_released_stands_whatever_the_stations_queue_tells_before_it_is_settled(
    shop: Shop, meter_wh: Decimal | None
) -> None:
    visit = await begun_without_meter(shop)
    await visit.read(60, 22)
    at, more = BEGAN + timedelta(minutes=60), {"ocpp_transaction_id": "t1"}
    ended = TransactionReport(
        kind="Ended", at=at, received_at=at, seq_no=9, meter_stop_wh=Decimal(23_000), **more
    )
    async with visit.scope(minutes=60) as scope:
        await service.report_transaction(scope, visit.station_id, ended)
    async with shop.scope() as scope:
        assert (await service.get_session(scope, visit.session_id)).review == "orphan"
        await service.decide_review(scope, visit.session_id, "release", "five, by phone", energy_wh=5_000)
    late = TransactionReport(
        kind="Started", at=BEGAN, received_at=at, evse_no=1, connector_no=1, trigger_reason="RemoteStart", seq_no=0,
        offline=True, meter_start_wh=meter_wh, **more,
    )  # fmt: skip
    for report in (late, ended):
        async with visit.scope(minutes=61) as scope:
            await service.report_transaction(scope, visit.station_id, report)
    await shop.jobs.run()
    async with shop.scope() as scope:
        assert list((await scope.db.execute(select(CDR.energy_wh))).scalars()) == [5_000]
    assert (await visit.payment()).captured_minor == 300
