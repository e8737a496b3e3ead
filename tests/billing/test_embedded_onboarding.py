"""The provider's onboarding within our page: only with a real key, by a policy of its own, with a way around it.

Stripe's script cannot be had here: a stand-in of the same calls (docs.stripe.com/connect) is what the page loads."""

import pytest
from playwright.async_api import Browser, Route, expect

from app.billing import onboarding
from app.identity import service as identity
from app.kernel.settings import Settings
from tests.billing.conftest import Shop
from tests.journeys.people import person_at
from tests.web import CLI, OWNER, open_house

pytestmark = pytest.mark.anyio
KEYS = {"stripe_secret_key": "sk_test_1", "stripe_publishable_key": "pk_test_1"}
PATH = "/payment-account/onboarding"
CONNECT = """
const kept = window.StripeConnect;
kept.init = ({ publishableKey, fetchClientSecret }) => ({ create(name) {
  const part = document.createElement("div");
  if (name === "account-onboarding") fetchClientSecret().then((secret) => { part.textContent = publishableKey + " " + secret; });
  part.setOnExit = (leave) => { part.onclick = leave; };
  return part;
} });
kept.onLoad();
"""  # noqa: E501


async def test_the_secret_of_an_account_session_is_the_accounts(shop: Shop) -> None:
    first = await onboarding.begin_embedded(shop.database, shop.tenant_id, CLI)
    second = await onboarding.begin_embedded(shop.database, shop.tenant_id, CLI)
    assert first.startswith("accs_secret__") and first != second


async def test_in_the_sandbox_the_hosted_pages_are_the_way(shop: Shop, settings: Settings) -> None:
    async with open_house(settings, shop.database) as house:
        owner = await house.staff("alpha", shop.tenant_id)
        answer = await owner.get(PATH)
        assert (answer.status_code, answer.headers["location"]) == (303, "/payment-account")
        await owner.open("/payment-account")
        answer = await owner.post(f"{PATH}/sessions", {})
        assert (answer.status_code, answer.json()) == (409, {"code": "not_embedded"})


@pytest.mark.browser
async def test_with_a_real_key_an_operator_is_onboarded_in_the_portal_and_never_stuck_there(
    shop: Shop, browser: Browser, settings: Settings
) -> None:
    real = settings.model_copy(update=KEYS)
    shop.database.settings = real
    async with open_house(real, shop.database) as house:
        async with house.database.scope(shop.tenant_id, CLI) as scope:
            member = await identity.find_staff_member(scope, OWNER)
            assert member is not None
            _link, token = await identity.make_login_link(scope, member.id)
        async with person_at(browser, f"http://portal-alpha.localhost:{house.port}") as person:
            page = await person.open(f"/login/{token}")
            await page.locator("main form button").first.click()

            async def give(route: Route) -> None:
                await route.fulfill(content_type="text/javascript", body=CONNECT)

            async def tell(route: Route) -> None:
                assert route.request.headers["x-csrftoken"]
                await route.fulfill(json={"client_secret": "accs_1"})

            await page.route("https://connect-js.stripe.com/v1.0/connect.js", give)
            await page.route(f"**{PATH}/sessions", tell)
            await page.route("**/payment-account/returned", lambda route: route.fulfill(body="read again"))
            await person.open("/payment-account")
            await page.get_by_role("link", name="Go on").click()
            await expect(page.get_by_text("pk_test_1 accs_1")).to_be_visible()
            assert person.complaints == []
            await page.get_by_text("pk_test_1 accs_1").click()
            await expect(page.get_by_text("read again")).to_be_visible()

            await page.route(f"**{PATH}/sessions", lambda route: route.fulfill(status=502, json={}))
            await person.open(PATH)
            await expect(page.get_by_text("did not load")).to_be_visible()
            await expect(page.get_by_text("comes from Stripe")).to_have_count(0)
            await page.route("https://connect-js.stripe.com/v1.0/connect.js", lambda route: route.abort())
            page = await person.open(PATH)
            await expect(page.get_by_text("did not load")).to_be_visible()
            await expect(page.get_by_role("button", name="Go on at Stripe")).to_be_visible()
            for path, opener, script in (
                (PATH, "same-origin-allow-popups", "https://connect-js.stripe.com"),
                ("/payment-account", "same-origin", "'self'"),
            ):
                answer = await page.goto(f"{person.base}{path}")
                assert answer is not None and answer.headers["cross-origin-opener-policy"] == opener
                policy = answer.headers["content-security-policy"]
                scripts = next(part for part in policy.split("; ") if part.startswith("script-src "))
                assert script in scripts and "unsafe" not in policy
                assert ("stripe.com" in scripts) is (path == PATH)
