"""A site host's share of a payment, passed on (money.md 1.2, site-host split, the optional way).

It is taken with the platform's fee, for a direct charge pays one account only; the platform passes it on to the host's
own account once it has the money, takes it back in proportion where the payer gets money back, and gives that back to
the operator. Each of these is a `payment_op` before it is a call, made under a key of its own, and looked for before it
is made again. What a host's account cannot give back stays theirs: the books have it as a claim, and the next statement
counts it. A lost dispute takes nothing from the host: the operator bears it, as they do without transfers.
Errors: `nothing_waits`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.billing import ledger, payments
from app.billing.ledger import Posting
from app.billing.models import Payment, PaymentOp
from app.billing.provider import Moved, OutcomeUnknown, Provider, Rejected
from app.kernel import audit, events
from app.kernel.errors import Refused
from app.kernel.money import half_up
from tenants.database import Database
from tenants.scope import Scope

# The platform's fees are there in a day or two, as the operator's own money is: asked again each hour until then.
WAITS, WAITS_AT_MOST = "balance_insufficient", timedelta(days=14)  # then staff are told
WORDS = {
    "host_transfer": "Share to the site host", "host_reversal": "Share taken back", "fee_refund": "Share given back",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a share is; minor units. `fee_minor` is the platform's own. `transfer`: none, made, failed or given_up;
    `refused`: what a call of that kind was last refused for, and nobody asked for since. With `fee_returned_minor` of
    what the payer got back the platform's own fee goes back too."""

    share_minor: int
    fee_minor: int = 0
    captured_minor: int
    returned_minor: int = 0
    fee_returned_minor: int = 0
    sent_minor: int = 0
    taken_back_minor: int = 0
    given_back_minor: int = 0
    fee_given_back_minor: int = 0
    transfer: str = "none"
    refused: tuple[tuple[str, int], ...] = ()

    @property
    def at_host_minor(self) -> int:
        return self.sent_minor - self.taken_back_minor

    @property
    def held_minor(self) -> int:
        """With the platform."""
        return self.share_minor - self.at_host_minor - self.given_back_minor

    @property
    def left_minor(self) -> int:
        """Of the share, once what the payer got back is taken from it."""
        return self.share_minor - _in_proportion(self.share_minor, self.returned_minor, self.captured_minor)


@dataclass(frozen=True, slots=True)
class Step:
    """The next call, minor units; `fee_minor` of it is the platform's own fee."""

    kind: str
    minor: int
    fee_minor: int = 0


def _in_proportion(minor: int, part: int, whole: int) -> int:
    """Of all: all, to the cent, however it was cut."""
    return half_up(Fraction(minor * min(part, whole), whole))


def next_step(at: Position) -> Step | None:
    """Pure. First the transfer, whatever came of the payment since; then what is too much comes back, and goes on to
    the operator. What was refused is not asked for again before the amount is another."""
    over, waits = at.at_host_minor - at.left_minor, 0
    found: Step | None = None
    if at.transfer == "none" and at.left_minor > 0:
        return Step("host_transfer", at.left_minor)
    if at.transfer == "made" and over > 0:
        found = Step("host_reversal", over)
    if at.transfer == "failed":  # staff have it tried again, or give it up
        waits = at.left_minor
    if found is None or (found.kind, found.minor) in at.refused:
        fee = _in_proportion(at.fee_minor, at.fee_returned_minor, at.captured_minor)
        fee = max(fee - at.fee_given_back_minor, 0)
        back = max(at.held_minor - waits, 0)
        found = Step("fee_refund", back + fee, fee) if back + fee else None
    return found if found and (found.kind, found.minor) not in at.refused else None


def stuck_step(at: Position) -> Step | None:
    """What staff can have tried again; None where nothing that was refused waits any more."""
    if not at.refused:
        return None
    return next_step(replace(at, refused=(), transfer="none" if at.transfer == "failed" else at.transfer))


# -- what is known -----------------------------------------------------------------------------------------------------


