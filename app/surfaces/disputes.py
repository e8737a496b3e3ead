"""Portal pages of disputes: what payers ask back at their bank, what speaks for us, and our answer.

Here, for the answer is made of everything: the session, its meter's signature, the payment, the mail with its receipt.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.billing import disputes, payments
from app.billing.models import Dispute, Invoice, Payment, PaymentOp
from app.charging import queries as sessions
from app.charging import service as charging
from app.charging import settlement, signed
from app.charging.models import CDR, ChargingSession
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.money import Money
from app.kernel.web import NavItem, form_again, page, read_form, redirect, visit_of
from app.metering.models import SignedCharge
from app.notifications.models import Mail
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Disputes", "/disputes", "shield-alert", "invoices.view", order=53)]
PAGE = 50
REASONS = {
    "bank_cannot_process": "The bank could not process it", "credit_not_processed": "A promised refund did not come",
    "customer_initiated": "The payer asked their bank", "debit_not_authorized": "The payer did not allow it",
    "duplicate": "The payer was charged twice", "fraudulent": "The payer says that it was not them",
    "general": "The bank gave no reason", "incorrect_account_details": "The account details were wrong",
    "insufficient_funds": "Too little money", "noncompliant": "It breaks a rule of the card network",
    "product_not_received": "The payer says that they got no energy",
    "product_unacceptable": "The payer was not content", "subscription_canceled": "A subscription had been canceled",
    "unrecognized": "The payer does not know this charge",
}  # fmt: skip


@get("/disputes", opt={"permission": "invoices.view"})
async def list_disputes(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    after = request.query_params.get("after")
    query = select(Dispute).order_by(Dispute.id.desc()).limit(PAGE + 1)
    if after:
        query = query.where(Dispute.id < parse_id("dispute", after))
    rows = list((await tenant_scope.db.execute(query)).scalars())
    more = public_id("dispute", rows[PAGE - 1].id) if len(rows) > PAGE else None
    return page(
        request, tenant_scope, "surfaces/disputes.html", title="Disputes", next_after=more, is_first=not after,
        rows=[(public_id("dispute", row.id), row) for row in rows[:PAGE]], reasons=REASONS,
        answerable=disputes.ANSWERABLE,
    )  # fmt: skip


@get("/disputes/{dispute_id:str}", opt={"permission": "invoices.view"})
async def show_dispute(request: AnyRequest, tenant_scope: Scope, dispute_id: str) -> Response[str]:
    parts = await _parts(request, tenant_scope, dispute_id)
    return page(
        request,
        tenant_scope,
        "surfaces/dispute.html",
        title="Dispute",
        values={},
        errors={},
        alert=None,
        **parts,
    )


@post("/disputes/{dispute_id:str}/evidence", opt={"permission": "invoices.manage"})
async def send_evidence(request: AnyRequest, tenant_scope: Scope, dispute_id: str) -> Response[Any]:
    """What staff wrote, and beside it the facts in the provider's own fields."""
    form = await read_form(request)
    row = await disputes.get_dispute(tenant_scope, parse_id("dispute", dispute_id))
    case = await _case(tenant_scope, row)
    try:
        evidence = {**case.fields(), "uncategorized_text": form.text("text")}
        await payments.send_evidence(tenant_scope, row.id, evidence)
    except (Invalid, Refused) as error:
        parts = await _parts(request, tenant_scope, dispute_id)
        return form_again(
            request, tenant_scope, "surfaces/dispute.html", error, form, title="Dispute", **parts
        )
    return redirect(
        request, f"/disputes/{dispute_id}", flash="The answer goes to the bank. It decides within weeks."
    )


@post("/disputes/{dispute_id:str}/acceptances", opt={"permission": "invoices.manage"})
async def accept_loss(request: AnyRequest, tenant_scope: Scope, dispute_id: str) -> Response[Any]:
    form, path = await read_form(request), f"/disputes/{dispute_id}"
    row = await disputes.get_dispute(tenant_scope, parse_id("dispute", dispute_id))
    try:
        if not form.flag("sure"):
            raise Invalid.field("sure", "required", "Confirm that the money stays with the payer.")
        await payments.accept_dispute(tenant_scope, row.id)
    except (Invalid, Refused) as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash="Accepted: the money stays with the payer.")


