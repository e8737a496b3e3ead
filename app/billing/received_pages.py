"""Portal pages of what the platform keeps: the fee that holds, and the platform's invoices over it."""

from typing import Any

from litestar import Request, Response, get

from app.billing import payments, platform_book
from app.kernel.errors import NotFound
from app.kernel.ids import parse_id, public_id
from app.kernel.web import NavItem, page
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Platform fees", "/platform-fees", "building-2", "invoices.view", order=58)]


@get("/platform-fees", opt={"permission": "invoices.view"})
async def list_received(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    rows = await platform_book.list_received(tenant_scope)
    account = await payments.find_own_account(tenant_scope)
    return page(
        request, tenant_scope, "billing/platform_fees.html", title="Platform fees", account=account,
        rows=[(public_id("platform_invoice", row.id), row) for row in rows],
        fee=await payments.find_fee(tenant_scope, account) if account else None,
    )  # fmt: skip


@get("/platform-fees/{platform_invoice_id:str}", opt={"permission": "invoices.view"})
async def show_received(request: AnyRequest, tenant_scope: Scope, platform_invoice_id: str) -> Response[Any]:
    row = await platform_book.get_received(tenant_scope, parse_id("platform_invoice", platform_invoice_id))
    await tenant_scope.db.refresh(row, ["xml"])
    return page(
        request, tenant_scope, "billing/platform_fee_invoice.html", title=row.number, row=row, id=platform_invoice_id,
        paper=row.content, has_xml=row.xml is not None,
    )  # fmt: skip


@get("/platform-fees/{platform_invoice_id:str}/pdf", opt={"permission": "invoices.view"})
async def download_pdf(tenant_scope: Scope, platform_invoice_id: str) -> Response[bytes]:
    """As it was received."""
    row = await platform_book.get_received(tenant_scope, parse_id("platform_invoice", platform_invoice_id))
    await tenant_scope.db.refresh(row, ["pdf"])
    return _file(row.pdf, "application/pdf", f'inline; filename="{row.number}.pdf"')


@get("/platform-fees/{platform_invoice_id:str}/xml", opt={"permission": "invoices.view"})
async def download_xml(tenant_scope: Scope, platform_invoice_id: str) -> Response[bytes]:
    row = await platform_book.get_received(tenant_scope, parse_id("platform_invoice", platform_invoice_id))
    await tenant_scope.db.refresh(row, ["xml"])
    if row.xml is None:
        raise NotFound("platform_invoice")
    return _file(row.xml, "application/xml", f'attachment; filename="{row.number}.xml"')


def _file(content: bytes, media_type: str, disposition: str) -> Response[bytes]:
    return Response(content, media_type=media_type, headers={"Content-Disposition": disposition})


routes = [list_received, show_received, download_pdf, download_xml]
