"""A paper by e-mail, once more: staff send it to its buyer, or to whom they are told.

Errors: `email`, `required` (field `email`), `mailed_too_often`.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from app.billing import paper, payments, service
from app.billing.models import Invoice
from app.brands.service import own_tenant
from app.charging import paid
from app.identity import limits
from app.identity.service import check_email, email_norm
from app.kernel import audit
from app.kernel.errors import Invalid, TooMany
from app.kernel.secrets import digest
from app.notifications.letter import copy_of
from app.notifications.models import Mail
from app.notifications.service import send_mail
from tenants.resolve import own_url
from tenants.scope import Scope
from themes.language import speaking

PER_PAPER, PER_PERSON, WINDOW = 5, 60, timedelta(hours=1)
SAME_PRESS = timedelta(minutes=1)


async def send_copy(scope: Scope, invoice_id: UUID, email: str = "") -> str:
    """The address it goes to: `email`, else the buyer's as the paper has it. In the paper's language, with a link to
    its PDF; the payer's own mailbox gets the way to the session's receipt page too, as their first mail had it. Sent
    twice to one mailbox within a minute it goes once."""
    invoice = await service.get_invoice(scope, invoice_id)
    known = str(invoice.buyer.get("email") or "")
    if not email.strip() and not known:
        raise Invalid.field("email", "required", "This paper names no address: enter one.")
    to = check_email(email if email.strip() else known)
    is_buyers = email_norm(to) == email_norm(known)
    if await _went_just_now(scope, invoice, to):
        return to
    for name, most in (
        (f"paper_copy:{invoice.id}", PER_PAPER),
        (f"paper_copies:{scope.actor.id}", PER_PERSON),
    ):
        if not await limits.is_within(scope.redis, scope.tenant_id, name, most, WINDOW):
            raise TooMany(
                f"This was done {most} times within an hour. Try again later.", code="mailed_too_often",
                retry_after_s=int(WINDOW.total_seconds()),
            )  # fmt: skip
    _slug, name, _state = await own_tenant(scope)
    pdf_url = await own_url(scope, "driver", f"/papers/{paper.link_of(scope, invoice.id)}/pdf")
    receipt_url = await _receipt_url(scope, invoice, to)
    with speaking(invoice.language):
        kind, subject, body = copy_of(name, invoice, pdf_url, receipt_url)
    mailbox = digest(scope.settings.secret_keys, "mailbox", email_norm(to)).hex()[:32]
    is_new = await send_mail(
        scope, key=f"copy:{invoice.id}:{mailbox}:{scope.now:%Y%m%d%H%M}", kind=kind, to=to, subject=subject, body=body,
        source_id=invoice.id, language=invoice.language,
    )  # fmt: skip
    if is_new:
        await audit.record(
            scope,
            "invoice.sent_again",
            "invoice",
            invoice.id,
            {"to": "buyer" if is_buyers else "another address"},
        )
    return to


async def _went_just_now(scope: Scope, invoice: Invoice, to: str) -> bool:
    query = select(Mail.id).where(
        Mail.created_at > func.now() - SAME_PRESS, Mail.source_id == invoice.id, Mail.kind == "paper_copy",
        Mail.to_address == to,
    )  # fmt: skip
    return (await scope.db.execute(query.limit(1))).first() is not None


async def _receipt_url(scope: Scope, invoice: Invoice, to: str) -> str:
    """Empty for everybody but the payer: who has that address sees the whole session."""
    payment = await payments.find_payment_of(scope, invoice)
    if payment is None or payment.source_type != "charging_session" or not payment.payer_email:
        return ""
    if email_norm(payment.payer_email) != email_norm(to):
        return ""
    return f"{await paid.page_url(scope, payment.source_id)}/receipt"
