"""The OCPP messages that a session's page shows: its own, of all that its station said in that time."""

import json
from datetime import timedelta
from typing import Any

import pytest

from app.access import accounts
from app.charging import queries, service
from app.kernel.clock import uuid7
from app.stations.models import OCPPMessage
from tests.billing.conftest import jobs, shop
from tests.charging.test_cap import Visit, visit

__all__ = ["jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio


async def test_a_session_shows_its_own_messages_and_not_its_neighbours(visit: Visit) -> None:
    async with visit.scope() as scope:
        session = await service.get_session(scope, visit.session_id)
        assert session.id_token is not None and session.ocpp_transaction_id is not None
        own = int(session.ocpp_transaction_id)
        value = accounts.presented(scope, session.id_token).value
        told: list[tuple[str, str, str, str, Any]] = [
            ("own", "RemoteStartTransaction", "1", "call", {"idTag": value, "connectorId": 1}),
            ("own", "RemoteStartTransaction", "1", "result", {"status": "Accepted"}),
            ("", "RemoteStartTransaction", "2", "call", {"idTag": "LVOTHER", "connectorId": 2}),
            ("", "RemoteStartTransaction", "2", "result", {"status": "Accepted"}),
            ("own", "Authorize", "3", "call", {"idTag": value.lower()}),
            ("own", "Authorize", "3", "result", {"idTagInfo": {"status": "Accepted"}}),
            ("", "Authorize", "4", "call", {"idTag": "04AABB"}),
            ("own", "StartTransaction", "5", "call", {"connectorId": 1, "idTag": value}),
            ("own", "StartTransaction", "5", "result", {"transactionId": own, "idTagInfo": {}}),
            ("", "StartTransaction", "6", "call", {"connectorId": 2, "idTag": "04AABB"}),
            ("", "StartTransaction", "6", "result", {"transactionId": own + 1, "idTagInfo": {}}),
            ("own", "StatusNotification", "7", "call", {"connectorId": 1, "status": "Charging"}),
            ("", "StatusNotification", "8", "call", {"connectorId": 2, "status": "Charging"}),
            ("", "StatusNotification", "9", "call", {"evseId": 2, "connectorId": 1}),
            ("", "MeterValues", "10", "call", {"connectorId": 1, "transactionId": own}),
            ("", "Heartbeat", "11", "call", {}),
            ("own", "TransactionEvent", "12", "call", {"transactionInfo": {"transactionId": str(own)}}),
            ("", "TransactionEvent", "13", "call", {"transactionInfo": {"transactionId": f"{own}0"}}),
            ("own", "StopTransaction", "14", "call", {"meterStop": 5, "transactionId": own}),
            ("own", "StopTransaction", "14", "error", {}),
            ("", "StopTransaction", "15", "call", {"transactionId": own + 1}),
        ]
        for number, (whose, action, message_id, kind, payload) in enumerate(told):
            scope.db.add(OCPPMessage(
                id=uuid7(), tenant_id=scope.tenant_id, station_id=session.station_id, direction="in", kind=kind,
                ocpp_version="ocpp1.6", message_id=message_id, action=action, error=whose or "another's",
                at=session.created_at + timedelta(seconds=number), raw=json.dumps([2, message_id, action, payload]),
            ))  # fmt: skip
        for late, whose in ((timedelta(hours=-1), "long before"), (timedelta(hours=3), "long after")):
            scope.db.add(OCPPMessage(
                id=uuid7(), tenant_id=scope.tenant_id, station_id=session.station_id, direction="in", kind="call",
                ocpp_version="ocpp1.6", message_id="1", action="RemoteStartTransaction", error=whose,
                at=session.created_at + late, raw=json.dumps({"idTag": value}),
            ))  # fmt: skip
        await scope.db.flush()
        session.ended_at = session.created_at + timedelta(minutes=30)
        shown = [(one.action, one.kind) for one in reversed(await queries.frames_of(scope, session))]
    assert shown == [(action, kind) for whose, action, _id, kind, _payload in told if whose]
