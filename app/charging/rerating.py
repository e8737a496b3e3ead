"""What past sessions would have cost under a tariff as it is now: the engine that bills, over the same readings.
Nothing is changed by it: a session keeps the prices that were frozen at its start."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import aliased

from app.charging import settlement
from app.charging.models import CDR, ChargingSession, PriceSnapshot
from app.tariffs import service as tariffs
from app.tariffs.models import TariffVersion
from tenants.scope import Scope

MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerated:
    """Minor units, with VAT. `version_no` is what it was priced by."""

    cdr: CDR
    version_no: int
    was_minor: int
    would_minor: int

    @property
    def delta_minor(self) -> int:
        return self.would_minor - self.was_minor


async def rerate(scope: Scope, tariff_id: UUID, *, limit: int = MOST) -> list[Rerated]:
    """The newest sessions that any version of this tariff priced, under its newest; without those that were corrected
    and those in a currency it no longer has."""
    newest = (await tariffs.get_tariff(scope, tariff_id)).versions[-1]
    credit = aliased(CDR)
    query = (
        select(CDR, TariffVersion.version_no)
        .join(PriceSnapshot, PriceSnapshot.session_id == CDR.session_id)
        .join(TariffVersion, TariffVersion.id == PriceSnapshot.tariff_version_id)
        .join(ChargingSession, ChargingSession.id == CDR.session_id)
        .where(
            TariffVersion.tariff_id == tariff_id, CDR.kind == "cdr", CDR.currency == newest.currency,
            ~select(credit.id).where(credit.corrects_id == CDR.id).exists(),
        )
        .order_by(CDR.ended_at.desc(), CDR.id.desc())
        .limit(limit)
    )  # fmt: skip
    found: list[Rerated] = []
    for cdr, version_no in (await scope.db.execute(query)).all():
        session = await scope.db.get_one(ChargingSession, (scope.tenant_id, cdr.session_id))
        price = await settlement.price_at(scope, session, cdr.ended_at, cdr.energy_wh, tariff=newest.ocpi)
        if price is not None:
            found.append(
                Rerated(
                    cdr=cdr, version_no=version_no, was_minor=cdr.incl_vat_minor,
                    would_minor=price.total_cost.incl_minor,
                )
            )  # fmt: skip
    return found
