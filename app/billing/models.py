"""Invoices, the ledger and the tables of payment (money.md 4.2). Has never heard of a charger.

Rows name their cause by an opaque `source_type`, `source_id`. All amounts are integer minor units with a currency.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Date, Index, Numeric, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.stations.models import EVSE, ChargingStation, Location
from tenants.models import Base, TenantOwned, references, same_tenant
from tenants.scope import Actor


class InvoiceCounter(TenantOwned, Base):
    """The next number of a series in a year; taken in the invoice's own transaction, so there is no gap."""

    __tablename__ = "invoice_counter"
    __table_args__ = (UniqueConstraint("tenant_id", "series", "year"), {"schema": "livery"})

    series: Mapped[str]
    year: Mapped[int]
    next_no: Mapped[int]


class Invoice(TenantOwned, Base):
    """`kind` invoice or credit_note carries a number; receipt and receipt_reversal (no seller data) never do.

    Immutable once written; `prev_hash` chains the numbered ones of a series and year. `buyer` is {name, email,
    language, driver_id?, payment?, reason?} and of a group {address, postal_code, city, country, vat_id, reference} as
    far as known: `language` is what the paper is written in for good, `payment` the public id of the payment that
    settles it, `reason` a credit note's. Of the platform's own invoices to its tenants it has `tenant`, the slug, and
    `tax`: why this VAT and no other (`platform_book.Treatment`). `supply` is {start_at, end_at, time_zone, place}: when
    it was by which clock, and where; empty where a paper holds many, and of papers issued before that was kept.
    """

    __tablename__ = "invoice"
    __table_args__ = (
        references("corrects_id", "invoice"),
        UniqueConstraint("tenant_id", "series", "year", "number_no"),
        CheckConstraint("kind in ('invoice','credit_note','receipt','receipt_reversal')", name="kind"),
        CheckConstraint("(kind in ('receipt','receipt_reversal')) = (number_no is null)", name="number"),
        CheckConstraint(
            "(kind in ('credit_note','receipt_reversal')) = (corrects_id is not null)", name="corrects"
        ),
        CheckConstraint("net_minor + vat_minor = gross_minor", name="totals"),
        Index("ix_invoice_list", "tenant_id", "issued_at", "id"),
        {"schema": "livery"},
    )

    kind: Mapped[str]
    series: Mapped[str]
    year: Mapped[int]
    number_no: Mapped[int | None]
    number: Mapped[str | None]
    corrects_id: Mapped[UUID | None]
    issued_at: Mapped[datetime]
    issued_on: Mapped[date] = mapped_column(Date())
    supplied_on: Mapped[date] = mapped_column(Date())
    currency: Mapped[str]
    net_minor: Mapped[int]
    vat_minor: Mapped[int]
    gross_minor: Mapped[int]
    seller: Mapped[dict[str, Any]]
    buyer: Mapped[dict[str, Any]]
    supply: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    vat_groups: Mapped[list[Any]]
    is_test: Mapped[bool] = mapped_column(server_default=text("false"))
    prev_hash: Mapped[bytes]
    hash: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    lines: Mapped[list["InvoiceLine"]] = same_tenant(
        "InvoiceLine.invoice_id", "Invoice", back_populates="invoice", passive_deletes="all",
        order_by="InvoiceLine.line_no",
    )  # fmt: skip

    @property
    def language(self) -> str:
        """The one its words were issued in; before that was kept it was English."""
        return str(self.buyer.get("language", "en"))


class InvoiceLine(TenantOwned, Base):
    """`source_type`, `source_id` of an invoice line are its once-only key: a supply is invoiced once.

    `description` stands in the invoice's language; `unit_price` is per `unit` and without VAT (2006/112/EC, 226 (8)).
    """

    __tablename__ = "invoice_line"
    __table_args__ = (
        references("invoice_id", "invoice"),
        UniqueConstraint("tenant_id", "invoice_id", "line_no"),
        CheckConstraint("net_minor + vat_minor = gross_minor", name="totals"),
        CheckConstraint("kind in ('invoice','credit_note','receipt','receipt_reversal')", name="kind"),
        Index(
            "uq_invoice_line_source", "tenant_id", "source_type", "source_id", "source_part", unique=True,
            postgresql_where=text("kind in ('invoice','receipt')"),
        ),
        {"schema": "livery"},
    )  # fmt: skip

    invoice_id: Mapped[UUID]
    kind: Mapped[str]
    line_no: Mapped[int]
    source_type: Mapped[str]
    source_id: Mapped[UUID]
    source_part: Mapped[str] = mapped_column(server_default="")
    description: Mapped[str]
    quantity: Mapped[Decimal] = mapped_column(Numeric(20, 6))
    unit: Mapped[str]
    unit_price: Mapped[Decimal] = mapped_column(Numeric(20, 8))
    vat_rate: Mapped[Decimal] = mapped_column(Numeric(6, 3))
    vat_code: Mapped[str]
    net_minor: Mapped[int]
    vat_minor: Mapped[int]
    gross_minor: Mapped[int]
    invoice: Mapped[Invoice] = same_tenant("InvoiceLine.invoice_id", "Invoice", back_populates="lines")


