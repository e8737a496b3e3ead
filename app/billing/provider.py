"""The port to whoever moves the money, in plain words and integers; `stripe_connect` is the one adapter.

No call is made inside a database transaction. Each writing call takes a deterministic key: sent again it is the same
call. What comes back is an `Observation`; what does not come back is `OutcomeUnknown`, and somebody looks later.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol


class ProviderError(Exception):
    """`code` is stable; the message is for logs and staff, not for payers."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


# What staff read where a page of theirs needs an answer at once.
NO_ANSWER = "The payment provider did not answer, or refused. Nothing has changed: try again in a moment."


class Rejected(ProviderError):
    """The provider says no and nothing happened: trying the same again would be told the same."""


class OutcomeUnknown(ProviderError):
    """No answer, or one that says nothing: it may have happened. Resolved by reading, never by guessing.

    `is_final`: the provider has kept this answer and gives it again to every call with the same key.
    """

    def __init__(self, code: str, message: str, *, is_final: bool = False) -> None:
        super().__init__(code, message)
        self.is_final = is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`is_ready`: it may take cards. `due` is what the provider asks the operator for, in its own words;
    `losses_borne_by`: stripe, or application for the platform."""

    ref: str
    is_ready: bool
    is_live: bool
    due: tuple[str, ...] = ()
    losses_borne_by: str = "stripe"


@dataclass(frozen=True, slots=True)
class Profile:
    """How operators' accounts are opened, of what Stripe allows with direct charges (money.md 1.1): with its own
    dashboard, where it collects its fees and bears what is lost, or with none of its pages, where the platform is
    billed and bears it. Who only receives (site hosts) is always the platform's risk."""

    dashboard: str
    responsible: str
    delay_days: int | None = None  # until a charge is available; None: as short as the provider has it


