"""Stripe Connect, direct charges: every call names the CPO's account, the platform's fee is taken at capture.

The only module that imports stripe. Without a key the same code talks to the sandbox at Stripe's wire
(`app/billing/sandbox.py`). Keys are passed as options and are deterministic; the library's own random ones would be
worth nothing after a crash (money.md 1.5). Source: docs.stripe.com, API version 2026-10-28.endive.
"""

import json
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import stripe

from app.billing import sandbox
from app.billing.provider import (
    Account,
    Checkout,
    Hold,
    News,
    Observation,
    OutcomeUnknown,
    Provider,
    Rejected,
)
from app.kernel.settings import Settings

TOLERANCE_S = 300
TIMEOUT_S = 20
MERCHANT_CATEGORY = "5552"  # electric vehicle charging
_EXPAND_CHARGE = "latest_charge.balance_transaction"
_T = TypeVar("_T")

_STATES = {
    "requires_payment_method": "created", "requires_confirmation": "created", "requires_action": "requires_action",
    "processing": "processing", "requires_capture": "authorized", "canceled": "canceled",
}  # fmt: skip


class Wire(stripe.HTTPClient):
    """stripe-python over httpx2, to a base address of our own; `host` is told where the address alone is not it."""

    name = "livery"

    def __init__(self, host: str | None, transport: httpx2.AsyncBaseTransport | None) -> None:
        super().__init__()
        self._host = host
        self._client = httpx2.AsyncClient(timeout=TIMEOUT_S, transport=transport)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None, **_more: Any
    ) -> tuple[bytes, int, Mapping[str, str]]:
        sent = dict(headers) | ({"Host": self._host} if self._host else {})
        try:
            answer = await self._client.request(method.upper(), url, headers=sent, content=post_data)
        except httpx2.HTTPError as error:
            raise stripe.APIConnectionError(str(error) or type(error).__name__) from error
        return answer.content, answer.status_code, dict(answer.headers)

    async def sleep_async(self, secs: float) -> None:
        raise NotImplementedError("the port does not retry: the caller's job does")

    def close(self) -> None:
        pass

    async def close_async(self) -> None:
        await self._client.aclose()


