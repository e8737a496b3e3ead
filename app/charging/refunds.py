"""Four eyes: what would give back more than one member of staff may give back of a payment alone waits for a second.

Asking gives the money back at once, or leaves a request. Whoever decides it is somebody else than who asked, and what
was asked for is weighed anew then. Errors beside those of `settlement.refund` and `settlement.credit`:
`refund_waiting`, `refund_decided`, `refund_changed`, `own_request`.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.billing import payments
from app.billing.models import Payment, PaymentAccount, PaymentOp, RefundRequest
from app.charging import service, settlement
from app.charging.models import CDR
from app.identity.models import ApiKey
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.money import Money
from tenants.scope import Scope


async def ask_refund(
    scope: Scope,
    payment_id: UUID,
    reason: str,
    *,
    amount_minor: int | None = None,
    seen_count: int | None = None,
) -> PaymentOp | RefundRequest:
    """As `settlement.refund`; the request where it waits. `seen_count` is how many refunds whoever asks saw:
    `refund_changed` where there are more by now, so that a second press, or a colleague's, gives nothing twice."""
    payment = await settlement.lock_refunding(scope, payment_id)
    left = await settlement.refundable_minor(scope, payment)
    if seen_count is not None and seen_count != len(await _refunds(scope, payment)):
        raise Refused(
            "refund_changed",
            "Some of this payment was given back since you looked: see below what is left, and ask again for more.",
        )
    wish = {"deed": "refund", "amount_minor": amount_minor}
    asked = left if amount_minor is None else amount_minor
    if 0 < asked <= left and await _must_wait(scope, payment, asked):
        return await _wait(scope, payment, asked, reason, wish)
    return await settlement.refund(scope, payment_id, reason, amount_minor=amount_minor)


async def ask_credit(
    scope: Scope, cdr_id: UUID, reason: str, *, energy_wh: int | None = None
) -> CDR | RefundRequest:
    """As `settlement.credit`; the request where the correction gives back so much that it waits."""
    cdr = await settlement.get_cdr(scope, cdr_id)
    payment = await payments.find_payment(scope, "charging_session", cdr.session_id)
    if cdr.kind == "cdr" and cdr.collection == "card" and payment is not None:
        payment = await settlement.lock_refunding(scope, payment.id)
        gives = await _gives_back(scope, payment, cdr, energy_wh)
        if await _must_wait(scope, payment, gives):
            wish = {"deed": "credit", "cdr": str(cdr.id), "energy_wh": energy_wh}
            return await _wait(scope, payment, gives, reason, wish)
    return await settlement.credit(scope, cdr_id, reason, energy_wh=energy_wh)


async def _gives_back(scope: Scope, payment: Payment, cdr: CDR, energy_wh: int | None) -> int:
    """What a correction would give back; a capture that is under way counts as done."""
    corrected = 0
    if energy_wh is not None:
        service.check_energy(energy_wh)
        session = await service.get_session(scope, cdr.session_id)
        price = await settlement.price_at(scope, session, cdr.ended_at, energy_wh)
        corrected = price.total_cost.incl_minor if price else 0
    kept = [await payments.kept_minor(scope, leg) for leg in await payments.legs_beside(scope, payment)]
    return max(sum(kept) - corrected, 0)


async def _must_wait(scope: Scope, payment: Payment, amount_minor: int) -> bool:
    """Also in parts: what nobody approved counts together."""
    account = select(PaymentAccount.refund_limit_minor)
    if payment.provider in payments.PAID_AHEAD:  # from a wallet it can be paid out: the brand's own limit
        own = await payments.find_own_account(scope)
        account = account.where(PaymentAccount.id == (own.id if own else None))
    else:
        account = account.where(PaymentAccount.account_ref == payment.account_ref)
    limit = (await scope.db.execute(account)).scalar_one_or_none()
    if limit is None or not amount_minor:
        return False
    approved = select(RefundRequest).where(
        RefundRequest.payment_id == payment.id, RefundRequest.state == "approved"
    )
    seen = {
        one
        for request in (await scope.db.execute(approved)).scalars()
        for one in (str(request.op_id), *request.wish.get("ops", ()))
    }
    alone = sum(
        op.request["amount_minor"]
        for op in await _refunds(scope, payment)
        if op.state != "failed" and str(op.id) not in seen
    )  # fmt: skip
    return alone + amount_minor > limit


async def _refunds(scope: Scope, payment: Payment) -> list[PaymentOp]:
    """Of all legs of what it pays for, oldest first."""
    legs = await payments.legs_beside(scope, payment)
    found = await payments.list_refunds(scope, [leg.id for leg in legs])
    return sorted((op for ops in found.values() for op in ops), key=lambda op: op.id)