async def _ops(scope: Scope, *payment_ids: UUID) -> list[PaymentOp]:
    """Oldest first, the refunds among them."""
    kinds = (*payments.HOST_OPS, "refund")
    query = select(PaymentOp).where(PaymentOp.payment_id.in_(payment_ids), PaymentOp.kind.in_(kinds))
    return list((await scope.db.execute(query.order_by(PaymentOp.id))).scalars())


def position(payment: Payment, ops: Sequence[PaymentOp]) -> Position:
    """`ops`: the payment's, its refunds among them."""

    def made(kind: str, part: str = "amount_minor") -> int:
        return sum(op.request[part] for op in ops if op.kind == kind and op.state == "succeeded")

    transfers = [op for op in ops if op.kind == "host_transfer"]
    fees, latest = made("fee_refund", "fee_minor"), {op.kind: op for op in ops if op.kind != "refund"}
    with_fee = [op for op in ops if op.kind == "refund" and op.request.get(payments.FEE_LATER)]
    transfer = (
        {"succeeded": "made", "failed": "failed"}.get(transfers[-1].state, "none") if transfers else "none"
    )
    if any(op.request.get("gives_up") for op in ops):
        transfer = "given_up"
    return Position(
        share_minor=payment.passed_on_minor, fee_minor=payment.platform_fee_minor,
        captured_minor=payment.captured_minor, returned_minor=payment.refunded_minor + payment.repaid_minor,
        fee_returned_minor=sum(op.request["amount_minor"] for op in with_fee if op.state == "succeeded"),
        sent_minor=made("host_transfer"), taken_back_minor=made("host_reversal"),
        given_back_minor=made("fee_refund") - fees, fee_given_back_minor=fees, transfer=transfer,
        refused=tuple((op.kind, op.request["amount_minor"]) for op in latest.values() if op.state == "failed"),
    )  # fmt: skip


def _is_under_way(ops: Iterable[PaymentOp]) -> bool:
    return any(op.kind != "refund" and op.state not in ("succeeded", "failed") for op in ops)


# -- what happens next -------------------------------------------------------------------------------------------------


async def settle(database: Database, tenant_id: UUID, payment_id: UUID) -> None:
    """Whenever something about the payment is new: plans the next call, if there is one."""
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        await _go_on(scope, await payments.lock(scope, payment_id))


async def _go_on(scope: Scope, payment: Payment) -> None:
    ops = await _ops(scope, payment.id)
    if _is_under_way(ops) or payment.state not in payments.TAKEN or not payment.passed_on_minor:
        return
    step = next_step(position(payment, ops))
    if step is not None:
        await _ask(scope, payment, ops, step)


async def _ask(scope: Scope, payment: Payment, ops: Sequence[PaymentOp], step: Step, **more: Any) -> None:
    request = {"amount_minor": step.minor, "fee_minor": step.fee_minor, **more}
    key = f"{step.kind}:{payment.id}:{len([op for op in ops if op.kind == step.kind])}"
    await payments.plan_op(scope, payment, step.kind, key, request)


async def retry(scope: Scope, party: str, payment_id: UUID) -> None:
    """Staff have what was refused asked for once more, for the whole of it. `nothing_waits`."""
    payment, ops = await _stuck(scope, party, payment_id)
    step = stuck_step(position(payment, ops))
    if step is None:
        raise Refused("nothing_waits", "Nothing of this share waits to be tried again.")
    await _ask(scope, payment, ops, step)
    await audit.record(scope, "host_share.retried", "payment", payment.id, {"amount_minor": step.minor})


async def give_up(scope: Scope, party: str, payment_id: UUID) -> None:
    """A transfer that the provider refused is not tried again: the platform gives the share back to the operator, who
    pays the host by other means. `nothing_waits`."""
    payment, ops = await _stuck(scope, party, payment_id)
    at = position(payment, ops)
    if at.transfer != "failed" or at.held_minor <= 0:
        raise Refused("nothing_waits", "No transfer of this share was refused.")
    await _ask(scope, payment, ops, Step("fee_refund", at.held_minor), gives_up=True)
    await audit.record(scope, "host_share.given_up", "payment", payment.id, {"amount_minor": at.held_minor})


