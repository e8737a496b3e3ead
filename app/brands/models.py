"""A CPO's contract and face: who it is legally, how it looks."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned


class TenantProfile(TenantOwned, Base):
    """One row per tenant: what `GET /tenant` shows. Seller data complete -> numbered invoices, else receipts.

    `card_use` is what happens to a card at a second place while it charges at a first: anywhere, hold or refuse.
    `pays_by`: how drivers with an account may pay a session of their own besides giving a card each time: `wallet`.
    """

    __tablename__ = "tenant_profile"
    __table_args__ = (
        UniqueConstraint("tenant_id"),
        CheckConstraint("card_use in ('anywhere','hold','refuse')", name="card_use"),
        {"schema": "livery"},
    )

    name: Mapped[str]
    country: Mapped[str]
    currency: Mapped[str]
    time_zone: Mapped[str]
    language: Mapped[str] = mapped_column(server_default="en")
    legal_name: Mapped[str] = mapped_column(server_default="")
    address: Mapped[str] = mapped_column(server_default="")
    postal_code: Mapped[str] = mapped_column(server_default="")
    city: Mapped[str] = mapped_column(server_default="")
    vat_id: Mapped[str] = mapped_column(server_default="")
    tax_number: Mapped[str] = mapped_column(server_default="")
    ocpi_country_code: Mapped[str] = mapped_column(server_default="")
    ocpi_party_id: Mapped[str] = mapped_column(server_default="")
    support_email: Mapped[str] = mapped_column(server_default="")
    support_phone: Mapped[str] = mapped_column(server_default="")
    card_use: Mapped[str] = mapped_column(server_default="anywhere")
    pays_by: Mapped[list[str]] = mapped_column(ARRAY(Text()), server_default="{}", default=list)
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    @property
    def has_seller_data(self) -> bool:
        """What an invoice must name (Directive 2006/112/EC Art. 226): seller, address, VAT id or tax number."""
        required = (
            self.legal_name,
            self.address,
            self.postal_code,
            self.city,
            self.vat_id or self.tax_number,
        )
        return all(value.strip() for value in required)


class Brand(TenantOwned, Base):
    """The published look and the one that is being drafted: values only, checked by `themes.theme` and `look`.

    `details` is the look without theme and texts; what is long is read only where it is shown.
    """

    __tablename__ = "brand"
    __table_args__ = (UniqueConstraint("tenant_id"), {"schema": "livery"})

    theme: Mapped[dict[str, Any]]
    css_hash: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    texts: Mapped[dict[str, Any]] = mapped_column(server_default="{}", deferred=True)
    draft: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True), deferred=True)
    drafted_at: Mapped[datetime | None]
    drafted_by: Mapped[str] = mapped_column(server_default="")
    version_no: Mapped[int] = mapped_column(server_default="0")
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class BrandVersion(TenantOwned, Base):
    """What was published, and can be again. Append-only."""

    __tablename__ = "brand_version"
    __table_args__ = (UniqueConstraint("tenant_id", "version_no"), {"schema": "livery"})

    version_no: Mapped[int]
    look: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    note: Mapped[str] = mapped_column(server_default="")
    published_by: Mapped[str]
    published_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class BrandPicture(TenantOwned, Base):
    """A re-encoded PNG, named by its content; kept as long as a version may be rolled back to."""

    __tablename__ = "brand_picture"
    __table_args__ = (UniqueConstraint("tenant_id", "digest"), {"schema": "livery"})

    digest: Mapped[str]
    content: Mapped[bytes]
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class Domain(TenantOwned, Base):
    """A host of the brand's own, or the claim to one; a released row waits for a fresh claim.

    `last_result` is what the last check found (`app.brands.domains.Finding.facts`).
    """

    __tablename__ = "domain"
    __table_args__ = (
        UniqueConstraint("tenant_id", "host"),
        CheckConstraint("state in ('pending','verified','active','suspended','released')", name="state"),
        CheckConstraint("surface in ('driver','portal')", name="surface"),
        {"schema": "livery"},
    )

    host: Mapped[str]
    surface: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    challenge: Mapped[str]
    last_result: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    checked_at: Mapped[datetime | None]
    verified_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