async def _wait(
    scope: Scope, payment: Payment, amount_minor: int, reason: str, wish: dict[str, Any]
) -> RefundRequest:
    if not reason.strip():
        raise Invalid.field("reason", "required", "Say in a sentence why.")
    for leg in await payments.legs_beside(scope, payment) if wish["deed"] == "credit" else [payment]:
        payments.refuse_disputed(leg)
    if await find_waiting(scope, payment.id) is not None:
        raise Refused(
            "refund_waiting", "A refund of this payment waits for a colleague already: decide that first."
        )
    key = (
        await scope.db.get(ApiKey, (scope.tenant_id, scope.actor.id))
        if scope.actor.kind == "api_key"
        else None
    )
    request = RefundRequest(
        id=uuid7(), payment_id=payment.id, amount_minor=amount_minor, currency=payment.currency,
        reason=reason.strip()[:1000], wish=wish, state="waiting", asked_by=scope.actor.name,
        asked_by_kind=scope.actor.kind, asked_by_id=scope.actor.id, key_of=key.created_by if key else "",
        created_at=scope.now,
    )  # fmt: skip
    scope.db.add(request)
    await scope.db.flush()
    news = {"amount_minor": amount_minor, "currency": payment.currency}
    await audit.record(scope, "refund.requested", "payment", payment.id, {**news, "reason": request.reason})
    await events.emit(
        scope, "RefundRequested", "payment", payment.id, {**news, "asked_by": str(scope.actor.id or "")}
    )
    return request


async def find_waiting(scope: Scope, payment_id: UUID) -> RefundRequest | None:
    query = select(RefundRequest).where(
        RefundRequest.payment_id == payment_id, RefundRequest.state == "waiting"
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


async def payment_of(scope: Scope, request_id: UUID) -> UUID:
    return (await _get(scope, request_id)).payment_id


async def _get(scope: Scope, request_id: UUID) -> RefundRequest:
    found = await scope.db.get(RefundRequest, (scope.tenant_id, request_id))
    if found is None:
        raise NotFound("refund")
    return found


async def approve(scope: Scope, request_id: UUID) -> RefundRequest:
    """The second pair of eyes: it is done as it was asked for, or refused where it would be something else by now."""
    request, payment = await _lock(scope, request_id)
    if request.is_of(scope.actor):
        raise Refused("own_request", "You asked for this refund: a colleague decides it.")
    wish = request.wish
    before = {op.id for op in await _refunds(scope, payment)}
    if wish["deed"] == "refund":
        left = await settlement.refundable_minor(scope, payment)
        if wish["amount_minor"] is None and left not in (0, request.amount_minor):
            raise _changed(request, left)
        await settlement.refund(scope, payment.id, request.reason, amount_minor=wish["amount_minor"])
    else:
        cdr, energy_wh = await settlement.get_cdr(scope, UUID(wish["cdr"])), wish["energy_wh"]
        gives = await _gives_back(scope, payment, cdr, energy_wh)
        if gives != request.amount_minor:
            raise _changed(request, gives)
        await settlement.credit(scope, cdr.id, request.reason, energy_wh=energy_wh)
    made = [op.id for op in await _refunds(scope, payment) if op.id not in before]
    request.op_id = next(iter(made), None)
    if len(made) > 1:  # several legs give it back
        request.wish = {**wish, "ops": [str(one) for one in made]}
    _decide(scope, request, "approved", "")
    await audit.record(
        scope, "refund.approved", "payment", payment.id,
        {"amount_minor": request.amount_minor, "asked_by": request.asked_by},
    )  # fmt: skip
    return request


def _changed(request: RefundRequest, now_minor: int) -> Refused:
    asked, now = Money(request.amount_minor, request.currency), Money(now_minor, request.currency)
    message = (
        f"{now.format()} would go back by now, and {asked.format()} was asked for: reject it and ask anew."
    )
    return Refused("refund_changed", message)


async def reject(scope: Scope, request_id: UUID, note: str) -> RefundRequest:
    """Nothing moves. Who asked may take it back so."""
    request, payment = await _lock(scope, request_id)
    if not note.strip():
        raise Invalid.field("note", "required", "Say in a sentence why not.")
    _decide(scope, request, "rejected", note.strip()[:1000])
    await audit.record(
        scope, "refund.rejected", "payment", payment.id,
        {"amount_minor": request.amount_minor, "asked_by": request.asked_by, "note": request.note},
    )  # fmt: skip
    return request


def _decide(scope: Scope, request: RefundRequest, state: str, note: str) -> None:
    request.state, request.note = state, note
    request.decided_by, request.decided_at = scope.actor.name, scope.now


async def _lock(scope: Scope, request_id: UUID) -> tuple[RefundRequest, Payment]:
    """Of two who decide at once the second comes too late."""
    found = await _get(scope, request_id)
    payment = await settlement.lock_refunding(scope, found.payment_id)
    await scope.db.refresh(found, with_for_update=True)
    if found.state != "waiting":
        raise Refused(
            "refund_decided", f"This refund was {found.state} by {found.decided_by or 'somebody'} already."
        )
    return found, payment
