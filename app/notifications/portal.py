"""The brand editor's look at a mail: a receipt as its draft would send it."""

from typing import Any

from litestar import Request, Response, get

from app.billing.models import Payment
from app.billing.payments import Settled
from app.brands import faces
from app.brands.service import own_tenant
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


routes = [show_mail_preview]
