"""REST: vouchers, and the wallet of a driver (contract.md)."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from sqlalchemy import select

from app.access.service import get_driver
from app.billing import vouchers, wallets
from app.billing.models import Voucher, VoucherBatch
from app.billing.vouchers import BatchSeen
from app.brands.models import TenantProfile
from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, money, rfc3339
from tenants.scope import Scope


@get(
    "/vouchers",
    opt={"permission": "invoices.view"},
    summary="Batches of vouchers, newest first",
    tags=["money"],
)
async def list_vouchers(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(VoucherBatch), VoucherBatch.id, "voucher_batch", limit, after)
    return found.answer([_batch(seen) for seen in await vouchers.look(tenant_scope, found.rows)])


@get("/vouchers/{batch_id:str}", opt={"permission": "invoices.view"}, tags=["money"],
     summary="One batch with its vouchers, masked")  # fmt: skip
async def get_vouchers(tenant_scope: Scope, batch_id: str) -> dict[str, Any]:
    return await _shown(tenant_scope, parse_id("voucher_batch", batch_id))


async def _shown(scope: Scope, batch_id: UUID) -> dict[str, Any]:
    (seen,) = await vouchers.look(scope, [await vouchers.get_batch(scope, batch_id)])
    rows = await vouchers.list_vouchers(scope, batch_id)
    return _batch(seen) | {"vouchers": await _vouchers(scope, seen.batch, rows)}


@post("/vouchers", status_code=201, opt={"permission": "invoices.manage"}, tags=["money"],
      summary="Issue a batch; 202 where it waits for a second member of staff")  # fmt: skip
async def issue_vouchers(tenant_scope: Scope, data: dict[str, Any]) -> Response[dict[str, Any]]:
    """`name`, `amount` of each in the brand's currency (`"10.00"` alone is read too), `code_count`, `uses_per_code`
    (1), `valid_until` (a day), `paid_by`: `brand` (given away) or `buyer`, `for_guests`: whoever has a code may charge
    with it and have no account (where it is not said: codes of one use)."""
    guests = data.get("for_guests")
    if guests is not None and not isinstance(guests, bool):
        raise Invalid.field("for_guests", "choice", "true or false.")
    texts = {"name": "", "valid_until": "", "paid_by": "brand"} | {
        name: data[name] for name in ("name", "valid_until", "paid_by") if name in data
    }
    for name, value in texts.items():
        if not isinstance(value, str):
            raise Invalid.field(name, "type", f"{name} is a text.")
    batch = await vouchers.issue(
        tenant_scope, name=texts["name"], amount=await _amount(tenant_scope, data),
        code_count=_whole(data, "code_count"), uses_per_code=_whole(data, "uses_per_code", 1),
        valid_until=texts["valid_until"], paid_by=texts["paid_by"],
        for_guests=guests,
    )  # fmt: skip
    return Response(await _shown(tenant_scope, batch.id), status_code=201 if batch.state == "issued" else 202)


async def _amount(scope: Scope, data: dict[str, Any]) -> str:
    """As every call says money, `{"amount": "10.00", "currency": "EUR"}`."""
    told = data.get("amount")
    if isinstance(told, dict):
        currency = (await scope.db.execute(select(TenantProfile.currency))).scalar_one()
        if told.get("currency") != currency:
            raise Invalid.field("amount", "currency", f"Vouchers of this brand are in {currency}.")
        told = told.get("amount")
    return told if isinstance(told, str) else ""


def _whole(data: dict[str, Any], name: str, default: int | None = None) -> int | None:
    value = data.get(name, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise Invalid.field(name, "range", "A whole number.")
    return value


@post("/vouchers/{batch_id:str}/revelations", status_code=200, opt={"permission": "invoices.manage"}, tags=["money"],
      summary="The codes of a batch; each look is in the audit log")  # fmt: skip
async def reveal_vouchers(tenant_scope: Scope, batch_id: str) -> Response[dict[str, Any]]:
    key = parse_id("voucher_batch", batch_id)
    found = await vouchers.reveal(tenant_scope, key)
    batch = await vouchers.get_batch(tenant_scope, key)
    rows = await _vouchers(tenant_scope, batch, [row for row, _code in found])
    shown = {"vouchers": [row | {"code": code} for row, (_row, code) in zip(rows, found, strict=True)]}
    return Response(shown, headers={"Cache-Control": "no-store"})


@post("/vouchers/{batch_id:str}/revocations", status_code=200, opt={"permission": "invoices.manage"}, tags=["money"],
      summary="Revoke what is left of a batch, or of one voucher_id")  # fmt: skip
async def revoke_vouchers(tenant_scope: Scope, batch_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key, only = parse_id("voucher_batch", batch_id), data.get("voucher_id")
    await vouchers.revoke(tenant_scope, key, parse_id("voucher", str(only)) if only else None)
    return await _shown(tenant_scope, key)


def _batch(seen: BatchSeen) -> dict[str, Any]:
    row = seen.batch
    return {
        "id": public_id("voucher_batch", row.id), "name": row.name, "state": row.state,
        "amount": money(row.amount_minor, row.currency), "code_count": row.code_count,
        "uses_per_code": row.uses_per_code, "for_guests": row.for_guests, "used": seen.used,
        "charged": money(seen.charged_minor, row.currency), "owed": money(seen.owed_minor, row.currency),
        "valid_until": row.valid_until.isoformat(), "paid_by": row.paid_by, "paid_at": rfc3339(row.paid_at),
        "note": row.note or None, "created_at": rfc3339(row.created_at),
    }  # fmt: skip


async def _vouchers(scope: Scope, batch: VoucherBatch, rows: Sequence[Voucher]) -> list[dict[str, Any]]:
    """`left` may be spent, `held` beside it waits for the end of sessions."""
    left = await vouchers.left_of(scope, batch, [row.id for row in rows])
    return [
        {
            "id": public_id("voucher", row.id), "masked": row.masked, "used": row.used_count,
            "left": money(left[row.id].minor, batch.currency), "held": money(left[row.id].held_minor, batch.currency),
            "good_until": max(batch.valid_until, row.good_until or batch.valid_until).isoformat(),
            "revoked_at": rfc3339(row.revoked_at),
        }
        for row in rows
    ]  # fmt: skip


@get("/drivers/{driver_id:str}/wallet", opt={"permission": "invoices.view"}, tags=["money"],
     summary="What a driver has paid ahead, and the newest of what came and went")  # fmt: skip
async def get_wallet(tenant_scope: Scope, driver_id: str, limit: int = 50) -> dict[str, Any]:
    """`available` is what may be spent; `kept` waits for the end of sessions, `frozen` is on its way back to a card or
    disputed. Of `entries`, + came and - went; `kind` is the posting's."""
    driver = await get_driver(tenant_scope, parse_id("driver", driver_id))
    wallet = await wallets.get_wallet(tenant_scope, driver.id)
    entries = await wallets.list_entries(tenant_scope, wallet, limit=max(1, min(limit, 200)))
    amounts = {
        "balance": wallet.balance_minor, "available": wallet.available_minor, "kept": wallet.kept_minor,
        "frozen": wallet.frozen_minor,
    }  # fmt: skip
    return {
        "driver_id": driver_id, **{name: money(minor, wallet.currency) for name, minor in amounts.items()},
        "entries": [
            {"at": rfc3339(one.at), "kind": one.kind, "amount": money(one.amount_minor, wallet.currency),
             "balance": money(one.balance_minor, wallet.currency), "note": one.note or None,
             "session_id": public_id("charging_session", one.session_id) if one.session_id else None}
            for one in entries
        ],
    }  # fmt: skip


routes = [list_vouchers, get_vouchers, issue_vouchers, reveal_vouchers, revoke_vouchers, get_wallet]
