"""What a session costs, on the station's own display (OCPP 2.0.1 block I): running, and at the end.

Amounts are gross, as drivers see them everywhere. A station is told only where staff say that it shows it
(`ChargingStation.shows_cost`); one that does not know the message is not asked again.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from app.charging import service, settlement
from app.charging.models import ChargingSession
from app.kernel import audit, events
from app.kernel.money import to_decimal
from app.stations import commands
from app.stations.models import ChargingStation, StationCommand
from tenants.scope import Scope

SOURCE = "cost"
PERIOD = timedelta(seconds=55)  # the job comes each minute, and not to the second

_DUE = text("""
select s.id
  from livery.charging_session s
  join livery.charging_station st on st.tenant_id = s.tenant_id and st.id = s.station_id and st.shows_cost
  join livery.station_connection c on c.tenant_id = s.tenant_id and c.station_id = s.station_id and c.is_online
   and c.ocpp_version <> 'ocpp1.6'
  join livery.session_live l on l.tenant_id = s.tenant_id and l.session_id = s.id and l.reading_at is not null
 where s.status = 'ACTIVE' and s.ocpp_transaction_id is not null
   and not exists (select from livery.station_command k where k.tenant_id = s.tenant_id
        and k.station_id = s.station_id and k.created_at > :since and k.source_type = 'cost' and k.source_id = s.id)
   and not exists (select from livery.station_command k where k.tenant_id = s.tenant_id
        and k.station_id = s.station_id and k.created_at >= l.reading_at and k.source_type = 'cost'
        and k.source_id = s.id)
""")


async def tell_running(scope: Scope) -> int:
    """CostUpdated (I02) for each session with a reading since it was told last; at most once a minute."""
    told = 0
    for session_id in list((await scope.db.execute(_DUE, {"since": scope.now - PERIOD})).scalars()):
        session = await service.get_session(scope, session_id)
        owed = await _owed(scope, session)
        if owed is None:
            continue
        payload: dict[str, Any] = {
            "totalCost": wire_amount(owed), "transactionId": session.ocpp_transaction_id,
        }  # fmt: skip
        await commands.send_command(
            scope, session.station_id, "CostUpdated", payload, expires_in=timedelta(seconds=30), source_type=SOURCE,
            source_id=session.id,
        )  # fmt: skip
        told += 1
    return told


async def command_ended(scope: Scope, event: events.Event) -> None:
    """A station that does not know CostUpdated has no display for it."""
    command: StationCommand = await commands.get_command(scope, event.source_id)
    if command.status != "failed" or not (command.error or "").startswith(("NotImplemented", "NotSupported")):
        return
    station = await scope.db.get(ChargingStation, (scope.tenant_id, command.station_id))
    if station is not None and station.shows_cost:
        station.shows_cost = False
        data = {"shows_cost": False, "why": command.error}
        await audit.record(scope, "station.updated", "charging_station", station.id, data)


async def total(scope: Scope, station_id: UUID, ocpp_transaction_id: str) -> Decimal | None:
    """What the ended transaction costs (I03); None where its energy is in doubt, so that nothing wrong is shown."""
    query = select(ChargingSession.id).where(
        ChargingSession.station_id == station_id, ChargingSession.ocpp_transaction_id == ocpp_transaction_id,
        ChargingSession.status == "COMPLETED", ChargingSession.energy_wh.is_not(None),
    )  # fmt: skip
    session_id = (await scope.db.execute(query)).scalar_one_or_none()
    if session_id is None:
        return None
    return await _owed(scope, await service.get_session(scope, session_id))


async def _owed(scope: Scope, session: ChargingSession) -> Decimal | None:
    """By now; of whom nothing is collected (`settlement.collection_of`), nothing."""
    price = await settlement.running_price(scope, session)
    if price is None:
        return None
    is_free = await settlement.collection_of(scope, session) == "free"
    return to_decimal(0 if is_free else price.total_cost.incl_minor, price.currency)


def wire_amount(amount: Decimal) -> int | float:
    """OCPP's `decimal` is a JSON number."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)
