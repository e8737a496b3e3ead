"""Portal pages of site hosts: who they are, what was agreed per site, what each month left them, and what of it was
passed on to their own account at the payment provider."""

import asyncio
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.billing import einvoice, host_shares
from app.billing.provider import NO_ANSWER, ProviderError
from app.brands import faces
from app.brands.models import TenantProfile
from app.charging import host_accounts, site_hosts
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, NavItem, form_again, page, read_form, redirect, visit_of
from app.stations import service as stations
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Site hosts", "/site-hosts", "users", "invoices.view", order=59)]
FIELDS = (
    "name", "address", "postal_code", "city", "country", "vat_id", "email", "language", "self_billing_since",
)  # fmt: skip
LIST, HOST = "charging/site_hosts.html", "charging/site_host.html"


@get("/site-hosts", opt={"permission": "invoices.view"})
async def list_hosts(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    return page(
        request, tenant_scope, LIST, values={"country": "DE", "language": "de"}, errors={}, alert=None,
        **await _hosts(tenant_scope),
    )  # fmt: skip


async def _hosts(scope: Scope) -> dict[str, Any]:
    hosts = await site_hosts.list_hosts(scope)
    return {
        "title": "Site hosts", "hosts": [(public_id("site_host", one.id), one) for one in hosts],
        "waiting": await host_shares.list_waiting(scope),
        "statements": _shown(await site_hosts.list_statements(scope)),
    }  # fmt: skip


def _shown(rows: list[Any]) -> list[Any]:
    return [(public_id("host_statement", row.id), row, host) for row, host in rows]


@post("/site-hosts", opt={"permission": "invoices.manage"})
async def create_host(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        made = await site_hosts.save_host(tenant_scope, _fields(form))
    except Invalid as error:
        return form_again(request, tenant_scope, LIST, error, form, **await _hosts(tenant_scope))
    path = f"/site-hosts/{public_id('site_host', made.id)}"
    return redirect(request, path, flash="The host is saved. Say now what was agreed for which site.")


def _fields(form: Form) -> dict[str, str]:
    return {name: form.text(name) for name in FIELDS}


@get("/site-hosts/{site_host_id:str}", opt={"permission": "invoices.view"})
async def show_host(request: AnyRequest, tenant_scope: Scope, site_host_id: str) -> Response[Any]:
    return page(
        request, tenant_scope, HOST, values={}, errors={}, alert=None, **await _host(tenant_scope, site_host_id)
    )  # fmt: skip


async def _host(scope: Scope, site_host_id: str) -> dict[str, Any]:
    host = await site_hosts.get_host(scope, parse_id("site_host", site_host_id))
    places = await stations.list_locations(scope)
    currency = (await scope.db.execute(select(TenantProfile.currency))).scalar_one()
    return {
        "title": host.name, "host": host, "id": site_host_id,
        "contracts": await site_hosts.list_contracts(scope, host.id),
        "places": [(public_id("location", one.id), one.name) for one in places],
        "statements": _shown(await site_hosts.list_statements(scope, host.id)),
        "on_account_minor": await site_hosts.passed_on(scope, host, currency), "currency": currency,
        "passes_on": scope.settings.host_transfers and scope.settings.takes_cards,
        "moves": [
            (public_id("payment", payment.id), payment.currency, op, host_shares.WORDS[op.kind], is_stuck)
            for payment, op, is_stuck in await host_shares.list_moves(scope, site_host_id)
        ],
    }  # fmt: skip


@post("/site-hosts/{site_host_id:str}", opt={"permission": "invoices.manage"})
async def change_host(request: AnyRequest, tenant_scope: Scope, site_host_id: str) -> Response[Any]:
    form = await read_form(request)
    try:
        await site_hosts.save_host(tenant_scope, _fields(form), parse_id("site_host", site_host_id))
    except Invalid as error:
        shown = await _host(tenant_scope, site_host_id)
        return form_again(request, tenant_scope, HOST, error, form, **shown)
    return redirect(request, f"/site-hosts/{site_host_id}", flash="Saved.")


@post("/site-hosts/{site_host_id:str}/contracts", opt={"permission": "invoices.manage"})
async def add_contract(request: AnyRequest, tenant_scope: Scope, site_host_id: str) -> Response[Any]:
    form = await read_form(request)
    host_id = parse_id("site_host", site_host_id)
    values = {name: form.text(name) for name in ("valid_from", *site_hosts.PARTS)}
    try:
        await site_hosts.add_contract(tenant_scope, host_id, _location(form), values)
    except (Invalid, Refused) as error:
        shown = await _host(tenant_scope, site_host_id)
        return form_again(request, tenant_scope, HOST, error, form, **shown)
    return redirect(request, f"/site-hosts/{site_host_id}", flash="The contract is kept.")


def _location(form: Form) -> UUID:
    try:
        return parse_id("location", form.text("location_id"))
    except NotFound:
        raise Invalid.field("location_id", "unknown", "Choose one of your sites.") from None


@post("/site-hosts/{site_host_id:str}/account", opt={"permission": "settings.manage"})
async def open_account(request: AnyRequest, site_host_id: str) -> Response[Any]:
    """To the provider's pages, where the host says who they are."""
    visit, path = visit_of(request), f"/site-hosts/{site_host_id}"
    try:
        url = await host_accounts.begin(
            visit.database, visit.tenant, visit.actor, parse_id("site_host", site_host_id),
            page_url=f"{str(request.base_url).rstrip('/')}{path}",
        )  # fmt: skip
    except Refused as error:
        return redirect(request, path, flash=error.message, kind="error")
    except ProviderError:
        return redirect(request, path, flash=NO_ANSWER, kind="error")
    return Response(None, status_code=303, headers={"Location": url})


@get("/site-hosts/{site_host_id:str}/account/returned", opt={"permission": "invoices.view"})
async def come_back(request: AnyRequest, site_host_id: str) -> Response[Any]:
    return await _observed(request, site_host_id, "")


@post("/site-hosts/{site_host_id:str}/account/checks", opt={"permission": "invoices.manage"})
async def check_account(request: AnyRequest, site_host_id: str) -> Response[Any]:
    return await _observed(request, site_host_id, "This is what the provider says now.")


async def _observed(request: AnyRequest, site_host_id: str, flash: str) -> Response[Any]:
    visit, path = visit_of(request), f"/site-hosts/{site_host_id}"
    try:
        await host_accounts.observe(visit.database, visit.tenant, parse_id("site_host", site_host_id))
    except Refused as error:
        return redirect(request, path, flash=error.message, kind="error")
    except ProviderError:
        return redirect(request, path, flash=NO_ANSWER, kind="error")
    return redirect(request, path, flash=flash) if flash else redirect(request, path)


@post("/site-hosts/{site_host_id:str}/shares/{payment_id:str}", opt={"permission": "invoices.manage"})
async def decide_share(
    request: AnyRequest, tenant_scope: Scope, site_host_id: str, payment_id: str
) -> Response[Any]:
    """`deed`: retry, or give_up."""
    form, path = await read_form(request), f"/site-hosts/{site_host_id}"
    host = await site_hosts.get_host(tenant_scope, parse_id("site_host", site_host_id))
    verb = host_shares.give_up if form.text("deed") == "give_up" else host_shares.retry
    try:
        await verb(tenant_scope, public_id("site_host", host.id), parse_id("payment", payment_id))
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    given_up = (
        "The platform gives this share back to you. The next statement has it among what you pay yourself."
    )
    return redirect(request, path, flash=given_up if verb is host_shares.give_up else "It is tried again.")


@get("/host-statements/{host_statement_id:str}", opt={"permission": "invoices.view"})
async def show_statement(request: AnyRequest, tenant_scope: Scope, host_statement_id: str) -> Response[Any]:
    row = await site_hosts.get_statement(tenant_scope, parse_id("host_statement", host_statement_id))
    return page(
        request, tenant_scope, "charging/host_statement.html", title=row.number, row=row, id=host_statement_id,
        paper=row.content, host_id=public_id("site_host", row.site_host_id), errors={}, values={},
    )  # fmt: skip


@get("/host-statements/{host_statement_id:str}/pdf", opt={"permission": "invoices.view"})
async def download_statement(request: AnyRequest, host_statement_id: str) -> Response[bytes]:
    """Set while no transaction is open."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        row = await site_hosts.get_statement(scope, parse_id("host_statement", host_statement_id))
        theme, _hash = await faces.get_theme(scope)
    return await asyncio.to_thread(einvoice.pdf_file, row.content | {"color": theme.primary}, None)


@post("/host-statements/{host_statement_id:str}/payments", opt={"permission": "invoices.manage"})
async def mark_paid(request: AnyRequest, tenant_scope: Scope, host_statement_id: str) -> Response[Any]:
    form, path = await read_form(request), f"/host-statements/{host_statement_id}"
    try:
        await site_hosts.mark_paid(
            tenant_scope, parse_id("host_statement", host_statement_id), form.text("paid_on")
        )
    except (Invalid, Refused) as error:
        visit_of(request).is_spoiled = True
        words = error.faults[0].message if error.faults else error.message
        return redirect(request, path, flash=words, kind="error")
    return redirect(request, path, flash="Booked as paid.")


routes = [
    list_hosts, create_host, show_host, change_host, add_contract, open_account, come_back, check_account, decide_share,
    show_statement, download_statement, mark_paid,
]  # fmt: skip
