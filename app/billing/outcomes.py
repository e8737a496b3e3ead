"""How a payment stands, in words for whoever runs the brand."""

from dataclasses import dataclass

from app.billing.models import Payment, PaymentOp

PAYMENT_STATES = {
    "held": ("authorized", "capturing"), "taken": ("captured", "partially_refunded", "refunded"),
    "open": ("created", "requires_action", "processing"), "ended": ("canceled", "expired", "failed"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a payment stands as far as is known: a pill, its label where it is not the state's own, and why."""

    pill: str
    label: str | None = None
    why: str = ""


def outcome(payment: Payment) -> Outcome:
    """A payer who gave up, or whose card was declined, waits for nothing, whatever state its page is in. What
    a saved card did not pay is owed."""
    failure = payment.failure
    if payment.provider == "terminal" and payment.state == "created":
        return Outcome("created", "Nothing told yet", "The card terminal has told nothing of it")
    if payment.is_due:
        return Outcome("owed", why=_why(failure) if failure not in DECLINED else DECLINED[failure])
    if not failure or payment.state not in (*PAYMENT_STATES["open"], *PAYMENT_STATES["ended"]):
        return Outcome(payment.state, why=_why(failure))
    if failure == "given_up":
        return Outcome("canceled", "Given up", "The payer canceled")
    if failure in DECLINED:
        return Outcome("failed", "Declined", DECLINED[failure])
    pill = "canceled" if payment.state in PAYMENT_STATES["open"] else payment.state
    return Outcome(pill, why=_why(failure))


def _why(failure: str) -> str:
    return _FAILURES.get(failure) or failure.replace("_", " ").capitalize()


def answer(op: PaymentOp) -> str:
    """What the provider said to a call, where it said more than yes; else empty."""
    if not op.response:
        return ""
    code = op.response.get("code")
    if code in _ENDED and op.state in ("succeeded", "failed"):
        known = _HAPPENED if op.state == "succeeded" else _CAME_TOO_LATE
        if op.kind in known:
            return known[op.kind]
    if op.kind == "refund" and op.response.get("came_back"):
        return f"Came back: {why_refused(op)}"
    if op.kind == "refund" and code in _REFUSED:
        return _REFUSED[code].capitalize()
    return op.response.get("message") or code or "–"


def why_refused(refund: PaymentOp | None) -> str:
    """A clause without its full stop: why the payer has nothing back. None: of a refund that none of our calls made."""
    if refund is None:
        return "the card's bank sent it back"
    response = refund.response or {}
    known = _REFUSED.get(response.get("code") or "")
    return known or str(response.get("message") or response.get("code") or "it gave no reason").rstrip(".")


_REFUSED = {
    "balance_insufficient": "there is too little money in the account at the provider",
    "charge_disputed": "the payer has disputed the payment at their bank",
    "expired_or_canceled_card": "the card is no longer valid",
    "lost_or_stolen_card": "the card was lost or stolen",
    "declined": "the card's bank refused it",
    "unknown": "the card's bank gave no reason",
    "merchant_request": "it was taken back at the provider",
    "canceled": "it was taken back at the provider",
    "at_the_terminal": "it was paid at a card terminal, and its acquirer gives it back",
}
# What was asked for does not fit how the hold stands by now.
_ENDED = ("payment_intent_unexpected_state", "charge_expired_for_capture")
_HAPPENED = {"cancel": "The hold had ended by itself", "capture": "It had been taken already"}
_CAME_TOO_LATE = {"cancel": "The hold had ended", "capture": "The hold had ended"}
_FAILURES = {
    "below_minimum": "Too little for a card", "nothing_owed": "Nothing was owed", "over": "The session was over",
    "checkout_expired": "No card was given in time", "evse_taken": "Somebody else was quicker",
    "evse_busy": "The charger was in use", "evse_faulted": "The charger reported a fault",
    "evse_unavailable": "The charger was out of service", "station_offline": "The charger was offline",
    "not_needed": "The other holds were enough", "followed": "The next hold took its place",
    "under_review": "Nothing that was measured could be believed",
    "station_refused": "The charger refused the start", "not_plugged_in": "Nobody plugged in",
    **dict.fromkeys(_ENDED, "The hold had ended"),
}  # fmt: skip


# By the provider's code of an error with a card.
DECLINED = {
    "declined": "The bank refused the card", "card_declined": "The bank refused the card",
    "insufficient_funds": "Too little money on the card", "expired_card": "The card has expired",
    "incorrect_number": "The card's number is wrong", "incorrect_cvc": "The card's security code is wrong",
    "processing_error": "The bank could not be reached",
    "resource_missing": "The card was taken back",
    "authentication_required": "The bank wants the payer to confirm it",
    "payment_intent_authentication_failure": "The bank could not confirm who paid",
}  # fmt: skip


# By `payments.Settled.why`.
WAIVED_WORDS = {
    "below_minimum": "All of it was too little for a card", "not_taken": "The hold could not be taken any more",
    "above_hold": "This part lay above the hold", "corrected": "A correction came to more than was taken",
}  # fmt: skip