class LedgerAccount(TenantOwned, Base):
    __tablename__ = "ledger_account"
    __table_args__ = (
        UniqueConstraint("tenant_id", "code", "party", "currency"),
        CheckConstraint("normal_side in ('debit','credit')", name="normal_side"),
        {"schema": "livery"},
    )

    code: Mapped[str]
    party: Mapped[str] = mapped_column(server_default="")
    currency: Mapped[str]
    normal_side: Mapped[str]


class LedgerTxn(TenantOwned, Base):
    """One posting. (kind, source) is unique: it is posted exactly once. Corrections reverse, nothing is changed."""

    __tablename__ = "ledger_txn"
    __table_args__ = (
        references("reverses_id", "ledger_txn"),
        UniqueConstraint("tenant_id", "kind", "source_type", "source_id"),
        UniqueConstraint("tenant_id", "reverses_id"),
        {"schema": "livery"},
    )

    kind: Mapped[str]
    source_type: Mapped[str]
    source_id: Mapped[UUID]
    effective_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    reverses_id: Mapped[UUID | None]
    entries: Mapped[list["LedgerEntry"]] = same_tenant(
        "LedgerEntry.txn_id", "LedgerTxn", back_populates="txn", passive_deletes="all"
    )


class LedgerEntry(TenantOwned, Base):
    """+ debit, - credit. Per posting and currency the sum is zero: a deferred trigger holds it."""

    __tablename__ = "ledger_entry"
    __table_args__ = (
        references("txn_id", "ledger_txn"),
        references("account_id", "ledger_account"),
        CheckConstraint("amount_minor <> 0", name="amount"),
        Index("ix_ledger_entry_txn", "tenant_id", "txn_id"),
        Index("ix_ledger_entry_account", "tenant_id", "account_id", "id"),
        {"schema": "livery"},
    )

    txn_id: Mapped[UUID]
    account_id: Mapped[UUID]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    txn: Mapped[LedgerTxn] = same_tenant("LedgerEntry.txn_id", "LedgerTxn", back_populates="entries")
    account: Mapped[LedgerAccount] = same_tenant("LedgerEntry.account_id", "LedgerAccount")


# Payments that may still change by themselves: few, however many there were.
STANDING = "state in ('created','requires_action','processing','authorized','capturing') or dispute = 'open'"


