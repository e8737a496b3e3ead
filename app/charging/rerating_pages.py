"""Portal page: past sessions under a tariff as it is now."""

from typing import Any

from litestar import Request, Response, get

from app.charging import rerating
from app.kernel.ids import parse_id, public_id
from app.kernel.web import page
from app.tariffs import service as tariffs
from tenants.scope import Scope


@get("/tariffs/{tariff_id:str}/re-rating", opt={"permission": "tariffs.view"})
async def show_rerating(
    request: Request[Any, Any, Any], tenant_scope: Scope, tariff_id: str
) -> Response[Any]:
    tariff = await tariffs.get_tariff(tenant_scope, parse_id("tariff", tariff_id))
    rows = await rerating.rerate(tenant_scope, tariff.id)
    return page(
        request, tenant_scope, "charging/rerating.html", title="Past sessions", id=tariff_id,
        name=tariff.name or tariff.ocpi_id, currency=tariff.versions[-1].currency,
        version_no=tariff.versions[-1].version_no, most=rerating.MOST,
        rows=[(public_id("charging_session", row.cdr.session_id), row) for row in rows],
    )  # fmt: skip


routes = [show_rerating]
