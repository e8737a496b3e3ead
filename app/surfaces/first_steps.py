"""First steps on the overview: what a brand has yet to do, ticked by what is really there, for whoever may do it.

Put away, it stays away in that browser; when all of it is done it is gone by itself.
"""

from dataclasses import dataclass
from typing import Any

from litestar import Request, Response, post
from sqlalchemy import exists, func, select

from app.access.models import IdToken
from app.billing.models import Invoice, Payment, PaymentAccount
from app.brands.models import BrandVersion
from app.brands.service import get_profile
from app.charging.models import ChargingSession
from app.kernel.web import own_cookie, read_form, redirect
from app.stations.models import StationConnection
from app.tariffs.models import Tariff
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
COOKIE = "__Host-livery-first-steps"
A_YEAR_S = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Step:
    """`name` is what `_done` knows of it."""

    name: str
    label: str
    href: str
    permission: str


STEPS = (
    Step("seller", "Fill in who you are, so that invoices carry a number", "/settings", "settings.manage"),
    Step("brand", "Give your brand its look and publish it", "/branding", "brand.manage"),
    Step("tariff", "Say what charging costs", "/tariffs/new", "tariffs.manage"),
    Step("station", "Connect your first station", "/stations/new", "stations.manage"),
    Step("token", "Give a driver a card", "/id-tokens/new", "id_tokens.manage"),
    Step("session", "See the first session", "/charging-sessions", "sessions.view"),
    Step("account", "Be ready to take guests' cards", "/payments", "invoices.view"),
    Step("payment", "See the first guest's payment", "/payments", "invoices.view"),
    Step("invoice", "Read the first invoice", "/invoices", "invoices.view"),
)


async def first_steps(request: AnyRequest, scope: Scope) -> dict[str, Any] | None:
    """{"steps": [(step, done)], "done", "percent", "is_away"}; None when nothing is left to do."""
    wanted = [step for step in STEPS if scope.actor.may(step.permission)]
    known = await _done(scope)
    steps = [(step, known[step.name]) for step in wanted]
    done = sum(is_done for _step, is_done in steps)
    if done == len(steps):
        return None
    is_away = request.cookies.get(COOKIE) == "away"
    return {"steps": steps, "done": done, "percent": 100 * done // len(steps), "is_away": is_away}


async def _done(scope: Scope) -> dict[str, bool]:
    """The first look is made with the brand; publishing one makes the second version."""
    row = (await scope.db.execute(select(
        select(func.count()).select_from(BrandVersion).scalar_subquery().label("looks"),
        exists(select(Tariff.id)).label("tariff"),
        exists(select(StationConnection.id)).label("station"),
        exists(select(IdToken.id).where(IdToken.is_single_use.is_(False))).label("token"),
        exists(select(ChargingSession.id).where(ChargingSession.status == "COMPLETED")).label("session"),
        exists(select(PaymentAccount.id)).label("account"),
        exists(select(Payment.id).where(Payment.captured_minor > 0)).label("payment"),
        exists(select(Invoice.id)).label("invoice"),
    ))).one()  # fmt: skip
    found = dict(row._mapping)
    return found | {"brand": found["looks"] > 1, "seller": (await get_profile(scope)).has_seller_data}


@post("/first-steps", opt={"permission": "self"})
async def put_away(request: AnyRequest) -> Response[Any]:
    """`show` brings them back."""
    is_shown = (await read_form(request)).flag("show")
    response = redirect(request, "/")
    response.set_cookie(own_cookie(COOKIE, "" if is_shown else "away", max_age=0 if is_shown else A_YEAR_S))
    return response


routes = [put_away]