class Payment(TenantOwned, Base):
    """Money taken or held for a source; `leg` counts the payments of one session that its saved card outgrows. The
    papers name the first, and each leg has its share of them (`payments.owed_minor`).

    `checkout_…` is the provider's hosted page where the payer gives the card; `provider_ref` is known once they did.
    `failure` says in a stable code why a payment ended without money (`declined`, `expired`, `released`).
    `refunded_minor` went back to the card; `refunded_outside_minor` of it was given back at the provider itself, by no
    call of ours. `refund_failed_minor` went too, and the card's bank sent it back; `repaid_minor` staff paid by other
    means (`Repayment`).
    `payer_email` is a mailbox as `identity.email_norm` makes it: guests' sessions are found by it. `three_d_secure` is
    the bank's word on who paid (`authenticated`, …), empty where it was not asked.
    The provider `wallet` is the driver's own balance (`wallets`): `account_ref` is then the driver's public id, and
    nobody outside is asked. Money that fills a wallet has the source `wallet` and the driver's id. Of the provider
    `terminal` we only hear (`terminals`): `account_ref` is that terminal's public id. The provider `voucher` is a code
    that pays for a guest (`vouchers`): `voucher_id`, and `account_ref` is its batch's public id.
    `dispute` is none, open, won or lost, of money that a bank takes back (an inquiry is none); `disputed_minor` is what
    lies at the bank or was lost to the payer.
    `host_minor` of `fee_minor` is passed on to the site host `host_party` (`hst_…`), whose account at the provider is
    `host_account_ref` (`host_shares`).
    `saved_card_id`: asked of that card while nobody stood by. Where it gave nothing the payment stays open and is due
    (`is_due`): the driver pays on a hosted page like others. `is_incremental`: its bank lets the hold be raised;
    `is_extended`: it stands for longer than usual.
    """

    __tablename__ = "payment"
    __table_args__ = (
        references("saved_card_id", "saved_card"),
        references("voucher_id", "voucher"),
        UniqueConstraint("tenant_id", "source_type", "source_id", "leg"),
        UniqueConstraint("tenant_id", "account_ref", "provider_ref"),
        UniqueConstraint("tenant_id", "account_ref", "checkout_ref"),
        Index("ix_payment_list", "tenant_id", "created_at", "id"),
        Index("ix_payment_payer", "tenant_id", "payer_email"),
        Index("ix_payment_standing", "tenant_id", "id", postgresql_where=text(STANDING)),
        Index("ix_payment_host", "tenant_id", "host_party", postgresql_where=text("host_party <> ''")),
        Index(
            "ix_payment_saved_card",
            "tenant_id",
            "saved_card_id",
            postgresql_where=text("saved_card_id is not null"),
        ),
        Index(
            "ix_payment_voucher", "tenant_id", "voucher_id", postgresql_where=text("voucher_id is not null")
        ),
        CheckConstraint(
            "state in ('created','requires_action','processing','authorized','capturing','captured',"
            "'partially_refunded','refunded','canceled','expired','failed')",
            name="state",
        ),
        {"schema": "livery"},
    )

    source_type: Mapped[str]
    source_id: Mapped[UUID]
    leg: Mapped[int] = mapped_column(server_default="1")
    provider: Mapped[str]
    account_ref: Mapped[str]
    provider_ref: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="created")
    dispute: Mapped[str] = mapped_column(server_default="none")
    currency: Mapped[str]
    hold_minor: Mapped[int] = mapped_column(server_default="0")
    captured_minor: Mapped[int] = mapped_column(server_default="0")
    refunded_minor: Mapped[int] = mapped_column(server_default="0")
    refunded_outside_minor: Mapped[int] = mapped_column(server_default="0")
    refund_failed_minor: Mapped[int] = mapped_column(server_default="0")
    repaid_minor: Mapped[int] = mapped_column(server_default="0")
    disputed_minor: Mapped[int] = mapped_column(server_default="0")
    fee_minor: Mapped[int] = mapped_column(server_default="0")
    host_minor: Mapped[int] = mapped_column(server_default="0", default=0)
    host_party: Mapped[str] = mapped_column(server_default="", default="")
    host_account_ref: Mapped[str] = mapped_column(server_default="", default="")
    capture_before: Mapped[datetime | None]
    version_no: Mapped[int] = mapped_column(server_default="0")
    checkout_ref: Mapped[str | None]
    checkout_url: Mapped[str | None]
    checkout_expires_at: Mapped[datetime | None]
    charge_ref: Mapped[str | None]
    provider_fee_minor: Mapped[int] = mapped_column(server_default="0")
    three_d_secure: Mapped[str] = mapped_column(server_default="")
    payer_email: Mapped[str] = mapped_column(server_default="")
    method: Mapped[str] = mapped_column(server_default="")
    failure: Mapped[str] = mapped_column(server_default="")
    is_live: Mapped[bool] = mapped_column(server_default=text("false"))
    is_incremental: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    is_extended: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    saved_card_id: Mapped[UUID | None]
    voucher_id: Mapped[UUID | None]
    observed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    ops: Mapped[list["PaymentOp"]] = same_tenant(
        "PaymentOp.payment_id", "Payment", viewonly=True, order_by="PaymentOp.id"
    )

    @property
    def passed_on_minor(self) -> int:
        """Of the fee that was taken, what is the site host's."""
        return min(self.host_minor, self.fee_minor)

    @property
    def platform_fee_minor(self) -> int:
        return self.fee_minor - self.passed_on_minor

    @property
    def is_due(self) -> bool:
        """The saved card gave nothing (`failure` says why), and nobody paid otherwise yet."""
        is_open = self.state in ("created", "requires_action", "processing")
        return self.saved_card_id is not None and is_open and self.failure != ""


