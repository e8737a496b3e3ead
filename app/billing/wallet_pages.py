"""Portal pages of money paid ahead: vouchers and what they owe, the wallet of a driver, whether wallets are offered."""

from collections.abc import Awaitable
from datetime import date
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post

from app.access.models import Driver
from app.billing import vouchers, wallets
from app.billing.models import VoucherBatch
from app.brands.service import get_profile
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.money import Money, to_decimal
from app.kernel.spreadsheet import csv_file, csv_text
from app.kernel.web import NavItem, form_again, page, read_form, redirect, visit_of
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Vouchers", "/vouchers", "euro", "invoices.view", order=53)]
PAGE, TITLE = 50, "Vouchers and wallets"
PAID_BY = [("brand", "The brand: a gift"), ("buyer", "A buyer")]
WHO = [
    ("", "Guests too, where a code is for one"),
    ("guests", "Guests at a charger too"),
    ("drivers", "Drivers with an account only"),
]


# -- vouchers ----------------------------------------------------------------------------------------------------------


@get("/vouchers", opt={"permission": "invoices.view"})
async def list_vouchers(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    after = request.query_params.get("after")
    shown = await _listed(tenant_scope, parse_id("voucher_batch", after) if after else None)
    values = {"code_count": "10", "uses_per_code": "1", "paid_by": "brand", "who": ""}
    return page(
        request,
        tenant_scope,
        "billing/vouchers.html",
        title=TITLE,
        values=values,
        errors={},
        alert=None,
        **shown,
    )


async def _listed(scope: Scope, after: UUID | None = None) -> dict[str, Any]:
    rows = await vouchers.list_batches(scope, after=after, limit=PAGE + 1)
    return {
        "rows": [(public_id("voucher_batch", row.batch.id), row) for row in rows[:PAGE]], "is_first": after is None,
        "next_after": public_id("voucher_batch", rows[PAGE - 1].batch.id) if len(rows) > PAGE else None,
        "in_wallets": await wallets.totals(scope, "wallet_liability"),
        "in_vouchers": await wallets.totals(scope, "voucher_liability"),
        "is_offered": await wallets.is_offered(scope), "paid_by": PAID_BY, "who": WHO,
        "limit_minor": await wallets.limit_minor(scope), "currency": (await get_profile(scope)).currency,
    }  # fmt: skip


@post("/vouchers", opt={"permission": "invoices.manage"})
async def issue_vouchers(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        batch = await vouchers.issue(
            tenant_scope, name=form.text("name"), amount=form.text("amount"), code_count=form.integer("code_count"),
            uses_per_code=form.integer("uses_per_code"), valid_until=form.text("valid_until"),
            paid_by=form.text("paid_by"), for_guests={"guests": True, "drivers": False}.get(form.text("who")),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        shown = await _listed(tenant_scope)
        return form_again(request, tenant_scope, "billing/vouchers.html", error, form, title=TITLE, **shown)
    return redirect(
        request,
        f"/vouchers/{public_id('voucher_batch', batch.id)}",
        flash="The vouchers are issued. Now print them."
        if batch.state == "issued"
        else "So much needs a second pair of eyes: a colleague approves it.",
    )


@post("/vouchers/wallets", opt={"permission": "settings.manage"})
async def offer_wallets(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    is_on = (await read_form(request)).flag("is_offered")
    await wallets.offer(tenant_scope, is_on=is_on)
    said = "Drivers with an account can pay ahead now." if is_on else "No new session is paid from a wallet."
    return redirect(request, "/vouchers", flash=said)


@get("/vouchers/{batch_id:str}", opt={"permission": "invoices.view"})
async def show_batch(request: AnyRequest, tenant_scope: Scope, batch_id: str) -> Response[str]:
    batch = await vouchers.get_batch(tenant_scope, parse_id("voucher_batch", batch_id))
    (seen,) = await vouchers.look(tenant_scope, [batch])
    rows = await vouchers.list_vouchers(tenant_scope, batch.id)
    left = await vouchers.left_of(tenant_scope, batch, [row.id for row in rows])
    return page(
        request, tenant_scope, "billing/voucher_batch.html", title=batch.name, id=batch_id, batch=batch, seen=seen,
        is_own=batch.is_of(tenant_scope.actor), worth_minor=vouchers.worth_minor(batch),
        rows=[(public_id("voucher", row.id), row, left[row.id]) for row in rows],
    )  # fmt: skip


@post("/vouchers/{batch_id:str}/revelations", opt={"permission": "invoices.manage"}, status_code=200)
async def reveal_codes(request: AnyRequest, tenant_scope: Scope, batch_id: str) -> Response[Any]:
    """The codes to print, or with `as` csv as a file: each look is in the audit log."""
    form, key = await read_form(request), parse_id("voucher_batch", batch_id)
    found = await vouchers.reveal(tenant_scope, key)
    batch = await vouchers.get_batch(tenant_scope, key)
    left = await vouchers.left_of(tenant_scope, batch, [row.id for row, _code in found])
    valid = [(row, code) for row, code in found if row.revoked_at is None]
    if form.text("as") == "csv":
        amount = to_decimal(batch.amount_minor, batch.currency)
        head = ("code", "amount", "currency", "valid_until", "uses", "used", "left")
        cells = (
            (
                code,
                amount,
                batch.currency,
                batch.valid_until,
                batch.uses_per_code,
                row.used_count,
                to_decimal(left[row.id].minor, batch.currency),
            )
            for row, code in valid
        )
        response: Response[Any] = csv_file("vouchers.csv", csv_text(head, (list(one) for one in cells)))
    else:
        response = page(
            request, tenant_scope, "billing/voucher_codes.html", title=batch.name, id=batch_id, batch=batch,
            codes=[
                (code, min(left[row.id].minor, batch.amount_minor), max(batch.valid_until, row.good_until or date.min))
                for row, code in valid if left[row.id].minor > 0
            ],
        )  # fmt: skip
    response.headers["Cache-Control"] = "no-store"
    return response


@post("/vouchers/{batch_id:str}/revocations", opt={"permission": "invoices.manage"})
async def revoke_vouchers(request: AnyRequest, tenant_scope: Scope, batch_id: str) -> Response[Any]:
    """All that is left of the batch, or the one `voucher`."""
    only = (await read_form(request)).text("voucher")
    count = await vouchers.revoke(
        tenant_scope, parse_id("voucher_batch", batch_id), parse_id("voucher", only) if only else None
    )
    said = "1 code is revoked." if count == 1 else f"{count:,} codes are revoked."
    return redirect(request, f"/vouchers/{batch_id}", flash=said)


@post("/vouchers/{batch_id:str}/approvals", opt={"permission": "invoices.manage"})
async def approve_vouchers(request: AnyRequest, tenant_scope: Scope, batch_id: str) -> Response[Any]:
    return await _decided(
        request, batch_id, vouchers.approve(tenant_scope, parse_id("voucher_batch", batch_id))
    )


@post("/vouchers/{batch_id:str}/rejections", opt={"permission": "invoices.manage"})
async def reject_vouchers(request: AnyRequest, tenant_scope: Scope, batch_id: str) -> Response[Any]:
    note = (await read_form(request)).text("note")
    return await _decided(
        request, batch_id, vouchers.reject(tenant_scope, parse_id("voucher_batch", batch_id), note)
    )


async def _decided(request: AnyRequest, batch_id: str, decision: Awaitable[VoucherBatch]) -> Response[Any]:
    """Somebody was quicker, or nothing is said: the page says how it stands by now."""
    try:
        batch = await decision
    except (Invalid, Refused) as error:
        visit_of(request).is_spoiled = True
        message = error.faults[0].message if isinstance(error, Invalid) else error.message
        return redirect(request, f"/vouchers/{batch_id}", flash=message, kind="error")
    said = "The vouchers are issued." if batch.state == "issued" else "These vouchers are not issued."
    return redirect(request, f"/vouchers/{batch_id}", flash=said)


@post("/vouchers/{batch_id:str}/payments", opt={"permission": "invoices.manage"})
async def mark_paid(request: AnyRequest, tenant_scope: Scope, batch_id: str) -> Response[Any]:
    await vouchers.mark_paid(tenant_scope, parse_id("voucher_batch", batch_id))
    return redirect(request, f"/vouchers/{batch_id}", flash="The buyer's payment is booked.")


# -- a driver's wallet -------------------------------------------------------------------------------------------------


@get("/drivers/{driver_id:str}/wallet", opt={"permission": "invoices.view"})
async def show_wallet(request: AnyRequest, tenant_scope: Scope, driver_id: str) -> Response[str]:
    shown = await _wallet(tenant_scope, driver_id)
    return page(request, tenant_scope, "billing/wallet.html", values={}, errors={}, alert=None, **shown)


async def _wallet(scope: Scope, driver_id: str) -> dict[str, Any]:
    """Of who has closed their account too: what a card sent back since is theirs all the same."""
    driver = await scope.db.get(Driver, (scope.tenant_id, parse_id("driver", driver_id)))
    if driver is None:
        raise NotFound("driver")
    wallet = await wallets.get_wallet(scope, driver.id)
    back = await wallets.find_refundable(scope, wallet)
    stuck = await wallets.find_stuck(scope, driver.id)
    return {
        "title": "Wallet", "driver": driver, "is_closed": driver.deleted_at is not None,
        "id": driver_id, "wallet": wallet, "words": wallets.words_of,
        "stuck": [(public_id("payment", one.id), one, minor) for one, minor in stuck],
        "back_minor": sum(minor for _payment, minor in back), "back_count": len(back),
        "entries": [(one, public_id("charging_session", one.session_id) if one.session_id else None)
                    for one in await wallets.list_entries(scope, wallet)],
        "is_offered": await wallets.is_offered(scope),
    }  # fmt: skip


@post("/drivers/{driver_id:str}/wallet/credits", opt={"permission": "invoices.manage"})
async def credit_wallet(request: AnyRequest, tenant_scope: Scope, driver_id: str) -> Response[Any]:
    form = await read_form(request)
    try:
        key = parse_id("driver", driver_id)
        await wallets.credit(
            tenant_scope, key, form.text("amount"), form.text("reason"), seen_minor=form.integer("balance")
        )
    except (Invalid, Refused) as error:
        shown = await _wallet(tenant_scope, driver_id)
        return form_again(request, tenant_scope, "billing/wallet.html", error, form, **shown)
    return redirect(request, f"/drivers/{driver_id}/wallet", flash="It is in the wallet, with its reason.")


@post("/drivers/{driver_id:str}/wallet/refunds", opt={"permission": "invoices.manage"})
async def pay_back(request: AnyRequest, tenant_scope: Scope, driver_id: str) -> Response[Any]:
    form = await read_form(request)
    key = parse_id("driver", driver_id)
    try:
        minor = await wallets.pay_back(tenant_scope, key, form.text("back_reason"))
    except (Invalid, Refused) as error:
        faults = {fault.field for fault in error.faults}
        named = Invalid.field("back_reason", "required", error.message) if "reason" in faults else error
        shown = await _wallet(tenant_scope, driver_id)
        return form_again(request, tenant_scope, "billing/wallet.html", named, form, **shown)
    currency = (await wallets.get_wallet(tenant_scope, key)).currency
    said = f"{Money(minor, currency).format()} goes back to the driver's cards."
    return redirect(request, f"/drivers/{driver_id}/wallet", flash=said)


routes = [
    list_vouchers, issue_vouchers, offer_wallets, show_batch, reveal_codes, revoke_vouchers, approve_vouchers,
    reject_vouchers, mark_paid, show_wallet, credit_wallet, pay_back,
]  # fmt: skip
