"""REST: id tokens (contract.md). Values go out masked; who may see them whole asks the portal, and is logged."""

from typing import Any

from litestar import delete, get, patch, post
from sqlalchemy import select

from app.access import local_lists, service
from app.access.models import IdToken, LocalList
from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, read_time, rfc3339
from tenants.scope import Scope


@post(
    "/id-tokens",
    status_code=201,
    opt={"permission": "id_tokens.manage"},
    summary="Create a token",
    tags=["access"],
)
async def create_id_token(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    token = await service.create_id_token(
        tenant_scope, value=str(data.get("value") or ""), type=str(data.get("type") or "ISO14443"),
        status=str(data.get("status") or "accepted"), **_shared(data),
    )  # fmt: skip
    return _shown(token)


@get("/id-tokens", opt={"permission": "id_tokens.view"}, summary="Tokens, newest first", tags=["access"])
async def list_id_tokens(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    query = select(IdToken).where(IdToken.is_single_use.is_(False))
    found = await listed(tenant_scope, query, IdToken.id, "id_token", limit, after)
    return found.answer([_shown(row) for row in found.rows])


@patch(
    "/id-tokens/{id_token_id:str}",
    opt={"permission": "id_tokens.manage"},
    summary="Change a token",
    tags=["access"],
)
async def update_id_token(tenant_scope: Scope, id_token_id: str, data: dict[str, Any]) -> dict[str, Any]:
    changes = {
        name: value for name, value in _shared(data).items() if name in data or name == "driver_group_id"
    }
    if "group_id" not in data:
        changes.pop("driver_group_id", None)
    if "status" in data:
        changes["status"] = data["status"]
    return _shown(await service.update_id_token(tenant_scope, parse_id("id_token", id_token_id), **changes))


@delete("/id-tokens/{id_token_id:str}", status_code=204, opt={"permission": "id_tokens.manage"},
        summary="Delete a token; one that charged stays, blocked", tags=["access"])  # fmt: skip
async def delete_id_token(tenant_scope: Scope, id_token_id: str) -> None:
    await service.delete_id_token(tenant_scope, parse_id("id_token", id_token_id))


def _shared(data: dict[str, Any]) -> dict[str, Any]:
    parent = data.get("parent_value")
    return {
        "label": str(data.get("label") or ""), "parent_value": str(parent) if parent else None,
        "driver_id": read_id("driver", data, "driver_id"),
        "driver_group_id": read_id("driver_group", data, "group_id"), "expires_at": read_time(data, "expires_at"),
    }  # fmt: skip


def _shown(row: IdToken) -> dict[str, Any]:
    return {
        "id": public_id("id_token", row.id), "type": row.type, "value_masked": row.masked, "status": row.status,
        "label": row.label, "parent_value": row.parent_value, "expires_at": rfc3339(row.expires_at),
        "driver_id": public_id("driver", row.driver_id) if row.driver_id else None,
        "group_id": public_id("driver_group", row.driver_group_id) if row.driver_group_id else None,
        "created_at": rfc3339(row.created_at),
    }  # fmt: skip


# --- lists on stations -------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/local-list", opt={"permission": "id_tokens.view"},
     summary="The local authorisation list of a station", tags=["access"])  # fmt: skip
async def get_local_list(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    return await _list(tenant_scope, await local_lists.look_at(tenant_scope, key))


@patch("/stations/{station_id:str}/local-list", opt={"permission": "id_tokens.manage"},
       summary="Whose tokens it holds: `covers` none, all or groups (`group_ids`)", tags=["access"])  # fmt: skip
async def cover_local_list(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    groups = data.get("group_ids") or []
    if not isinstance(groups, list):
        raise Invalid.field("group_ids", "list", "group_ids is a list of group ids.")
    wanted = [read_id("driver_group", {"group_ids": one}, "group_ids") for one in groups]
    row = await local_lists.cover(
        tenant_scope, parse_id("charging_station", station_id), str(data.get("covers") or ""),
        [one for one in wanted if one is not None],
    )  # fmt: skip
    return await _list(tenant_scope, row)


@post("/stations/{station_id:str}/local-list/sendings", status_code=202, opt={"permission": "id_tokens.manage"},
      summary="Send the difference now; `whole: true` replaces the list", tags=["access"])  # fmt: skip
async def send_local_list(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    return await _list(
        tenant_scope, await local_lists.send_now(tenant_scope, key, whole=data.get("whole") is True)
    )


@post("/stations/{station_id:str}/local-list/version-requests", status_code=202,
      opt={"permission": "id_tokens.manage"}, summary="Ask which version it holds", tags=["access"])  # fmt: skip
async def ask_local_list_version(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    sent = await local_lists.ask_version(tenant_scope, parse_id("charging_station", station_id))
    return {"command_id": public_id("station_command", sent.id)}


@post("/stations/{station_id:str}/cache-clearings", status_code=202, opt={"permission": "id_tokens.manage"},
      summary="Let it forget the cards it remembers", tags=["access"])  # fmt: skip
async def clear_cache(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    sent = await local_lists.clear_cache(tenant_scope, parse_id("charging_station", station_id))
    return {"command_id": public_id("station_command", sent.id)}


async def _list(scope: Scope, row: LocalList) -> dict[str, Any]:
    groups = await local_lists.groups_of(scope, row.id) if row.id else set()
    return {
        "station_id": public_id("charging_station", row.station_id), "covers": row.covers, "state": row.state,
        "group_ids": sorted(public_id("driver_group", one) for one in groups), "version": row.version,
        "entry_count": row.entry_count, "left_out_count": row.left_out_count, "said": row.said,
        "synced_at": rfc3339(row.synced_at),
    }  # fmt: skip


routes = [
    create_id_token, list_id_tokens, update_id_token, delete_id_token, get_local_list, cover_local_list,
    send_local_list, ask_local_list_version, clear_cache,
]  # fmt: skip