class Payer(TenantOwned, Base):
    """A driver as the operator's account at the provider knows them: `customer_ref` once it is made there. Who closed
    their account (`closed_at`) is forgotten there too (`gone_at`)."""

    __tablename__ = "payer"
    __table_args__ = (
        references("driver_id", "driver"),
        UniqueConstraint("tenant_id", "account_ref", "driver_id"),
        Index("ix_payer_driver", "tenant_id", "driver_id"),
        {"schema": "livery"},
    )

    driver_id: Mapped[UUID]
    account_ref: Mapped[str]
    customer_ref: Mapped[str | None]
    closed_at: Mapped[datetime | None]
    gone_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class SavedCard(TenantOwned, Base):
    """A payment card that its driver saved for starts at which nobody stands by; it lies at the provider.

    `state`: pending (the hosted page `checkout_…` is asked for or open), active, removed (`why`: removed by its driver,
    revoked at the provider, replaced by the same card saved again, closed with the account; `detached_at`: the provider
    has let go of it) or failed (the page closed without a card). `exp_year` has four digits.
    """

    __tablename__ = "saved_card"
    __table_args__ = (
        references("payer_id", "payer"),
        UniqueConstraint("tenant_id", "provider_ref"),
        UniqueConstraint("tenant_id", "checkout_ref"),
        CheckConstraint("state in ('pending','active','removed','failed')", name="state"),
        Index("ix_saved_card_payer", "tenant_id", "payer_id"),
        Index(
            "uq_saved_card_default", "tenant_id", "payer_id", unique=True, postgresql_where=text("is_default")
        ),
        {"schema": "livery"},
    )

    payer_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(server_default="pending")
    why: Mapped[str] = mapped_column(server_default="")
    request: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    checkout_ref: Mapped[str | None]
    checkout_url: Mapped[str | None]
    setup_ref: Mapped[str | None]
    provider_ref: Mapped[str | None]
    brand: Mapped[str] = mapped_column(server_default="")
    last4: Mapped[str] = mapped_column(server_default="")
    exp_month: Mapped[int | None]
    exp_year: Mapped[int | None]
    fingerprint: Mapped[str] = mapped_column(server_default="")
    is_default: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    observed_at: Mapped[datetime | None]
    detached_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    payer: Mapped[Payer] = same_tenant("SavedCard.payer_id", "Payer")

    @property
    def name(self) -> str:
        """`Visa •••• 4242`"""
        return f"{self.brand.capitalize()} •••• {self.last4}"

    def is_expired(self, now: datetime) -> bool:
        """A card is good to the end of its month."""
        return (self.exp_year or 0, self.exp_month or 0) < (now.year, now.month)


class PaymentAccount(TenantOwned, Base):
    """The tenant's own account at the provider: money of its drivers lands there (direct charges, money.md 1.1).

    `fee_percent` and `fee_fixed_minor` are the platform's fee at first (then `PlatformFee`), taken at capture.
    `hold_…_minor` is what a guest's card is asked to hold at an AC or a DC place; `refund_limit_minor` is what one
    member of staff may give back of a payment alone. At first all three are what `card_currencies` says of it.
    `opening` is what lay in the account before we read its books, minor units by currency. `is_ready`: the provider
    lets it take cards; `due` is what it asks for before that, `schedule` when it pays out (`provider.Schedule`), as of
    `observed_at`. `card_on_file`: whether drivers may save a card that then pays the sessions they would get an invoice
    for: off, optional, or required (no start by their charging card without one). `max_legs`: to how many times the
    first hold the holds of one session may come that a saved card pays. `losses_borne_by`: who pays where its balance
    stays below 0, the provider (`stripe`) or the platform (`application`).
    """

    __tablename__ = "payment_account"
    __table_args__ = (
        CheckConstraint("card_on_file in ('off','optional','required')", name="card_on_file"),
        CheckConstraint("max_legs between 1 and 10", name="max_legs"),
        UniqueConstraint("tenant_id", "provider"),
        UniqueConstraint("tenant_id", "account_ref"),
        {"schema": "livery"},
    )

    provider: Mapped[str]
    account_ref: Mapped[str]
    is_ready: Mapped[bool] = mapped_column(server_default=text("false"))
    is_live: Mapped[bool] = mapped_column(server_default=text("false"))
    currency: Mapped[str]
    fee_percent: Mapped[Decimal] = mapped_column(Numeric(6, 3), server_default="0")
    fee_fixed_minor: Mapped[int] = mapped_column(server_default="0")
    hold_ac_minor: Mapped[int] = mapped_column(server_default="3000")
    hold_dc_minor: Mapped[int] = mapped_column(server_default="6000")
    opening: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    due: Mapped[list[str]] = mapped_column(ARRAY(Text()), server_default="{}", default=list)
    schedule: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    observed_at: Mapped[datetime | None]
    refund_limit_minor: Mapped[int] = mapped_column(server_default="20000")
    card_on_file: Mapped[str] = mapped_column(server_default="optional", default="optional")
    max_legs: Mapped[int] = mapped_column(server_default="3", default=3)
    losses_borne_by: Mapped[str] = mapped_column(server_default="stripe", default="stripe")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class PlatformFee(TenantOwned, Base):
    """What the platform keeps of captures from then on; before the first of them the account's own two figures hold.
    `is_returned`: with refunds from then on, in proportion."""

    __tablename__ = "platform_fee"
    __table_args__ = (
        references("account_id", "payment_account"),
        UniqueConstraint("tenant_id", "account_id", "valid_from"),
        CheckConstraint("percent >= 0 and percent <= 50 and fixed_minor >= 0", name="range"),
        {"schema": "livery"},
    )

    account_id: Mapped[UUID]
    valid_from: Mapped[datetime]
    percent: Mapped[Decimal] = mapped_column(Numeric(6, 3))
    fixed_minor: Mapped[int]
    is_returned: Mapped[bool] = mapped_column(server_default=text("false"))
    set_by: Mapped[str]
    set_at: Mapped[datetime]


