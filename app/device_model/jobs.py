"""What the worker does for the device model."""

from uuid import UUID

from app.device_model import monitors
from tenants.database import Database
from tenants.scope import Actor


async def forget_old(database: Database, tenant_id: UUID) -> None:
    async with database.scope(tenant_id, Actor.job("device_model.forget_old")) as scope:
        await monitors.forget_old(scope)


JOBS = {"device_model.forget_old": forget_old}
LISTENERS: dict[str, list[str]] = {}
RECURRING = [("50 3 * * *", "device_model.forget_old")]
