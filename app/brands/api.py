"""REST: `/tenant` (below `/api/v1`): who the CPO is, legally and in OCPI."""

from typing import Any

from litestar import get, patch

from app.brands import service
from app.brands.models import TenantProfile
from app.kernel.ids import public_id
from app.kernel.rest import rfc3339
from tenants.scope import Scope

FIELDS = (
    "name", "legal_name", "address", "postal_code", "city", "country", "currency", "time_zone", "language", "vat_id",
    "tax_number", "ocpi_country_code", "ocpi_party_id", "support_email", "support_phone",
    "card_use",
)  # fmt: skip
# OCPI's own words, as `contract.md` names them.
ALIASES = {"country_code": "ocpi_country_code", "party_id": "ocpi_party_id"}


@get("/tenant", opt={"permission": "settings.view"}, summary="Who the operator is", tags=["tenant"])
async def get_tenant(tenant_scope: Scope) -> dict[str, Any]:
    return await _shown(tenant_scope, await service.get_profile(tenant_scope))


@patch("/tenant", opt={"permission": "settings.manage"}, summary="Change any of its fields", tags=["tenant"])
async def change_tenant(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    """Fields that are not named stay; fields we do not know are ignored."""
    named = {ALIASES.get(name, name): value for name, value in data.items()}
    changes = {name: value for name, value in named.items() if name in FIELDS}
    return await _shown(tenant_scope, await service.update_profile(tenant_scope, changes))


async def _shown(scope: Scope, profile: TenantProfile) -> dict[str, Any]:
    slug, _name, status = await service.own_tenant(scope)
    return {
        "id": public_id("tenant", scope.tenant_id), "slug": slug, "status": status,
        **{name: getattr(profile, name) for name in FIELDS},
        **{alias: getattr(profile, name) for alias, name in ALIASES.items()},
        "has_seller_data": profile.has_seller_data, "updated_at": rfc3339(profile.updated_at),
    }  # fmt: skip


routes = [get_tenant, change_tenant]
