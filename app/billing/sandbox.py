"""A card payment provider of our own at Stripe's wire: what the Stripe adapter talks to where no key is set.

It keeps Stripe's rules where money could go wrong (money.md 3.2): state machine, one capture, capture <= hold, expiry
of holds, idempotency per account with replayed answers, accounts that do not see each other. Its state lies in schema
`sandbox` and survives a restart. Nothing of it exists where a real key is set. `handle` is one wire request in one
transaction; the faults of a plan (`set_faults`) let tests lose an answer at any step.
"""

import copy
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.card_currencies import CARD_CURRENCIES
from app.kernel.clock import utcnow
from app.kernel.money import half_up
from app.kernel.secrets import digest
from app.kernel.settings import Settings
from tenants.database import Database
from themes.language import N_

API_VERSION = "2026-10-28.endive"
HOLD_LIFETIME_S = 7 * 86_400
OFF_SESSION_LIFETIME_S = 4 * 86_400 + 18 * 3600  # Visa's, where the merchant asks (money.md 1.3)
CHECKOUT_LIFETIME_S = 24 * 3600
DAY_S = 86_400
DELAY_DAYS = 2
CARDS = {
    "4242424242424242": ("visa", "ok", N_("pays")),
    "5555555555554444": ("mastercard", "ok", N_("pays")),
    "4000002760003184": ("visa", "authenticate", N_("asks for 3-D Secure")),
    "4000000000000002": ("visa", "card_declined", N_("is declined")),
    "4000000000009995": ("visa", "insufficient_funds", N_("has no money")),
    "4000000000000069": ("visa", "expired_card", N_("has expired")),
    "4000000000000259": ("visa", "ok", N_("pays, and disputes it afterwards")),
    "4000000000001976": ("visa", "ok", N_("pays, and its bank asks afterwards")),
    "4000000000005126": ("visa", "ok", N_("pays, and a refund fails an hour later")),
    "4000000000007726": ("visa", "ok", N_("pays, and a refund is pending for an hour")),
}
# Only where a card is saved, or a saved one is asked (docs.stripe.com/testing#regulatory-cards, #declined-payments).
SAVED_CARDS = {
    "4000002500003155": ("visa", "authenticate_once", N_("asks for 3-D Secure once, when it is saved")),
    "4000000000000341": ("visa", "declined_later", N_("can be saved, and is declined later")),
    "4000000000010009": ("visa", "raises", N_("lets its hold be raised")),
    "4000000000010017": ("visa", "raises_once", N_("lets its hold be raised once")),
    "5200000000010003": ("mastercard", "extends", N_("holds for 30 days")),
}
MOST_INCREMENTS = 10
EXTENDED_LIFETIME_S = 30 * 86_400
_ALL_CARDS = CARDS | SAVED_CARDS
_SAYS_YES = ("ok", "raises", "raises_once", "extends")
# What happens once the money was taken (docs.stripe.com/testing#disputes).
DISPUTING = {"4000000000000259": "needs_response", "4000000000001976": "warning_needs_response"}
# How a refund begins, and what becomes of it (docs.stripe.com/testing#refunds).
REFUNDING = {"4000000000005126": ("succeeded", "failed"), "4000000000007726": ("pending", "succeeded")}
REFUND_SETTLES_S = 3600
DECLINES = {
    "card_declined": N_("Your card was declined."),
    "insufficient_funds": N_("Your card has insufficient funds."),
    "expired_card": N_("Your card has expired."),
    "payment_intent_authentication_failure": N_("The bank could not confirm that it is you."),
    "setup_intent_authentication_failure": N_("The bank could not confirm that it is you."),
    "authentication_required": N_("The bank wants you to confirm this payment."),
}
ASKED = (
    "identity.business_details.registered_name",
    "defaults.external_account",
    "identity.attestations.terms",
)
LINK_LIFETIME_S = 300
FAULTS = ("before", "after", "500", "409", "429", "balance_insufficient")


class LostAnswer(Exception):
    """The fault plan: the caller never hears what became of its request."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One request as it came: `params` decoded from brackets or JSON."""

    method: str
    path: str
    params: dict[str, Any]
    key: str
    account: str
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


def _card_error(code: str, intent: dict[str, Any]) -> Answer:
    """402: said with a change of state, which stands."""
    error = {
        "type": "card_error",
        "code": code,
        "message": DECLINES[code],
        "payment_intent": _shown_intent(intent),
    }
    return Answer(402, {"error": error})


class WireError(Exception):
    def __init__(self, status: int, kind: str, message: str, *, code: str = "", param: str = "") -> None:
        super().__init__(message)
        self.status = status
        error = {"type": kind, "message": message, "code": code, "param": param}
        self.body = {"error": {name: value for name, value in error.items() if value}}


def webhook_secret(settings: Settings) -> str:
    """What the sandbox signs with: the configured secret, or one derived from the installation's own key."""
    if settings.stripe_connect_webhook_secret:
        return settings.stripe_connect_webhook_secret
    return "whsec_" + digest(settings.secret_keys, "sandbox", "webhook").hex()


def api_key(settings: Settings) -> str:
    return "sk_test_" + digest(settings.secret_keys, "sandbox", "api").hex()[:32]


