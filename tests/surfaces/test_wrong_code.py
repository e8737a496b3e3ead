"""A sticker's code that was misread, and other addresses that lead nowhere, in the reader's language."""

import pytest

from app.brands import service as brands
from app.kernel.errors import Invalid
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio
GERMAN = {"Accept-Language": "de"}


async def test_a_wrong_code_can_be_typed_anew_and_somebody_asked_in_the_readers_language(
    house: House,
) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        await brands.update_profile(
            scope, {"support_phone": "+49 461 1234", "support_email": "help@nordlicht.example"}
        )
    driver = house.driver("nordlicht")
    answer = await driver.get("/c/NOPE123", headers=GERMAN)
    assert answer.status_code == 404 and "There is" not in answer.text
    for words in ("Diesen Ladepunkt gibt es nicht.", 'action="/go"', 'value="NOPE123"', "Code auf dem Aufkleber",
                  "tel:+494611234", "mailto:help@nordlicht.example"):  # fmt: skip
        assert words in answer.text, words
    assert (
        "There is no such charger."
        in (await driver.get("/c/NOPE123", headers={"Accept-Language": "en"})).text
    )


async def test_the_address_for_help_is_an_address_and_nothing_more(house: House) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        for wrong in ("@", "a@", "javascript:alert(1)@x", "a@b?bcc=x@y.example", "a@b.example?bcc=x"):
            with pytest.raises(Invalid) as refused:
                await brands.update_profile(scope, {"support_email": wrong})
            assert [fault.field for fault in refused.value.faults] == ["support_email"], wrong
        await brands.update_profile(scope, {"support_email": "a?bcc=x&y@b.example"})
    assert (
        'href="mailto:a%3Fbcc%3Dx%26y@b.example"' in (await house.driver("nordlicht").get("/c/NOPE123")).text
    )


@pytest.mark.parametrize(
    "path", ["/nothing", "/legal/nothing", "/preview/nothing", "/charging-sessions/ses_1"]
)
async def test_no_address_that_leads_nowhere_answers_a_german_in_english(house: House, path: str) -> None:
    await found_brand(house.database)
    answer = await house.driver("nordlicht").get(path, headers=GERMAN)
    assert answer.status_code == 404 and "There is no" not in answer.text
    assert 'action="/go"' not in answer.text


async def test_an_address_that_only_takes_forms_leads_to_the_page_that_shows_them(house: House) -> None:
    """There a refused start leaves the browser: choosing a language, or opening it again, is no error."""
    await found_brand(house.database)
    driver = house.driver("nordlicht")
    for path, above in (("/c/ABC123/start", "/c/ABC123"), ("/s/x/stop", "/s/x"), ("/s/x/cancel", "/s/x"),
                        ("/account/sessions/x/stop", "/account/sessions/x"), ("/preferences", "/")):  # fmt: skip
        answer = await driver.get(path)
        assert (answer.status_code, answer.headers.get("location")) == (303, above)
    staff = await house.portal("nordlicht").get("/payments/pay_1/refunds")
    assert (staff.status_code, staff.headers.get("location")) == (303, "/payments/pay_1")
