"""What the meter signed of a session, and what follows: verified energy where only that may be billed.

Where the tenant's policy names the country of the site (`metering.service.countries_of`), the energy of a CDR is the
signed end less the signed begin, in whole watt hours (what is left of one is not billed); without that the session
waits for staff, with the reason. Elsewhere the verdict is kept and shown, and changes nothing.
"""

from typing import Any
from uuid import UUID

from litestar import Response
from sqlalchemy import text

from app.charging import plausibility
from app.charging.models import ChargingSession
from app.kernel.errors import Invalid
from app.metering import service as metering
from app.metering.models import SignedCharge
from app.metering.service import Told
from tenants.scope import Scope

SOURCE = "charging_session"

# One way to the server for every stop: what was signed, and the policy as a row without a time.
_KNOWN = text("""
select null as sampled_at, null as context, null as signed_data, countries from livery.metering_policy
union all
select sampled_at, context, signed_data, null from (
  select * from (
    select sampled_at, context, signed_data from livery.meter_value
     where session_id = :session and signed_data is not null
    union
    select sampled_at, context, signed_data from livery.signed_meter_value where session_id = :session) as signed
  order by context not in ('Transaction.Begin', 'Transaction.End'), sampled_at, context desc, signed_data
  limit 1000) as signed""")
_IS_PRICED = text("""
select from livery.price_snapshot where session_id = :session and country = any(:countries)
   and tariff @? '$.elements[*].price_components[*] ? (@.type == "ENERGY")'""")


async def weigh(scope: Scope, session: ChargingSession) -> None:
    """Keeps the verdict; sets energy, or the review `unverified`, where the policy says so."""
    rows = (await scope.db.execute(_KNOWN, {"session": session.id})).all()
    told = [Told(row.signed_data, row.context, row.sampled_at) for row in rows if row.sampled_at is not None]
    countries = [country for row in rows if row.sampled_at is None for country in row.countries]
    is_needed = bool(countries) and await _is_priced(scope, session, countries)
    if not told and not is_needed:
        return
    charge = await metering.check_charge(
        scope, SOURCE, session.id, session.station_id, session.evse_no or 0, told
    )
    if not is_needed or session.review is not None or session.energy_wh is None:
        return
    if charge.energy_wh is None:
        session.review = "unverified" if session.energy_wh > 0 else None
    elif await plausibility.is_too_much(scope, session, int(charge.energy_wh)):
        session.review = "implausible"
    else:
        session.energy_wh = int(charge.energy_wh)


async def verified_wh(scope: Scope, session: ChargingSession) -> int | None:
    """What staff release without a figure of their own. None: whatever the session says. Errors: `energy_required`
    where only signed energy is billed and none can be believed."""
    charge = await find(scope, session.id)
    countries = await metering.countries_of(scope)
    if not countries or not await _is_priced(scope, session, countries):
        return None
    energy_wh = None if charge is None or charge.energy_wh is None else int(charge.energy_wh)
    if energy_wh is None or await plausibility.is_too_much(scope, session, energy_wh):
        raise Invalid.field(
            "energy_wh", "energy_required",
            "Only energy that the meter signed is billed here, and none can be believed: say how many Wh.",
        )  # fmt: skip
    return energy_wh


async def _is_priced(scope: Scope, session: ChargingSession, countries: list[str]) -> bool:
    """Whether energy has a price there: free charging and prices by the minute need no signature."""
    parameters = {"session": session.id, "countries": countries}
    return (await scope.db.execute(_IS_PRICED, parameters)).first() is not None


async def find(scope: Scope, session_id: UUID) -> SignedCharge | None:
    return await metering.find_charge(scope, SOURCE, session_id)


async def file_of(scope: Scope, session: ChargingSession) -> bytes:
    """Errors: `NotFound` where the meter signed nothing."""
    charge = await metering.get_charge(scope, SOURCE, session.id)
    return metering.transparency_file(charge, session.ocpp_transaction_id or "1")


def download(content: bytes) -> Response[bytes]:
    headers = {"Content-Disposition": 'attachment; filename="signed-meter-data.xml"'}
    return Response(content, media_type="application/xml", headers=headers)


def shown(charge: SignedCharge | None) -> dict[str, Any] | None:
    """For REST: without the data itself, which names the card."""
    if charge is None:
        return None
    return {
        "verdict": charge.verdict, "reason": charge.reason,
        "energy_wh": None if charge.energy_wh is None else f"{charge.energy_wh.normalize():f}",
        "records": [
            {name: one[name] for name in ("verdict", "reason", "format", "meter", "page", "context", "at")}
            for one in charge.records
        ],
    }  # fmt: skip