class BilledTenant(TenantOwned, Base):
    """A row of the platform's own: whom it invoices its fees to, as that tenant's own job last told (`buyer`: name,
    address, postal_code, city, country, vat_id, email, language).

    `evidence` is what shows that the VAT id is theirs: {vat_id, reference, consulted_on, recorded_by, recorded_at}.
    Months before `closed_until`, a first of a month by the platform's clock, have their papers.
    """

    __tablename__ = "billed_tenant"
    __table_args__ = (
        UniqueConstraint("tenant_id", "billed_id"),
        UniqueConstraint("tenant_id", "slug"),
        {"schema": "livery"},
    )

    billed_id: Mapped[UUID]
    slug: Mapped[str]
    closed_until: Mapped[date | None] = mapped_column(Date())
    buyer: Mapped[dict[str, Any]]
    evidence: Mapped[dict[str, Any]] = mapped_column(server_default="{}", default=dict)
    updated_at: Mapped[datetime]


class PlatformInvoice(TenantOwned, Base):
    """A paper of the platform's as this tenant received it: `id` and number are the platform's, `content` is its words
    (`paper.content_of`), `pdf` the file with the e-invoice in it, `xml` that alone. Never changed."""

    __tablename__ = "platform_invoice"
    __table_args__ = (
        CheckConstraint("kind in ('invoice','credit_note')", name="kind"),
        UniqueConstraint("tenant_id", "number"),
        {"schema": "livery"},
    )

    kind: Mapped[str]
    number: Mapped[str]
    supplied_on: Mapped[date] = mapped_column(Date())
    issued_at: Mapped[datetime]
    currency: Mapped[str]
    net_minor: Mapped[int]
    vat_minor: Mapped[int]
    gross_minor: Mapped[int]
    content: Mapped[dict[str, Any]]
    pdf: Mapped[bytes] = mapped_column(deferred=True)
    xml: Mapped[bytes | None] = mapped_column(deferred=True)
    received_at: Mapped[datetime]


class PaymentOp(TenantOwned, Base):
    """Written before every call to the provider (money.md 4.5)."""

    __tablename__ = "payment_op"
    __table_args__ = (
        references("payment_id", "payment"),
        UniqueConstraint("tenant_id", "idem_key"),
        CheckConstraint("state in ('planned','sent','succeeded','failed','unknown')", name="state"),
        Index(
            "uq_payment_op_capture", "tenant_id", "payment_id", "kind", unique=True,
            postgresql_where=text("kind = 'capture' and state <> 'failed'"),
        ),
        {"schema": "livery"},
    )  # fmt: skip

    payment_id: Mapped[UUID]
    kind: Mapped[str]
    n: Mapped[int] = mapped_column(server_default="1")
    idem_key: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="planned")
    request: Mapped[dict[str, Any]]
    response: Mapped[dict[str, Any] | None]
    provider_ref: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


# -- refunds with four eyes, and disputes ------------------------------------------------------------------------------


def _is_same_person(asked: "RefundRequest | VoucherBatch", actor: Actor) -> bool:
    is_same = (asked.asked_by_kind, asked.asked_by_id) == (actor.kind, actor.id)
    return is_same or (asked.key_of != "" and asked.key_of == actor.name)


class RefundRequest(TenantOwned, Base):
    """A refund above what one person may give back alone. `state`: waiting, approved (`op_id`: the refund that came of
    it) or rejected (`note` says why).

    `wish` is what was asked for, and whoever owns the supply knows how to do it. `key_of`: where an API key asked, who
    made that key: the same person does not approve.
    """

    __tablename__ = "refund_request"
    __table_args__ = (
        references("payment_id", "payment"),
        references("op_id", "payment_op"),
        CheckConstraint("state in ('waiting','approved','rejected')", name="state"),
        Index(
            "uq_refund_request_waiting", "tenant_id", "payment_id", unique=True,
            postgresql_where=text("state = 'waiting'"),
        ),
        {"schema": "livery"},
    )  # fmt: skip

    payment_id: Mapped[UUID]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    reason: Mapped[str]
    wish: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    state: Mapped[str] = mapped_column(server_default="waiting")
    asked_by: Mapped[str]
    asked_by_kind: Mapped[str]
    asked_by_id: Mapped[UUID | None]
    key_of: Mapped[str] = mapped_column(server_default="")
    decided_by: Mapped[str] = mapped_column(server_default="")
    decided_at: Mapped[datetime | None]
    note: Mapped[str] = mapped_column(server_default="")
    op_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    def is_of(self, actor: Actor) -> bool:
        """Did this person ask, by hand or by an API key that they made? Two eyes stay two, whatever they hold."""
        return _is_same_person(self, actor)