class StripeConnect(Provider):
    def __init__(
        self, settings: Settings, *, transport: httpx2.AsyncBaseTransport | None = None, wire: Any = None
    ) -> None:
        self.settings = settings
        key = settings.stripe_secret_key
        self.name = "stripe" if key else "sandbox"
        self.is_live = bool(key and "_live_" in key)
        base = settings.stripe_api_base
        if self.is_live and base and urlsplit(base).scheme != "https":
            raise ValueError("STRIPE_API_BASE must be https with a live key")
        host = None
        if not key and not base:
            base = f"http://127.0.0.1:{settings.web_port}"
            host = settings.host_of("sandbox") + settings.web_origin_port
        options: dict[str, Any] = {"base_addresses": {"api": base.rstrip("/")}} if base else {}
        self._client = stripe.StripeClient(
            key or sandbox.api_key(settings), http_client=wire or Wire(host, transport), max_network_retries=0,
            stripe_version=sandbox.API_VERSION, **options,
        )  # fmt: skip
        self._secret = (
            settings.stripe_connect_webhook_secret if key else sandbox.webhook_secret(settings)
        ) or ""

    # -- accounts ------------------------------------------------------------------------------------------------------

    async def open_account(self, *, name: str, email: str, country: str, currency: str, key: str) -> Account:
        """Accounts v2, profile `saas`: full dashboard, Stripe bears fees and losses (money.md 0.2)."""
        made: Any = await _called(self._client.v2.core.accounts.create_async({
            "contact_email": email, "display_name": name, "dashboard": "full",
            "identity": {"country": country.lower(), "entity_type": "company"},
            "configuration": {"merchant": {"capabilities": {"card_payments": {"requested": True}},
                                           "mcc": MERCHANT_CATEGORY}},
            "defaults": {"currency": currency.lower(),
                         "responsibilities": {"fees_collector": "stripe", "losses_collector": "stripe"}},
            "include": ["configuration.merchant"],
        }, {"idempotency_key": key}))  # fmt: skip
        capability = made.configuration.merchant.capabilities.card_payments
        return Account(ref=made.id, is_ready=capability.status == "active", is_live=bool(made.livemode))

    # -- checkout ------------------------------------------------------------------------------------------------------

    async def create_checkout(
        self, account: str, *, amount_minor: int, currency: str, title: str, success_url: str, cancel_url: str,
        expires_at: datetime, metadata: dict[str, str], email: str, language: str, key: str,
    ) -> Checkout:  # fmt: skip
        params: Any = {
            "mode": "payment", "success_url": success_url, "cancel_url": cancel_url, "locale": language,
            "expires_at": int(expires_at.timestamp()), "metadata": metadata,
            "line_items": [{"quantity": 1, "price_data": {
                "currency": currency.lower(), "unit_amount": amount_minor, "product_data": {"name": title}}}],
            "payment_intent_data": {"capture_method": "manual", "metadata": metadata, "description": title},
            "expand": ["payment_intent"],
        }  # fmt: skip
        if email:
            params["customer_email"] = email
        made = await _called(self._client.v1.checkout.sessions.create_async(params, _for(account, key)))
        return self._checkout(made)

    async def get_checkout(self, account: str, ref: str) -> Checkout:
        found = await _called(
            self._client.v1.checkout.sessions.retrieve_async(
                ref, {"expand": [f"payment_intent.{_EXPAND_CHARGE}"]}, {"stripe_account": account}
            )
        )
        return self._checkout(found)

    async def expire_checkout(self, account: str, ref: str, *, key: str) -> Checkout:
        """Refused (`payment_intent_unexpected_state` or the like) where the payer was quicker: read it then."""
        gone = await _called(
            self._client.v1.checkout.sessions.expire_async(
                ref, {"expand": ["payment_intent"]}, _for(account, key)
            )
        )
        return self._checkout(gone)

    def _checkout(self, found: Any) -> Checkout:
        details = found.customer_details
        return Checkout(
            ref=found.id, status=found.status, url=found.url, expires_at=_time(found.expires_at),
            payment=observe(found.payment_intent) if found.payment_intent else None,
            email=(details.email if details else None) or "",
        )  # fmt: skip

    # -- payments ------------------------------------------------------------------------------------------------------

    async def get_payment(self, account: str, ref: str) -> Observation:
        options: Any = {"stripe_account": account}
        params: Any = {"expand": [_EXPAND_CHARGE]}
        return observe(await _called(self._client.v1.payment_intents.retrieve_async(ref, params, options)))

    async def list_holds(self, account: str, since: datetime) -> list[Hold]:
        """Stripe's list knows no state, so all of them are read; its search would, but may be minutes late."""
        found: list[Hold] = []
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": 100}
        while True:
            part = await _called(
                self._client.v1.payment_intents.list_async(params, {"stripe_account": account})
            )
            found += [
                Hold(
                    ref=one.id,
                    created_at=_time(one.created),
                    metadata=one.metadata.to_dict() if one.metadata else {},
                )
                for one in part.data
                if one.status == "requires_capture"
            ]
            if not part.has_more:
                return found
            params["starting_after"] = part.data[-1].id

    async def capture(
        self, account: str, ref: str, *, amount_minor: int, fee_minor: int, key: str
    ) -> Observation:
        params: Any = {"amount_to_capture": amount_minor, "expand": [_EXPAND_CHARGE]}
        if fee_minor:
            params["application_fee_amount"] = fee_minor
        return observe(
            await _called(self._client.v1.payment_intents.capture_async(ref, params, _for(account, key)))
        )

    async def cancel(self, account: str, ref: str, *, key: str) -> Observation:
        params: Any = {"cancellation_reason": "requested_by_customer", "expand": [_EXPAND_CHARGE]}
        return observe(
            await _called(self._client.v1.payment_intents.cancel_async(ref, params, _for(account, key)))
        )

    async def refund(self, account: str, ref: str, *, amount_minor: int, reason: str, key: str) -> str:
        params: Any = {
            "payment_intent": ref, "amount": amount_minor, "reason": "requested_by_customer",
            "metadata": {"reason": reason[:500]},
        }  # fmt: skip
        made = await _called(self._client.v1.refunds.create_async(params, _for(account, key)))
        return made.id

    # -- news ----------------------------------------------------------------------------------------------------------

    def read_webhook(self, body: bytes, signature: str, now: datetime) -> News:
        """Rejected for a wrong signature, and for a time that is not now: the library takes any future time."""
        try:
            stripe.WebhookSignature.verify_header(body.decode(), signature, self._secret, TOLERANCE_S)
            stamp = next(part[2:] for part in signature.split(",") if part.startswith("t="))
            event = json.loads(body)
        except (stripe.SignatureVerificationError, StopIteration, ValueError) as error:
            raise Rejected("signature", "the webhook's signature is wrong") from error
        if not stamp.isdigit() or abs(int(stamp) - now.timestamp()) > TOLERANCE_S:
            raise Rejected("signature", "the webhook was signed at another time")
        thing = event.get("data", {}).get("object", {})
        payment = thing["id"] if thing.get("object") == "payment_intent" else thing.get("payment_intent")
        return News(
            event_id=str(event["id"]), type=str(event["type"]), account_ref=str(event.get("account") or ""),
            object_ref=str(thing.get("id") or ""), payment_ref=payment if isinstance(payment, str) else None,
            marked=str((thing.get("metadata") or {}).get("payment") or ""), is_live=bool(event.get("livemode")),
            body=event,
        )  # fmt: skip


