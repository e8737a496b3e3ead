"""What the worker does for brands. It may run twice."""

from uuid import UUID

from app.brands import domains
from tenants.database import Database


async def recheck_domains(database: Database, tenant_id: UUID) -> None:
    await domains.recheck(database, tenant_id)


JOBS = {"brands.recheck_domains": recheck_domains}
LISTENERS: dict[str, list[str]] = {}
RECURRING = [("23 3 * * *", "brands.recheck_domains")]
