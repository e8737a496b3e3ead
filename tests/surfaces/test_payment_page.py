"""A payment's page in the portal, whatever was asked of the provider and whatever it said."""

from typing import Any

import pytest

from app.billing.models import Payment, PaymentOp
from app.kernel.clock import utcnow, uuid7
from app.kernel.ids import public_id
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("kind", "request_", "response", "shown"),
    [
        ("checkout_create", {"amount_minor": 3000}, None, "30.00"),
        ("checkout_expire", {}, None, "pi_known"),
        ("cancel", {}, {"code": "lock_timeout"}, "lock_timeout"),
        (
            "capture",
            {"amount_minor": 512},
            {"code": "gone", "message": "The hold is gone."},
            "The hold is gone.",
        ),
        (
            "cancel",
            {},
            {"code": "payment_intent_unexpected_state", "message": "You cannot cancel this PaymentIntent."},
            "The hold had ended by itself",
        ),
    ],
)
async def test_a_payment_can_be_looked_at_whatever_was_asked_of_the_provider(
    house: House, kind: str, request_: dict[str, Any], response: dict[str, Any] | None, shown: str
) -> None:
    tenant_id = await found_brand(house.database)
    payment = Payment(
        id=uuid7(), source_type="charging_session", source_id=uuid7(), provider="sandbox", account_ref="acct_1",
        currency="EUR", hold_minor=3000, is_live=False, payer_email="gast@example.org", state="canceled",
        failure="evse_taken", created_at=utcnow(),
    )  # fmt: skip
    async with house.database.scope(tenant_id, CLI) as scope:
        scope.db.add(payment)
        await scope.db.flush()
        scope.db.add(PaymentOp(
            id=uuid7(), payment_id=payment.id, kind=kind, idem_key=f"{kind}:1", request=request_, state="succeeded",
            response=response, provider_ref="pi_known", updated_at=utcnow(),
        ))  # fmt: skip
    owner = await house.staff("nordlicht", tenant_id)
    page = await owner.get(f"/payments/{public_id('payment', payment.id)}")
    assert page.status_code == 200 and shown in page.text
