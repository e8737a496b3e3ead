"""A report that no verb can handle is acknowledged, kept for staff, and handled when they try it again."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.stations import parking
from app.stations.models import Connector, OCPPMessage, ParkedMessage
from ocpp_gateway import v16
from tests.cast import STAFF
from tests.conformance.conftest import Station16, Yard, rows, until


def parked_so_far() -> float:
    return REGISTRY.get_sample_value("livery_ocpp_parked_total") or 0


pytestmark = pytest.mark.anyio
STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Faulted", "timestamp": "2026-11-26T01:00:00Z"}


async def broken(*_: Any) -> dict[str, Any]:
    raise RuntimeError("a fault of ours")


async def booted(yard: Yard) -> Any:
    box = yard.station(yard.nordlicht, Station16)
    await box.connect()
    await box.say("BootNotification", {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk"})
    return box


async def test_a_report_nobody_can_handle_is_acknowledged_and_parked(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    box, before = await booted(yard), parked_so_far()
    with monkeypatch.context() as patch:
        patch.setitem(v16.HANDLERS, "StatusNotification", broken)
        assert await box.say("StatusNotification", STATUS) == {}
    assert parked_so_far() == before + 1
    (parked,) = await rows(yard, yard.nordlicht, ParkedMessage)
    assert (parked.action, parked.status, parked.error) == (
        "StatusNotification", "parked", "RuntimeError: a fault of ours",
    )  # fmt: skip
    assert "Faulted" in parked.raw
    frames = await rows(yard, yard.nordlicht, OCPPMessage, OCPPMessage.action == "StatusNotification")
    assert sorted(frame.direction for frame in frames) == ["in", "out"]
    assert not await rows(yard, yard.solmark, ParkedMessage)
    await box.close()


async def test_a_question_nobody_can_handle_is_an_error_and_not_parked(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    box = await booted(yard)
    monkeypatch.setitem(v16.HANDLERS, "StartTransaction", broken)
    start = {
        "connectorId": 1,
        "idTag": yard.nordlicht.card,
        "meterStart": 0,
        "timestamp": "2026-11-26T01:00:00Z",
    }
    with pytest.raises(Exception, match=r"InternalError|An internal error|could not be handled"):
        await box.say("StartTransaction", start)
    assert not await rows(yard, yard.nordlicht, ParkedMessage)
    await box.close()


async def test_what_is_tried_again_is_handled_once_the_fault_is_gone(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    box = await booted(yard)
    with monkeypatch.context() as patch:
        patch.setitem(v16.HANDLERS, "StatusNotification", broken)
        await box.say("StatusNotification", STATUS)
        (parked,) = await rows(yard, yard.nordlicht, ParkedMessage)
        await retry(yard, parked)

        async def failed_again() -> bool:
            (row,) = await rows(yard, yard.nordlicht, ParkedMessage)
            return row.status == "parked" and row.tries == 2

        await until(failed_again)
    await retry(yard, parked)

    async def handled() -> bool:
        (row,) = await rows(yard, yard.nordlicht, ParkedMessage)
        return row.status == "handled"

    await until(handled)
    assert "Faulted" in {one.status for one in await rows(yard, yard.nordlicht, Connector)}
    await box.close()


async def retry(yard: Yard, parked: ParkedMessage) -> None:
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await parking.retry(scope, parked.id)
