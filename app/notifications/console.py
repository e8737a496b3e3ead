"""Console page of notifications: the mails that were kept because no SMTP server is set. Development only."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from sqlalchemy import select

from app.kernel.errors import NotFound
from app.kernel.ids import parse_id, public_id
from app.kernel.web import NavItem, page, platform, visit_of
from app.notifications import service
from app.notifications.letter import parts_of
from app.notifications.models import Mail
from tenants.models import Tenant

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem(
        "Mails", "/mails", "mail", "mails.view", order=60, when=lambda settings: not settings.is_production
    )
]
PER_TENANT = 50
SHOWN = 100


def _refuse_in_production(request: AnyRequest) -> None:
    """There mails are delivered, and nobody here reads other people's."""
    if visit_of(request).database.settings.is_production:
        raise NotFound()


async def _tenants(request: AnyRequest) -> list[tuple[UUID, str, str]]:
    async with platform(request, "read the kept mails") as scope:
        rows = await scope.db.execute(select(Tenant.id, Tenant.slug, Tenant.name).order_by(Tenant.slug))
        return [(row.id, row.slug, row.name) for row in rows]


@get("/mails", opt={"permission": "mails.view"})
async def list_mails(request: AnyRequest) -> Response[Any]:
    _refuse_in_production(request)
    visit, found = visit_of(request), []
    for tenant_id, slug, name in await _tenants(request):
        async with visit.database.scope(tenant_id, visit.actor) as scope:
            found += [
                (mail, slug, name, public_id("mail", mail.id))
                for mail in await service.list_mails(scope, PER_TENANT)
            ]
    found.sort(key=lambda row: row[0].created_at, reverse=True)
    return page(request, None, "notifications/mails.html", title="Mails", mails=found[:SHOWN])


@get("/mails/{slug:str}/{mail_id:str}", opt={"permission": "mails.view"})
async def show_mail(request: AnyRequest, slug: str, mail_id: str) -> Response[Any]:
    _refuse_in_production(request)
    visit = visit_of(request)
    tenant_id = next((row[0] for row in await _tenants(request) if row[1] == slug), None)
    if tenant_id is None:
        raise NotFound("mail")
    async with platform(request, "read a kept mail", tenant_id=tenant_id):
        pass
    async with visit.database.scope(tenant_id, visit.actor) as scope:
        mail: Mail = await service.get_mail(scope, parse_id("mail", mail_id))
    return page(
        request, None, "notifications/mail.html", title=mail.subject, mail=mail, parts=parts_of(mail.body)
    )


routes = [list_mails, show_mail]
