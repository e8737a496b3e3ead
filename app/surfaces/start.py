"""The start page of the demo: every surface, and its people's logins at a click. On the bare platform domain.

Demo mode only, and never in production: who clicks is logged in.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from litestar import Litestar, Request, Response, get, post
from sqlalchemy import select

from app.access import accounts
from app.access.models import Driver, IdToken
from app.brands import service as brands
from app.identity import admins
from app.identity import service as identity
from app.kernel.errors import NotFound
from app.kernel.settings import Settings
from app.kernel.web import page, read_form, visit_of
from app.surfaces.assembly import platform_file, surface
from app.surfaces.headers import content_security_policy
from tenants.database import Database
from tenants.scope import Actor, Scope

AnyRequest = Request[Any, Any, Any]
VISITOR = Actor(kind="anonymous", name="demo start page")
ADMIN = "admin@livery.example"


@dataclass(frozen=True, slots=True)
class Guide:
    """What a role does first: (words, path, the permission that it takes), on that surface of the first brand."""

    role: str
    title: str
    surface: str
    steps: tuple[tuple[str, str, str], ...]


GUIDES = (
    Guide("owner", "Owner or manager", "portal", (
        ("Give the brand another colour, look at it, publish it", "/branding", "brand.manage"),
        ("Connect a station", "/stations/new", "stations.manage"),
        ("Say what charging costs", "/tariffs/new", "tariffs.manage"),
        ("Watch a session while it runs", "/charging-sessions?state=ACTIVE", "sessions.view"),
        ("Give a guest's money back", "/payments?state=taken", "invoices.manage"),
    )),
    Guide("operator", "Operator", "portal", (
        ("See what is wrong right now", "/", "overview.view"),
        ("Send a station a command", "/stations", "stations.command"),
        ("Decide a session under review", "/charging-sessions?state=review", "sessions.manage"),
        ("Give a driver a card", "/id-tokens/new", "id_tokens.manage"),
    )),
    Guide("accountant", "Accountant", "portal", (
        ("Read an invoice and its credit note", "/invoices", "invoices.view"),
        ("See which cards are held", "/payments?state=held", "invoices.view"),
        ("Check that the books balance", "/ledger", "ledger.view"),
        ("See who changed what", "/audit", "audit.view"),
    )),
    Guide("viewer", "Viewer", "portal", (
        ("See the whole network at a glance", "/", "overview.view"),
        ("Look at a station", "/stations", "stations.view"),
        ("Look at sessions", "/charging-sessions", "sessions.view"),
    )),
    Guide("driver", "Driver, without an account", "driver", (
        ("Find a charger that is free", "/?free=1", ""),
        ("Open it, as its sticker would, and press Pay and start", "/?free=1", ""),
        ("Type a test card: 4242 4242 4242 4242 pays, 4000 0000 0000 0002 is declined", "/?free=1", ""),
        ("Watch the car charge, stop it, read the receipt", "/?free=1", ""),
    )),
    Guide("admin", "Platform admin", "console", (
        ("Found another brand", "/", "tenants.manage"),
        ("See which gateway holds which brands' stations", "/gateways", "gateways.view"),
        ("Look at the brands' own domains", "/domains", "domains.view"),
        ("Let payments go wrong", "/sandbox", "sandbox.manage"),
        ("Try to break the wall between brands", "/isolation", "isolation.test"),
    )),
)  # fmt: skip


@get("/", opt={"public": True})
async def start(request: AnyRequest) -> Response[str]:
    database = visit_of(request).database
    settings = database.settings
    tenants = [
        await _shown(database, settings, line)
        for line in await brands.list_tenants(database, VISITOR)
        if line.status == "active"
    ]
    return page(
        request, None, "surfaces/start.html", title="Livery", tenants=tenants, admin=ADMIN,
        guides=_guides(settings, tenants[0]["slug"]) if tenants else [],
        console=settings.url_of(settings.host_of("console")), ocpp_url=settings.ocpp_url_of("BRAND", "IDENTITY"),
    )  # fmt: skip


def _guides(settings: Settings, slug: str) -> list[dict[str, Any]]:
    shown = []
    for guide in GUIDES:
        base = settings.url_of(settings.host_of(guide.surface, slug)).rstrip("/")
        steps = [(words, base + path) for words, path, _permission in guide.steps]
        shown.append({"title": guide.title, "steps": steps, "is_open": guide.role == "owner"})
    return shown


async def _shown(database: Database, settings: Settings, line: brands.TenantLine) -> dict[str, Any]:
    async with database.scope(line.id, VISITOR) as scope:
        people = [
            {"email": m.email, "name": m.name, "role": m.role}
            for m in await identity.list_staff(scope)
            if m.status == "active"
        ]
        riders = [{"email": one.email_norm, "name": one.name} for one in await _find_drivers(scope)]
    return {
        "name": line.name, "slug": line.slug, "id": line.id, "people": people, "riders": riders,
        "portal": settings.url_of(settings.host_of("portal", line.slug)),
        "driver": settings.url_of(settings.host_of("driver", line.slug)),
        "docs": settings.url_of(settings.host_of("portal", line.slug), "/api/docs"),
    }  # fmt: skip


async def _find_drivers(scope: Scope) -> list[Driver]:
    """With a card and a mailbox: one of a group, who pays by the month or nothing, and one who pays each session."""
    query = (
        select(Driver)
        .join(IdToken, (IdToken.tenant_id == Driver.tenant_id) & (IdToken.driver_id == Driver.id))
        .where(Driver.email_norm.is_not(None), IdToken.status == "accepted")
        .order_by(Driver.driver_group_id.is_(None), Driver.created_at, Driver.id)
    )
    found: dict[bool, Driver] = {}
    for driver in (await scope.db.execute(query)).scalars():
        found.setdefault(driver.driver_group_id is None, driver)
    return list(found.values())


@post("/demo-logins", opt={"public": True})
async def create_demo_login(request: AnyRequest) -> Response[Any]:
    """To the login link of the person who was clicked."""
    database, form = visit_of(request).database, await read_form(request)
    if form.text("email") == ADMIN and not form.text("tenant"):
        target = await admins.create_platform_admin(database, ADMIN, actor=VISITOR)
    else:
        target = await _link(database, form.text("tenant"), form.text("email"), is_driver="driver" in form)
    return Response(None, status_code=303, headers={"Location": target})


async def _link(database: Database, slug: str, email: str, *, is_driver: bool) -> str:
    lines = await brands.list_tenants(database, VISITOR)
    tenant_id: UUID | None = next((line.id for line in lines if line.slug == slug), None)
    if tenant_id is None:
        raise NotFound("tenant")
    async with database.scope(tenant_id, VISITOR) as scope:
        if is_driver:
            token = await _driver_token(scope, email)
        else:
            token = await _staff_token(scope, email)
        # Below the platform's domain even where the brand has its own: this page's policy names no other hosts.
        host = scope.settings.host_of("driver" if is_driver else "portal", slug)
        return scope.settings.url_of(host, f"/login/{token}")


async def _staff_token(scope: Scope, email: str) -> str:
    member = await identity.find_staff_member(scope, email)
    if member is None:
        raise NotFound("staff_member")
    return (await identity.make_login_link(scope, member.id))[1]


async def _driver_token(scope: Scope, email: str) -> str:
    driver = await accounts.find_by_mailbox(scope, identity.email_norm(email))
    if driver is None or driver.email_norm is None:
        raise NotFound("driver")
    return (await identity.make_driver_link(scope, driver.email_norm))[1]


@cache
def build() -> Litestar:
    return surface("start", [start, create_demo_login, platform_file])


def start_policy(settings: Settings) -> str:
    """Its forms lead to the hosts of the brands and of the console, and the browser must be told."""
    origins = f"{settings.web_scheme}://*.{settings.platform_domain}{settings.web_origin_port}"
    return content_security_policy(form_action=("'self'", origins))
