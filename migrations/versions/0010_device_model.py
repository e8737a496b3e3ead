"""What stations say about themselves: variables, reports, monitors, events, templates, display messages."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import protect_all

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # The first form of this table was never written to.
    op.drop_table("station_variable", schema="livery")
    op.create_table('station_variable',
    sa.Column('tenant_id', sa.Uuid(), server_default=sa.text('livery.tid()'), nullable=False),
    sa.Column('id', sa.Uuid(), server_default=sa.text('uuidv7()'), nullable=False),
    sa.Column('station_id', sa.Uuid(), nullable=False),
    sa.Column('path', sa.Text(), nullable=False),
    sa.Column('path_key', sa.Text(), nullable=False),
    sa.Column('component', sa.Text(), server_default='', nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('value', sa.Text(), nullable=True),
    sa.Column('mutability', sa.Text(), server_default='ReadWrite', nullable=False),
    sa.Column('is_secret', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('is_persistent', sa.Boolean(), nullable=True),
    sa.Column('is_constant', sa.Boolean(), nullable=True),
    sa.Column('data_type', sa.Text(), nullable=True),
    sa.Column('unit', sa.Text(), nullable=True),
    sa.Column('min_limit', sa.Numeric(), nullable=True),
    sa.Column('max_limit', sa.Numeric(), nullable=True),
    sa.Column('values_list', sa.Text(), nullable=True),
    sa.Column('can_be_monitored', sa.Boolean(), nullable=True),
    sa.Column('other_attributes', postgresql.JSONB(), server_default='{}', nullable=False),
    sa.Column('last_status', sa.Text(), nullable=True),
    sa.Column('needs_reboot_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('reported_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id', 'station_id'], ['livery.charging_station.tenant_id', 'livery.charging_station.id'], name=op.f('fk_station_variable_tenant_id_station_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['tenant_id'], ['platform.tenant.id'], name=op.f('fk_station_variable_tenant_id')),
    sa.PrimaryKeyConstraint('tenant_id', 'id', name=op.f('pk_station_variable')),
    sa.UniqueConstraint('tenant_id', 'station_id', 'path_key', name=op.f('uq_station_variable_tenant_id_station_id_path_key')),
    schema='livery'
    )
    op.create_table('station_report',
    sa.Column('tenant_id', sa.Uuid(), server_default=sa.text('livery.tid()'), nullable=False),
    sa.Column('id', sa.Uuid(), server_default=sa.text('uuidv7()'), nullable=False),
    sa.Column('station_id', sa.Uuid(), nullable=False),
    sa.Column('request_no', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('what', sa.Text(), server_default='', nullable=False),
    sa.Column('status', sa.Text(), server_default='open', nullable=False),
    sa.Column('seqs', postgresql.JSONB(), server_default='[]', nullable=False),
    sa.Column('last_seq', sa.BigInteger(), nullable=True),
    sa.Column('item_count', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('parts', postgresql.JSONB(), server_default='{}', nullable=False),
    sa.Column('text', sa.Text(), nullable=True),
    sa.Column('asked_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("kind in ('variables','monitors','display_messages','customer_information')", name=op.f('ck_station_report_kind')),
    sa.CheckConstraint("status in ('open','complete','empty','rejected','not_supported','unknown')", name=op.f('ck_station_report_status')),
    sa.ForeignKeyConstraint(['tenant_id', 'station_id'], ['livery.charging_station.tenant_id', 'livery.charging_station.id'], name=op.f('fk_station_report_tenant_id_station_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['tenant_id'], ['platform.tenant.id'], name=op.f('fk_station_report_tenant_id')),
    sa.PrimaryKeyConstraint('tenant_id', 'id', name=op.f('pk_station_report')),
    sa.UniqueConstraint('tenant_id', 'station_id', 'request_no', name=op.f('uq_station_report_tenant_id_station_id_request_no')),
    schema='livery'
    )
    op.create_index('ix_station_report_list', 'station_report', ['tenant_id', 'station_id', 'asked_at'], unique=False, schema='livery')
    op.create_table('variable_monitor',
    sa.Column('tenant_id', sa.Uuid(), server_default=sa.text('livery.tid()'), nullable=False),
    sa.Column('id', sa.Uuid(), server_default=sa.text('uuidv7()'), nullable=False),
    sa.Column('station_id', sa.Uuid(), nullable=False),
    sa.Column('monitor_no', sa.BigInteger(), nullable=False),
    sa.Column('path', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('value', sa.Numeric(), nullable=False),
    sa.Column('severity', sa.BigInteger(), nullable=False),
    sa.Column('in_transactions_only', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('reported_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id', 'station_id'], ['livery.charging_station.tenant_id', 'livery.charging_station.id'], name=op.f('fk_variable_monitor_tenant_id_station_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['tenant_id'], ['platform.tenant.id'], name=op.f('fk_variable_monitor_tenant_id')),
    sa.PrimaryKeyConstraint('tenant_id', 'id', name=op.f('pk_variable_monitor')),
    sa.UniqueConstraint('tenant_id', 'station_id', 'monitor_no', name=op.f('uq_variable_monitor_tenant_id_station_id_monitor_no')),
    schema='livery'
    )
    op.create_table('station_notice',
    sa.Column('tenant_id', sa.Uuid(), server_default=sa.text('livery.tid()'), nullable=False),
    sa.Column('id', sa.Uuid(), server_default=sa.text('uuidv7()'), nullable=False),
    sa.Column('station_id', sa.Uuid(), nullable=False),
    sa.Column('event_no', sa.BigInteger(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('path', sa.Text(), nullable=False),
    sa.Column('trigger', sa.Text(), nullable=False),
    sa.Column('notification', sa.Text(), nullable=False),
    sa.Column('value', sa.Text(), nullable=True),
    sa.Column('severity', sa.BigInteger(), nullable=True),
    sa.Column('is_cleared', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('cause_no', sa.BigInteger(), nullable=True),
    sa.Column('monitor_no', sa.BigInteger(), nullable=True),
    sa.Column('tech_code', sa.Text(), nullable=True),
    sa.Column('tech_info', sa.Text(), nullable=True),
    sa.Column('ocpp_transaction_id', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['tenant_id', 'station_id'], ['livery.charging_station.tenant_id', 'livery.charging_station.id'], name=op.f('fk_station_notice_tenant_id_station_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['tenant_id'], ['platform.tenant.id'], name=op.f('fk_station_notice_tenant_id')),
    sa.PrimaryKeyConstraint('tenant_id', 'id', name=op.f('pk_station_notice')),
    sa.UniqueConstraint('tenant_id', 'station_id', 'event_no', 'at', name=op.f('uq_station_notice_tenant_id_station_id_event_no_at')),
    schema='livery'
    )
    op.create_index('ix_station_notice_list', 'station_notice', ['tenant_id', 'station_id', 'at'], unique=False, schema='livery')
    op.create_table('configuration_template',
    sa.Column('tenant_id', sa.Uuid(), server_default=sa.text('livery.tid()'), nullable=False),
    sa.Column('id', sa.Uuid(), server_default=sa.text('uuidv7()'), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('ocpp_version', sa.Text(), nullable=False),
    sa.Column('vendor', sa.Text(), server_default='', nullable=False),
    sa.Column('model', sa.Text(), server_default='', nullable=False),
    sa.Column('settings', postgresql.JSONB(), server_default='{}', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id'], ['platform.tenant.id'], name=op.f('fk_configuration_template_tenant_id')),
    sa.PrimaryKeyConstraint('tenant_id', 'id', name=op.f('pk_configuration_template')),
    schema='livery'
    )
    op.create_table('display_message',
    sa.Column('tenant_id', sa.Uuid(), server_default=sa.text('livery.tid()'), nullable=False),
    sa.Column('id', sa.Uuid(), server_default=sa.text('uuidv7()'), nullable=False),
    sa.Column('station_id', sa.Uuid(), nullable=False),
    sa.Column('message_no', sa.BigInteger(), nullable=False),
    sa.Column('priority', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=True),
    sa.Column('start_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ocpp_transaction_id', sa.Text(), nullable=True),
    sa.Column('format', sa.Text(), nullable=False),
    sa.Column('language', sa.Text(), nullable=True),
    sa.Column('content', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default='wanted', nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id', 'station_id'], ['livery.charging_station.tenant_id', 'livery.charging_station.id'], name=op.f('fk_display_message_tenant_id_station_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['tenant_id'], ['platform.tenant.id'], name=op.f('fk_display_message_tenant_id')),
    sa.PrimaryKeyConstraint('tenant_id', 'id', name=op.f('pk_display_message')),
    sa.UniqueConstraint('tenant_id', 'station_id', 'message_no', name=op.f('uq_display_message_tenant_id_station_id_message_no')),
    schema='livery'
    )
    protect_all(op.execute, [
        "station_variable", "station_report", "variable_monitor", "station_notice", "configuration_template",
        "display_message",
    ])