async def _stuck(scope: Scope, party: str, payment_id: UUID) -> tuple[Payment, list[PaymentOp]]:
    payment = await payments.lock(scope, payment_id)
    ops = await _ops(scope, payment.id)
    if payment.host_party != party or not ops or _is_under_way(ops):
        raise Refused("nothing_waits", "Nothing of this share was refused.")
    return payment, ops


async def list_moves(
    scope: Scope, party: str, payments_count: int = 20
) -> list[tuple[Payment, PaymentOp, bool]]:
    """(payment, call, does it wait for staff) of a host's latest payments, newest first."""
    query = (
        select(Payment).where(Payment.host_party == party, Payment.host_minor > 0)
        .order_by(Payment.id.desc()).limit(payments_count)
    )  # fmt: skip
    rows = {row.id: row for row in (await scope.db.execute(query)).scalars()}
    ops = await _ops(scope, *rows)
    stuck = _stuck_ops(rows, ops)
    return [(rows[op.payment_id], op, op.id in stuck) for op in reversed(ops) if op.kind != "refund"]


async def list_waiting(scope: Scope) -> set[str]:
    """The hosts (`hst_…`) of whose shares something was refused and waits for staff."""
    refused = select(PaymentOp.payment_id).where(
        PaymentOp.kind.in_(payments.HOST_OPS), PaymentOp.state == "failed"
    )
    query = select(Payment).where(Payment.id.in_(refused))
    rows = {row.id: row for row in (await scope.db.execute(query)).scalars()}
    ops = await _ops(scope, *rows)
    stuck = _stuck_ops(rows, ops)
    return {rows[op.payment_id].host_party for op in ops if op.id in stuck}


def _stuck_ops(rows: Mapping[UUID, Payment], ops: Iterable[PaymentOp]) -> set[UUID]:
    """Of each payment the refused call that staff can have tried again."""
    by_payment, found = defaultdict[UUID, list[PaymentOp]](list), set[UUID]()
    for op in ops:
        by_payment[op.payment_id].append(op)
    for payment_id, own in by_payment.items():
        step = None if _is_under_way(own) else stuck_step(position(rows[payment_id], own))
        found |= {op.id for op in own[::-1] if step and op.kind == step.kind and op.state == "failed"}
    return found


# -- the calls ---------------------------------------------------------------------------------------------------------


async def run_op(database: Database, tenant_id: UUID, op_id: UUID) -> None:
    """As `payments.run_op`: planned -> sent -> succeeded, failed or unknown, again after any crash."""
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        op = await scope.db.get(PaymentOp, (tenant_id, op_id))
        if op is None or op.state in ("succeeded", "failed"):
            return
        payment = await payments.get_payment(scope, op.payment_id)
        ops = await _ops(scope, payment.id)
        before = [one for one in ops if one.kind == op.kind and one.state == "failed"]
        is_repeated = op.state in ("sent", "unknown") or bool(before)
        op.state, op.updated_at = "sent", scope.now
    provider = payments.provider_of(database.settings)
    made = [one.provider_ref for one in ops if one.kind == "host_transfer" and one.provider_ref]
    ref = made[-1] if made else ""
    try:
        marks = {str(one.id) for one in (op, *before)}
        moved = await _find(provider, payment, op, ref, marks) if is_repeated else None
        moved = moved or await _call(provider, payment, op, ref)
    except OutcomeUnknown as error:
        async with database.scope(tenant_id, payments.ACTOR) as scope:
            op = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
            op.state, op.n = "unknown", op.n + error.is_final
        raise
    except Rejected as error:
        await _refused(database, tenant_id, op_id, error)
        return
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        payment = await payments.lock(scope, op.payment_id)
        done = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
        if done.state == "succeeded":
            return
        done.state, done.updated_at, done.provider_ref, done.response = (
            "succeeded",
            scope.now,
            moved.ref,
            None,
        )
        await _post(scope, payment, done)
        await _go_on(scope, payment)