class Repayment(TenantOwned, Base):
    """What a payer got back by other means, where their card takes no refund: `reference` is the transfer's, as staff
    recorded it."""

    __tablename__ = "repayment"
    __table_args__ = (
        references("payment_id", "payment"),
        Index("ix_repayment_payment", "tenant_id", "payment_id"),
        {"schema": "livery"},
    )

    payment_id: Mapped[UUID]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    reference: Mapped[str]
    recorded_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class Dispute(TenantOwned, Base):
    """A payer's bank asks its money back, or first only asks (`warning_…`). `ref` is the provider's id; `state` is the
    provider's status, an appeal against a loss being lost until it is won.

    `is_withdrawn`: the bank has the money, `is_reinstated`: it gave it back. `fee_minor` is what the provider keeps for
    it. `evidence_due_by` is null where no answer is taken.
    """

    __tablename__ = "dispute"
    __table_args__ = (
        references("payment_id", "payment"),
        UniqueConstraint("tenant_id", "account_ref", "ref"),
        Index("ix_dispute_payment", "tenant_id", "payment_id"),
        CheckConstraint(
            "state in ('warning_needs_response','warning_under_review','warning_closed','needs_response',"
            "'under_review','lost','won')",
            name="state",
        ),
        {"schema": "livery"},
    )

    payment_id: Mapped[UUID]
    account_ref: Mapped[str]
    ref: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    reason: Mapped[str]
    network_reason: Mapped[str] = mapped_column(server_default="")
    state: Mapped[str]
    is_withdrawn: Mapped[bool] = mapped_column(server_default=text("false"))
    is_reinstated: Mapped[bool] = mapped_column(server_default=text("false"))
    fee_minor: Mapped[int] = mapped_column(server_default="0")
    evidence_due_by: Mapped[datetime | None]
    opened_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    observed_at: Mapped[datetime]


class ProviderBalanceTxn(TenantOwned, Base):
    """A line of the provider's own books, by its own id, as `provider.BalanceTxn` tells it. `payout_ref` is what it
    went to the bank with, once that is told."""

    __tablename__ = "provider_balance_txn"
    __table_args__ = (
        UniqueConstraint("tenant_id", "account_ref", "provider_ref"),
        Index("ix_provider_balance_txn_made", "tenant_id", "account_ref", "created_at"),
        Index("ix_provider_balance_txn_charge", "tenant_id", "charge_ref"),
        Index("ix_provider_balance_txn_payout", "tenant_id", "payout_ref"),
        {"schema": "livery"},
    )

    account_ref: Mapped[str]
    provider_ref: Mapped[str]
    type: Mapped[str]
    reporting_category: Mapped[str]
    amount_minor: Mapped[int]
    fee_minor: Mapped[int]
    net_minor: Mapped[int]
    currency: Mapped[str]
    source_ref: Mapped[str | None]
    charge_ref: Mapped[str] = mapped_column(server_default="")
    payout_ref: Mapped[str | None]
    created_at: Mapped[datetime]
    available_at: Mapped[datetime]
    is_pending: Mapped[bool]


class Payout(TenantOwned, Base):
    """Money that the provider sends to the operator's bank. `items_minor` is what its parts come to, where it tells
    them (automatic payouts only)."""

    __tablename__ = "payout"
    __table_args__ = (
        UniqueConstraint("tenant_id", "account_ref", "provider_ref"),
        Index("ix_payout_list", "tenant_id", "created_at", "id"),
        CheckConstraint("state in ('pending','in_transit','paid','failed','canceled')", name="state"),
        {"schema": "livery"},
    )

    account_ref: Mapped[str]
    provider_ref: Mapped[str]
    state: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    created_at: Mapped[datetime]
    arrives_on: Mapped[date] = mapped_column(Date())
    is_automatic: Mapped[bool]
    items_minor: Mapped[int | None]
    failure: Mapped[str] = mapped_column(server_default="")


