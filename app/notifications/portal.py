"""The brand editor's look at a mail: a receipt as its draft would send it. And a paper by e-mail, once more."""

from typing import Any

from litestar import Request, Response, get, post

from app.billing.models import Payment
from app.billing.payments import Settled
from app.brands import faces
from app.brands.service import own_tenant
from app.kernel.errors import Invalid, TooMany
from app.kernel.ids import parse_id
from app.kernel.web import read_form, redirect, visit_of
from app.notifications import copies
from app.notifications.letter import as_html, receipt
from tenants.resolve import own_url
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
# A mail's styles stand inline. Framed by our own page only; nothing in it can do anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"


@get("/mail-preview", opt={"permission": "settings.view"})
async def show_mail_preview(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    _slug, name, _status = await own_tenant(tenant_scope)
    editing = await faces.get_editing(tenant_scope)
    sample = Payment(hold_minor=3000, captured_minor=1332, currency="EUR", method="Visa •••• 4242")
    url = await own_url(tenant_scope, "driver", "/s/sample")
    _kind, subject, body = receipt(name, url, Settled(payment=sample, waived_minor=0))
    html = as_html(subject, body, editing.look.theme, name, "en")
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@post("/invoices/{invoice_id:str}/mails", opt={"permission": "invoices.manage"})
async def send_copy(request: AnyRequest, tenant_scope: Scope, invoice_id: str) -> Response[Any]:
    form, path = await read_form(request), f"/invoices/{invoice_id}"
    try:
        to = await copies.send_copy(tenant_scope, parse_id("invoice", invoice_id), form.text("email"))
    except (Invalid, TooMany) as error:
        visit_of(request).is_spoiled = True
        words = error.faults[0].message if isinstance(error, Invalid) else error.message
        return redirect(request, path, flash=words, kind="error")
    return redirect(request, path, flash=f"On its way to {to}.")


routes = [show_mail_preview, send_copy]