async def _call(provider: Provider, payment: Payment, op: PaymentOp, transfer_ref: str) -> Moved:
    key = op.idem_key if op.n == 1 else f"{op.idem_key}:{op.n}"
    amount, marked = op.request["amount_minor"], str(op.id)
    if op.kind == "host_transfer":
        return await provider.transfer(
            payment.host_account_ref, amount_minor=amount, currency=payment.currency, group=_group(payment),
            marked=marked, key=key,
        )  # fmt: skip
    if op.kind == "host_reversal":
        return await provider.reverse_transfer(transfer_ref, amount_minor=amount, marked=marked, key=key)
    return await provider.refund_fee(
        payment.account_ref, payment.charge_ref or "", amount_minor=amount, marked=marked, key=key
    )


async def _find(
    provider: Provider, payment: Payment, op: PaymentOp, transfer_ref: str, marks: Collection[str]
) -> Moved | None:
    """What an earlier try made without our hearing of it: a key is remembered for a day only. Who may not look knows
    nothing: OutcomeUnknown."""
    try:
        if op.kind == "fee_refund":
            known = await provider.list_fee_refunds(payment.account_ref, payment.charge_ref or "")
        else:
            listed = await provider.list_transfers(_group(payment))
            known = [one for one, _back in listed]
            if op.kind == "host_reversal":
                known = [back for one, taken_back in listed if one.ref == transfer_ref for back in taken_back]
    except Rejected as error:
        raise OutcomeUnknown(error.code, str(error)) from error
    amount = op.request["amount_minor"]
    return next((one for one in known if one.marked in marks and one.amount_minor == amount), None)


def _group(payment: Payment) -> str:
    return f"payment_{payment.id}"


async def _refused(database: Database, tenant_id: UUID, op_id: UUID, error: Rejected) -> None:
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        op = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
        payment = await payments.lock(scope, op.payment_id)
        await scope.db.refresh(op)
        if op.state in ("succeeded", "failed"):
            return
        op.updated_at, op.response = scope.now, {"code": error.code, "message": str(error)[:500]}
        is_patient = op.created_at > scope.now - WAITS_AT_MOST
        if error.code == WAITS and op.kind != "host_reversal" and is_patient:
            op.state, op.n = (
                "planned",
                op.n + 1,
            )  # under another key: Stripe keeps what it answered under this one
            return
        op.state = "failed"
        news = {"amount_minor": op.request["amount_minor"], "kind": op.kind, "code": error.code}
        await audit.record(scope, "host_share.refused", "payment", payment.id, news)
        await events.emit(scope, "HostShareRefused", "payment", payment.id, news)
        await _go_on(scope, payment)


async def _post(scope: Scope, payment: Payment, op: PaymentOp) -> None:
    """The operator's book. On its way to the host it is a claim on the platform; what the platform gave back lies in
    the operator's account at the provider again."""
    amount, fee, currency = op.request["amount_minor"], op.request["fee_minor"], payment.currency
    held = Posting("host_share_held", amount - fee, currency, payment.host_party)
    if op.kind == "fee_refund":
        await ledger.post(scope, "host_share_back", "payment_op", op.id, scope.now, [
            Posting("psp_pending", amount, currency, payment.account_ref),
            replace(held, amount_minor=fee - amount), Posting("platform_fee_expense", -fee, currency),
        ])  # fmt: skip
        return
    sign = 1 if op.kind == "host_transfer" else -1
    await ledger.post(scope, op.kind, "payment_op", op.id, scope.now, [
        Posting("site_host_payable", sign * amount, currency, payment.host_party),
        replace(held, amount_minor=-sign * amount),
    ])  # fmt: skip