class ReconRun(TenantOwned, Base):
    """One look at the provider's books beside ours. `figures` is `reconciliation.Figures`; `from_at` to `to_at` is what
    was asked of the provider."""

    __tablename__ = "recon_run"
    __table_args__ = ({"schema": "livery"},)

    account_ref: Mapped[str]
    from_at: Mapped[datetime]
    to_at: Mapped[datetime]
    is_green: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    figures: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class ReconItem(TenantOwned, Base):
    """A difference that stands until a run no longer finds it (`gone_at`), or until staff explained it (`resolved_…`);
    `key` tells it from others, `delta_minor` is the provider's figure less ours."""

    __tablename__ = "recon_item"
    __table_args__ = (
        references("run_id", "recon_run", ondelete="CASCADE"),
        references("ledger_txn_id", "ledger_txn"),
        references("balance_txn_id", "provider_balance_txn"),
        Index("uq_recon_item_standing", "tenant_id", "account_ref", "category", "key", unique=True,
              postgresql_where=text("gone_at is null")),
        {"schema": "livery"},
    )  # fmt: skip

    run_id: Mapped[UUID]
    account_ref: Mapped[str]
    category: Mapped[str]
    key: Mapped[str]
    ledger_txn_id: Mapped[UUID | None]
    balance_txn_id: Mapped[UUID | None]
    delta_minor: Mapped[int] = mapped_column(server_default="0")
    currency: Mapped[str]
    found_at: Mapped[datetime]
    gone_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None]
    note: Mapped[str] = mapped_column(server_default="")


# -- wallets and vouchers ----------------------------------------------------------------------------------------------


class WalletCredit(TenantOwned, Base):
    """What staff gave a driver's wallet, or took of it (negative), and why. The balance itself stands in the ledger."""

    __tablename__ = "wallet_credit"
    __table_args__ = (
        references("driver_id", "driver"),
        {"schema": "livery"},
    )

    driver_id: Mapped[UUID]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    reason: Mapped[str]
    given_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class VoucherBatch(TenantOwned, Base):
    """Codes of one amount, issued together: each is worth that for `uses_per_code` drivers, through `valid_until` by
    the brand's clock. `for_guests`: a code also pays for sessions of whoever has it, one use at most each.

    `paid_by`: the brand gives them away, or a buyer pays for them (`paid_at`: the money is there). `state`: issued, or
    above what one person may give away alone waiting, then issued (`decided_by`) or rejected (`note` says why); there
    are no codes before it is issued. `asked_by_…` and `key_of` as in `RefundRequest`.
    """

    __tablename__ = "voucher_batch"
    __table_args__ = (
        CheckConstraint("paid_by in ('brand','buyer')", name="paid_by"),
        CheckConstraint("state in ('waiting','issued','rejected')", name="state"),
        {"schema": "livery"},
    )

    name: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    paid_by: Mapped[str]
    code_count: Mapped[int]
    uses_per_code: Mapped[int]
    valid_until: Mapped[date] = mapped_column(Date())
    issued_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    paid_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(server_default="issued")
    asked_by_kind: Mapped[str] = mapped_column(server_default="")
    asked_by_id: Mapped[UUID | None]
    key_of: Mapped[str] = mapped_column(server_default="")
    decided_by: Mapped[str] = mapped_column(server_default="")
    decided_at: Mapped[datetime | None]
    note: Mapped[str] = mapped_column(server_default="")
    for_guests: Mapped[bool] = mapped_column(server_default=text("false"))

    def is_of(self, actor: Actor) -> bool:
        """As `RefundRequest.is_of`."""
        return _is_same_person(self, actor)


class Voucher(TenantOwned, Base):
    """One code. It is sealed; `code_digest` finds it, `masked` is what pages show. What is left of it is reckoned, not
    stored (`vouchers.left_of`). `used_count`: how often it was redeemed; `revoked_minor`: what is owed no longer;
    `good_until`: longer than its batch, as something came back to it."""

    __tablename__ = "voucher"
    __table_args__ = (
        references("batch_id", "voucher_batch"),
        UniqueConstraint("tenant_id", "code_digest"),
        Index("ix_voucher_batch", "tenant_id", "batch_id", "id"),
        {"schema": "livery"},
    )

    batch_id: Mapped[UUID]
    code_digest: Mapped[bytes]
    code_sealed: Mapped[str]
    masked: Mapped[str]
    used_count: Mapped[int] = mapped_column(server_default="0")
    revoked_at: Mapped[datetime | None]
    revoked_minor: Mapped[int] = mapped_column(server_default="0")
    good_until: Mapped[date | None] = mapped_column(Date())
    batch: Mapped[VoucherBatch] = same_tenant("Voucher.batch_id", "VoucherBatch")


