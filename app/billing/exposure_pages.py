"""Console page: what could be lost with each tenant's card payments, and how the payment provider does.

The figures are those that each tenant's own job writes each minute (`app/reporting/jobs.py`); news are the platform's
own rows. So nobody looks across tenants here.
"""

from datetime import datetime
from typing import Any

from litestar import Request, Response, get
from sqlalchemy import func, select

from app.brands import service as brands
from app.kernel.money import to_decimal
from app.kernel.web import NavItem, page, platform, visit_of
from tenants.models import WebhookEvent

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Exposure", "/exposure", "shield-alert", "tenants.view", order=13)]
TIMES = ("behind_since", "waiting_since", "observed_at")


@get("/exposure", opt={"permission": "tenants.view"})
async def show_exposure(request: AnyRequest) -> Response[Any]:
    visit = visit_of(request)
    lines = await brands.list_tenants(visit.database, visit.actor)
    async with platform(request, "look at what could be lost") as scope:
        heard_at = (await scope.db.execute(select(func.max(WebhookEvent.received_at)))).scalar_one()
    rows = [(line, _read(line.figures["money"])) for line in lines if line.figures.get("money")]
    currencies = sorted({money["currency"] for _line, money in rows})
    settings = visit.database.settings
    return page(
        request, None, "billing/exposure.html", title="Exposure", rows=rows, heard_at=heard_at,
        borne_by="The platform" if any(money["is_ours"] for _line, money in rows) else "The provider",
        provider="the sandbox" if settings.uses_sandbox else "Stripe",
        drawn=[(one, _drawn(rows, one, "open_minor"), _drawn(rows, one, "held_minor")) for one in currencies],
        troubled=[(line, words) for line, money in rows if (words := _troubles(money))],
    )  # fmt: skip


def _read(money: dict[str, Any]) -> dict[str, Any]:
    """The figures, with their times as times; `exposed_minor` is what is contested, and what a balance is below 0."""
    times = {name: datetime.fromisoformat(money[name]) if money[name] else None for name in TIMES}
    exposed = money["disputed_minor"] + max(-money["balance_minor"], 0)
    is_ours = money.get("losses_borne_by") == "application"  # what an older job wrote has no word of it
    return money | times | {"exposed_minor": exposed, "is_ours": is_ours}


def _drawn(rows: list[Any], currency: str, figure: str) -> list[tuple[str, int]]:
    """In whole units of the currency, the largest first."""
    found = [
        (line.name, round(to_decimal(money[figure], currency)))
        for line, money in rows
        if money["currency"] == currency
    ]
    return sorted(found, key=lambda one: one[1], reverse=True)[:12]


def _troubles(money: dict[str, Any]) -> list[str]:
    """In sentences; empty where all is well."""
    count, failed = money["waiting_count"], money["failed_count"]
    return [
        *(["The account takes no cards."] if not money["is_ready"] else []),
        *([f"The provider asks for {money['due_count']} more things."] if money["due_count"] else []),
        *(["The balance is below 0."] if money["balance_minor"] < 0 else []),
        *([f"{count} {'call waits' if count == 1 else 'calls wait'} for an answer."] if count else []),
        *([f"{failed} {'call' if failed == 1 else 'calls'} refused in the last 24 hours."] if failed else []),
        *(["Payments were not looked at in time."] if money["behind_since"] else []),
    ]


routes = [show_exposure]