PROFILES = {"saas": Profile("full", "stripe"), "white_label": Profile("none", "application", 7)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """The hosted page. `url` is None once it is closed; `status` is open, complete or expired."""

    ref: str
    status: str
    url: str | None
    expires_at: datetime
    payment: "Observation | None" = None
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSeen:
    """A saved card as the provider has it. `customer_ref` is empty where it belongs to nobody any more; `fingerprint`
    is the same for the same number."""

    ref: str
    customer_ref: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The hosted page where a driver saves a card; `status` and `url` as of a `Checkout`."""

    ref: str
    status: str
    url: str | None
    setup_ref: str | None
    card: CardSeen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the provider says a payment is now. Amounts in minor units; totals never fall (`merge`).

    `refunded_minor` is what went back and stayed there, `refund_failed_minor` what went and was sent back to the
    account. `refunds` are those that are known one by one. `fees_back` is (refund, minor units) of the platform's fee
    that was given back with it. `is_incremental`: its bank lets the hold be raised; `is_extended`: it stands for longer
    than usual, up to `capture_before` as ever.
    """

    provider_ref: str
    state: str
    hold_minor: int = 0
    captured_minor: int = 0
    refunded_minor: int = 0
    refund_failed_minor: int = 0
    fee_minor: int = 0
    provider_fee_minor: int = 0
    capture_before: datetime | None = None
    charge_ref: str | None = None
    method: str = ""
    failure: str = ""
    is_live: bool = False
    is_disputed: bool = False
    three_d_secure: str = ""
    is_incremental: bool = False
    is_extended: bool = False
    fees_back: tuple[tuple[str, int], ...] = ()
    refunds: "tuple[RefundSeen, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundSeen:
    """`marked` is what we gave it with us. `failure` is the provider's reason of one that failed, however late."""

    ref: str
    marked: str
    is_failed: bool = False
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What the platform passed on of its fees, took back, or gave back: `marked` is what we gave it with us."""

    ref: str
    marked: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeSeen:
    """What the provider says a dispute is now. `state` is one of `models.Dispute`; `due_by` None: no answer is taken.

    `fee_minor` is what it keeps of us for it, `is_withdrawn` and `is_reinstated` are by its own books.
    """

    ref: str
    payment_ref: str
    amount_minor: int
    currency: str
    reason: str
    state: str
    created_at: datetime
    network_reason: str = ""
    due_by: datetime | None = None
    is_withdrawn: bool = False
    is_reinstated: bool = False
    fee_minor: int = 0
    submission_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Money held and not yet taken, as the provider's own list has it; `metadata` is what we gave it."""

    ref: str
    created_at: datetime
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceTxn:
    """A line of the provider's own books: `amount_minor` less `fee_minor` moves the account's balance.

    `category` is Stripe's reporting category. `source_ref` is what it is about (`ch_…`, `re_…`, `du_…`, `po_…`);
    `charge_ref` the charge behind that, where there is one.
    """

    ref: str
    category: str
    type: str
    amount_minor: int
    fee_minor: int
    currency: str
    source_ref: str
    charge_ref: str
    created_at: datetime
    available_at: datetime
    is_pending: bool

    @property
    def net_minor(self) -> int:
        return self.amount_minor - self.fee_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """Money on its way to the operator's bank. `state`: pending, in_transit, paid, failed, canceled. `is_itemised`:
    the provider tells what went out with it."""

    ref: str
    state: str
    amount_minor: int
    currency: str
    created_at: datetime
    arrives_on: date
    is_automatic: bool
    is_itemised: bool
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the provider pays out: `interval` daily, weekly, monthly or manual; `days` are weekdays' names, or days of
    the month; `delay_days` until a charge is available."""

    interval: str
    days: tuple[str, ...] = ()
    delay_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A webhook whose signature was right. Only a hint: the object is read again before anything is believed.

    `marked` is the id that we gave its object with us: of a declined card's intent we know no `payment_ref` yet.
    """

    event_id: str
    type: str
    account_ref: str
    object_ref: str
    payment_ref: str | None
    marked: str
    is_live: bool
    body: dict[str, Any]


class Provider(Protocol):
    name: str
    is_live: bool

    async def open_account(
        self, *, name: str, email: str, country: str, currency: str, key: str
    ) -> Account: ...

    async def get_account(self, ref: str) -> Account: ...

    async def open_recipient(
        self, *, name: str, email: str, country: str, currency: str, key: str
    ) -> Account: ...

    async def get_recipient(self, ref: str) -> Account: ...

    async def transfer(
        self, destination: str, *, amount_minor: int, currency: str, group: str, marked: str, key: str
    ) -> Moved: ...

    async def list_transfers(self, group: str) -> list[tuple[Moved, list[Moved]]]: ...

    async def reverse_transfer(self, ref: str, *, amount_minor: int, marked: str, key: str) -> Moved: ...

    async def refund_fee(
        self, account: str, charge_ref: str, *, amount_minor: int, marked: str, key: str
    ) -> Moved: ...

    async def list_fee_refunds(self, account: str, charge_ref: str) -> list[Moved]: ...

    async def create_onboarding(
        self, account: str, *, return_url: str, refresh_url: str, key: str
    ) -> str: ...

    async def create_account_session(self, account: str, *, key: str) -> str: ...

    async def create_checkout(
        self, account: str, *, amount_minor: int, currency: str, title: str, success_url: str, cancel_url: str,
        expires_at: datetime, metadata: dict[str, str], email: str, language: str, key: str,
    ) -> Checkout: ...  # fmt: skip

    async def get_checkout(self, account: str, ref: str) -> Checkout: ...

    async def expire_checkout(self, account: str, ref: str, *, key: str) -> Checkout: ...

    async def create_customer(
        self, account: str, *, email: str, metadata: dict[str, str], key: str
    ) -> str: ...

    async def delete_customer(self, account: str, ref: str) -> None: ...

    async def create_setup(
        self, account: str, *, customer: str, currency: str, success_url: str, cancel_url: str, language: str,
        metadata: dict[str, str], key: str,
    ) -> Setup: ...  # fmt: skip

    async def get_setup(self, account: str, ref: str) -> Setup: ...

    async def get_card(self, account: str, ref: str) -> CardSeen: ...

    async def detach_card(self, account: str, ref: str, *, key: str) -> None: ...

    async def create_payment(
        self, account: str, *, customer: str, card: str, amount_minor: int, currency: str, title: str,
        metadata: dict[str, str], key: str,
    ) -> Observation: ...  # fmt: skip

    async def confirm_payment(self, account: str, ref: str, *, key: str) -> Observation: ...

    async def increment(self, account: str, ref: str, *, amount_minor: int, key: str) -> Observation: ...

    async def get_payment(self, account: str, ref: str) -> Observation: ...

    async def list_holds(self, account: str, since: datetime) -> list[Hold]: ...

    async def capture(
        self, account: str, ref: str, *, amount_minor: int, fee_minor: int, key: str
    ) -> Observation: ...

    async def cancel(self, account: str, ref: str, *, key: str) -> Observation: ...

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
    ) -> str: ...

    async def list_balance_txns(
        self, account: str, since: datetime, payout: str | None = None
    ) -> list[BalanceTxn]: ...

    async def get_balance(self, account: str) -> dict[str, int]: ...

    async def list_payouts(self, account: str, since: datetime) -> list[Payout]: ...

    async def get_schedule(self, account: str) -> Schedule: ...

    async def set_delay(self, account: str, days: int, *, key: str) -> None: ...

    async def set_schedule(self, account: str, schedule: Schedule, *, key: str) -> Schedule: ...
    async def list_disputes(
        self, account: str, *, payment_ref: str = "", since: datetime | None = None
    ) -> list[DisputeSeen]: ...

    async def submit_evidence(
        self, account: str, ref: str, *, evidence: dict[str, str], key: str
    ) -> DisputeSeen: ...

    async def accept_dispute(self, account: str, ref: str, *, key: str) -> DisputeSeen: ...

    def read_webhook(self, body: bytes, signature: str, now: datetime) -> News: ...
