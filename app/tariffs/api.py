"""REST: `/tariffs` and `/price-previews` (below `/api/v1`).

A body is `{"tariff": OCPI Tariff, "assign": {"default": true} | {"location_id"} | {"evse_id"} | {"driver_group_id"}}`.
"""

from typing import Any

from litestar import get, post, put

from app.kernel.errors import FieldFault, Invalid, NotFound
from app.kernel.ids import parse_id, public_id
from app.tariffs import queries, service
from app.tariffs.models import Tariff
from tenants.scope import Scope

MAX_LIMIT = 200


@post(
    "/tariffs",
    status_code=201,
    opt={"permission": "tariffs.manage"},
    summary="Create a tariff",
    tags=["tariffs"],
)
async def create_tariff(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    tariff = await service.create_tariff(tenant_scope, _tariff_in(data), read_assign(data.get("assign")))
    return await _shown(tenant_scope, tariff)


@get("/tariffs", opt={"permission": "tariffs.view"}, summary="Tariffs in use, oldest first", tags=["tariffs"])
async def list_tariffs(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid.field("limit", "range", f"limit is 1 to {MAX_LIMIT}.")
    found = await service.list_tariffs(
        tenant_scope, limit=limit + 1, after=parse_id("tariff", after) if after else None
    )
    page = found[:limit]
    cursor = public_id("tariff", page[-1].id) if len(found) > limit else None
    return {"data": await queries.show_tariffs(tenant_scope, page), "next_cursor": cursor}


@get("/tariffs/{tariff_id:str}", opt={"permission": "tariffs.view"}, summary="One tariff", tags=["tariffs"])
async def get_tariff(tenant_scope: Scope, tariff_id: str) -> dict[str, Any]:
    return await _shown(tenant_scope, await service.get_tariff(tenant_scope, parse_id("tariff", tariff_id)))


@put(
    "/tariffs/{tariff_id:str}", opt={"permission": "tariffs.manage"}, summary="Replace a tariff by a new version",
    tags=["tariffs"],
)  # fmt: skip
async def replace_tariff(tenant_scope: Scope, tariff_id: str, data: dict[str, Any]) -> dict[str, Any]:
    """Without `assign` the assignments stay; `{}` takes them away."""
    key = (await service.get_tariff(tenant_scope, parse_id("tariff", tariff_id))).id
    assign = read_assign(data["assign"]) if data.get("assign") is not None else None
    tariff = await service.replace_tariff(tenant_scope, key, _tariff_in(data), assign)
    return await _shown(tenant_scope, tariff)


@post(
    "/price-previews", status_code=200, opt={"permission": "tariffs.view"},
    summary="What a session would cost, by the engine that bills", tags=["tariffs"],
)  # fmt: skip
async def preview_price(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in ("tariff", "session") if data.get(name) is None]
    if missing:
        faults = [FieldFault(name, "required", f"{name} is required.") for name in missing]
        raise Invalid("invalid_price_preview", "This cannot be priced.", faults=faults)
    return await service.preview(tenant_scope, data["tariff"], data["session"])


routes = [create_tariff, list_tariffs, get_tariff, replace_tariff, preview_price]


async def _shown(scope: Scope, tariff: Tariff) -> dict[str, Any]:
    return (await queries.show_tariffs(scope, [tariff]))[0]


def _tariff_in(data: dict[str, Any]) -> Any:
    if data.get("tariff") is None:
        raise Invalid.field("tariff", "required", "The body holds an OCPI Tariff object as `tariff`.")
    return data["tariff"]


def read_assign(raw: Any) -> Any:
    """Public ids become ours. An id that names nothing is a fault of its field; the rest is the verb's to judge."""
    if not isinstance(raw, dict):
        return raw
    assign: dict[str, Any] = dict(raw)
    for target in service.TARGETS[:3]:
        name = f"{target}_id"
        if isinstance(assign.get(name), str):
            try:
                assign[name] = parse_id(target, assign[name])
            except NotFound as missing:
                raise Invalid.field(f"assign.{name}", "not_found", missing.message) from None
    return assign