def sign(body: bytes, secret: str, at: int) -> str:
    """Stripe-Signature: HMAC-SHA256 over `t.body` (docs.stripe.com/webhooks, "Verify manually")."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


def decode(method: str, query: str, content_type: str, body: bytes) -> dict[str, Any]:
    """`a[b][0]=c` -> {"a": {"b": ["c"]}}, as Stripe reads a form; JSON as it is (v2)."""
    if "json" in content_type:
        return json.loads(body or b"{}")
    raw = query if method in ("GET", "DELETE") else body.decode()
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        parts = [part for part in re.split(r"\[|\]\[|\]", name) if part]
        node = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = value
    return _lists(tree)


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    node = {name: _lists(value) for name, value in node.items()}
    if node and all(name.isdigit() for name in node):
        return [node[name] for name in sorted(node, key=int)]
    return node


# -- one request -----------------------------------------------------------------------------------------------------


async def handle(database: Database, wire: Wire) -> Answer:
    """Raises LostAnswer where the fault plan says so; everything else is an answer."""
    if not hmac.compare_digest(wire.key, api_key(database.settings)):
        message = "Invalid API Key provided."
        return Answer(401, {"error": {"type": "invalid_request_error", "message": message}})
    fault = await _take_fault(database, wire)
    if fault == "before":
        raise LostAnswer
    if fault in ("409", "429"):
        kind = "idempotency_error" if fault == "409" else "rate_limit_error"
        return Answer(int(fault), {"error": {"type": kind, "message": "Try again.", "code": "lock_timeout"}})
    if fault == "balance_insufficient":
        message = "Insufficient funds in your Stripe balance to refund this amount."
        return Answer(400, {"error": {"type": "invalid_request_error", "message": message, "code": fault}})
    async with database.sandbox() as db:
        answer = await _answer(Engine(db, wire.account), wire, fails=fault == "500")
    if fault == "after":
        raise LostAnswer
    return answer


async def _answer(engine: "Engine", wire: Wire, *, fails: bool) -> Answer:
    """The same key again: the same answer, also when that was an error; with other parameters a refusal."""
    await engine.lock()
    fingerprint = json.dumps([wire.method, wire.path, wire.params], sort_keys=True)
    if wire.idempotency_key and wire.method == "POST":
        known = await engine.one(
            "select request, status, body from sandbox.idempotency where account = :account and key = :key",
            key=wire.idempotency_key,
        )
        if known is not None and known.request != fingerprint:
            message = "Keys for idempotent requests can only be used with the same parameters."
            return Answer(400, {"error": {"type": "idempotency_error", "message": message}})
        if known is not None:
            return Answer(known.status, known.body)
    try:
        endpoint, found = _route(wire)
        async with engine.db.begin_nested():
            body = await endpoint(engine, *found, wire.params)
        answer = body if isinstance(body, Answer) else Answer(200, body)
    except WireError as error:
        answer = Answer(error.status, error.body)
    if fails:
        answer = Answer(500, {"error": {"type": "api_error", "message": "An unknown error occurred."}})
    if wire.idempotency_key and wire.method == "POST" and answer.status not in (400, 404):
        await engine.run(
            "insert into sandbox.idempotency (account, key, request, status, body)"
            " values (:account, :key, :request, :status, cast(:body as jsonb))",
            key=wire.idempotency_key, request=fingerprint, status=answer.status, body=json.dumps(answer.body),
        )  # fmt: skip
    return answer


class Engine:
    """One account's objects inside one transaction."""

    def __init__(self, db: AsyncSession, account: str) -> None:
        self.db, self.account = db, account

    async def run(self, sql: str, **values: Any) -> Any:
        return await self.db.execute(
            text(sql), {"account": self.account, **values} if ":account" in sql else values
        )

    async def one(self, sql: str, **values: Any) -> Any:
        return (await self.run(sql, **values)).first()

    async def lock(self) -> None:
        await self.run("select pg_advisory_xact_lock(hashtext('sandbox'), hashtext(:account))")

    async def now(self) -> int:
        return int(utcnow().timestamp()) + await self.ahead_s()

    async def ahead_s(self) -> int:
        return int(await self.setting("clock", 0))

    async def setting(self, name: str, default: Any = None) -> Any:
        row = await self.one("select value from sandbox.setting where name = :name", name=name)
        return row.value if row else default

    async def set(self, name: str, value: Any) -> None:
        await self.run(
            "insert into sandbox.setting (name, value) values (:name, cast(:value as jsonb))"
            " on conflict (name) do update set value = excluded.value", name=name, value=json.dumps(value),
        )  # fmt: skip

    async def get(self, kind: str, ref: str) -> dict[str, Any]:
        row = await self.one(
            "select body from sandbox.object where account = :account and id = :id and kind = :kind",
            id=ref, kind=kind,
        )  # fmt: skip
        if row is None:
            raise WireError(
                404, "invalid_request_error", f"No such {kind}: '{ref}'", code="resource_missing", param="id"
            )
        return row.body

    async def put(self, body: dict[str, Any]) -> dict[str, Any]:
        await self.run(
            "insert into sandbox.object (account, id, kind, created, body)"
            " values (:account, :id, :kind, :created, cast(:body as jsonb))"
            " on conflict (account, id) do update set body = excluded.body",
            id=body["id"], kind=body["object"], created=body["created"], body=json.dumps(body),
        )  # fmt: skip
        return body

    async def tell(self, kind: str, subject: dict[str, Any]) -> None:
        """A signed webhook, from the outbox: it goes out after this transaction has committed."""
        event = {
            "id": "evt_" + secrets.token_hex(12), "object": "event", "api_version": API_VERSION,
            "account": self.account, "created": await self.now(), "type": kind, "livemode": False,
            "pending_webhooks": 1, "request": {"id": None, "idempotency_key": None},
            "data": {"object": copy.deepcopy(subject)},
        }  # fmt: skip
        await self.run(
            "insert into sandbox.delivery (event) values (cast(:event as jsonb))", event=json.dumps(event)
        )

    async def expanded(self, body: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
        """`expand[]=payment_intent.latest_charge`: ids on that path become their objects."""
        body = copy.deepcopy(body)
        for path in params.get("expand") or []:
            await self._expand(body, path.split("."))
        return body

    async def _expand(self, node: Any, names: Sequence[str]) -> None:
        if not names or node is None:
            return
        for one in node if isinstance(node, list) else [node]:
            name, ref = names[0], one.get(names[0])
            if name == "refunds" and one.get("object") == "charge" and not isinstance(ref, dict):
                one[name] = await self._refunds_of(one["id"])
            elif isinstance(ref, str):
                one[name] = _without_own(await self.get(_KIND_OF[ref.split("_")[0]], ref))
            await self._expand(one[name], names[1:])

    async def _refunds_of(self, charge: str) -> dict[str, Any]:
        """As it comes along with a charge: the newest ten."""
        rows = await self.run(
            "select body from sandbox.object where account = :account and kind = 'refund'"
            " and body->>'charge' = :charge order by created desc, id desc limit 11", charge=charge,
        )  # fmt: skip
        found = [_without_own(row.body) for row in rows.all()]
        url = f"/v1/charges/{charge}/refunds"
        return {"object": "list", "url": url, "has_more": len(found) > 10, "data": found[:10]}


_KIND_OF = {
    "pi": "payment_intent", "ch": "charge", "cs": "checkout.session", "re": "refund", "txn": "balance_transaction",
    "po": "payout",
    "fr": "fee_refund", "du": "dispute", "cus": "customer", "seti": "setup_intent", "pm": "payment_method",
}  # fmt: skip


def _integer(params: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = params.get(name, default)
    if value is None:
        raise WireError(400, "invalid_request_error", f"Missing required param: {name}.", param=name)
    if not re.fullmatch(r"\d{1,12}", str(value)):
        raise WireError(400, "invalid_request_error", f"Invalid integer: {value}", code="parameter_invalid_integer",
                        param=name)  # fmt: skip
    return int(value)


# -- accounts --------------------------------------------------------------------------------------------------------


_CAPABILITIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "merchant": lambda status: {"card_payments": status},
    "recipient": lambda status: {"stripe_balance": {"stripe_transfers": status}},
}


async def _create_account(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    """v2. What is asked for (card payments, transfers) is active at once, or after the hosted onboarding where the
    panel says so (`set_accounts`)."""
    ref = "acct_" + secrets.token_hex(8)
    created = utcnow().isoformat()
    wanted = [name for name in _CAPABILITIES if name in (params.get("configuration") or {})]
    body = {
        "id": ref, "object": "v2.core.account", "applied_configurations": wanted, "created": created,
        "display_name": params.get("display_name"), "contact_email": params.get("contact_email"),
        "dashboard": params.get("dashboard"), "livemode": False, "metadata": params.get("metadata") or {},
        "defaults": _with_collector(params.get("defaults")), "identity": params.get("identity"),
    }  # fmt: skip
    asks = await engine.setting("accounts") == "ask"
    return await _put_account(engine, body, is_active=not asks)


async def _put_account(engine: Engine, body: dict[str, Any], *, is_active: bool) -> dict[str, Any]:
    status = {"status": "active", "status_details": []}
    if not is_active:
        details = [{"code": "requirements_past_due", "resolution": "provide_info"}]
        status = {"status": "restricted", "status_details": details}
    body |= {
        "configuration": {
            name: {"applied": True, "capabilities": _CAPABILITIES[name](status)}
            for name in body["applied_configurations"]
        },
        "requirements": {"entries": [] if is_active else [_asked(what) for what in ASKED], "summary": None},
    }
    await engine.run(
        "insert into sandbox.account (id, body) values (:id, cast(:body as jsonb))"
        " on conflict (id) do update set body = excluded.body",
        id=body["id"], body=json.dumps(body),
    )  # fmt: skip
    return body


def _asked(what: str) -> dict[str, Any]:
    return {
        "awaiting_action_from": "user", "description": what, "errors": [], "reference": None,
        "impact": {"restricts_capabilities": [{
            "capability": "card_payments", "configuration": "merchant", "deadline": {"status": "past_due"}}]},
        "minimum_deadline": {"status": "past_due"}, "requested_reasons": [{"code": "routine_onboarding"}],
    }  # fmt: skip


async def _create_link(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    """v2. The way to the hosted onboarding, good once and for five minutes."""
    account = await _get_account(engine, str(params.get("account")), {})
    use = (params.get("use_case") or {}).get("account_onboarding") or {}
    if not use.get("refresh_url"):
        raise WireError(400, "invalid_request_error", "use_case.account_onboarding.refresh_url is required.")
    now, ref = utcnow(), "alink_" + secrets.token_hex(16)
    body = {
        "object": "v2.core.account_link", "account": account["id"], "created": now.isoformat(),
        "expires_at": (now + timedelta(seconds=LINK_LIFETIME_S)).isoformat(), "livemode": False, "url": ref,
        "use_case": params["use_case"],
    }  # fmt: skip
    await engine.run(
        "insert into sandbox.object (account, id, kind, created, body)"
        " values (:owner, :id, 'v2.core.account_link', :created, cast(:body as jsonb))",
        owner=account["id"], id=ref, created=int(now.timestamp()), body=json.dumps(body),
    )  # fmt: skip
    return body


_USER, _BANK = "disable_stripe_user_authentication", "external_account_collection"
_PAYOUTS = (_USER, "edit_payout_schedule", _BANK, "instant_payouts", "standard_payouts")
_DISPUTES = ("destination_on_behalf_of_charge_management", "dispute_management", "refund_management",
             "smart_disputes_management")  # fmt: skip
_ISSUING = (
    "card_management",
    "card_spend_dispute_management",
    "cardholder_management",
    "spend_control_management",
)
# What an account session can show, each with its features (Stripe's `AccountSession.components`).
EMBEDDED_PARTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("account_management", "account_onboarding", "notification_banner"), (_USER, _BANK)),
    **dict.fromkeys(("balances", "payouts"), _PAYOUTS),
    **dict.fromkeys(("disputes_list", "payment_details", "payments"), ("capture_payments", *_DISPUTES)),
    "payment_disputes": _DISPUTES, "payment_method_settings": (_USER,), "issuing_card": _ISSUING,
    "issuing_cards_list": (*_ISSUING, _USER), "instant_payouts_promotion": (_USER, _BANK, "instant_payouts"),
    "financial_account": (_USER, _BANK, "send_money", "transfer_balance"),
    "financial_account_transactions": ("card_spend_dispute_management",),
    **dict.fromkeys(
        ("balance_report", "documents", "payout_details", "payout_reconciliation_report", "payouts_list",
         "reporting_chart", "tax_registrations", "tax_settings", "terminal_hardware_orders", "terminal_hardware_shop"),
        (),
    ),
}  # fmt: skip


async def _create_account_session(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing shows it here: the sandbox has no pages to embed."""
    account = await _get_account(engine, str(params.get("account")), {})
    wanted = params.get("components") or {}
    if not wanted:
        raise WireError(400, "invalid_request_error", "Missing required param: components.")
    return {
        "object": "account_session", "account": account["id"], "livemode": False,
        "client_secret": f"accs_secret__{secrets.token_hex(16)}",
        "expires_at": int(utcnow().timestamp()) + LINK_LIFETIME_S,
        "components": {
            name: {
                "enabled": str((wanted.get(name) or {}).get("enabled")).lower() == "true",
                "features": dict.fromkeys(features, False),
            }
            for name, features in EMBEDDED_PARTS.items()
        },
    }  # fmt: skip


async def find_link(database: Database, ref: str) -> dict[str, Any] | None:
    """For the hosted onboarding: {"account": its name, "is_good", "return_url", "refresh_url"}."""
    async with database.sandbox() as db:
        found = await _link(Engine(db, ""), ref)
        if found is None:
            return None
        account = await _get_account(Engine(db, ""), found["account"], {})
        return found["use_case"]["account_onboarding"] | {
            "account": account["display_name"], "is_good": _is_good(found),
        }  # fmt: skip


async def onboard(database: Database, ref: str) -> None:
    """What its Submit does: the account may take cards. A link that is used up does nothing."""
    async with database.sandbox() as db:
        engine = Engine(db, "")
        await engine.lock()
        found = await _link(engine, ref)
        if found is None or not _is_good(found):
            return
        await engine.run(
            "update sandbox.object set body = body || '{\"is_used\": true}' where id = :id", id=ref
        )
        account = await _get_account(engine, found["account"], {})
        await _put_account(engine, account, is_active=True)


async def _link(engine: Engine, ref: str) -> dict[str, Any] | None:
    row = await engine.one(
        "select body from sandbox.object where id = :id and kind = 'v2.core.account_link'", id=ref
    )
    return row.body if row else None


def _is_good(link: dict[str, Any]) -> bool:
    return not link.get("is_used") and datetime.fromisoformat(link["expires_at"]) > utcnow()


def _with_collector(defaults: dict[str, Any] | None) -> dict[str, Any] | None:
    """Who asks the merchant for papers: who bears the losses."""
    if defaults is None:
        return None
    responsibilities = defaults.get("responsibilities") or {}
    responsibilities |= {"requirements_collector": responsibilities.get("losses_collector", "stripe")}
    return defaults | {"responsibilities": responsibilities}


async def _get_account(engine: Engine, ref: str, _params: dict[str, Any]) -> dict[str, Any]:
    row = await engine.one("select body from sandbox.account where id = :id", id=ref)
    if row is None:
        raise WireError(404, "invalid_request_error", f"No such account: {ref}", code="resource_missing")
    return row.body


async def _check_account(engine: Engine) -> None:
    if not await engine.one("select id from sandbox.account where id = :account"):
        message = "The provided key does not have access to this account (or that account does not exist)."
        raise WireError(403, "invalid_request_error", message, code="account_invalid")


# -- checkout --------------------------------------------------------------------------------------------------------


def _check_minimum(amount: int, currency: str) -> None:
    least = CARD_CURRENCIES.get(currency.upper())
    if least is not None and amount < least.minimum_minor:
        message = f"Amount must be at least {least.minimum_minor} {currency}."
        raise WireError(400, "invalid_request_error", message, code="amount_too_small")


async def _create_checkout(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    now = await engine.now()
    items, is_setup = params.get("line_items") or [], params.get("mode") == "setup"
    if not params.get("success_url") or not (is_setup or (params.get("mode") == "payment" and items)):
        message = "mode=payment with line_items, or mode=setup, and success_url are required."
        raise WireError(400, "invalid_request_error", message)
    if params.get("customer"):
        await _get_customer(engine, params["customer"], {})
    if is_setup:
        currency, amount, item = params.get("currency"), None, ""
        if not currency:
            message = "You must provide `currency` in setup mode."
            raise WireError(400, "invalid_request_error", message, param="currency")
    else:
        currency, item = items[0]["price_data"]["currency"], items[0]["price_data"]["product_data"]["name"]
        amount = sum(
            _integer(one["price_data"], "unit_amount") * _integer(one, "quantity", 1) for one in items
        )
        _check_minimum(amount, currency)
    expires_at, ahead_s = _integer(params, "expires_at", now + CHECKOUT_LIFETIME_S), await engine.ahead_s()
    if expires_at < now + 1790 <= expires_at + ahead_s:
        expires_at += ahead_s  # asked by our clock, which the test clock left behind
    if not now + 1790 <= expires_at <= now + CHECKOUT_LIFETIME_S:
        message = "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation."
        raise WireError(400, "invalid_request_error", message, param="expires_at")
    ref = "cs_test_" + secrets.token_hex(20)
    setup = await _create_setup(engine, params) if is_setup else None
    session = {
        "id": ref, "object": "checkout.session", "amount_subtotal": amount, "amount_total": amount, "created": now,
        "currency": currency, "expires_at": expires_at, "livemode": False, "mode": params["mode"], "status": "open",
        "payment_status": "no_payment_required" if is_setup else "unpaid", "payment_intent": None,
        "setup_intent": setup["id"] if setup else None, "customer": params.get("customer"), "customer_details": None,
        "customer_email": params.get("customer_email"), "client_reference_id": params.get("client_reference_id"),
        "success_url": params["success_url"], "cancel_url": params.get("cancel_url"), "locale": params.get("locale"),
        "metadata": params.get("metadata") or {}, "url": ref, "payment_method_types": ["card"],
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None}, "custom_fields": [],
        "custom_text": {"after_submit": None, "shipping_address": None, "submit": None,
                        "terms_of_service_acceptance": None},
        "shipping_options": [], "livery": {"intent": params.get("payment_intent_data") or {}, "item": item,
                                           "asked": _asked_of_card(params),
                                           "said": "", "asks_bank": False},
    }  # fmt: skip
    await engine.put(session)
    return await _shown_checkout(engine, session, params)


async def _shown_checkout(
    engine: Engine, session: dict[str, Any], params: Mapping[str, Any]
) -> dict[str, Any]:
    shown = await engine.expanded(session, params)
    shown.pop("livery", None)
    return shown


async def _get_checkout(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    return await _shown_checkout(engine, await _aged_checkout(engine, ref), params)


async def _aged_checkout(engine: Engine, ref: str) -> dict[str, Any]:
    session = await engine.get("checkout.session", ref)
    if session["status"] == "open" and session["expires_at"] <= await engine.now():
        session["status"], session["url"] = "expired", None
        await engine.put(session)
        await engine.tell("checkout.session.expired", session)
    if session["payment_intent"]:
        await _aged_intent(engine, session["payment_intent"])
    return session


async def _expire_checkout(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    session = await _aged_checkout(engine, ref)
    if session["status"] != "open":
        message = f'Only Checkout Sessions with a status in ["open"] can be expired; this one is {session["status"]}.'
        raise WireError(400, "invalid_request_error", message)
    session["status"], session["url"] = "expired", None
    await engine.put(session)
    if session["payment_intent"]:
        intent = await engine.get("payment_intent", session["payment_intent"])
        await _cancel(engine, intent, "abandoned")
    if session["setup_intent"]:
        await engine.put(await engine.get("setup_intent", session["setup_intent"]) | {"status": "canceled"})
    await engine.tell("checkout.session.expired", session)
    return await _shown_checkout(engine, session, params)


async def pay_checkout(database: Database, account: str, ref: str, card: str, email: str) -> dict[str, Any]:
    """What the hosted page does when the payer presses Pay: {"status": complete | authenticate | declined, …}."""
    async with database.sandbox() as db:
        engine = Engine(db, account)
        await engine.lock()
        session = await _aged_checkout(engine, ref)
        if session["status"] != "open":
            return {"status": session["status"], "session": session}
        brand, behaviour, _what = _ALL_CARDS.get(card, ("visa", "card_declined", ""))
        session["customer_details"] = _customer(email)
        if session["mode"] == "setup":
            return await _save_card(engine, session, card, behaviour)
        intent = await _checkout_intent(engine, session, card, brand)
        if behaviour == "declined_later":
            behaviour = "card_declined"
        if behaviour.startswith("authenticate"):
            intent["status"] = "requires_action"
            intent["next_action"] = {
                "type": "redirect_to_url",
                "redirect_to_url": {"url": "3ds", "return_url": None},
            }
            session["livery"] |= {"said": "", "asks_bank": True}
            await engine.put(intent)
            await engine.put(session)
            await engine.tell("payment_intent.requires_action", intent)
            return {"status": "authenticate", "session": session}
        if behaviour not in _SAYS_YES:
            await engine.put(session)
            return await _declined(engine, session, intent, behaviour)
        return await _complete(engine, session, intent)


async def authenticate_checkout(
    database: Database, account: str, ref: str, *, succeeds: bool
) -> dict[str, Any]:
    """The bank's 3-D Secure page: confirmed, or given up."""
    async with database.sandbox() as db:
        engine = Engine(db, account)
        await engine.lock()
        session = await _aged_checkout(engine, ref)
        if session["status"] == "open" and session["mode"] == "setup" and session["livery"]["asks_bank"]:
            return await _saved(engine, session, succeeds=succeeds)
        if session["status"] != "open" or not session["payment_intent"]:
            return {"status": session["status"], "session": session}
        intent = await engine.get("payment_intent", session["payment_intent"])
        if intent["status"] != "requires_action":
            return {"status": session["status"], "session": session}
        intent["livery"]["is_authenticated"] = succeeds
        if not succeeds:
            return await _declined(engine, session, intent, "payment_intent_authentication_failure")
        return await _complete(engine, session, intent)


async def find_checkout(database: Database, ref: str) -> tuple[str, dict[str, Any]] | None:
    """(account, session) for the hosted page, whose address is all a payer has."""
    async with database.sandbox() as db:
        query = "select account from sandbox.object where id = :id and kind = 'checkout.session'"
        row = await Engine(db, "").one(query, id=ref)
        if row is None:
            return None
        engine = Engine(db, row.account)
        await engine.lock()
        return row.account, await _aged_checkout(engine, ref)


def _customer(email: str) -> dict[str, Any]:
    return {"address": None, "email": email or None, "name": None, "phone": None, "tax_exempt": "none", "tax_ids": [],
            "business_name": None, "individual_name": None}  # fmt: skip


def _asked_of_card(params: Mapping[str, Any]) -> dict[str, Any]:
    return (params.get("payment_method_options") or {}).get("card") or {}


async def _checkout_intent(engine: Engine, session: dict[str, Any], card: str, brand: str) -> dict[str, Any]:
    """The payment intent is made when the payer first submits, as Stripe does."""
    data = session["livery"]["intent"]
    if session["payment_intent"]:
        intent = await engine.get("payment_intent", session["payment_intent"])
    else:
        intent = await _new_intent(engine, session["amount_total"], session["currency"], data)
        session["payment_intent"] = intent["id"]
    intent["payment_method"] = "pm_card_" + brand
    intent["livery"] = {"card": card, "brand": brand, "asked": session["livery"].get("asked")}
    return intent


async def _new_intent(engine: Engine, amount: int, currency: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": "pi_" + secrets.token_hex(12), "object": "payment_intent", "amount": amount,
        "amount_capturable": 0, "amount_received": 0, "amount_details": None, "application": None,
        "application_fee_amount": None, "automatic_payment_methods": None, "canceled_at": None,
        "cancellation_reason": None, "capture_method": data.get("capture_method", "automatic"),
        "client_secret": None, "confirmation_method": "automatic", "created": await engine.now(), "currency": currency,
        "customer": data.get("customer"), "description": data.get("description"), "last_payment_error": None,
        "latest_charge": None, "livemode": False, "metadata": data.get("metadata") or {}, "next_action": None,
        "on_behalf_of": None, "payment_method": None, "payment_method_options": None,
        "payment_method_types": ["card"], "processing": None, "receipt_email": None,
        "statement_descriptor": None, "statement_descriptor_suffix": data.get("statement_descriptor_suffix"),
        "status": "requires_payment_method", "transfer_data": None, "transfer_group": None, "review": None,
        "setup_future_usage": None, "shipping": None, "source": None,
    }  # fmt: skip


async def _declined(
    engine: Engine, session: dict[str, Any], intent: dict[str, Any], code: str
) -> dict[str, Any]:
    intent["status"], intent["next_action"] = "requires_payment_method", None
    intent["last_payment_error"] = {"type": "card_error", "code": code, "message": DECLINES[code]}
    session["livery"] |= {"said": DECLINES[code], "asks_bank": False}
    await engine.put(intent)
    await engine.put(session)
    await engine.tell("payment_intent.payment_failed", _shown_intent(intent))
    return {"status": "declined", "code": code, "message": DECLINES[code], "session": session}


_AUTHENTICATED = {
    "authentication_flow": "challenge", "electronic_commerce_indicator": "05", "exemption_indicator": None,
    "exemption_indicator_applied": None, "result": "authenticated", "result_reason": None, "transaction_id": None,
    "version": "2.2.0",
}  # fmt: skip


async def _complete(engine: Engine, session: dict[str, Any], intent: dict[str, Any]) -> dict[str, Any]:
    charge = await _hold(engine, intent, HOLD_LIFETIME_S)
    session["status"], session["url"] = "complete", None
    if intent["capture_method"] != "manual":
        await _take(engine, intent, charge, intent["amount"], 0)
        session["payment_status"] = "paid"
    await engine.put(session)
    await engine.tell("payment_intent.amount_capturable_updated", _shown_intent(intent))
    await engine.tell("checkout.session.completed", {k: v for k, v in session.items() if k != "livery"})
    return {"status": "complete", "session": session}


async def _hold(engine: Engine, intent: dict[str, Any], lifetime_s: int) -> dict[str, Any]:
    """The bank said yes: the charge of it."""
    now = await engine.now()
    card = intent["livery"]
    behaviour, asked = _ALL_CARDS[card["card"]][1], card.get("asked") or {}
    can_raise = behaviour.startswith("raises") and "request_incremental_authorization" in asked
    is_extended = behaviour == "extends" and "request_extended_authorization" in asked
    lifetime_s = EXTENDED_LIFETIME_S if is_extended else lifetime_s
    charge = {
        "id": "ch_" + secrets.token_hex(12), "object": "charge", "amount": intent["amount"], "amount_captured": 0,
        "amount_refunded": 0, "application": None, "application_fee": None, "application_fee_amount": None,
        "balance_transaction": None, "billing_details": {"address": None, "email": None, "name": None, "phone": None,
                                                         "tax_id": None},
        "captured": False, "created": now, "currency": intent["currency"], "customer": intent["customer"],
        "description": None,
        "disputed": False, "failure_balance_transaction": None, "failure_code": None, "failure_message": None,
        "fraud_details": {}, "livemode": False, "metadata": intent["metadata"], "on_behalf_of": None, "outcome": None,
        "paid": True, "payment_intent": intent["id"], "payment_method": intent["payment_method"],
        "payment_method_details": {"type": "card", "card": {
            "brand": card["brand"], "last4": card["card"][-4:], "capture_before": now + lifetime_s,
            "country": "DE", "exp_month": 12, "exp_year": 2034, "funding": "credit", "checks": None,
            "amount_authorized": intent["amount"], "mandate": None, "network": card["brand"], "wallet": None,
            "three_d_secure": _AUTHENTICATED if card.get("is_authenticated") else None,
            "incremental_authorization": {"status": "available" if can_raise else "unavailable"},
            "extended_authorization": {"status": "enabled" if is_extended else "disabled"},
            "installments": None, "authorization_code": None,
            "network_transaction_id": None, "regulated_status": None}},
        "receipt_email": None, "receipt_number": None, "receipt_url": None, "refunded": False, "review": None,
        "shipping": None, "source": None, "source_transfer": None, "statement_descriptor": None,
        "statement_descriptor_suffix": None, "status": "succeeded", "transfer_data": None, "transfer_group": None,
        "calculated_statement_descriptor": None,
    }  # fmt: skip
    intent["latest_charge"], intent["next_action"], intent["last_payment_error"] = charge["id"], None, None
    if intent["capture_method"] == "manual":
        intent["status"], intent["amount_capturable"] = "requires_capture", intent["amount"]
    await engine.put(charge)
    await engine.put(intent)
    return charge


# -- saved cards -----------------------------------------------------------------------------------------------------


async def _create_customer(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    return await engine.put({
        "id": "cus_" + secrets.token_hex(8), "object": "customer", "created": await engine.now(), "livemode": False,
        "email": params.get("email"), "name": None, "metadata": params.get("metadata") or {}, "description": None,
    })  # fmt: skip


async def _get_customer(engine: Engine, ref: str, _params: dict[str, Any]) -> dict[str, Any]:
    found = await engine.get("customer", ref)
    if found.get("deleted"):
        message = f"No such customer: '{ref}'"
        raise WireError(404, "invalid_request_error", message, code="resource_missing", param="customer")
    return found


async def _delete_customer(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    """Their cards go with them."""
    found = await _get_customer(engine, ref, params)
    rows = await engine.run(
        "select body from sandbox.object where account = :account and kind = 'payment_method'"
        " and body->>'customer' = :customer", customer=ref,
    )  # fmt: skip
    for row in rows.all():
        await _detach(engine, row.body)
    await engine.put({"id": ref, "object": "customer", "created": found["created"], "deleted": True})
    return {"id": ref, "object": "customer", "deleted": True, "created": found["created"], "livemode": False}


async def _create_setup(engine: Engine, params: Mapping[str, Any]) -> dict[str, Any]:
    data = params.get("setup_intent_data") or {}
    return await engine.put({
        "id": "seti_" + secrets.token_hex(12), "object": "setup_intent", "created": await engine.now(),
        "customer": params.get("customer"), "livemode": False, "metadata": data.get("metadata") or {},
        "payment_method": None, "payment_method_types": ["card"], "status": "requires_payment_method",
        "usage": "off_session", "last_setup_error": None, "next_action": None, "description": None,
    })  # fmt: skip


async def _save_card(engine: Engine, session: dict[str, Any], card: str, behaviour: str) -> dict[str, Any]:
    """The setup's page was submitted: the bank is asked where the card wants it, and declines what has no future."""
    setup = await engine.get("setup_intent", session["setup_intent"])
    session["livery"] |= {"card": card, "said": "", "asks_bank": behaviour.startswith("authenticate")}
    if behaviour in (*_SAYS_YES, "declined_later"):
        return await _saved(engine, session, succeeds=True)
    if session["livery"]["asks_bank"]:
        await engine.put(setup | {"status": "requires_action"})
        await engine.put(session)
        return {"status": "authenticate", "session": session}
    return await _not_saved(engine, session, setup, behaviour)


async def _saved(engine: Engine, session: dict[str, Any], *, succeeds: bool) -> dict[str, Any]:
    setup, card = await engine.get("setup_intent", session["setup_intent"]), session["livery"]["card"]
    if not succeeds:
        return await _not_saved(engine, session, setup, "setup_intent_authentication_failure")
    brand, _behaviour, _what = _ALL_CARDS[card]
    method = await engine.put({
        "id": "pm_" + secrets.token_hex(12), "object": "payment_method", "created": await engine.now(),
        "customer": setup["customer"], "livemode": False, "metadata": {}, "type": "card",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "card": {
            "brand": brand, "last4": card[-4:], "exp_month": 12, "exp_year": 2034, "funding": "credit", "country": "DE",
            "fingerprint": hashlib.sha256(card.encode()).hexdigest()[:16], "checks": None, "wallet": None,
            "networks": {"available": [brand], "preferred": None}, "three_d_secure_usage": {"supported": True},
            "generated_from": None, "regulated_status": None, "display_brand": brand,
        },
        "livery": {"card": card},
    })  # fmt: skip
    setup |= {"status": "succeeded", "payment_method": method["id"], "last_setup_error": None}
    session |= {"status": "complete", "url": None}
    session["livery"]["asks_bank"] = False
    await engine.put(setup)
    await engine.put(session)
    await engine.tell("payment_method.attached", _without_own(method))
    await engine.tell("setup_intent.succeeded", setup)
    await engine.tell("checkout.session.completed", _without_own(session))
    return {"status": "complete", "session": session}


async def _not_saved(
    engine: Engine, session: dict[str, Any], setup: dict[str, Any], code: str
) -> dict[str, Any]:
    error = {"type": "card_error", "code": code, "message": DECLINES[code]}
    setup |= {"status": "requires_payment_method", "last_setup_error": error}
    session["livery"] |= {"said": DECLINES[code], "asks_bank": False}
    await engine.put(setup)
    await engine.put(session)
    await engine.tell("setup_intent.setup_failed", setup)
    return {"status": "declined", "code": code, "message": DECLINES[code], "session": session}


def _without_own(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "livery"}


async def _get_method(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    return _without_own(await engine.expanded(await engine.get("payment_method", ref), params))


async def _detach_method(engine: Engine, ref: str, _params: dict[str, Any]) -> dict[str, Any]:
    method = await engine.get("payment_method", ref)
    if not method["customer"]:
        message = "The payment method you provided is not attached to a customer so detachment is impossible."
        raise WireError(400, "invalid_request_error", message)
    return _without_own(await _detach(engine, method))


async def _detach(engine: Engine, method: dict[str, Any]) -> dict[str, Any]:
    await engine.put(method | {"customer": None})
    await engine.tell("payment_method.detached", _without_own(method | {"customer": None}))
    return method | {"customer": None}


async def change_card(database: Database, account: str, ref: str, **changes: Any) -> None:
    """What its bank or the operator does to a saved card: another expiry (`exp_month`, `exp_year`), or `is_revoked`."""
    async with database.sandbox() as db:
        engine = Engine(db, account)
        await engine.lock()
        method = await engine.get("payment_method", ref)
        if changes.pop("is_revoked", False):
            await _detach(engine, method)
            return
        method["card"] |= changes
        await engine.put(method)
        await engine.tell("payment_method.automatically_updated", _without_own(method))


async def _create_intent(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    """With a saved card of the customer's, and not confirmed yet."""
    amount, currency = _integer(params, "amount"), str(params.get("currency"))
    _check_minimum(amount, currency)
    customer = await _get_customer(engine, str(params.get("customer")), {})
    method = await engine.get("payment_method", str(params.get("payment_method")))
    if method["customer"] != customer["id"]:
        message = f"The PaymentMethod {method['id']} does not belong to the Customer {customer['id']}."
        raise WireError(400, "invalid_request_error", message, param="payment_method")
    card = method["livery"]["card"]
    intent = await _new_intent(engine, amount, currency, params) | {
        "status": "requires_confirmation", "payment_method": method["id"],
        "livery": {"card": card, "brand": method["card"]["brand"], "asked": _asked_of_card(params)},
    }  # fmt: skip
    await engine.put(intent)
    return _shown_intent(await engine.expanded(intent, params))


async def _confirm_intent(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """Off session: the bank that wants to see the payer is a decline, as at Stripe."""
    intent = await _aged_intent(engine, ref)
    if intent["status"] != "requires_confirmation":
        message = f"You cannot confirm this PaymentIntent because it has a status of {intent['status']}."
        raise WireError(400, "invalid_request_error", message, code="payment_intent_unexpected_state")
    if str(params.get("off_session")) != "true":
        raise WireError(400, "invalid_request_error", "The sandbox confirms off session only.")
    method = await engine.get("payment_method", intent["payment_method"])
    if not method["customer"]:
        message = f"No such PaymentMethod: '{method['id']}'"
        raise WireError(
            400, "invalid_request_error", message, code="resource_missing", param="payment_method"
        )
    _brand, behaviour, _what = _ALL_CARDS[intent["livery"]["card"]]
    code = {"authenticate": "authentication_required", "declined_later": "card_declined"}.get(behaviour)
    now = datetime.fromtimestamp(await engine.now(), UTC)
    if (method["card"]["exp_year"], method["card"]["exp_month"]) < (now.year, now.month):
        code = "expired_card"
    if code is not None:
        intent |= {"status": "requires_payment_method", "payment_method": None}
        intent["last_payment_error"] = {"type": "card_error", "code": code, "message": DECLINES[code]}
        await engine.put(intent)
        await engine.tell("payment_intent.payment_failed", _shown_intent(intent))
        return _card_error(code, intent)
    await _hold(engine, intent, OFF_SESSION_LIFETIME_S)
    await engine.tell("payment_intent.amount_capturable_updated", _shown_intent(intent))
    return _shown_intent(await engine.expanded(intent, params))


async def _increment_intent(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """The total that is to be held from now on; a bank that refuses leaves what it holds."""
    intent, amount = await _aged_intent(engine, ref), _integer(params, "amount")
    if intent["status"] != "requires_capture":
        message = (
            f"This PaymentIntent's authorization cannot be incremented: its status is {intent['status']}."
        )
        raise WireError(400, "invalid_request_error", message, code="payment_intent_unexpected_state")
    charge = await engine.get("charge", intent["latest_charge"])
    card, count = charge["payment_method_details"]["card"], intent["livery"].get("increments", 0)
    if card["incremental_authorization"]["status"] != "available" or count >= MOST_INCREMENTS:
        message = "This PaymentIntent is not eligible for incremental authorizations."
        raise WireError(400, "invalid_request_error", message, code="incremental_authorization_unavailable")
    if amount <= intent["amount"]:
        message = "The amount must be greater than the currently authorized amount."
        raise WireError(400, "invalid_request_error", message, code="amount_too_small", param="amount")
    if count and _ALL_CARDS[intent["livery"]["card"]][1] == "raises_once":
        return _card_error("insufficient_funds", intent)
    intent |= {"amount": amount, "amount_capturable": amount}
    intent["livery"]["increments"] = count + 1
    charge["amount"] = card["amount_authorized"] = amount
    for body in (charge, intent):
        await engine.put(body)
    await engine.tell("payment_intent.amount_capturable_updated", _shown_intent(intent))
    return _shown_intent(await engine.expanded(intent, params))


# -- payment intents -------------------------------------------------------------------------------------------------


def _shown_intent(intent: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in intent.items() if name != "livery"}


async def _aged_intent(engine: Engine, ref: str) -> dict[str, Any]:
    """A hold that was not captured in time is gone, and the provider says so by itself."""
    intent = await engine.get("payment_intent", ref)
    if intent["status"] == "requires_capture":
        charge = await engine.get("charge", intent["latest_charge"])
        if charge["payment_method_details"]["card"]["capture_before"] <= await engine.now():
            await _cancel(engine, intent, "automatic")
    return intent


async def _get_intent(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    await _age_refunds(engine)
    return _shown_intent(await engine.expanded(await _aged_intent(engine, ref), params))


async def _list_intents(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    rows, has_more = await _newest_of(engine, "payment_intent", params)
    found = [_shown_intent(await _aged_intent(engine, row["id"])) for row in rows]
    return {"object": "list", "url": "/v1/payment_intents", "has_more": has_more, "data": found}


async def _newest_of(
    engine: Engine, kind: str, params: Mapping[str, Any], part: Mapping[str, Any] | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """Newest first, and whether there are more: all that have `part` in them. `created[gte]` narrows, `starting_after`
    goes on behind one."""
    since = int((params.get("created") or {}).get("gte", 0))
    limit = min(_integer(params, "limit", 10), 100)
    last = await engine.get(kind, params["starting_after"]) if "starting_after" in params else None
    rows = await engine.run(
        "select body from sandbox.object where account = :account and kind = :kind and created >= :since"
        " and body @> cast(:part as jsonb) and (cast(:last as bigint) is null or (created, id) < (:last, :id))"
        " order by created desc, id desc limit :limit",
        kind=kind, since=since, part=json.dumps(part or {}), limit=limit + 1,
        last=last["created"] if last else None, id=last["id"] if last else "",
    )  # fmt: skip
    found = [row.body for row in rows.all()]
    return found[:limit], len(found) > limit


async def _capture_intent(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    intent = await _aged_intent(engine, ref)
    if intent["status"] != "requires_capture":
        message = f"This PaymentIntent could not be captured because it has a status of {intent['status']}."
        raise WireError(400, "invalid_request_error", message, code="payment_intent_unexpected_state")
    amount = _integer(params, "amount_to_capture", intent["amount_capturable"])
    fee = _integer(params, "application_fee_amount", 0)
    if not 0 < amount <= intent["amount_capturable"]:
        message = "The remaining amount on this PaymentIntent is less than the amount you tried to capture."
        raise WireError(
            400, "invalid_request_error", message, code="amount_too_large", param="amount_to_capture"
        )
    _check_minimum(amount, intent["currency"])
    if fee > amount:
        message = "Fees must be less than or equal to the captured amount."
        raise WireError(400, "invalid_request_error", message, param="application_fee_amount")
    charge = await engine.get("charge", intent["latest_charge"])
    await _take(engine, intent, charge, amount, fee)
    await engine.tell("charge.captured", charge)
    await engine.tell("payment_intent.succeeded", _shown_intent(intent))
    if intent["livery"]["card"] in DISPUTING:
        await _open_dispute(engine, charge, DISPUTING[intent["livery"]["card"]])
    return _shown_intent(await engine.expanded(intent, params))


async def _take(
    engine: Engine, intent: dict[str, Any], charge: dict[str, Any], amount: int, fee: int
) -> None:
    """1.5 % + 25 is what the provider keeps, and the platform's fee beside it; where it bills the platform instead,
    that alone."""
    account = await _get_account(engine, engine.account, {})
    provider_fee = half_up(Decimal(amount) * Decimal("0.015")) + 25
    kept = [_fee("stripe_fee", provider_fee, intent["currency"], "Stripe processing fees")]
    if ((account.get("defaults") or {}).get("responsibilities") or {}).get("fees_collector") == "application":
        kept = []
    kept += [_fee("application_fee", fee, intent["currency"], "Platform fee")] if fee else []
    txn = await _book(
        engine, "charge", "charge", amount, intent["currency"], charge["id"], fees=kept,
        available_in=timedelta(days=await engine.setting(f"delay:{engine.account}", DELAY_DAYS)),
    )  # fmt: skip
    charge |= {
        "application_fee": await _collect(engine, charge, txn, fee) if fee else None,
        # The rest of the hold is released, and Stripe counts it as given back.
        "captured": True, "amount_captured": amount, "amount_refunded": charge["amount"] - amount,
        "balance_transaction": txn["id"], "application_fee_amount": fee or None,
    }  # fmt: skip
    intent |= {
        "status": "succeeded", "amount_received": amount, "amount_capturable": 0,
        "application_fee_amount": fee or None,
    }  # fmt: skip
    for body in (charge, intent):
        await engine.put(body)


# -- what the platform keeps, and passes on ---------------------------------------------------------------------------

# A fee lies with the account that it was kept of, a transfer with the account that it went to: all of them are the
# platform's, which no header names.


async def _find(engine: Engine, kind: str, ref: str) -> tuple[Engine, dict[str, Any]]:
    """Whosever it is: (its account, itself)."""
    row = await engine.one(
        "select account from sandbox.object where id = :id and kind = :kind", id=ref, kind=kind
    )
    owner = Engine(engine.db, row.account if row else "")
    return owner, await owner.get(kind, ref)


async def _collect(engine: Engine, charge: dict[str, Any], txn: dict[str, Any], fee: int) -> str:
    """The fee as the platform has it: available there when the charge is."""
    made = {
        "id": "fee_" + secrets.token_hex(12), "object": "application_fee", "account": engine.account, "amount": fee,
        "amount_refunded": 0, "application": "ca_sandbox", "balance_transaction": None, "charge": charge["id"],
        "created": txn["created"], "currency": charge["currency"], "fee_source": None, "livemode": False,
        "originating_transaction": None, "refunded": False,
        "livery": {"available_on": txn["available_on"], "refunds": []},
    }  # fmt: skip
    await engine.put(made)
    return made["id"]


async def _available(engine: Engine, currency: str) -> int:
    """The platform's own balance: fees that are available, less what was given back or passed on."""
    rows = await engine.run(
        "select kind, body from sandbox.object where kind in ('application_fee', 'transfer')"
        " and body->>'currency' = :currency", currency=currency,
    )  # fmt: skip
    now, found = await engine.now(), 0
    for kind, body in rows.all():
        if kind == "transfer":
            found -= body["amount"] - body["amount_reversed"]
        else:
            found += (body["amount"] if body["livery"]["available_on"] <= now else 0) - body[
                "amount_refunded"
            ]
    return found


async def _give_back(engine: Engine, charge: dict[str, Any], amount: int) -> None:
    """With a refund of the charge, which says so by its own balance transaction."""
    fee = await engine.get("application_fee", charge["application_fee"])
    fee["amount_refunded"] += amount
    await engine.put(fee)


def _within(path: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "url": path, "has_more": False, "data": list(items)}


def _shown_fee(fee: dict[str, Any]) -> dict[str, Any]:
    refunds = _within(f"/v1/application_fees/{fee['id']}/refunds", fee["livery"]["refunds"])
    return _without_own(fee) | {"refunds": refunds}


async def _get_fee(engine: Engine, ref: str, _params: dict[str, Any]) -> dict[str, Any]:
    return _shown_fee((await _find(engine, "application_fee", ref))[1])


async def _refund_fee(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    """A platform fee comes back as a line of its own in the account's books (category `fee`, docs.stripe.com/reports/
    reporting-categories)."""
    merchant, fee = await _find(engine, "application_fee", ref)
    await merchant.lock()
    amount, left = _integer(params, "amount", fee["amount"]), fee["amount"] - fee["amount_refunded"]
    if not 0 < amount <= left:
        message = f"Refund amount ({amount}) is greater than fee amount left ({left})."
        raise WireError(400, "invalid_request_error", message, param="amount")
    back = {
        "id": "fr_" + secrets.token_hex(12), "object": "fee_refund", "amount": amount, "balance_transaction": None,
        "created": await engine.now(), "currency": fee["currency"], "fee": fee["id"],
        "metadata": params.get("metadata") or {},
    }  # fmt: skip
    fee["amount_refunded"] += amount
    fee["refunded"] = fee["amount_refunded"] == fee["amount"]
    fee["livery"]["refunds"].insert(0, back)
    await merchant.put(fee)
    await _book(merchant, "adjustment", "fee", amount, fee["currency"], back["id"], available_in=timedelta())
    await merchant.put(back)
    return back


def _shown_transfer(transfer: dict[str, Any]) -> dict[str, Any]:
    reversals = _within(f"/v1/transfers/{transfer['id']}/reversals", transfer["livery"]["reversals"])
    return _without_own(transfer) | {"reversals": reversals}


async def _create_transfer(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    """From the platform's available balance to an account that may receive."""
    amount, currency = _integer(params, "amount"), str(params.get("currency"))
    target = await _get_account(engine, str(params.get("destination")), {})
    receives = target["configuration"].get("recipient", {}).get("capabilities", {}).get("stripe_balance", {})
    if receives.get("stripe_transfers", {}).get("status") != "active":
        message = (
            "Your destination account needs to have at least one of the following capabilities: transfers."
        )
        raise WireError(400, "invalid_request_error", message, code="insufficient_capabilities_for_transfer")
    if not 0 < amount <= await _available(engine, currency):
        message = "You have insufficient available funds in your Stripe account."
        raise WireError(400, "invalid_request_error", message, code="balance_insufficient")
    made = {
        "id": "tr_" + secrets.token_hex(12), "object": "transfer", "amount": amount, "amount_reversed": 0,
        "balance_transaction": None, "created": await engine.now(), "currency": currency, "description": None,
        "destination": target["id"], "destination_payment": None, "livemode": False,
        "metadata": params.get("metadata") or {}, "reversed": False, "source_transaction": None,
        "source_type": "card", "transfer_group": params.get("transfer_group"), "livery": {"reversals": []},
    }  # fmt: skip
    await Engine(engine.db, target["id"]).put(made)
    return _shown_transfer(made)


async def _reverse_transfer(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    owner, transfer = await _find(engine, "transfer", ref)
    left = transfer["amount"] - transfer["amount_reversed"]
    amount = _integer(params, "amount", left)
    if not 0 < amount <= left:
        message = f"Reversal amount ({amount}) is greater than transfer amount left ({left})."
        raise WireError(400, "invalid_request_error", message, param="amount")
    back = {
        "id": "trr_" + secrets.token_hex(12), "object": "transfer_reversal", "amount": amount,
        "balance_transaction": None, "created": await engine.now(), "currency": transfer["currency"],
        "destination_payment_refund": None, "metadata": params.get("metadata") or {}, "source_refund": None,
        "transfer": transfer["id"],
    }  # fmt: skip
    transfer["amount_reversed"] += amount
    transfer["reversed"] = transfer["amount_reversed"] == transfer["amount"]
    transfer["livery"]["reversals"].insert(0, back)
    await owner.put(transfer)
    return back


async def _list_transfers(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    """Of a group."""
    rows = await engine.run(
        "select body from sandbox.object where kind = 'transfer' and body->>'transfer_group' = :mark"
        " order by created desc, id desc limit 100", mark=str(params.get("transfer_group")),
    )  # fmt: skip
    return _within("/v1/transfers", [_shown_transfer(row.body) for row in rows.all()])


# -- the account's own books -----------------------------------------------------------------------------------------


async def _book(
    engine: Engine, kind: str, category: str, amount: int, currency: str, source: str | None, *,
    fees: Sequence[dict[str, Any]] = (), available_in: timedelta = timedelta(days=2), created: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One balance transaction: `amount` comes in (or goes out, below 0), `fees` are kept of it. `source` is what it is
    about. Money that goes out is gone at once (docs.stripe.com/reports/balance-transaction-types)."""
    now = created if created is not None else await engine.now()
    fee = sum(part["amount"] for part in fees)
    return await engine.put({
        "id": "txn_" + secrets.token_hex(12), "object": "balance_transaction", "amount": amount, "created": now,
        "available_on": now + (int(available_in.total_seconds()) if amount > 0 else 0), "balance_type": "payments",
        "currency": currency, "description": None, "exchange_rate": None, "fee": fee, "net": amount - fee,
        "fee_details": list(fees), "reporting_category": category, "source": source,
        "status": "pending" if amount > 0 else "available", "type": kind,
    })  # fmt: skip


def _fee(kind: str, amount: int, currency: str, description: str) -> dict[str, Any]:
    return {
        "amount": amount, "application": "ca_sandbox" if kind == "application_fee" else None, "currency": currency,
        "description": description, "type": kind,
    }  # fmt: skip


async def _age_balance(engine: Engine) -> None:
    """The automatic payouts up to now: at midnight UTC what is available goes to the bank, which has it a day later."""
    await _age_refunds(engine)
    now, schedule = await engine.now(), await _schedule(engine)
    rows = await engine.run(
        "select body from sandbox.object where account = :account and kind = 'balance_transaction'"
        " and body->'livery'->>'payout' is null order by created, id"
    )
    waiting = [(-(-row.body["available_on"] // DAY_S) * DAY_S, row.body) for row in rows.all()]
    for midnight in sorted({due for due, _ in waiting if due <= now and _pays_out(schedule, due)}):
        for currency in sorted({body["currency"] for _, body in waiting}):
            items = [body for due, body in waiting if due <= midnight and body["currency"] == currency]
            if sum(body["net"] for body in items) > 0:
                await _pay_out(engine, items, midnight)
                waiting = [(due, body) for due, body in waiting if body not in items]
    rows = await engine.run(
        "select body from sandbox.object where account = :account and kind = 'payout'"
        " and body->>'status' = 'in_transit' and (body->>'arrival_date')::bigint <= :now order by created, id", now=now,
    )  # fmt: skip
    for row in rows.all():
        await _arrive(engine, row.body)


def _pays_out(schedule: dict[str, Any], midnight: int) -> bool:
    on = datetime.fromtimestamp(midnight, UTC)
    return {
        "daily": True, "weekly": on.strftime("%A").lower() in schedule.get("weekly_payout_days", ()),
        "monthly": on.day in schedule.get("monthly_payout_days", ()),
    }.get(schedule["interval"], False)  # fmt: skip


async def _pay_out(engine: Engine, items: list[dict[str, Any]], midnight: int) -> None:
    ref, amount, currency = (
        "po_" + secrets.token_hex(12),
        sum(one["net"] for one in items),
        items[0]["currency"],
    )
    txn = await _book(engine, "payout", "payout", -amount, currency, ref, created=midnight)
    payout = {
        "id": ref, "object": "payout", "amount": amount, "application_fee": None, "application_fee_amount": None,
        "arrival_date": midnight + DAY_S, "automatic": True, "balance_transaction": txn["id"], "created": midnight,
        "currency": currency, "description": "STRIPE PAYOUT", "destination": "ba_sandbox",
        "failure_balance_transaction": None, "failure_code": None, "failure_message": None, "livemode": False,
        "metadata": {}, "method": "standard", "original_payout": None, "payout_method": None,
        "reconciliation_status": "completed", "reversed_by": None, "source_type": "card",
        "statement_descriptor": None, "status": "in_transit", "trace_id": None, "type": "bank_account",
    }  # fmt: skip
    for body in (*items, txn):
        await engine.put(body | {"livery": {"payout": ref}})
    await engine.put(payout)
    await engine.tell("payout.created", payout)
    await engine.tell("payout.reconciliation_completed", payout)


async def _arrive(engine: Engine, payout: dict[str, Any]) -> None:
    """At the bank; or back, where it does not take it (`set_bank`)."""
    if await engine.setting("bank") != "refuses":
        await engine.tell("payout.paid", await engine.put(payout | {"status": "paid"}))
        return
    back = await _book(
        engine, "payout_failure", "payout_reversal", payout["amount"], payout["currency"], payout["id"],
        available_in=timedelta(),
    )  # fmt: skip
    payout |= {
        "status": "failed", "failure_balance_transaction": back["id"], "failure_code": "account_closed",
        "failure_message": "The bank account has been closed.",
    }  # fmt: skip
    await engine.tell("payout.failed", await engine.put(payout))


async def _schedule(engine: Engine) -> dict[str, Any]:
    return await engine.setting(f"payouts:{engine.account}", {"interval": "daily"})


async def _get_balance(engine: Engine, _params: dict[str, Any]) -> dict[str, Any]:
    await _age_balance(engine)
    rows = await engine.run(
        "select body->>'currency' as currency,"
        " coalesce(sum((body->>'net')::bigint) filter (where (body->>'available_on')::bigint <= :now), 0) as available,"
        " coalesce(sum((body->>'net')::bigint) filter (where (body->>'available_on')::bigint > :now), 0) as pending"
        " from sandbox.object where account = :account and kind = 'balance_transaction' group by 1 order by 1",
        now=await engine.now(),
    )
    found = [(row.currency, int(row.available), int(row.pending)) for row in rows.all()]
    return {
        "object": "balance", "livemode": False,
        "available": [_in_cards(amount, currency) for currency, amount, _ in found],
        "pending": [_in_cards(amount, currency) for currency, _, amount in found],
    }  # fmt: skip


def _in_cards(amount: int, currency: str) -> dict[str, Any]:
    return {"amount": amount, "currency": currency, "source_types": {"card": amount}}


async def _shown_txn(engine: Engine, txn: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    status = "available" if txn["available_on"] <= await engine.now() else "pending"
    shown = {name: value for name, value in txn.items() if name != "livery"} | {"status": status}
    return await engine.expanded(shown, params)


async def _list_txns(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    """`payout` lists what went out with it, and the payout's own line."""
    await _age_balance(engine)
    part = {name: params[name] for name in ("source", "type") if name in params}
    part |= {"livery": {"payout": params["payout"]}} if "payout" in params else {}
    found, has_more = await _newest_of(engine, "balance_transaction", params, part)
    within = {"expand": [path.removeprefix("data.") for path in params.get("expand") or []]}
    shown = [await _shown_txn(engine, one, within) for one in found]
    return {"object": "list", "url": "/v1/balance_transactions", "has_more": has_more, "data": shown}


async def _list_payouts(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    await _age_balance(engine)
    found, has_more = await _newest_of(engine, "payout", params)
    return {"object": "list", "url": "/v1/payouts", "has_more": has_more, "data": found}


async def _get_payout(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    await _age_balance(engine)
    return await _get_of("payout", engine, ref, params)


async def _get_balance_settings(engine: Engine, _params: dict[str, Any]) -> dict[str, Any]:
    override = await engine.setting(f"delay:{engine.account}")
    return {
        "object": "balance_settings", "payments": {
            "debit_negative_balances": None, "settlement_timing": {
                "delay_days": override or DELAY_DAYS, "delay_days_override": override},
            "payouts": {"minimum_balance_by_currency": None, "schedule": await _schedule(engine),
                        "statement_descriptor": None, "status": "enabled"}},
    }  # fmt: skip


async def _set_balance_settings(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    asked = ((params.get("payments") or {}).get("payouts") or {}).get("schedule") or {}
    if asked:
        interval = asked.get("interval")
        named = {"weekly": "weekly_payout_days", "monthly": "monthly_payout_days"}.get(str(interval))
        days = list(asked.get(named) or ()) if named else []
        if interval not in ("daily", "weekly", "monthly", "manual") or (named and not days):
            message = "An interval is daily, weekly, monthly or manual, and goes with its days."
            raise WireError(400, "invalid_request_error", message, param="payments[payouts][schedule]")
        schedule: dict[str, Any] = {"interval": interval}
        if named:
            schedule[named] = [int(day) for day in days] if interval == "monthly" else days
        await engine.set(f"payouts:{engine.account}", schedule)
    timing = (params.get("payments") or {}).get("settlement_timing") or {}
    if "delay_days_override" in timing:
        await engine.set(f"delay:{engine.account}", _integer(timing, "delay_days_override"))
    return await _get_balance_settings(engine, params)


async def _cancel_intent(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    intent = await _aged_intent(engine, ref)
    if intent["status"] in ("succeeded", "canceled"):
        message = f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}."
        raise WireError(400, "invalid_request_error", message, code="payment_intent_unexpected_state")
    await _cancel(engine, intent, params.get("cancellation_reason") or "requested_by_customer")
    return _shown_intent(await engine.expanded(intent, params))


async def _cancel(engine: Engine, intent: dict[str, Any], reason: str) -> None:
    now = await engine.now()
    intent |= {
        "status": "canceled",
        "amount_capturable": 0,
        "canceled_at": now,
        "cancellation_reason": reason,
    }
    if intent["latest_charge"]:
        charge = await engine.get("charge", intent["latest_charge"])
        charge |= {"amount_refunded": charge["amount"], "refunded": True}
        await engine.put(charge)
    await engine.put(intent)
    await engine.tell("payment_intent.canceled", _shown_intent(intent))


# -- refunds ---------------------------------------------------------------------------------------------------------


async def _create_refund(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    intent = await engine.get("payment_intent", str(params.get("payment_intent")))
    if intent["status"] != "succeeded":
        message = "This PaymentIntent does not have a successful charge to refund."
        raise WireError(400, "invalid_request_error", message, code="charge_not_refundable")
    charge = await engine.get("charge", intent["latest_charge"])
    await _refuse_disputed(engine, charge)
    left = charge["amount"] - charge["amount_refunded"]
    amount = _integer(params, "amount", left)
    if not 0 < amount <= left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})."
        raise WireError(400, "invalid_request_error", message, code="amount_too_large", param="amount")
    refund = {
        "id": "re_" + secrets.token_hex(12), "object": "refund", "amount": amount, "balance_transaction": None,
        "charge": charge["id"], "created": await engine.now(), "currency": charge["currency"],
        "metadata": params.get("metadata") or {}, "payment_intent": intent["id"], "reason": params.get("reason"),
        "receipt_number": None, "source_transfer_reversal": None, "status": "succeeded", "transfer_reversal": None,
    }  # fmt: skip
    begins, ends = REFUNDING.get(intent["livery"]["card"], ("succeeded", ""))
    if ends:
        refund |= {"status": begins, "livery": {"ends": ends, "at": refund["created"] + REFUND_SETTLES_S}}
    fees = []
    if params.get("refund_application_fee") in (True, "true"):
        fees = [_fee_back(charge, amount)]
        await _give_back(engine, charge, -fees[0]["amount"])
    txn = await _book(engine, "refund", "refund", -amount, charge["currency"], refund["id"], fees=fees)
    refund["balance_transaction"] = txn["id"]
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    await engine.put(refund)
    await engine.put(charge)
    await engine.tell("charge.refunded", charge)
    return await engine.expanded(_without_own(refund), params)


async def _age_refunds(engine: Engine) -> None:
    """What the card's bank did with refunds since: it took them, or sent the money back to the account."""
    rows = await engine.run(
        "select body from sandbox.object where account = :account and kind = 'refund'"
        " and (body->'livery'->>'at')::bigint <= :now order by created, id", now=await engine.now(),
    )  # fmt: skip
    for row in rows.all():
        refund, ends = _without_own(row.body), row.body["livery"]["ends"]
        refund["status"] = ends
        if ends == "failed":
            back = await _book(
                engine, "refund_failure", "refund_failure", refund["amount"], refund["currency"], refund["id"],
                available_in=timedelta(),
            )  # fmt: skip
            refund |= {
                "failure_balance_transaction": back["id"],
                "failure_reason": "expired_or_canceled_card",
            }
            charge = await engine.get("charge", refund["charge"])
            charge |= {"amount_refunded": charge["amount_refunded"] - refund["amount"], "refunded": False}
            await engine.put(charge)
        await engine.put(refund)
        await engine.tell("refund.failed" if ends == "failed" else "refund.updated", refund)
        await engine.tell("charge.refund.updated", refund)


def _fee_back(charge: dict[str, Any], amount: int) -> dict[str, Any]:
    """In proportion to what of the charge is given back, so that all of it comes to all of the fee."""
    fee, taken = charge["application_fee_amount"], charge["amount_captured"]
    if not fee:
        message = "Attempting to refund_application_fee on a charge that has no application fee."
        raise WireError(400, "invalid_request_error", message, param="refund_application_fee")
    before = charge["amount_refunded"] - (charge["amount"] - taken)
    back = half_up(Decimal(fee) * (before + amount) / taken) - half_up(Decimal(fee) * before / taken)
    return _fee("application_fee", -back, charge["currency"], "Platform fee refund")


async def _get_of(kind: str, engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    return await engine.expanded(await engine.get(kind, ref), params)


async def _get_charge(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    return await _get_of("charge", engine, ref, params)


async def _get_refund(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    await _age_refunds(engine)
    return _without_own(await _get_of("refund", engine, ref, params))


async def _list_refunds(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    await _age_refunds(engine)
    part = {name: params[name] for name in ("charge", "payment_intent") if name in params}
    found, has_more = await _newest_of(engine, "refund", params, part)
    return {
        "object": "list",
        "url": "/v1/refunds",
        "has_more": has_more,
        "data": [_without_own(one) for one in found],
    }


# -- disputes --------------------------------------------------------------------------------------------------------

DISPUTE_FEE, EVIDENCE_WITHIN_S, MOST_EVIDENCE = 2000, 20 * 86400, 150_000
_ANSWERABLE, _OPEN = ("needs_response", "warning_needs_response"), ("needs_response", "under_review")
# As in Stripe's test mode: what is sent as `uncategorized_text` decides at once.
_DECISIVE = {"winning_evidence": "won", "losing_evidence": "lost"}


async def _open_dispute(engine: Engine, charge: dict[str, Any], status: str) -> None:
    """The payer was at their bank: the money is gone at once, with a fee; of an inquiry (`warning_…`) none is."""
    now, brand = await engine.now(), charge["payment_method_details"]["card"]["brand"]
    dispute = {
        "id": "du_" + secrets.token_hex(12), "object": "dispute", "amount": charge["amount_captured"],
        "balance_transactions": [], "charge": charge["id"], "created": now, "currency": charge["currency"],
        "enhanced_eligibility_types": [], "evidence": {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now + EVIDENCE_WITHIN_S, "enhanced_eligibility": {}, "has_evidence": False, "past_due": False,
            "submission_count": 0, "submission_method": "not_submitted",
        },
        "intended_submission_method": None, "is_charge_refundable": status.startswith("warning_"), "livemode": False,
        "metadata": {}, "network_reason_code": "10.4" if brand == "visa" else "4837",
        "payment_intent": charge["payment_intent"], "reason": "fraudulent", "status": status,
        "payment_method_details": {"type": "card", "card": {
            "brand": brand, "network": brand, "network_reason_code": "10.4" if brand == "visa" else "4837",
            "case_type": "inquiry" if status.startswith("warning_") else "chargeback"}},
    }  # fmt: skip
    charge["disputed"] = True
    await engine.put(charge)
    if not status.startswith("warning_"):
        await _move(engine, dispute, "dispute", -dispute["amount"])
    await engine.put(dispute)
    await engine.tell("charge.dispute.created", dispute)
    if dispute["balance_transactions"]:
        await engine.tell("charge.dispute.funds_withdrawn", dispute)


async def _move(engine: Engine, dispute: dict[str, Any], category: str, amount: int) -> None:
    """The dispute's money, out and back; the fee is not given back."""
    fees = [_fee("stripe_fee", DISPUTE_FEE, dispute["currency"], "Dispute fee")] if amount < 0 else []
    txn = await _book(engine, "adjustment", category, amount, dispute["currency"], dispute["id"], fees=fees)
    dispute["balance_transactions"].append(txn)


async def _close_dispute(engine: Engine, dispute: dict[str, Any], status: str) -> None:
    dispute |= {"status": status, "is_charge_refundable": status == "won"}
    if status == "won":
        await _move(engine, dispute, "dispute_reversal", dispute["amount"])
    await engine.put(dispute)
    await engine.tell("charge.dispute.closed", dispute)
    if status == "won":
        await engine.tell("charge.dispute.funds_reinstated", dispute)


async def _aged_dispute(engine: Engine, ref: str) -> dict[str, Any]:
    """Who does not answer in time has lost; an inquiry without an answer comes to nothing here."""
    dispute = await engine.get("dispute", ref)
    if dispute["status"] in _ANSWERABLE and dispute["evidence_details"]["due_by"] <= await engine.now():
        await _close_dispute(
            engine, dispute, "lost" if dispute["status"] == "needs_response" else "warning_closed"
        )
    return dispute


async def _refuse_disputed(engine: Engine, charge: dict[str, Any]) -> None:
    rows = await engine.run(
        "select body->>'status' as status from sandbox.object"
        " where account = :account and kind = 'dispute' and body->>'charge' = :charge",
        charge=charge["id"],
    )
    if {row.status for row in rows} & {*_OPEN, "lost"}:
        message = f"Charge {charge['id']} has been charged back; cannot issue a refund."
        raise WireError(400, "invalid_request_error", message, code="charge_disputed")


async def _get_dispute(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    return await engine.expanded(await _aged_dispute(engine, ref), params)


async def _list_disputes(engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
    part = {name: params[name] for name in ("charge", "payment_intent") if name in params}
    rows, has_more = await _newest_of(engine, "dispute", params, part)
    found = [await _aged_dispute(engine, row["id"]) for row in rows]
    return {"object": "list", "url": "/v1/disputes", "has_more": has_more, "data": found}


async def _update_dispute(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    """Evidence, kept until it is submitted (`submit`, true unless it is said); then the bank has it, once."""
    dispute = await _answerable(engine, ref)
    evidence = {**dispute["evidence"], **(params.get("evidence") or {})}
    texts = [one for one in evidence.values() if isinstance(one, str)]
    if sum(map(len, texts)) > MOST_EVIDENCE:
        message = f"The combined length of all evidence fields is limited to {MOST_EVIDENCE} characters."
        raise WireError(400, "invalid_request_error", message, param="evidence")
    details = dispute["evidence_details"] | {"has_evidence": any(texts)}
    dispute |= {"evidence": evidence, "metadata": dispute["metadata"] | (params.get("metadata") or {})}
    if str(params.get("submit", "true")) == "true" and any(texts):
        details |= {"submission_count": details["submission_count"] + 1, "submission_method": "manual"}
        is_inquiry = dispute["status"].startswith("warning_")
        dispute["status"] = "warning_under_review" if is_inquiry else "under_review"
    dispute["evidence_details"] = details
    await engine.put(dispute)
    await engine.tell("charge.dispute.updated", dispute)
    decided = _DECISIVE.get(evidence.get("uncategorized_text", ""))
    if dispute["status"] == "under_review" and decided:
        await _close_dispute(engine, dispute, decided)
    return await engine.expanded(dispute, params)


async def _accept_dispute(engine: Engine, ref: str, params: dict[str, Any]) -> dict[str, Any]:
    dispute = await _answerable(engine, ref)
    await _close_dispute(engine, dispute, "lost")
    return await engine.expanded(dispute, params)


async def _answerable(engine: Engine, ref: str) -> dict[str, Any]:
    dispute = await _aged_dispute(engine, ref)
    if dispute["status"] not in _ANSWERABLE:
        message = f"This dispute has the status {dispute['status']} and cannot be updated any more."
        raise WireError(400, "invalid_request_error", message, code="dispute_already_closed")
    return dispute


async def list_disputes(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """(account, dispute) of those that the bank may still decide, newest first: for the panel."""
    async with database.sandbox() as db:
        rows = await Engine(db, "").run(
            "select account, body from sandbox.object where kind = 'dispute' and body->>'status' not in"
            " ('won', 'lost', 'warning_closed') order by created desc, id desc limit 50"
        )
        return [(row.account, row.body) for row in rows]


async def decide_dispute(database: Database, account: str, ref: str, outcome: str) -> None:
    """The bank decides: won or lost; an inquiry becomes a dispute (lost) or is closed (won). WireError for none."""
    async with database.sandbox() as db:
        engine = Engine(db, account)
        await engine.lock()
        dispute = await _aged_dispute(engine, ref)
        if dispute["status"] in _OPEN:
            await _close_dispute(engine, dispute, outcome)
        elif dispute["status"].startswith("warning_") and dispute["status"] != "warning_closed":
            if outcome == "won":
                await _close_dispute(engine, dispute, "warning_closed")
                return
            dispute |= {"status": "needs_response", "is_charge_refundable": False}
            await _move(engine, dispute, "dispute", -dispute["amount"])
            await engine.put(dispute)
            await engine.tell("charge.dispute.updated", dispute)
            await engine.tell("charge.dispute.funds_withdrawn", dispute)


# -- the table of endpoints ------------------------------------------------------------------------------------------

Endpoint = Callable[..., Any]
ENDPOINTS: list[tuple[str, str, Endpoint]] = [
    ("POST", "/v2/core/accounts", _create_account),
    ("GET", "/v2/core/accounts/{id}", _get_account),
    ("POST", "/v2/core/account_links", _create_link),
    ("POST", "/v1/account_sessions", _create_account_session),
    ("POST", "/v1/checkout/sessions", _create_checkout),
    ("GET", "/v1/checkout/sessions/{id}", _get_checkout),
    ("POST", "/v1/checkout/sessions/{id}/expire", _expire_checkout),
    ("POST", "/v1/customers", _create_customer),
    ("DELETE", "/v1/customers/{id}", _delete_customer),
    ("GET", "/v1/payment_methods/{id}", _get_method),
    ("POST", "/v1/payment_methods/{id}/detach", _detach_method),
    ("GET", "/v1/payment_intents", _list_intents),
    ("POST", "/v1/payment_intents", _create_intent),
    ("POST", "/v1/payment_intents/{id}/confirm", _confirm_intent),
    ("GET", "/v1/payment_intents/{id}", _get_intent),
    ("POST", "/v1/payment_intents/{id}/increment_authorization", _increment_intent),
    ("POST", "/v1/payment_intents/{id}/capture", _capture_intent),
    ("POST", "/v1/payment_intents/{id}/cancel", _cancel_intent),
    ("GET", "/v1/charges/{id}", _get_charge),
    ("POST", "/v1/refunds", _create_refund),
    ("GET", "/v1/refunds", _list_refunds),
    ("GET", "/v1/refunds/{id}", _get_refund),
    ("GET", "/v1/application_fees/{id}", _get_fee),
    ("POST", "/v1/application_fees/{id}/refunds", _refund_fee),
    ("GET", "/v1/transfers", _list_transfers),
    ("POST", "/v1/transfers", _create_transfer),
    ("POST", "/v1/transfers/{id}/reversals", _reverse_transfer),
    ("GET", "/v1/balance", _get_balance),
    ("GET", "/v1/balance_transactions", _list_txns),
    ("GET", "/v1/payouts", _list_payouts),
    ("GET", "/v1/payouts/{id}", _get_payout),
    ("GET", "/v1/balance_settings", _get_balance_settings),
    ("POST", "/v1/balance_settings", _set_balance_settings),
    ("GET", "/v1/disputes", _list_disputes),
    ("GET", "/v1/disputes/{id}", _get_dispute),
    ("POST", "/v1/disputes/{id}", _update_dispute),
    ("POST", "/v1/disputes/{id}/close", _accept_dispute),
]
_OF_PLATFORM = (
    _create_account_session, _get_fee, _refund_fee, _list_transfers, _create_transfer, _reverse_transfer,
)  # fmt: skip
_ROUTES = [
    (method, re.compile(re.sub(r"\{id\}", r"([A-Za-z0-9_]{1,120})", path)), endpoint)
    for method, path, endpoint in ENDPOINTS
]


def _route(wire: Wire) -> tuple[Endpoint, tuple[str, ...]]:
    for method, pattern, endpoint in _ROUTES:
        found = pattern.fullmatch(wire.path)
        if found and method == wire.method:
            is_of_account = wire.path.startswith("/v1/") and endpoint not in _OF_PLATFORM
            return (_of_account(endpoint) if is_of_account else endpoint), found.groups()
    message = f"Unrecognized request URL ({wire.method}: {wire.path})."
    raise WireError(404, "invalid_request_error", message, code="resource_missing")


def _of_account(endpoint: Endpoint) -> Endpoint:
    async def checked(engine: Engine, *rest: Any) -> dict[str, Any]:
        await _check_account(engine)
        return await endpoint(engine, *rest)

    return checked


def with_urls(answer: Answer, settings: Settings) -> Answer:
    """Checkouts and the onboarding have their pages on the sandbox's own origin."""
    if answer.body.get("object") == "checkout.session" and answer.body.get("url"):
        url = settings.url_of(settings.host_of("sandbox"), f"/pay/{answer.body['id']}")
        return Answer(answer.status, answer.body | {"url": url})
    if answer.body.get("object") == "v2.core.account_link":
        url = settings.url_of(settings.host_of("sandbox"), f"/onboarding/{answer.body['url']}")
        return Answer(answer.status, answer.body | {"url": url})
    return answer


# -- the panel: clock and faults, for development and tests ----------------------------------------------------------


async def set_clock(database: Database, offset_s: int) -> None:
    """How far the sandbox's clock is ahead of ours: holds and checkouts expire by it, and banks take refunds or not."""
    await _set(database, "clock", offset_s)
    async with database.sandbox() as db:
        rows = await Engine(db, "").run(
            "select distinct account from sandbox.object where kind = 'refund' and body ? 'livery'"
        )
        for account in [row.account for row in rows.all()]:
            engine = Engine(db, account)
            await engine.lock()
            await _age_refunds(engine)


async def set_faults(database: Database, plan: list[dict[str, Any]]) -> None:
    """[{"path": regular expression, "fault": one of FAULTS, "times": n}], each taken by the first requests that fit."""
    await _set(database, "faults", plan)


async def set_accounts(database: Database, *, ask: bool) -> None:
    """Whether accounts that are opened from now on have to go through the onboarding first."""
    await _set(database, "accounts", "ask" if ask else "ready")


async def set_bank(database: Database, *, refuses: bool) -> None:
    """Whether the bank sends payouts back."""
    await _set(database, "bank", "refuses" if refuses else "takes")


async def set_webhook_plan(database: Database, plan: dict[str, Any]) -> None:
    """{"drop": true} loses the news, {"copies": n} repeats it, {"reverse": true} tells the newest first."""
    await _set(database, "webhooks", plan)


@dataclass(frozen=True, slots=True)
class Account:
    """`objects`: its newest checkouts and payment intents, newest first, as the wire shows them."""

    ref: str
    name: str
    objects: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class State:
    """`clock_s`: how far ahead; `waiting`: news not yet told, `tried` of them told in vain so far; `asks`: new accounts
    are onboarded first; `refuses`: the bank sends payouts back."""

    clock_s: int
    faults: list[dict[str, Any]]
    webhooks: dict[str, Any]
    waiting: int
    tried: int
    accounts: list[Account]
    asks: bool
    refuses: bool


async def look(database: Database, *, newest: int = 8) -> State:
    """All that the panel shows."""
    async with database.sandbox() as db:
        engine = Engine(db, "")
        rows = await engine.run("select name, value from sandbox.setting")
        settings = {row.name: row.value for row in rows}
        outbox = await engine.one(
            "select count(*) as waiting, count(*) filter (where attempts > 0) as tried from sandbox.delivery"
        )
        owners = (await engine.run("select id, body from sandbox.account order by created_at, id")).all()
        accounts = [
            Account(
                owner.id, str(owner.body.get("display_name") or owner.id), await _newest(db, owner.id, newest)
            )
            for owner in owners
        ]
    return State(
        int(settings.get("clock", 0)), settings.get("faults", []), settings.get("webhooks", {}),
        outbox.waiting, outbox.tried, accounts, settings.get("accounts") == "ask", settings.get("bank") == "refuses",
    )  # fmt: skip


async def _newest(db: AsyncSession, account: str, limit: int) -> list[dict[str, Any]]:
    rows = await Engine(db, account).run(
        "select body from sandbox.object where account = :account and kind in ('checkout.session', 'payment_intent')"
        " order by created desc, id desc limit :limit", limit=limit,
    )  # fmt: skip
    return [row.body for row in rows]


async def get_setting(database: Database, name: str, default: Any = None) -> Any:
    async with database.sandbox() as db:
        return await Engine(db, "").setting(name, default)


async def _set(database: Database, name: str, value: Any) -> None:
    async with database.sandbox() as db:
        await Engine(db, "").set(name, value)


async def _take_fault(database: Database, wire: Wire) -> str | None:
    async with database.sandbox() as db:
        engine = Engine(db, "")
        row = await engine.one("select value from sandbox.setting where name = 'faults' for update")
        for entry in row.value if row else []:
            if entry.get("times", 1) > 0 and re.search(entry["path"], f"{wire.method} {wire.path}"):
                entry["times"] = entry.get("times", 1) - 1
                await engine.run(
                    "update sandbox.setting set value = cast(:value as jsonb) where name = 'faults'",
                    value=json.dumps(row.value),
                )
                return entry["fault"]
    return None


async def take_deliveries(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """What waits to be told, by the plan: (delivery id, event). Gone once it was told or dropped."""
    async with database.sandbox() as db:
        engine = Engine(db, "")
        plan = await engine.setting("webhooks", {})
        rows = await engine.run(
            "select id, event from sandbox.delivery where due_at <= now() order by id limit 50 for update skip locked"
        )
        waiting = [(str(found.id), found.event) for found in rows]
        if plan.get("drop"):
            await engine.run("delete from sandbox.delivery where due_at <= now()")
            return []
        if waiting:
            await engine.run(
                "update sandbox.delivery set attempts = attempts + 1,"
                " due_at = now() + least(attempts + 1, 60) * interval '5 seconds' where id = any(cast(:ids as uuid[]))",
                ids=[ref for ref, _ in waiting],
            )
    if plan.get("reverse"):
        waiting.reverse()
    return [one for one in waiting for _ in range(int(plan.get("copies", 1)))]


async def delivered(database: Database, delivery_id: str) -> None:
    async with database.sandbox() as db:
        await Engine(db, "").run("delete from sandbox.delivery where id = cast(:id as uuid)", id=delivery_id)
