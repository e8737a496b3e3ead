"""Certificates, keys, security events, firmware, logs; the CAs that the gateway's TLS trusts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.sql_files import statements
from tenants.rls import protect_all

revision = "0011"
down_revision = "0010"

TABLES = (
    "certificate_authority", "security_policy", "firmware_publication", "firmware_update", "installed_certificate", "security_change", "security_event", "station_certificate", "station_log",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "certificate_authority",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("certificate_pem", sa.Text(), nullable=False),
        sa.Column("key_sealed", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_certificate_authority_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_certificate_authority")),
        sa.UniqueConstraint("tenant_id", "fingerprint", name=op.f("uq_certificate_authority_tenant_id_fingerprint")),
        schema="livery",
    )
    op.create_table(
        "security_policy",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("minimum_profile", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("organisation", sa.Text(), server_default="", nullable=False),
        sa.Column("firmware_hosts", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("minimum_profile between 0 and 3", name=op.f("ck_security_policy_minimum_profile")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_security_policy_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_security_policy")),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_security_policy_tenant_id")),
        schema="livery",
    )
    op.create_table(
        "firmware_publication",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="Requested", nullable=False),
        sa.Column("status_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("local_locations", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("history", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"],
            ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_firmware_publication_tenant_id_station_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_firmware_publication_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_firmware_publication")),
        schema="livery",
    )
    op.create_table(
        "firmware_update",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("is_signed", sa.Boolean(), nullable=False),
        sa.Column("retrieve_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("install_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default="Requested", nullable=False),
        sa.Column("status_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("history", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"],
            ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_firmware_update_tenant_id_station_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_firmware_update_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_firmware_update")),
        schema="livery",
    )
    op.create_index(
        "ix_firmware_update_list", "firmware_update", ["tenant_id", "station_id", "id"], unique=False, schema="livery"
    )
    op.create_table(
        "installed_certificate",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("certificate_type", sa.Text(), nullable=False),
        sa.Column("hash_data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("children", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"],
            ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_installed_certificate_tenant_id_station_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_installed_certificate_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_installed_certificate")),
        schema="livery",
    )
    op.create_index(
        "ix_installed_certificate_station",
        "installed_certificate",
        ["tenant_id", "station_id"],
        unique=False,
        schema="livery",
    )
    op.create_table(
        "security_change",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="requested", nullable=False),
        sa.Column("digest", sa.Text(), server_default="", nullable=False),
        sa.Column("target_profile", sa.BigInteger(), nullable=True),
        sa.Column("slots", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind in ('key','profile')", name=op.f("ck_security_change_kind")),
        sa.CheckConstraint(
            "status in ('requested','accepted','unknown','confirmed','rejected','fell_back','canceled')",
            name=op.f("ck_security_change_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"],
            ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_security_change_tenant_id_station_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_security_change_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_security_change")),
        schema="livery",
    )
    op.create_index(
        "ix_security_change_open",
        "security_change",
        ["tenant_id", "station_id", "kind"],
        unique=True,
        schema="livery",
        postgresql_where=sa.text("status in ('requested','accepted','unknown')"),
    )
    op.create_table(
        "security_event",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("tech_info", sa.Text(), server_default="", nullable=False),
        sa.Column("origin", sa.Text(), server_default="station", nullable=False),
        sa.Column("is_grave", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("origin in ('station','gateway')", name=op.f("ck_security_event_origin")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"],
            ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_security_event_tenant_id_station_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_security_event_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_security_event")),
        schema="livery",
    )
    op.create_index(
        "ix_security_event_station", "security_event", ["tenant_id", "station_id", "id"], unique=False, schema="livery"
    )
    op.create_table(
        "station_certificate",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="requested", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("csr_pem", sa.Text(), nullable=False),
        sa.Column("certificate_pem", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("serial_number", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("warned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind in ('ChargingStationCertificate','V2GCertificate','Combined')",
            name=op.f("ck_station_certificate_kind"),
        ),
        sa.CheckConstraint(
            "status in ('requested','issued','accepted','rejected','refused','revoked')",
            name=op.f("ck_station_certificate_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"],
            ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_station_certificate_tenant_id_station_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_station_certificate_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_station_certificate")),
        sa.UniqueConstraint("tenant_id", "fingerprint", name=op.f("uq_station_certificate_tenant_id_fingerprint")),
        schema="livery",
    )
    op.create_index(
        "ix_station_certificate_list",
        "station_certificate",
        ["tenant_id", "station_id", "created_at"],
        unique=False,
        schema="livery",
    )
    op.create_table(
        "station_log",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("oldest_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("latest_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), server_default="Requested", nullable=False),
        sa.Column("status_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("history", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("file_name", sa.Text(), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind in ('DiagnosticsLog','SecurityLog')", name=op.f("ck_station_log_kind")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"],
            ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_station_log_tenant_id_station_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_station_log_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_station_log")),
        schema="livery",
    )
    for table in ("firmware_update", "firmware_publication", "station_log"):
        op.create_index(f"ix_{table}_request", table, ["tenant_id", "station_id", "request_id"], schema="livery")
    op.create_index("ix_station_log_token", "station_log", ["tenant_id", "token_digest"], schema="livery")
    protect_all(op.execute, TABLES)
    execute = op.get_bind().exec_driver_sql
    for statement in statements("certificates.sql"):
        execute(statement)
    for function in ("put_ca_route(text, text)", "station_cas()"):
        execute(f"revoke all on function platform.{function} from public")
        execute(f"grant execute on function platform.{function} to app_rw")
