"""A voucher's code pays for a guest's session by itself: what is left of it is money, not uses."""

import sqlalchemy as sa
from alembic import op

from tenants.rls import for_each_tenant

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    op.add_column(
        "voucher_batch", sa.Column("for_guests", sa.Boolean(), server_default=sa.false(), nullable=False),
        schema="livery",
    )  # fmt: skip
    op.add_column(
        "voucher", sa.Column("revoked_minor", sa.BigInteger(), server_default="0", nullable=False), schema="livery"
    )
    op.add_column("voucher", sa.Column("good_until", sa.Date(), nullable=True), schema="livery")
    op.add_column("payment", sa.Column("voucher_id", sa.Uuid(), nullable=True), schema="livery")
    op.create_foreign_key(
        op.f("fk_payment_tenant_id_voucher_id"), "payment", "voucher", ["tenant_id", "voucher_id"],
        ["tenant_id", "id"], source_schema="livery", referent_schema="livery",
    )  # fmt: skip
    op.create_index(
        "ix_payment_voucher", "payment", ["tenant_id", "voucher_id"], schema="livery",
        postgresql_where=sa.text("voucher_id is not null"),
    )  # fmt: skip
    # What is left of a code may be redeemed by whoever has redeemed a part of it.
    op.drop_constraint(
        op.f("uq_voucher_redemption_tenant_id_voucher_id_driver_id"), "voucher_redemption", schema="livery"
    )
    op.create_index(
        "ix_voucher_redemption", "voucher_redemption", ["tenant_id", "voucher_id", "driver_id"], schema="livery"
    )
    # Nobody could tell who a guest is, so codes of several uses stay with the accounts that they were issued for.
    for_each_tenant(op.get_bind(), "update livery.voucher_batch set for_guests = (uses_per_code = 1)")
    for_each_tenant(
        op.get_bind(),
        "update livery.voucher v set revoked_minor = (b.uses_per_code - v.used_count) * b.amount_minor"
        " from livery.voucher_batch b where b.tenant_id = v.tenant_id and b.id = v.batch_id"
        " and v.revoked_at is not null",
    )
