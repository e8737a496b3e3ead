"""REST: a paper by e-mail."""

from typing import Any

from litestar import post

from app.kernel.errors import Invalid
from app.kernel.ids import parse_id
from app.notifications import copies
from tenants.scope import Scope


@post("/invoices/{invoice_id:str}/mails", status_code=202, opt={"permission": "invoices.manage"}, tags=["money"],
      summary="Send an invoice, receipt or credit note by e-mail, once more")  # fmt: skip
async def send_invoice(tenant_scope: Scope, invoice_id: str, data: dict[str, Any]) -> dict[str, Any]:
    """To `email`, else to the buyer's address as the paper has it; in the paper's language, with a link to its PDF.
    The same mailbox within a minute gets one. Errors: `mailed_too_often` (5 per paper and hour)."""
    email = data.get("email") or ""
    if not isinstance(email, str):
        raise Invalid.field("email", "email", "This is no e-mail address.")
    return {"to": await copies.send_copy(tenant_scope, parse_id("invoice", invoice_id), email)}


routes = [send_invoice]
