"""A review of its own for energy that flowed to another card before the session's driver came."""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_charging_session_review"), "charging_session", schema="livery")
    op.create_check_constraint(
        op.f("ck_charging_session_review"), "charging_session",
        "review is null or review in ('superseded','stuck','orphan','implausible','no_tariff','card_twice',"
        "'start_twice','other_card')",
        schema="livery",
    )  # fmt: skip