def _for(account: str, key: str) -> Any:
    return {"stripe_account": account, "idempotency_key": key}


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def observe(intent: Any) -> Observation:
    """Of a payment intent with its latest charge expanded, where there is one."""
    charge = intent.latest_charge
    charge = None if isinstance(charge, str) else charge
    card = charge.payment_method_details.card if charge and charge.payment_method_details else None
    txn = charge.balance_transaction if charge else None
    details = txn.fee_details if txn is not None and not isinstance(txn, str) else []
    state, refunded = _STATES.get(intent.status, "failed"), 0
    if intent.status == "succeeded":
        refunded = charge.amount_refunded if charge else 0
        state = "captured"
    error = intent.last_payment_error
    # Once it was taken or let go nothing is capturable any more: what was held the charge still says.
    held = charge.amount if charge and charge.paid else 0
    return Observation(
        provider_ref=intent.id, state=state, hold_minor=held or intent.amount_capturable or 0,
        captured_minor=intent.amount_received or 0, refunded_minor=refunded,
        fee_minor=intent.application_fee_amount or 0,
        provider_fee_minor=sum(part.amount for part in details if part.type == "stripe_fee"),
        capture_before=_time(card.capture_before) if card and card.capture_before else None,
        charge_ref=charge.id if charge else None,
        method=f"{(card.brand or 'card').capitalize()} •••• {card.last4}" if card else "",
        failure=(error.code or "declined") if error else "", is_live=bool(intent.livemode),
    )  # fmt: skip


async def _called(call: Awaitable[_T]) -> _T:
    """stripe's errors as the port's: what certainly did not happen, and what may have.

    Stripe keeps a 500 under its key. 409 says that a call with this key is still under way, 429 and the other 5xx come
    from before it: none of them ends anything, and another key could do the same a second time.
    """
    try:
        return await call
    except stripe.CardError as error:
        raise Rejected(error.code or "declined", str(error)) from error
    except (stripe.InvalidRequestError, stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Rejected(error.code or "refused", str(error)) from error
    except stripe.IdempotencyError as error:
        if error.http_status == 409:
            raise OutcomeUnknown("idempotency", str(error)) from error
        raise Rejected("idempotency", str(error)) from error
    except stripe.StripeError as error:
        is_final = error.http_status == 500
        raise OutcomeUnknown(type(error).__name__, str(error), is_final=is_final) from error
