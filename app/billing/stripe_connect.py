"""Stripe Connect, direct charges: every call names the CPO's account, the platform's fee is taken at capture.

The only module that imports stripe. Without a key the same code talks to the sandbox at Stripe's wire
(`app/billing/sandbox.py`). Keys are passed as options and are deterministic; the library's own random ones would be
worth nothing after a crash (money.md 1.5). Source: docs.stripe.com, API version 2026-10-28.endive.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import stripe

from app.billing import disputes, sandbox
from app.billing.provider import (
    PROFILES,
    Account,
    BalanceTxn,
    CardSeen,
    Checkout,
    DisputeSeen,
    Hold,
    Moved,
    News,
    Observation,
    OutcomeUnknown,
    Payout,
    Provider,
    RefundSeen,
    Rejected,
    Schedule,
    Setup,
)
from app.kernel.settings import Settings

TOLERANCE_S = 300
TIMEOUT_S = 20
MERCHANT_CATEGORY = "5552"  # electric vehicle charging
_OF_ACCOUNT: Any = ["configuration.merchant", "defaults", "requirements"]
_OF_RECIPIENT: Any = ["configuration.recipient", "requirements"]
_EXPAND_SETUP = ["setup_intent.payment_method"]
# Whoever's plan with Stripe and whose bank allow it; what became of it the charge says (money.md 1.3).
_LONGER = {"request_extended_authorization": "if_available"}
_LONGER_AND_HIGHER = {**_LONGER, "request_incremental_authorization": "if_available"}
_EXPAND_CHARGE = ["latest_charge.balance_transaction", "latest_charge.refunds"]
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
        """Accounts v2, by the installation's profile (`provider.PROFILES`)."""
        profile = PROFILES[self.settings.account_profile]
        params: Any = {
            "contact_email": email, "display_name": name, "dashboard": profile.dashboard,
            "identity": {"country": country.lower(), "entity_type": "company"},
            "configuration": {"merchant": {"capabilities": {"card_payments": {"requested": True}},
                                           "mcc": MERCHANT_CATEGORY}},
            "defaults": {"currency": currency.lower(),
                         "responsibilities": {
                             "fees_collector": profile.responsible, "losses_collector": profile.responsible}},
            "include": _OF_ACCOUNT,
        }  # fmt: skip
        return _account(
            await _called(self._client.v2.core.accounts.create_async(params, {"idempotency_key": key}))
        )

    async def get_account(self, ref: str) -> Account:
        params: Any = {"include": _OF_ACCOUNT}
        return _account(await _called(self._client.v2.core.accounts.retrieve_async(ref, params)))

    async def create_onboarding(self, account: str, *, return_url: str, refresh_url: str, key: str) -> str:
        """The address of the provider's own pages, where the operator says who they are: good once, for minutes."""
        made = await _called(self._client.v2.core.account_links.create_async({
            "account": account, "use_case": {"type": "account_onboarding", "account_onboarding": {
                "refresh_url": refresh_url, "return_url": return_url}},
        }, {"idempotency_key": key}))  # fmt: skip
        return made.url

    async def create_account_session(self, account: str, *, key: str) -> str:
        """The secret by which the operator's browser shows the provider's onboarding and notices within our page."""
        shown: Any = {"account_onboarding": {"enabled": True}, "notification_banner": {"enabled": True}}
        made = await _called(self._client.v1.account_sessions.create_async(
            {"account": account, "components": shown}, {"idempotency_key": key}
        ))  # fmt: skip
        return made.client_secret

    # -- what the platform passes on of its fees: of its own account, no header ----------------------------------------

    async def open_recipient(
        self, *, name: str, email: str, country: str, currency: str, key: str
    ) -> Account:
        """Accounts v2, of somebody who only receives: profile `saas_express`, the platform bears what is lost there."""
        made: Any = await _called(self._client.v2.core.accounts.create_async({
            "contact_email": email, "display_name": name, "dashboard": "express",
            "identity": {"country": country.lower()},
            "configuration": {"recipient": {"capabilities": {
                "stripe_balance": {"stripe_transfers": {"requested": True}}}}},
            "defaults": {"currency": currency.lower(),
                         "responsibilities": {"fees_collector": "application", "losses_collector": "application"}},
            "include": _OF_RECIPIENT,
        }, {"idempotency_key": key}))  # fmt: skip
        return _recipient(made)

    async def get_recipient(self, ref: str) -> Account:
        params: Any = {"include": _OF_RECIPIENT}
        return _recipient(await _called(self._client.v2.core.accounts.retrieve_async(ref, params)))

    async def transfer(
        self, destination: str, *, amount_minor: int, currency: str, group: str, marked: str, key: str
    ) -> Moved:
        """Rejected `balance_insufficient` while the platform's fees are not available yet: the same again later."""
        params: Any = {
            "amount": amount_minor, "currency": currency.lower(), "destination": destination, "transfer_group": group,
            "metadata": {"op": marked},
        }  # fmt: skip
        return _moved(await _called(self._client.v1.transfers.create_async(params, {"idempotency_key": key})))

    async def list_transfers(self, group: str) -> list[tuple[Moved, list[Moved]]]:
        """Of that group, each with what was taken back of it: one transfer is what a group has, seldom two."""
        params: Any = {"transfer_group": group, "limit": 100}
        found = await _called(self._client.v1.transfers.list_async(params))
        return [(_moved(one), [_moved(back) for back in one.reversals.data]) for one in found.data]

    async def reverse_transfer(self, ref: str, *, amount_minor: int, marked: str, key: str) -> Moved:
        params: Any = {"amount": amount_minor, "metadata": {"op": marked}}
        return _moved(
            await _called(
                self._client.v1.transfers.reversals.create_async(ref, params, {"idempotency_key": key})
            )
        )

    async def refund_fee(
        self, account: str, charge_ref: str, *, amount_minor: int, marked: str, key: str
    ) -> Moved:
        params: Any = {"amount": amount_minor, "metadata": {"op": marked}}
        fee = await self._fee_of(account, charge_ref)
        return _moved(
            await _called(
                self._client.v1.application_fees.refunds.create_async(fee, params, {"idempotency_key": key})
            )
        )

    async def list_fee_refunds(self, account: str, charge_ref: str) -> list[Moved]:
        fee = await self._fee_of(account, charge_ref)
        found = await _called(self._client.v1.application_fees.retrieve_async(fee))
        return [_moved(one) for one in found.refunds.data]

    async def _fee_of(self, account: str, charge_ref: str) -> str:
        options: Any = {"stripe_account": account}
        charge = await _called(self._client.v1.charges.retrieve_async(charge_ref, {}, options))
        if charge.application_fee is None:
            raise Rejected("no_fee", "This charge has no application fee.")
        return (
            charge.application_fee if isinstance(charge.application_fee, str) else charge.application_fee.id
        )

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
            "payment_method_options": {"card": _LONGER},
            "expand": ["payment_intent"],
        }  # fmt: skip
        if email:
            params["customer_email"] = email
        made = await _called(self._client.v1.checkout.sessions.create_async(params, _for(account, key)))
        return self._checkout(made)

    async def get_checkout(self, account: str, ref: str) -> Checkout:
        found = await _called(
            self._client.v1.checkout.sessions.retrieve_async(
                ref,
                {"expand": [f"payment_intent.{one}" for one in _EXPAND_CHARGE]},
                {"stripe_account": account},
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

    # -- saved cards ---------------------------------------------------------------------------------------------------

    async def create_customer(self, account: str, *, email: str, metadata: dict[str, str], key: str) -> str:
        params: Any = {"email": email, "metadata": metadata}
        return (await _called(self._client.v1.customers.create_async(params, _for(account, key)))).id

    async def delete_customer(self, account: str, ref: str) -> None:
        """With all cards of theirs. Stripe takes no key with a DELETE: gone is gone."""
        options: Any = {"stripe_account": account}
        await _called(self._client.v1.customers.delete_async(ref, {}, options))

    async def create_setup(
        self, account: str, *, customer: str, currency: str, success_url: str, cancel_url: str, language: str,
        metadata: dict[str, str], key: str,
    ) -> Setup:  # fmt: skip
        """A setup's intent is for use off session: that is Stripe's default, and Checkout takes no other."""
        params: Any = {
            "mode": "setup", "customer": customer, "currency": currency.lower(), "success_url": success_url,
            "cancel_url": cancel_url, "locale": language, "metadata": metadata,
            "allowed_payment_method_types": ["card"], "setup_intent_data": {"metadata": metadata},
            "expand": _EXPAND_SETUP,
        }  # fmt: skip
        return _setup(
            await _called(self._client.v1.checkout.sessions.create_async(params, _for(account, key)))
        )

    async def get_setup(self, account: str, ref: str) -> Setup:
        options: Any = {"stripe_account": account}
        params: Any = {"expand": _EXPAND_SETUP}
        return _setup(await _called(self._client.v1.checkout.sessions.retrieve_async(ref, params, options)))

    async def get_card(self, account: str, ref: str) -> CardSeen:
        options: Any = {"stripe_account": account}
        return _card(await _called(self._client.v1.payment_methods.retrieve_async(ref, {}, options)))

    async def detach_card(self, account: str, ref: str, *, key: str) -> None:
        await _called(self._client.v1.payment_methods.detach_async(ref, {}, _for(account, key)))

    async def create_payment(
        self, account: str, *, customer: str, card: str, amount_minor: int, currency: str, title: str,
        metadata: dict[str, str], key: str,
    ) -> Observation:  # fmt: skip
        """Nothing is asked of the card before `confirm_payment`: an intent whose id nobody heard holds nothing."""
        params: Any = {
            "amount": amount_minor, "currency": currency.lower(), "customer": customer, "payment_method": card,
            "capture_method": "manual", "description": title, "metadata": metadata,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "payment_method_options": {"card": _LONGER_AND_HIGHER}, "expand": _EXPAND_CHARGE,
        }  # fmt: skip
        return observe(
            await _called(self._client.v1.payment_intents.create_async(params, _for(account, key)))
        )

    async def confirm_payment(self, account: str, ref: str, *, key: str) -> Observation:
        """Nobody stands by to authenticate: a bank that wants it is `authentication_required`, and nothing is held."""
        params: Any = {"off_session": True, "expand": _EXPAND_CHARGE}
        return observe(
            await _called(self._client.v1.payment_intents.confirm_async(ref, params, _for(account, key)))
        )

    async def increment(self, account: str, ref: str, *, amount_minor: int, key: str) -> Observation:
        """`amount_minor`: all that is to be held from now on. A bank that refuses leaves the hold as it was."""
        params: Any = {"amount": amount_minor, "expand": _EXPAND_CHARGE}
        intents, options = self._client.v1.payment_intents, _for(account, key)
        return observe(await _called(intents.increment_authorization_async(ref, params, options)))

    # -- payments ------------------------------------------------------------------------------------------------------

    async def get_payment(self, account: str, ref: str) -> Observation:
        options: Any = {"stripe_account": account}
        params: Any = {"expand": [*_EXPAND_CHARGE, "latest_charge.refunds.data.balance_transaction"]}
        found = await _called(self._client.v1.payment_intents.retrieve_async(ref, params, options))
        charge = found.latest_charge
        if charge is None or isinstance(charge, str) or not (charge.refunds and charge.refunds.has_more):
            return observe(found)
        asked: Any = {"payment_intent": ref, "limit": 100, "expand": ["data.balance_transaction"]}
        return observe(found, await self._all(self._client.v1.refunds.list_async, asked, account))

    async def list_holds(self, account: str, since: datetime) -> list[Hold]:
        """Stripe's list knows no state, so all of them are read; its search would, but may be minutes late."""
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": 100}
        return [
            Hold(
                ref=one.id,
                created_at=_time(one.created),
                metadata=one.metadata.to_dict() if one.metadata else {},
            )
            for one in await self._all(self._client.v1.payment_intents.list_async, params, account)
            if one.status == "requires_capture"
        ]

    async def capture(
        self, account: str, ref: str, *, amount_minor: int, fee_minor: int, key: str
    ) -> Observation:
        params: Any = {"amount_to_capture": amount_minor, "expand": _EXPAND_CHARGE}
        if fee_minor:
            params["application_fee_amount"] = fee_minor
        return observe(
            await _called(self._client.v1.payment_intents.capture_async(ref, params, _for(account, key)))
        )

    async def cancel(self, account: str, ref: str, *, key: str) -> Observation:
        params: Any = {"cancellation_reason": "requested_by_customer", "expand": _EXPAND_CHARGE}
        return observe(
            await _called(self._client.v1.payment_intents.cancel_async(ref, params, _for(account, key)))
        )

    async def refund(
        self,
        account: str,
        ref: str,
        *,
        amount_minor: int,
        reason: str,
        key: str,
        marked: str = "",
        returns_fee: bool = False,
    ) -> str:
        params: Any = {
            "payment_intent": ref, "amount": amount_minor, "reason": "requested_by_customer",
            "metadata": {"reason": reason[:500]} | ({"refund": marked} if marked else {}),
        }  # fmt: skip
        if returns_fee:
            params["refund_application_fee"] = True
        made = await _called(self._client.v1.refunds.create_async(params, _for(account, key)))
        return made.id

    # -- the account's own books ---------------------------------------------------------------------------------------

    async def list_balance_txns(
        self, account: str, since: datetime, payout: str | None = None
    ) -> list[BalanceTxn]:
        """Oldest first; with `payout` what went out with it, without the payout's own line."""
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": 100, "expand": ["data.source"]}
        if payout is not None:
            params = {"payout": payout, "limit": 100, "expand": ["data.source"]}
        found = await self._all(self._client.v1.balance_transactions.list_async, params, account)
        return [_balance_txn(one) for one in reversed(found) if payout is None or one.type != "payout"]

    async def get_balance(self, account: str) -> dict[str, int]:
        """By currency: what is available and what is pending together, minor units."""
        found = await _called(self._client.v1.balance.retrieve_async({}, {"stripe_account": account}))
        sums: dict[str, int] = {}
        for part in (*found.available, *found.pending):
            sums[part.currency.upper()] = sums.get(part.currency.upper(), 0) + part.amount
        return sums

    async def list_payouts(self, account: str, since: datetime) -> list[Payout]:
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": 100}
        found = await self._all(self._client.v1.payouts.list_async, params, account)
        return [
            Payout(
                ref=one.id, state=one.status, amount_minor=one.amount, currency=one.currency.upper(),
                created_at=_time(one.created), arrives_on=_time(one.arrival_date).date(), is_automatic=one.automatic,
                is_itemised=one.reconciliation_status == "completed", failure=one.failure_message or "",
            )
            for one in reversed(found)
        ]  # fmt: skip

    async def _all(self, listing: Callable[..., Awaitable[Any]], params: Any, account: str) -> list[Any]:
        found: list[Any] = []
        while True:
            part = await _called(listing(params, {"stripe_account": account}))
            found += part.data
            if not part.has_more:
                return found
            params["starting_after"] = part.data[-1].id

    async def get_schedule(self, account: str) -> Schedule:
        options: Any = {"stripe_account": account}
        return _schedule(await _called(self._client.v1.balance_settings.retrieve_async({}, options)))

    async def set_delay(self, account: str, days: int, *, key: str) -> None:
        params: Any = {"payments": {"settlement_timing": {"delay_days_override": days}}}
        await _called(self._client.v1.balance_settings.update_async(params, _for(account, key)))

    async def set_schedule(self, account: str, schedule: Schedule, *, key: str) -> Schedule:
        asked: dict[str, Any] = {"interval": schedule.interval}
        if schedule.interval == "weekly":
            asked["weekly_payout_days"] = list(schedule.days)
        if schedule.interval == "monthly":
            asked["monthly_payout_days"] = [int(day) for day in schedule.days]
        params: Any = {"payments": {"payouts": {"schedule": asked}}}
        return _schedule(
            await _called(self._client.v1.balance_settings.update_async(params, _for(account, key)))
        )

    # -- disputes ------------------------------------------------------------------------------------------------------

    async def list_disputes(
        self, account: str, *, payment_ref: str = "", since: datetime | None = None
    ) -> list[DisputeSeen]:
        """Of one payment, or of the whole account since then; other money of the account's is among them."""
        params: Any = {"limit": 100}
        if payment_ref:
            params["payment_intent"] = payment_ref
        if since is not None:
            params["created"] = {"gte": int(since.timestamp())}
        found = await self._all(self._client.v1.disputes.list_async, params, account)
        return [observe_dispute(one) for one in found]

    async def submit_evidence(
        self, account: str, ref: str, *, evidence: dict[str, str], key: str
    ) -> DisputeSeen:
        """It goes to the bank at once, and no more is taken after it."""
        params: Any = {"evidence": evidence, "submit": True}
        return observe_dispute(
            await _called(self._client.v1.disputes.update_async(ref, params, _for(account, key)))
        )

    async def accept_dispute(self, account: str, ref: str, *, key: str) -> DisputeSeen:
        return observe_dispute(
            await _called(self._client.v1.disputes.close_async(ref, {}, _for(account, key)))
        )

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


def _account(found: Any) -> Account:
    return _as_account(found, found.configuration.merchant.capabilities.card_payments.status)


def _recipient(found: Any) -> Account:
    return _as_account(
        found, found.configuration.recipient.capabilities.stripe_balance.stripe_transfers.status
    )


def _moved(found: Any) -> Moved:
    metadata = found.metadata.to_dict() if found.metadata else {}
    return Moved(ref=found.id, marked=metadata.get("op", ""), amount_minor=found.amount)


def _as_account(found: Any, status: str) -> Account:
    entries = (found.requirements.entries or []) if found.requirements else []
    due = tuple(one.description for one in entries if one.awaiting_action_from == "user")
    shared = found.defaults.responsibilities if found.defaults else None
    return Account(
        ref=found.id, is_ready=status == "active", is_live=bool(found.livemode), due=due,
        losses_borne_by=(shared.losses_collector if shared else None) or "stripe",
    )  # fmt: skip


def _balance_txn(found: Any) -> BalanceTxn:
    source = None if isinstance(found.source, str) else found.source
    ref = (source.id if source is not None else found.source) or ""
    charge = ref if ref.startswith(("ch_", "py_")) else getattr(source, "charge", None) or ""
    return BalanceTxn(
        ref=found.id, category=found.reporting_category, type=found.type, amount_minor=found.amount,
        fee_minor=found.fee, currency=found.currency.upper(), source_ref=ref,
        charge_ref=charge if isinstance(charge, str) else charge.id, created_at=_time(found.created),
        available_at=_time(found.available_on), is_pending=found.status == "pending",
    )  # fmt: skip


def _schedule(settings: Any) -> Schedule:
    payments = settings.payments
    found = payments.payouts.schedule if payments.payouts else None
    if found is None:
        return Schedule("manual")
    days = {
        "weekly": getattr(found, "weekly_payout_days", None), "monthly": getattr(found, "monthly_payout_days", None),
    }.get(found.interval)  # fmt: skip
    return Schedule(
        found.interval, tuple(str(day) for day in days or ()), payments.settlement_timing.delay_days
    )


def _setup(found: Any) -> Setup:
    intent = found.setup_intent
    method = intent.payment_method if intent is not None and intent.status == "succeeded" else None
    return Setup(
        ref=found.id, status=found.status, url=found.url, setup_ref=intent.id if intent is not None else None,
        card=_card(method) if method is not None else None,
    )  # fmt: skip


def _card(found: Any) -> CardSeen:
    customer, card = found.customer, found.card
    return CardSeen(
        ref=found.id, customer_ref=(customer if isinstance(customer, str) else customer.id) if customer else "",
        brand=card.brand, last4=card.last4, exp_month=card.exp_month, exp_year=card.exp_year,
        fingerprint=card.fingerprint or "",
    )  # fmt: skip


def observe(intent: Any, refunds: Sequence[Any] | None = None) -> Observation:
    """Of a payment intent with its latest charge expanded, where there is one; `refunds` are all of them where they
    are more than the ten that come along."""
    charge = intent.latest_charge
    charge = None if isinstance(charge, str) else charge
    card = charge.payment_method_details.card if charge and charge.payment_method_details else None
    txn = charge.balance_transaction if charge else None
    details = txn.fee_details if txn is not None and not isinstance(txn, str) else []
    state, refunded, came_back = _STATES.get(intent.status, "failed"), 0, 0
    listed: Sequence[Any] = charge.refunds.data if charge and charge.refunds else ()
    listed = listed if refunds is None else refunds
    if intent.status == "succeeded":
        state, refunded, came_back = "captured", *_given_back(listed)
    error = intent.last_payment_error
    # Once it was taken or let go nothing is capturable any more: what was held the charge still says.
    held = charge.amount if charge and charge.paid else 0
    return Observation(
        provider_ref=intent.id, state=state, hold_minor=held or intent.amount_capturable or 0,
        captured_minor=intent.amount_received or 0, refunded_minor=refunded,
        refund_failed_minor=came_back, fee_minor=intent.application_fee_amount or 0,
        provider_fee_minor=sum(part.amount for part in details if part.type == "stripe_fee"),
        capture_before=_time(card.capture_before) if card and card.capture_before else None,
        charge_ref=charge.id if charge else None,
        method=f"{(card.brand or 'card').capitalize()} •••• {card.last4}" if card else "",
        failure=(error.code or "declined") if error else "", is_live=bool(intent.livemode),
        is_disputed=bool(charge and charge.disputed),
        three_d_secure=(card.three_d_secure.result or "") if card and card.three_d_secure else "",
        is_incremental=_says(card, "incremental_authorization") == "available",
        is_extended=_says(card, "extended_authorization") == "enabled",
        refunds=tuple(_refund(one) for one in listed), fees_back=_fees_back(listed),
    )  # fmt: skip


def _says(card: Any, name: str) -> str:
    """What the charge says of a capability; nothing of one that was not asked for."""
    found = getattr(card, name, None) if card else None
    return found.status if found else ""


def _fees_back(refunds: Sequence[Any]) -> tuple[tuple[str, int], ...]:
    """By the balance transactions of the refunds, where they came along: a fee below 0 came back."""
    txns = [(one.id, one.balance_transaction) for one in refunds]
    found = [
        (ref, -sum(part.amount for part in txn.fee_details if part.type == "application_fee"))
        for ref, txn in txns
        if txn and not isinstance(txn, str)
    ]
    return tuple((ref, minor) for ref, minor in found if minor > 0)


def _given_back(refunds: Sequence[Any]) -> tuple[int, int]:
    """(what went back and stayed there, what was sent back to the account), by the refunds that moved money: a
    charge's `amount_refunded` counts the released rest of the hold too, for "any additional amount will be
    automatically refunded" (docs.stripe.com/api/charges/capture)."""
    moved = [one for one in refunds if one.balance_transaction]
    failed = sum(one.amount for one in moved if one.status in _FAILED)
    return sum(one.amount for one in moved) - failed, failed


_FAILED = ("failed", "canceled")


def _refund(found: Any) -> RefundSeen:
    metadata = found.metadata.to_dict() if found.metadata else {}
    return RefundSeen(
        ref=found.id, marked=metadata.get("refund", ""), is_failed=found.status in _FAILED,
        failure=getattr(found, "failure_reason", None) or ("canceled" if found.status == "canceled" else ""),
    )  # fmt: skip


# An appeal is against a loss, and the money stays away until it is won; one that was prevented took none. What we do
# not know is for the bank to decide.
_DISPUTE_STATES = {
    **{state: state for state in disputes.RANK}, "appeal_needs_response": "lost", "appeal_under_review": "lost",
    "prevented": "warning_closed",
}  # fmt: skip


def observe_dispute(found: Any) -> DisputeSeen:
    """By its balance transactions the money is away, or back; what Stripe keeps for it stands there too."""
    txns = [txn for txn in found.balance_transactions if not isinstance(txn, str)]
    intent, details = found.payment_intent, found.evidence_details
    return DisputeSeen(
        ref=found.id, payment_ref=(intent if isinstance(intent, str) else intent.id) if intent else "",
        amount_minor=found.amount, currency=found.currency.upper(), reason=found.reason,
        network_reason=found.network_reason_code or "", state=_DISPUTE_STATES.get(found.status, "under_review"),
        created_at=_time(found.created), due_by=_time(details.due_by) if details.due_by else None,
        is_withdrawn=any(txn.amount < 0 for txn in txns), is_reinstated=any(txn.amount > 0 for txn in txns),
        fee_minor=sum(txn.fee for txn in txns), submission_count=details.submission_count,
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
