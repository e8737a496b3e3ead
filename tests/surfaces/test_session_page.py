"""What staff read on the page of one session: its payment, why it never began, who asked for what."""

import pytest
from sqlalchemy import select

from app.billing.models import Payment
from app.charging import service as charging
from app.charging.models import ChargingSession
from app.identity import service as identity
from app.kernel.clock import uuid7
from app.kernel.ids import public_id
from app.stations import service as stations
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio
STAFF = "sven@nordlicht-laden.example"


async def test_a_sessions_page_leads_to_its_payment_and_says_who_asked(house: House) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        await identity.invite_staff(scope, email=STAFF, name="Sven Holt", role="owner")
        station = (await stations.create_station(scope, identity="CP1")).station
        session = ChargingSession(
            id=uuid7(), station_id=station.id, status="ACTIVE", started_at=scope.now, origin="remote",
            ocpp_transaction_id="7", evse_no=1,
        )  # fmt: skip
        payment = Payment(
            id=uuid7(), source_type="charging_session", source_id=session.id, provider="sandbox", account_ref="acct_1",
            currency="EUR", hold_minor=5_000, captured_minor=1_234, refunded_minor=200, state="partially_refunded",
            checkout_ref="cs_1",
        )  # fmt: skip
        scope.db.add_all([session, payment])
        await scope.db.flush()
        await charging.note(scope, session, "requested", "requested", {"by": "guest"})
    staff = await house.staff("nordlicht", tenant_id, STAFF)
    path = f"/charging-sessions/{public_id('charging_session', session.id)}"
    await staff.open(path)
    assert (await staff.post(f"{path}/stop-requests")).status_code == 303
    shown = (await staff.get(path)).text
    assert f'href="/payments/{public_id("payment", payment.id)}"' in shown
    for words in (
        "Partly given back",
        "50.00",
        "12.34",
        "2.00",
        "Written off",
        "by a guest",
        "by Sven Holt",
    ):
        assert words in shown, words


async def test_a_session_that_never_began_shows_no_times_and_says_why(house: House) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        await identity.invite_staff(scope, email=STAFF, name="Sven Holt", role="owner")
        station = (await stations.create_station(scope, identity="CP1")).station
        session = ChargingSession(
            id=uuid7(),
            station_id=station.id,
            status="PENDING",
            started_at=scope.now,
            origin="remote",
            evse_no=1,
        )
        scope.db.add(session)
        await scope.db.flush()
    async with house.database.scope(tenant_id, CLI) as scope:
        found = (await scope.db.execute(select(ChargingSession))).scalar_one()
        await charging.end_unstarted(scope, found, "given_up", "not_started", {})
    staff = await house.staff("nordlicht", tenant_id, STAFF)
    shown = (await staff.get(f"/charging-sessions/{public_id('charging_session', session.id)}")).text
    assert "It never began" in shown and "Given up by the driver" in shown
    assert "<dt>Started</dt>" not in shown and "<dt>Ended</dt>" not in shown
    assert "0 s" not in shown and "0 s" not in (await staff.get("/charging-sessions")).text
