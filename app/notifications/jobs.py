"""plan (transaction) -> send (none open) -> conclude (transaction)."""

from email.message import EmailMessage
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib

from app.brands.service import get_profile, own_tenant
from app.identity import service as identity
from app.kernel.errors import NotFound
from app.notifications import service
from tenants.database import Database
from tenants.scope import Actor, Scope


async def send(database: Database, tenant_id: UUID, mail_id: str) -> None:
    actor = Actor.job("notifications.send")
    async with database.scope(tenant_id, actor) as scope:
        mail = await service.get_mail(scope, UUID(mail_id))
        if mail.status not in ("queued", "failed"):
            return
        message = await _message(scope, mail.to_address, mail.subject, mail.body)
    smtp_url = database.settings.smtp_url
    status, error = "kept", None
    if smtp_url is not None:
        status, error = await _deliver(smtp_url, message)
    async with database.scope(tenant_id, actor) as scope:
        await service.conclude(scope, UUID(mail_id), status, error)
    if status == "failed":
        raise RuntimeError("a mail could not be sent")


async def _message(scope: Scope, to: str, subject: str, body: str) -> EmailMessage:
    profile = await get_profile(scope)
    message = EmailMessage()
    message["From"] = f"{profile.name} <no-reply@{scope.settings.platform_domain}>"
    if profile.support_email:
        message["Reply-To"] = profile.support_email
    message["To"], message["Subject"] = to, subject
    message.set_content(body)
    return message


async def _deliver(smtp_url: str, message: EmailMessage) -> tuple[str, str | None]:
    """`smtp://user:password@host:587`; `smtps://` speaks TLS from the first byte."""
    parts = urlsplit(smtp_url)
    try:
        await aiosmtplib.send(
            message, hostname=parts.hostname or "localhost", port=parts.port, use_tls=parts.scheme == "smtps",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None, timeout=20,
        )  # fmt: skip
    except (aiosmtplib.SMTPException, OSError) as error:
        return "failed", str(error)[:500]
    return "sent", None


async def mail_login_link(database: Database, tenant_id: UUID, staff_member_id: str) -> None:
    """The link is made where it is mailed, so that no job argument ever holds it."""
    async with database.scope(tenant_id, Actor.job("identity.mail_login_link")) as scope:
        try:
            member = await identity.get_staff(scope, UUID(staff_member_id))
        except NotFound:
            return
        profile = await get_profile(scope)
        secret = await identity.make_login_link(scope, member)
        slug, _, _ = await own_tenant(scope)
        address = scope.settings.url_of(scope.settings.host_of("portal", slug), f"/login/{secret}")
        body = (
            f"Hello {member.name or member.email},\n\nopen this link to log in to {profile.name}:\n\n{address}\n\n"
            "It works once and for 30 minutes. If you did not ask for it, do nothing.\n"
        )
        await service.send_mail(
            scope, key=f"login:{secret[:12]}", kind="login_link", to=member.email,
            subject=f"Your login link for {profile.name}", body=body, source_id=member.id,
        )  # fmt: skip


JOBS = {"notifications.send": send, "identity.mail_login_link": mail_login_link}
LISTENERS: dict[str, list[str]] = {}
RECURRING: list[tuple[str, str]] = []
