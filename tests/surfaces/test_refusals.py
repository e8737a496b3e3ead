"""What was refused says where: each wrong field by its label, with a way to it; and no page is a dead end."""

import re
from html import unescape
from uuid import UUID

import pytest

from tests.web import House, found_brand

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


def ways(html: str) -> list[tuple[str, str]]:
    """(where to, words) of the links in the summary; each leads to something that is there."""
    found = re.search(r'<div class="alert error" role="alert">(.*?)</div></div>', html, re.S)
    assert found is not None
    links = re.findall(r'<a href="#([^"]+)">(.*?)</a>', found[1])
    assert all(f'id="{name}"' in html for name, _words in links)
    return [(name, unescape(words)) for name, words in links]


async def test_a_look_that_is_refused_names_its_wrong_fields_and_leads_to_them(
    house: House, tenant_id: UUID
) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/branding")
    answer = await owner.post("/branding", {"primary": "red", "logo_text": "x" * 200, "language_en": "on"})
    assert answer.status_code == 422
    assert [(name, words.partition(": ")[0]) for name, words in ways(answer.text)] == [
        ("logo_text", "Name in the head of every page"), ("primary", "Main colour"),
    ]  # fmt: skip
    nobody = await owner.post("/branding", {"logo_text": "N"})
    assert "The look cannot be saved like this." in nobody.text
    assert [(name, words.partition(": ")[0]) for name, words in ways(nobody.text)] == [
        ("languages", "Languages for drivers")
    ]


async def test_every_form_names_its_wrong_field(house: House, tenant_id: UUID) -> None:
    """What is refused as a whole, and what no field of the page holds, is told without a way."""
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers")
    wrong = await owner.post("/drivers", {"name": "Gerd", "email": "gerd"})
    assert ways(wrong.text) == [("email", "Mail: This is no e-mail address.")]
    await owner.post("/drivers", {"name": "Gerd", "email": "gerd@a.example"})
    taken = await owner.post("/drivers", {"name": "Gerd", "email": "gerd@a.example"})
    assert taken.status_code == 409 and ways(taken.text) == []
    odd = await owner.post("/drivers/import", {"csv": ""})
    assert "Choose a file" in odd.text and ways(odd.text)[0][0] == "file"


@pytest.mark.parametrize("path", ["/nothing", "/c/AAAAAAA", "/s/nothing"])
async def test_what_is_not_there_can_be_read_in_another_language(
    house: House, tenant_id: UUID, path: str
) -> None:
    driver = house.driver("nordlicht")
    answer = await driver.get(path, headers={"Accept-Language": "en"})
    assert answer.status_code == 404
    assert 'action="/preferences"' in answer.text and ">Deutsch</button>" in answer.text
    assert answer.text.count("<main") == answer.text.count("<h1") == 1
    back = await driver.post(
        "/preferences", {"language": "de"}, headers={"Referer": f"{driver.origin}{path}"}
    )
    assert back.headers["location"] == path
    assert "Nicht gefunden" in (await driver.get(path)).text


async def test_what_is_refused_before_any_page_sees_it_is_said_in_the_readers_language(
    house: House, tenant_id: UUID
) -> None:
    driver = house.driver("nordlicht")
    torn = {"Content-Type": "multipart/form-data; boundary=x"}
    for method, path, options, status, words in (
        ("PUT", "/account", {}, 405, "Diese Adresse kann nicht"),
        ("POST", "/preferences", {"content": b"no part", "headers": torn}, 400, "kam beschädigt"),
        ("GET", "/?a=%00", {}, 422, "ein Zeichen, das in keinem Text vorkommt"),
    ):
        headers = {"Accept-Language": "de", **options.pop("headers", {})}
        answer = await driver.send(method, path, headers=headers, **options)
        assert answer.status_code == status and words in answer.text, (path, answer.text)
        for english in ("Method", "Invalid", "Refused"):
            assert english not in answer.text
