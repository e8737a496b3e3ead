"""Staff send a paper once more: to its buyer as it was first sent, to anybody else that paper alone."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from app.billing import payments
from app.billing import service as billing
from app.charging import paid
from app.kernel.audit import AuditEntry
from app.kernel.ids import public_id
from app.notifications import service
from app.notifications.letter import parts_of
from app.notifications.models import Mail
from tests.billing.conftest import Shop
from tests.billing.test_invoices import line
from tests.surfaces.conftest import house
from tests.web import House

__all__ = ["house"]
pytestmark = pytest.mark.anyio
JULE, SEEN = "jule@a.example", datetime(2026, 6, 1, 12, tzinfo=UTC)


async def issue(shop: Shop, *, email: str, is_session: bool) -> str:
    payment = None
    async with shop.scope() as scope:
        if is_session:
            payment, _op = await payments.open_payment(
                scope, source_type="charging_session", source_id=shop.source_id, hold_minor=3000, currency="EUR",
                title="Charging", success_url="http://a.localhost/s", cancel_url="http://a.localhost/c", email="",
                language="de",
            )  # fmt: skip
            payment.payer_email = email
        made = await billing.issue_invoice(
            scope, currency="EUR", lines=[line()], buyer={"name": "Jule", "email": email}, supplied_at=SEEN,
            language="de", payment_id=payment.id if payment else None,
        )  # fmt: skip
    assert made is not None
    return public_id("invoice", made.id)


async def mails(shop: Shop) -> list[Mail]:
    """Oldest first."""
    async with shop.scope() as scope:
        return [one for one in reversed(await service.list_mails(scope)) if one.kind == "paper_copy"]


async def test_a_paper_goes_again_to_its_buyer_once_and_says_what_the_first_mail_said(
    shop: Shop, house: House
) -> None:
    key = await issue(shop, email=JULE, is_session=True)
    staff, driver = await house.staff("alpha", shop.tenant_id), house.driver("alpha")
    shown = await staff.open(f"/invoices/{key}")
    assert f'value="{JULE}"' in shown.text and "Kept until at least 31 December 20" in shown.text
    for _press in range(2):
        assert (await staff.post(f"/invoices/{key}/mails", {"email": JULE})).status_code == 303
    assert f"On its way to {JULE}." in (await staff.open(f"/invoices/{key}")).text
    [mail] = await mails(shop)
    assert (mail.to_address, mail.language, mail.subject.split()[0]) == (JULE, "de", "Beleg")
    assert "11,90" in mail.body and "sendet Ihnen eine Kopie" in mail.body
    links = [urlsplit(part.href).path for part in parts_of(mail.body) if part.href]
    async with shop.scope() as scope:
        own = f"/s/{paid.link_of(scope, shop.source_id)}/receipt"
        told = await scope.db.execute(select(AuditEntry).where(AuditEntry.action == "invoice.sent_again"))
        assert [one.data for one in told.scalars()] == [{"to": "buyer"}]
    assert links[1:] == [own]
    pdf = await driver.get(links[0])
    assert (pdf.headers["content-type"], pdf.content[:5]) == ("application/pdf", b"%PDF-")
    other = await issue(shop, email=JULE, is_session=False)
    for forged in (links[0].replace(key, other), links[0].replace("/pdf", "a/pdf"), f"/papers/{key}/pdf"):
        assert (await driver.get(forged)).status_code == 404


async def test_a_machine_sends_it_to_another_address_which_sees_that_paper_alone_and_not_without_end(
    shop: Shop, house: House
) -> None:
    key, nameless = (
        await issue(shop, email=JULE, is_session=True),
        await issue(shop, email="", is_session=False),
    )
    api = await house.api("alpha", shop.tenant_id, "invoices.manage")
    viewer = await house.api("alpha", shop.tenant_id, "invoices.view")
    path = f"/api/v1/invoices/{key}/mails"
    assert (await viewer.send("POST", path, json={})).status_code == 403
    for where, body in (
        (path, {"email": "a@b.example, c@d.example"}), (path, {"email": 7}), (f"/api/v1/invoices/{nameless}/mails", {}),
    ):  # fmt: skip
        answer = await api.send("POST", where, json=body)
        assert (answer.status_code, [one["pointer"] for one in answer.json()["errors"]]) == (422, ["/email"])
    to = [f"books{number}@a.example" for number in range(6)]
    sent = [await api.send("POST", path, json={"email": address}) for address in to]
    assert [one.status_code for one in sent] == [202] * 5 + [429]
    assert (sent[0].json(), sent[5].json()["code"]) == ({"to": to[0]}, "mailed_too_often")
    assert [one.to_address for one in await mails(shop)] == to[:5]
    assert all("/s/" not in one.body and f"/papers/{key}." in one.body for one in await mails(shop))
    assert (
        await api.send("POST", f"/api/v1/invoices/{nameless}/mails", json={"email": JULE})
    ).status_code == 202
    async with shop.scope() as scope:
        told = await scope.db.execute(
            select(AuditEntry.data).where(AuditEntry.action == "invoice.sent_again")
        )
        assert "@" not in str(told.scalars().all())
