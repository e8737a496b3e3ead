"""What the operator gave back in the provider's own dashboard is told as given back: nobody owes it again."""

import pytest

from app.billing import payments
from app.kernel.ids import public_id
from app.notifications import letter
from tests.billing.conftest import jobs, shop
from tests.billing.test_refunds import give_back_outside
from tests.charging.test_cap import Visit, visit
from tests.charging.test_papers import paper_of, receipt_page, words_of
from tests.surfaces.conftest import house
from tests.web import House
from themes.language import speaking

__all__ = ["house", "jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("minor", "back", "in_german"), [(500, "€5.00", "5,00"), (3000, "€30.00", "30,00")])
async def test_no_paper_asks_for_what_was_given_back_at_the_provider(
    visit: Visit, house: House, minor: int, back: str, in_german: str
) -> None:
    """37.20 were used, 30.00 held and taken: on the driver's page, on the paper as page and PDF are set from it, on
    staff's page; and a mail that comes so late says it too."""
    await visit.end(170, 62)
    await give_back_outside(visit.shop, await visit.payment(), minor)
    invoice, content = await paper_of(visit)
    assert content["totals"][-1] == ("To be paid", "€0.00", True)
    staff = await house.staff("alpha", visit.shop.tenant_id)
    to_staff = await staff.get(f"/invoices/{public_id('invoice', invoice.id)}")
    for page in (await receipt_page(house, visit, "en"), to_staff.text):
        said = words_of(page)
        assert "€7.20 lay above what was held on the card: that part is waived" in said
        assert "Total €37.20 Paid by card -€30.00 Waived -€7.20 To be paid €0.00" in said
        assert f"€30.00 paid by card Visa •••• 4242; {back} given back" in said
    async with visit.shop.scope() as scope:
        settled = await payments.find_settled(scope, await visit.payment())
    assert settled is not None
    with speaking("de"):
        _kind, _subject, body = letter.receipt("Alpha", "http://alpha.localhost/s", settled, invoice)
    assert f"Zurückgegeben: {in_german}\u00a0€." in body