# -- what speaks for us ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that is known of a disputed payment; of what is no charging session only the payment."""

    payment: Payment
    session: ChargingSession | None = None
    cdr: CDR | None = None
    signed: SignedCharge | None = None
    invoice: Invoice | None = None
    mailed: tuple[datetime, str] | None = None
    log: tuple[str, ...] = ()

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo((self.cdr.location.get("time_zone") if self.cdr else None) or "UTC")

    def place(self) -> str:
        location = self.cdr.location if self.cdr else {}
        parts = (
            location.get("name"),
            location.get("address"),
            location.get("postal_code"),
            location.get("city"),
        )
        return ", ".join(part for part in (*parts, location.get("station_name")) if part)

    def at(self, when: datetime) -> str:
        return f"{when.astimezone(self.zone):%Y-%m-%d %H:%M %Z}"

    def text(self) -> str:
        """What staff send, or change first. To the bank: in English."""
        payment, lines = self.payment, list[str]()
        paid = Money(payment.captured_minor, payment.currency).format()
        if self.cdr is not None:
            lines.append(
                f"The cardholder charged an electric vehicle at {self.place()}, from {self.at(self.cdr.started_at)} to"
                f" {self.at(self.cdr.ended_at)}. The charger delivered {self.cdr.energy_wh / 1000:.3f} kWh."
            )
        held = Money(payment.hold_minor, payment.currency).format()
        lines.append(
            f"Before the charger gave any energy the cardholder gave the card {payment.method} on the payment page and"
            f" had {held} held on it. After the session {paid} was taken, and the rest released."
        )
        if payment.three_d_secure == "authenticated":
            lines.append("The cardholder's bank authenticated the cardholder by 3-D Secure for this payment.")
        if self.signed is not None and self.signed.verdict == "valid":
            lines.append(
                "The charger's meter signed what it measured at the start and at the end, and its signature was"
                f" verified: {self.signed.reason}"
            )
        if self.invoice is not None:
            lines.append(
                f"The price was shown before the start. It comes to {paid}:"
                f" {self.invoice.number or 'the receipt'} of {self.invoice.issued_on.isoformat()}."
            )
        if self.mailed is not None:
            lines.append(f"The receipt was mailed to {self.mailed[1]}, the address given by the payer, on"
                         f" {self.at(self.mailed[0])}.")  # fmt: skip
        return "\n\n".join(lines)

    def fields(self) -> dict[str, str]:
        """Of Stripe's evidence (docs.stripe.com/api/disputes/evidence_object), what is known."""
        energy = f", {self.cdr.energy_wh / 1000:.3f} kWh, at {self.place()}" if self.cdr else ""
        found = {
            "product_description": f"Charging of an electric vehicle{energy}",
            "service_date": f"{self.cdr.ended_at.astimezone(self.zone):%Y-%m-%d}" if self.cdr else "",
            "customer_email_address": self.payment.payer_email, "access_activity_log": "\n".join(self.log),
        }  # fmt: skip
        return {name: value for name, value in found.items() if value}


async def _case(scope: Scope, row: Dispute) -> Case:
    payment = await payments.get_payment(scope, row.payment_id)
    if payment.source_type != "charging_session":
        return Case(payment=payment)
    session = await charging.get_session(scope, payment.source_id)
    papers = await settlement.list_papers(scope, session.id)
    mails = select(Mail).where(Mail.source_id == session.id, Mail.kind == "receipt").order_by(Mail.created_at)
    mail = (await scope.db.execute(mails.limit(1))).scalar_one_or_none()
    events = sessions.timeline(await sessions.events_of(scope, session.id), session.not_started)
    return Case(
        payment=payment, session=session, cdr=await settlement.find_cdr(scope, session.id),
        signed=await signed.find(scope, session.id),
        invoice=next((one for one in papers if one.corrects_id is None), None),
        mailed=(mail.sent_at or mail.created_at, mail.to_address) if mail and mail.status != "failed" else None,
        log=tuple(f"{one['at'].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {one['title']}" for one in events),
    )  # fmt: skip


async def _parts(request: AnyRequest, scope: Scope, dispute_id: str) -> dict[str, Any]:
    row = await disputes.get_dispute(scope, parse_id("dispute", dispute_id))
    case, answers = await _case(scope, row), await payments.list_answers(scope, row)
    return {
        "id": dispute_id, "dispute": row, "case": case, "reason": REASONS.get(row.reason, row.reason),
        "payment": case.payment, "payment_id": public_id("payment", row.payment_id),
        "session_id": public_id("charging_session", case.session.id) if case.session else None,
        "invoice_id": public_id("invoice", case.invoice.id) if case.invoice else None,
        "timeline": _timeline(row, case.payment, answers), "sent": [op for op in answers if op.state != "failed"],
        "failed": [op for op in answers if op.state == "failed"], "text": case.text(),
        "may_answer": row.state in disputes.ANSWERABLE and all(op.state == "failed" for op in answers),
    }  # fmt: skip


_ANSWERS = {"dispute_evidence": "You answered", "dispute_accept": "You accepted the loss"}


def _timeline(row: Dispute, payment: Payment, answers: list[PaymentOp]) -> list[dict[str, Any]]:
    amount = Money(row.amount_minor, row.currency).format()
    is_inquiry = row.state.startswith("warning_")
    found = [
        {"at": payment.created_at, "title": "The payer gave their card", "icon": "credit-card"},
        {"at": row.opened_at, "title": "The bank asks" if is_inquiry else "The payer disputes it at their bank",
         "icon": "triangle-alert", "tone": "error",
         "text": f"{amount} was taken back at once." if row.is_withdrawn else "No money was taken."},
    ]  # fmt: skip
    found += [
        {"at": op.created_at, "title": _ANSWERS[op.kind] + (", and refused" if op.state == "failed" else ""),
         "icon": "send", "text": (op.response or {}).get("message", "") if op.state == "failed" else ""}
        for op in answers
    ]  # fmt: skip
    if row.closed_at is not None:
        words = {"won": f"Won: {amount} came back", "lost": f"Lost: {amount} stays with the payer"}
        tone = {"won": "success", "lost": "error"}.get(row.state, "")
        title = words.get(row.state, "It came to nothing")
        found.append({"at": row.closed_at, "title": title, "icon": "circle-check", "tone": tone})
    return sorted((dict.fromkeys(("text", "tone"), "") | one for one in found), key=lambda one: one["at"])


routes = [list_disputes, show_dispute, send_evidence, accept_loss]
