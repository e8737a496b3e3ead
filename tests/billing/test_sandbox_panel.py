"""The sandbox's panel in the console: what it shows, what it lets an admin do, and that it is not there elsewhere."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from app.billing import sandbox
from app.kernel.settings import Settings
from tenants.database import Database
from tenants.models import PlatformAuditEntry
from tests.web import CLI, House, open_house

pytestmark = pytest.mark.anyio
CAPTURE = "POST /v1/payment_intents/{id}/capture"


@pytest.fixture
async def house(settings: Settings, database: Database) -> AsyncIterator[House]:
    async with open_house(settings, database) as opened:
        yield opened


async def audited(house: House, action: str) -> list[dict[str, Any]]:
    query = (
        select(PlatformAuditEntry).where(PlatformAuditEntry.action == action).order_by(PlatformAuditEntry.seq)
    )
    async with house.database.platform_scope(CLI, "test") as scope:
        return [entry.data for entry in (await scope.db.execute(query)).scalars()]


async def wire(house: House, method: str, path: str, account: str = "", **params: Any) -> sandbox.Answer:
    key = sandbox.api_key(house.settings)
    return await sandbox.handle(house.database, sandbox.Wire(method, path, params, key, account))


async def test_the_panel_shows_the_state_and_every_test_card(house: House) -> None:
    made = await wire(house, "POST", "/v2/core/accounts", display_name="Nordlicht <GmbH>")
    line = {
        "price_data": {"currency": "eur", "unit_amount": "4200", "product_data": {"name": "x"}},
        "quantity": "1",
    }
    account = made.body["id"]
    await wire(
        house, "POST", "/v1/checkout/sessions", account, mode="payment", line_items=[line],
        success_url="http://nordlicht.localhost/",
    )  # fmt: skip
    admin = await house.admin()
    page = (await admin.open("/sandbox")).text
    assert "Nordlicht &lt;GmbH&gt;" in page and account in page
    assert "€42.00" in page and "Open" in page
    for number, (_brand, _way, what) in sandbox.CARDS.items():
        assert f"{number[:4]} {number[4:8]} {number[8:12]} {number[12:]}" in page
        assert what[:1].upper() + what[1:] in page
    assert "hold lasts 7 days, a payment page 45 minutes." in page
    assert 'href="/sandbox"' in (await admin.get("/")).text


async def test_the_clock_goes_ahead_and_back_to_now(house: House) -> None:
    admin = await house.admin()
    await admin.open("/sandbox")
    answer = await admin.post("/sandbox/clock", {"days": "7", "hours": "1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sandbox")
    assert await sandbox.get_setting(house.database, "clock") == 7 * 86400 + 3600
    assert "+ 7 days 1 h" in (await admin.get("/sandbox")).text
    await admin.post("/sandbox/clock", {"back": "on", "days": "7"})
    assert await sandbox.get_setting(house.database, "clock") == 0
    assert await audited(house, "sandbox.clock") == [{"ahead_s": 608400}, {"ahead_s": 0}]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"days": "-1", "hours": "0"}, "Days are 0 to 365"),
        ({"days": "366", "hours": "0"}, "Days are 0 to 365"),
        ({"days": "1", "hours": "24"}, "Hours are 0 to 23"),
        ({"days": "soon", "hours": "0"}, "This must be a whole number."),
        ({"days": "", "hours": ""}, "Say how many days or hours ahead"),
    ],
)
async def test_a_clock_that_cannot_be_is_refused(house: House, form: dict[str, str], sentence: str) -> None:
    admin = await house.admin()
    await admin.open("/sandbox")
    answer = await admin.post("/sandbox/clock", form)
    assert answer.status_code == 422
    assert sentence in answer.text
    assert await sandbox.get_setting(house.database, "clock", 0) == 0
    assert await audited(house, "sandbox.clock") == []


async def test_a_planned_fault_meets_the_request_it_names_and_no_other(house: House) -> None:
    admin = await house.admin()
    await admin.open("/sandbox")
    answer = await admin.post("/sandbox/faults", {"request": CAPTURE, "fault": "429", "times": "2"})
    assert answer.status_code == 303
    assert (await wire(house, "GET", "/v1/payment_intents/pi_1", "acct_1")).status == 403
    assert (await wire(house, "POST", "/v1/payment_intents/pi_1/cancel", "acct_1")).status == 403
    for expected in (429, 429, 403):
        assert (await wire(house, "POST", "/v1/payment_intents/pi_1/capture", "acct_1")).status == expected
    assert "used up" in (await admin.get("/sandbox")).text
    await admin.post("/sandbox/faults", {"clear": "on"})
    assert await sandbox.get_setting(house.database, "faults") == []
    planned = await audited(house, "sandbox.faults")
    assert [entry["planned"] and entry["planned"]["request"] for entry in planned] == [CAPTURE, None]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"request": "POST /v1/everything"}, "Choose one of the sandbox"),
        ({"fault": "fire"}, "A fault is one of before, after, 500, 409, 429, balance_insufficient."),
        ({"times": "0"}, "How often is 1 to 100."),
        ({"times": ""}, "How often is 1 to 100."),
        ({"times": "often"}, "This must be a whole number."),
    ],
)
async def test_a_fault_that_cannot_be_is_refused(house: House, change: dict[str, str], sentence: str) -> None:
    admin = await house.admin()
    await admin.open("/sandbox")
    form = {"request": CAPTURE, "fault": "after", "times": "1"} | change
    answer = await admin.post("/sandbox/faults", form)
    assert answer.status_code == 422
    assert sentence in answer.text
    assert await sandbox.get_setting(house.database, "faults", []) == []


async def test_a_plan_of_faults_has_an_end(house: House) -> None:
    admin = await house.admin()
    await admin.open("/sandbox")
    fault = {"request": CAPTURE, "fault": "after", "times": "1"}
    answers = [(await admin.post("/sandbox/faults", fault)).status_code for _ in range(21)]
    assert answers == [303] * 20 + [422]


@pytest.mark.parametrize(
    ("plan", "value"),
    [("lost", {"drop": True}), ("doubled", {"copies": 2}), ("reversed", {"reverse": True}), ("normal", {})],
)
async def test_webhooks_go_as_planned(house: House, plan: str, value: dict[str, Any]) -> None:
    admin = await house.admin()
    await admin.open("/sandbox")
    assert (await admin.post("/sandbox/webhooks", {"plan": plan})).status_code == 303
    assert await sandbox.get_setting(house.database, "webhooks") == value
    assert f'<option value="{plan}" selected>' in (await admin.get("/sandbox")).text
    assert await audited(house, "sandbox.webhooks") == [{"plan": plan}]


async def test_an_unknown_plan_for_webhooks_is_refused(house: House) -> None:
    admin = await house.admin()
    await admin.open("/sandbox")
    answer = await admin.post("/sandbox/webhooks", {"plan": "eaten"})
    assert answer.status_code == 422
    assert "A plan for webhooks is one of normal, lost, doubled, reversed." in answer.text


@pytest.mark.parametrize(
    "changes",
    [
        {"stripe_secret_key": "sk_test_realkey"},
        {"payments": "manual"},
        {"env": "production", "allow_sandbox_payments": True},
    ],
)
async def test_there_is_no_panel_with_a_real_key_nor_in_production(
    settings: Settings, database: Database, changes: dict[str, Any]
) -> None:
    database.settings = settings.model_copy(update=changes)
    async with open_house(database.settings, database) as house:
        admin = await house.admin()
        home = await admin.open("/")
        assert home.status_code == 200
        assert "/sandbox" not in home.text
        assert (await admin.get("/sandbox")).status_code == 404
        for path in ("/sandbox/clock", "/sandbox/faults", "/sandbox/webhooks"):
            assert (await admin.post(path, {"days": "1", "plan": "lost"})).status_code == 404
    assert await sandbox.get_setting(database, "clock") is None
    assert await sandbox.get_setting(database, "webhooks") is None


async def test_the_kept_mails_are_not_in_productions_navigation(
    settings: Settings, database: Database
) -> None:
    database.settings = settings.model_copy(update={"env": "production", "payments": "manual"})
    async with open_house(database.settings, database) as house:
        admin = await house.admin()
        assert 'href="/mails"' not in (await admin.open("/")).text