class VoucherRedemption(TenantOwned, Base):
    """A code, or what is left of it, went into a wallet. Of a code for several a driver redeems one use."""

    __tablename__ = "voucher_redemption"
    __table_args__ = (
        references("voucher_id", "voucher"),
        references("driver_id", "driver"),
        Index("ix_voucher_redemption", "tenant_id", "voucher_id", "driver_id"),
        {"schema": "livery"},
    )

    voucher_id: Mapped[UUID]
    driver_id: Mapped[UUID]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


# -- card terminals of others ------------------------------------------------------------------------------------------


class PaymentTerminal(TenantOwned, Base):
    """A card terminal whose money comes by the operator's contract with an acquirer, not by our provider: we only hear
    of it. It serves the site, or the one station that it is built into."""

    __tablename__ = "payment_terminal"
    __table_args__ = (
        references("location_id", "location"),
        references("station_id", "charging_station"),
        UniqueConstraint("tenant_id", "serial"),
        {"schema": "livery"},
    )

    name: Mapped[str]
    vendor: Mapped[str]
    serial: Mapped[str]
    acquirer: Mapped[str]
    contract_no: Mapped[str]
    location_id: Mapped[UUID]
    station_id: Mapped[UUID | None]
    retired_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    location: Mapped[Location] = same_tenant("PaymentTerminal.location_id", "Location")
    station: Mapped[ChargingStation | None] = same_tenant("PaymentTerminal.station_id", "ChargingStation")

    @property
    def contract(self) -> str:
        """Whose money it is until it is paid out: a party of `terminal_clearing`."""
        return f"{self.acquirer} {self.contract_no}"


class TerminalRecord(TenantOwned, Base):
    """One thing that a terminal or its acquirer told, under its own `record_ref`; never changed but for whose it is.

    `kind`: authorized, settled (taken), reversed (given back; before `settled` was, the hold let go). `transaction_ref`
    joins the records of one card payment: a station that starts by it presents it as its `DirectPayment` token. It is
    of the payment `payment_id`, or dismissed with the `note`, or waits for staff. `evse_id` and `session_ref` (our id,
    or the station's own of the transaction) are what the record said of the session.
    """

    __tablename__ = "terminal_record"
    __table_args__ = (
        references("terminal_id", "payment_terminal"),
        references("evse_id", "evse"),
        references("payment_id", "payment"),
        UniqueConstraint("tenant_id", "terminal_id", "record_ref"),
        Index(
            "uq_terminal_record_settled", "tenant_id", "terminal_id", "transaction_ref", unique=True,
            postgresql_where=text("kind = 'settled'"),
        ),
        Index("ix_terminal_record_transaction", "tenant_id", "terminal_id", "transaction_ref"),
        Index("ix_terminal_record_waiting", "tenant_id", "id",
              postgresql_where=text("payment_id is null and dismissed_at is null")),
        CheckConstraint("kind in ('authorized','settled','reversed')", name="kind"),
        CheckConstraint("amount_minor >= 0", name="amount"),
        {"schema": "livery"},
    )  # fmt: skip

    terminal_id: Mapped[UUID]
    record_ref: Mapped[str]
    transaction_ref: Mapped[str]
    kind: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    at: Mapped[datetime]
    card: Mapped[str] = mapped_column(server_default="")
    approval_code: Mapped[str] = mapped_column(server_default="")
    evse_id: Mapped[UUID | None]
    session_ref: Mapped[str] = mapped_column(server_default="")
    payment_id: Mapped[UUID | None]
    dismissed_at: Mapped[datetime | None]
    note: Mapped[str] = mapped_column(server_default="")
    decided_by: Mapped[str] = mapped_column(server_default="")
    told_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    terminal: Mapped[PaymentTerminal] = same_tenant("TerminalRecord.terminal_id", "PaymentTerminal")
    evse: Mapped[EVSE | None] = same_tenant("TerminalRecord.evse_id", "EVSE")

    @property
    def is_waiting(self) -> bool:
        return self.payment_id is None and self.dismissed_at is None


class AcquirerPayout(TenantOwned, Base):
    """What an acquirer sent to the operator's bank for a contract, as staff read it off its statement: `amount_minor`
    arrived (below 0: was collected), `fee_minor` it had kept."""

    __tablename__ = "acquirer_payout"
    __table_args__ = (
        UniqueConstraint("tenant_id", "contract", "reference"),
        CheckConstraint("fee_minor >= 0", name="amounts"),
        {"schema": "livery"},
    )

    contract: Mapped[str]
    reference: Mapped[str]
    paid_on: Mapped[date] = mapped_column(Date())
    amount_minor: Mapped[int]
    fee_minor: Mapped[int]
    currency: Mapped[str]
    recorded_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
