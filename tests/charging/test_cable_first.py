"""A transaction that began with the cable, and a guest who pays for it only then (OCPP 2.x F01)."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.access.verdict import IdTokenValue
from app.charging import service
from app.charging.models import ChargingSession, MeterValue
from app.charging.reports import ENERGY, Reading, TransactionReport
from app.kernel.clock import utcnow
from app.stations import service as stations
from app.stations.models import StationCommand
from tenants.scope import Actor
from tests.billing.conftest import Shop, jobs, shop
from tests.charging.test_cap import place_of
from tests.charging.test_paid_cases import evse_of, payment_of, session_of, wish

__all__ = ["jobs", "shop"]
pytestmark = pytest.mark.anyio


async def tell(
    shop: Shop, station_id: UUID, kind: Any, at: datetime, wh: int, context: str, **more: Any
) -> None:
    reading = Reading(
        measurand=ENERGY, value=Decimal(wh), unit="Wh", sampled_at=at, received_at=at, context=context
    )
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id), now=at) as scope:
        await service.report_transaction(scope, station_id, TransactionReport(
            kind=kind, at=at, received_at=at, ocpp_transaction_id="cable-1", evse_no=1, connector_no=1,
            readings=(reading,), **more,
        ))  # fmt: skip


async def test_a_paid_start_takes_over_what_the_cable_began(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        await stations.connection_opened(
            scope, station_id, node="n", ocpp_version="ocpp2.0.1", remote="127.0.0.1"
        )
    paid_at = utcnow()
    await tell(
        shop, station_id, "Started", paid_at - timedelta(minutes=30), 1_000, "Transaction.Begin", seq_no=0
    )
    async with shop.scope() as scope:
        begun = (await scope.db.execute(select(ChargingSession))).scalar_one()
    assert (begun.status, begun.id_token_status) == ("ACTIVE", None)

    session_id = await wish(shop, await evse_of(shop))
    payment = await payment_of(shop, session_id)
    await shop.pay(payment)
    await shop.look(payment)
    await shop.jobs.run()
    async with shop.scope() as scope:
        (asked,) = (await scope.db.execute(select(StationCommand))).scalars()
    assert asked.action == "RequestStartTransaction"
    token = IdTokenValue(asked.payload["idToken"]["idToken"], asked.payload["idToken"]["type"])
    await tell(
        shop, station_id, "Updated", paid_at, 1_000, "Sample.Periodic", seq_no=1, id_token=token,
        remote_start_id=asked.payload["remoteStartId"], trigger_reason="RemoteStart",
    )  # fmt: skip
    await shop.jobs.run()
    assert not shop.jobs.failures
    running = await session_of(shop, session_id)
    assert (running.status, running.ocpp_transaction_id, running.meter_start_wh) == (
        "ACTIVE",
        "cable-1",
        1_000,
    )
    assert running.started_at == paid_at  # the half hour before is nobody's
    async with shop.scope() as scope:
        assert (await scope.db.execute(select(ChargingSession.id))).scalars().all() == [session_id]
        assert set((await scope.db.execute(select(MeterValue.session_id))).scalars()) == {session_id}

    hour = timedelta(hours=1)
    await tell(
        shop, station_id, "Ended", paid_at + hour, 11_000, "Transaction.End", seq_no=2, stopped_reason="Local"
    )
    await shop.jobs.run()
    done, payment = await session_of(shop, session_id), await payment_of(shop, session_id)
    assert (done.status, done.review, done.energy_wh) == ("COMPLETED", None, 10_000)
    assert (payment.state, payment.captured_minor) == ("captured", 600)
    assert await shop.captures(payment) == [600]
