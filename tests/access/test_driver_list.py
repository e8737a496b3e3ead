"""The list of drivers: searched by what a person has at hand, a page at a time, in whatever number they are."""

import re

import pytest

from app.access import service
from app.kernel.ids import public_id
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


def _names(page: str) -> list[str]:
    return re.findall(r'data-label="Driver"><a [^>]*><strong>([^<]*)<', page)


async def test_every_driver_is_reached_page_by_page_also_those_of_one_name(house: House) -> None:
    tenant_id = await found_brand(house.database)
    names = sorted([f"Driver {n:03}" for n in range(80)] + ["Driver 040"] * 30)
    async with house.database.scope(tenant_id, CLI) as scope:
        for name in names:
            await service.create_driver(scope, name=name)
    owner = await house.staff("nordlicht", tenant_id)
    found, path, page = list[str](), "/drivers?q=driver", ""
    for _ in range(3):
        page = (await owner.get(path)).text
        found += _names(page)
        more = re.search(r'href="(/drivers\?q=driver&amp;after=[^"]*)"', page)
        path = more[1].replace("&amp;", "&") if more else ""
    assert found == names and not path
    assert "Next page" not in page and "First page" in page
    assert (await owner.get("/drivers?after=drv_nonsense")).status_code == 404


async def test_a_driver_is_found_by_name_mail_and_the_last_digits_of_a_card(house: House) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        anna = await service.create_driver(scope, name="Anna 100% Beck", email="a.beck@example.org")
        await service.create_driver(scope, name="Bert", email="bert@example.org")
        await service.create_id_token(scope, value="04A1B2C3D4", driver_id=anna.id)
    owner = await house.staff("nordlicht", tenant_id)
    for q, names in (
        ("beck", ["Anna 100% Beck"]), ("A.BECK@", ["Anna 100% Beck"]), ("c3d4", ["Anna 100% Beck"]),
        ("••••••C3D4", ["Anna 100% Beck"]), ("0%25 b", ["Anna 100% Beck"]), ("example", ["Anna 100% Beck", "Bert"]),
        ("b2c3", []),
    ):  # fmt: skip
        page = (await owner.get(f"/drivers?q={q}")).text
        assert _names(page) == names, q
    assert "No driver is found" in page
    # Whom a token is given to is told apart by the mail address, and is there however many drivers there are.
    form = (await owner.get(f"/id-tokens/new?driver_id={public_id('driver', anna.id)}")).text
    assert "Anna 100% Beck · a.beck@example.org" in form
