"""Mails as jobs: written on news, then plan (transaction) -> send (none open) -> conclude (transaction)."""

from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib

from app.access import service as access
from app.billing import payments
from app.billing.models import Payment
from app.brands import faces
from app.brands.service import get_profile, own_tenant
from app.charging import paid, settlement, signed
from app.charging.models import ChargingSession
from app.identity import admins
from app.identity import service as identity
from app.identity.permissions import permissions_of
from app.kernel.events import Event
from app.kernel.ids import public_id
from app.notifications import service
from app.notifications.letter import (
    Letter,
    as_html,
    card_used_twice,
    compose,
    domain_news,
    hold_released,
    money_news,
    payment_due,
    receipt,
    refund,
    refund_failed,
    repaid,
    way_back,
)
from app.notifications.models import Mail
from tenants.database import Database
from tenants.resolve import own_url
from tenants.scope import Actor, Scope
from themes.language import _, speaking

TIMEOUT_S = 20


class MailNotSent(Exception):
    """The mail server would not take it; the queue tries again later."""


async def send(database: Database, tenant_id: UUID, mail_id: str) -> None:
    actor = Actor.job("notifications.send")
    async with database.scope(tenant_id, actor) as scope:
        mail = await service.get_mail(scope, UUID(mail_id))
        if mail.status not in ("queued", "failed"):
            return
        message = await _message(scope, mail)
    smtp_url = database.settings.smtp_url
    status, error = await _deliver(smtp_url, message) if smtp_url else ("kept", None)
    async with database.scope(tenant_id, actor) as scope:
        await service.conclude(scope, UUID(mail_id), status, error)
    if status == "failed":
        raise MailNotSent(error)


async def _message(scope: Scope, mail: Mail) -> EmailMessage:
    _slug, sender, _state = await own_tenant(scope)
    theme, _hash = await faces.get_theme(scope)
    return compose(
        sender=sender, domain=scope.settings.platform_domain,
        message_id=f"{scope.tenant_id}.{mail.key.replace(':', '.')}", to=mail.to_address, subject=mail.subject,
        body=mail.body, html=as_html(mail.subject, mail.body, theme, sender, mail.language),
    )  # fmt: skip


async def _deliver(smtp_url: str, message: EmailMessage) -> tuple[str, str | None]:
    """`smtp://user:password@host:587` (STARTTLS where offered); `smtps://` speaks TLS from the first byte."""
    parts = urlsplit(smtp_url)
    try:
        await aiosmtplib.send(
            message, hostname=parts.hostname or "localhost", port=parts.port, use_tls=parts.scheme == "smtps",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None, timeout=TIMEOUT_S,
        )  # fmt: skip
    except (aiosmtplib.SMTPException, OSError) as error:
        return "failed", f"{type(error).__name__}: {error}"[:500]
    return "sent", None


# -- news that become mails ------------------------------------------------------------------------------------


async def mail_login_link(database: Database, tenant_id: UUID, event_id: str) -> None:
    """The link is made where the mail is: neither the event nor the job ever holds it."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_login_link")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        letter = await _login_letter(scope, event) if event else None
        if event is None or letter is None:
            return
        _slug, name, _state = await own_tenant(scope)
        is_invitation = event.kind == "StaffInvited"
        await service.send_mail(
            scope, key=f"login:{event.data['login_link_id']}", kind="invitation" if is_invitation else "login_link",
            to=letter.to, subject=f"Your invitation to {name}" if is_invitation else f"Log in to {name}",
            body=_login_text(letter, name, scope.now, is_invitation), source_id=event.source_id,
        )  # fmt: skip


async def _login_letter(scope: Scope, event: Event) -> identity.LinkLetter | None:
    about = event.data
    return await identity.find_letter(scope, UUID(about["login_link_id"]), host=about.get("host", ""))


async def mail_driver_login_link(database: Database, tenant_id: UUID, event_id: str) -> None:
    """In the language the driver was reading."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_driver_login_link")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        letter = await _login_letter(scope, event) if event else None
        if event is None or letter is None:
            return
        _slug, name, _state = await own_tenant(scope)
        language = event.data["language"]
        with speaking(language):
            await service.send_mail(
                scope, key=f"login:{event.data['login_link_id']}", kind="login_link", to=letter.to, language=language,
                subject=_("Log in to %(name)s") % {"name": name}, body=_driver_login_text(letter, name, scope.now),
            )  # fmt: skip


def _driver_login_text(letter: identity.LinkLetter, name: str, now: datetime) -> str:
    minutes = max(1, int((letter.expires_at - now).total_seconds() // 60))
    return "\n\n".join((
        _("Hello,"), _("somebody, hopefully you, wants to log in to %(name)s.") % {"name": name},
        _("Log in:"), letter.url,
        _("It works once, within %(minutes)s minutes. If you did not expect this mail, ignore it: nothing happens.")
        % {"minutes": minutes},
    )) + "\n"  # fmt: skip


async def forget_mailbox(database: Database, tenant_id: UUID, event_id: str) -> None:
    """A driver closed their account: what we mailed them goes too."""
    async with database.scope(tenant_id, Actor.job("notifications.forget_mailbox")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        if event is not None:
            await service.forget_mailbox(scope, event.data["mailbox"])


async def mail_admin_login_link(database: Database, tenant_id: UUID, event_id: str) -> None:
    actor = Actor.job("notifications.mail_admin_login_link")
    async with database.scope(tenant_id, actor) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
    if event is None:
        return
    expires_at = datetime.fromisoformat(event.data["expires_at"])
    letter = await admins.find_admin_letter(database, event.source_id, expires_at)
    if letter is None:
        return
    async with database.scope(tenant_id, actor) as scope:
        await service.send_mail(
            scope, key=f"admin-login:{event.id}", kind="login_link", to=letter.to, subject="Log in to the console",
            body=_login_text(letter, "the console", scope.now, False), source_id=event.source_id,
        )  # fmt: skip


def _login_text(letter: identity.LinkLetter, name: str, now: datetime, is_invitation: bool) -> str:
    minutes = max(1, int((letter.expires_at - now).total_seconds() // 60))
    lasting = f"{minutes // 1440} days" if minutes >= 2880 else f"{minutes} minutes"
    first = f"somebody, hopefully you, wants to log in to {name}."
    if is_invitation:
        first = f"you are invited to work in {name}."
    hello = f"Hello {letter.name}," if letter.name else "Hello,"
    return (
        f"{hello}\n\n{first}\n\nLog in:\n\n{letter.url}\n\n"
        f"It works once, within {lasting}. If you did not expect this mail, ignore it: nothing happens.\n"
    )


async def mail_guest(database: Database, tenant_id: UUID, event_id: str) -> None:
    """The way back to the session when the hold stands; one receipt for all legs when it was paid, or waived."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_guest")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        if event is None or event.data.get("source_type") != "charging_session":
            return
        payment = await payments.get_payment(scope, event.source_id)
        if not payment.payer_email:
            return
        is_known = payment.saved_card_id is not None or payment.provider == payments.WALLET
        if event.kind == "PaymentAuthorized" and is_known:
            return  # who has an account has the way back
        legs, key = await payments.legs_beside(scope, payment), f"guest:{event.kind}:{payment.id}"
        papers = await settlement.list_papers(scope, payment.source_id)
        if len(legs) > 1:  # one receipt for all, when the last of them has paid or is let go
            is_open = any(leg.state in (*payments.OPEN, "capturing") for leg in legs)
            is_open |= any(leg.state == "authorized" and not leg.failure for leg in legs)
            if is_open or not papers:
                return
            key = f"guest:PaymentCaptured:{legs[0].id}"
        elif event.kind == "PaymentEnded":
            return
        settled = await payments.find_settled_by(scope, legs)
        invoice = next((one for one in reversed(papers) if one.corrects_id is None), None)
        charge = await signed.find(scope, payment.source_id)
        is_signed = charge is not None and bool(charge.records)

        def letter(name: str, url: str) -> Letter:
            if event.kind == "PaymentAuthorized" or settled is None:
                return way_back(name, url, payment)
            return receipt(name, url, settled, invoice, is_signed=is_signed)

        await _tell_payer(scope, payment, key, letter)


async def mail_payment_due(database: Database, tenant_id: UUID, event_id: str) -> None:
    """To the driver whose saved card gave nothing, with the way to pay; not while they look at the page of a start."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_payment_due")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        if event is None:
            return
        payment = await payments.get_payment(scope, event.source_id)
        session = await scope.db.get(ChargingSession, (tenant_id, payment.source_id))
        if not payment.is_due or not payment.payer_email or session is None or session.status == "PENDING":
            return
        owed_minor = await payments.owed_minor(scope, payment)
        key = f"due:{payment.id}:{'owed' if owed_minor else 'asked'}"
        await _tell_payer(scope, payment, key, lambda name, url: payment_due(name, url, payment, owed_minor))


async def mail_hold_released(database: Database, tenant_id: UUID, event_id: str) -> None:
    """The session came to nothing and the hold is gone: whichever of both is heard of last, and once. To nobody whose
    hold never stood; of a session that is on the operator the receipt says it."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_hold_released")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        if event is None:
            return
        if event.kind == "PaymentEnded":
            payment = await payments.get_payment(scope, event.source_id)
        else:
            payment = await payments.find_payment(scope, "charging_session", event.source_id)
        if payment is None or payment.source_type != "charging_session" or not payment.payer_email:
            return
        if payment.provider in payments.PAID_AHEAD:
            return  # nothing had left it
        session = await scope.db.get(ChargingSession, (tenant_id, payment.source_id))
        if session is None or payment.state != "canceled" or not payment.hold_minor:
            return
        if session.status != "INVALID" and payment.failure != "nothing_owed":
            return
        if any(leg.captured_minor for leg in await payments.legs_beside(scope, payment)):
            return  # they hear of it as of a refund
        key = f"guest:released:{payment.id}"
        await _tell_payer(scope, payment, key, lambda name, url: hold_released(name, url, session, payment))


async def mail_refund(database: Database, tenant_id: UUID, event_id: str) -> None:
    """Money is on its way back, did not arrive, or was paid by other means: each is told, with the newest credit note
    where it went to the card."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_refund")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        payment = await payments.get_payment(scope, event.source_id) if event else None
        if event is None or payment is None or payment.source_type != "charging_session":
            return
        if not payment.payer_email:
            return
        amount_minor, key = event.data["amount_minor"], f"guest:{event.kind}:{event.id}"
        if event.kind == "RefundFailed":
            await _tell_payer(
                scope, payment, key, lambda name, url: refund_failed(name, url, payment, amount_minor)
            )
            return
        if event.kind == "PaymentRepaid":
            told = event.data["reference"]
            await _tell_payer(
                scope, payment, key, lambda name, url: repaid(name, url, payment, amount_minor, told)
            )
            return
        papers = await settlement.list_papers(scope, payment.source_id)
        note = next((one for one in reversed(papers) if one.corrects_id), None)
        corrected = next((one for one in papers if note and one.id == note.corrects_id), None)
        await _tell_payer(
            scope, payment, key, lambda name, url: refund(name, url, payment, amount_minor, note, corrected)
        )


async def _tell_payer(scope: Scope, payment: Payment, key: str, letter: Callable[[str, str], Letter]) -> None:
    """Once per `key`, in the payment's language; `letter` is asked with the brand's name and the session's address."""
    _slug, name, _state = await own_tenant(scope)
    url, language = (
        await paid.page_url(scope, payment.source_id),
        await payments.language_of(scope, payment.id),
    )
    with speaking(language):
        kind, subject, body = letter(name, url)
    await service.send_mail(
        scope, key=key, kind=kind, to=payment.payer_email, subject=subject, body=body,
        source_id=payment.source_id, language=language,
    )  # fmt: skip


async def mail_card_used_twice(database: Database, tenant_id: UUID, event_id: str) -> None:
    """To the driver, once an hour at most. Which card it is they see by its last characters."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_card_used_twice")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        token = await access.get_id_token(scope, event.source_id) if event else None
        if event is None or token is None or token.driver is None or not token.driver.email:
            return
        profile, language = await get_profile(scope), await faces.get_language(scope, token.driver.language)
        with speaking(language):
            subject, body = card_used_twice(profile.name, token.masked)
        await service.send_mail(
            scope, key=f"card-twice:{token.id}:{event.at:%Y%m%d%H}", kind="card_used_twice", to=token.driver.email,
            subject=subject, body=body, source_id=token.id, language=language,
        )  # fmt: skip


async def mail_domain_news(database: Database, tenant_id: UUID, event_id: str) -> None:
    """To every owner: what a domain of the brand's does, what to do and by when."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_domain_news")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        if event is None:
            return
        profile, url = await get_profile(scope), await own_url(scope, "portal", "/domains")
        kind, subject, body = domain_news(event.kind, event.data, profile.name, url, profile.time_zone)
        for member in await identity.list_staff(scope):
            if (member.role, member.status) == ("owner", "active"):
                await service.send_mail(
                    scope, key=f"domain:{event.id}:{member.id}", kind=kind, to=member.email, subject=subject, body=body,
                    source_id=event.source_id,
                )  # fmt: skip


async def mail_money_news(database: Database, tenant_id: UUID, event_id: str) -> None:
    """To all of the team who may give money back: a payer disputes a payment, a refund waits for a second pair of eyes,
    a refund came back, the provider's books differ from ours, or it takes no cards any more. Whoever asked for it is
    told nothing."""
    async with database.scope(tenant_id, Actor.job("notifications.mail_money_news")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        if event is None:
            return
        page = {
            "RefundRequested": ("payments", "payment"), "RefundFailed": ("payments", "payment"),
            "ReconciliationDiffers": ("reconciliation", ""),
            "PaymentAccountChanged": ("payment-account", ""),
        }.get(event.kind, ("disputes", "dispute"))  # fmt: skip
        path = "/".join(["", page[0], *([public_id(page[1], event.source_id)] if page[1] else [])])
        profile, url = await get_profile(scope), await own_url(scope, "portal", path)
        kind, subject, body = money_news(event.kind, event.data, profile.name, url)
        for member in await identity.list_staff(scope):
            may = "invoices.manage" in permissions_of(member.role) and member.status == "active"
            if may and str(member.id) != event.data.get("asked_by"):
                await service.send_mail(
                    scope, key=f"money:{event.id}:{member.id}", kind=kind, to=member.email, subject=subject, body=body,
                    source_id=event.source_id,
                )  # fmt: skip


JOBS = {
    "notifications.mail_money_news": mail_money_news,
    "notifications.mail_domain_news": mail_domain_news,
    "notifications.mail_card_used_twice": mail_card_used_twice,
    "notifications.mail_guest": mail_guest,
    "notifications.mail_hold_released": mail_hold_released,
    "notifications.mail_payment_due": mail_payment_due,
    "notifications.mail_refund": mail_refund,
    "notifications.send": send,
    "notifications.mail_login_link": mail_login_link,
    "notifications.mail_driver_login_link": mail_driver_login_link,
    "notifications.forget_mailbox": forget_mailbox,
    "notifications.mail_admin_login_link": mail_admin_login_link,
}
LISTENERS = {
    "DisputeOpened": ["notifications.mail_money_news"],
    "DisputeClosed": ["notifications.mail_money_news"],
    "PaymentAccountChanged": ["notifications.mail_money_news"],
    "ReconciliationDiffers": ["notifications.mail_money_news"],
    "RefundRequested": ["notifications.mail_money_news"],
    "RefundFailed": ["notifications.mail_money_news", "notifications.mail_refund"],
    "PaymentRepaid": ["notifications.mail_refund"],
    "CardUsedTwice": ["notifications.mail_card_used_twice"],
    "DomainBeganFailing": ["notifications.mail_domain_news"],
    "DomainSuspended": ["notifications.mail_domain_news"],
    "DomainTakenOut": ["notifications.mail_domain_news"],
    "PaymentActionRequired": ["notifications.mail_payment_due"],
    "PaymentAuthorized": ["notifications.mail_guest"],
    "PaymentCaptured": ["notifications.mail_guest"],
    "PaymentDue": ["notifications.mail_payment_due"],
    "PaymentEnded": ["notifications.mail_hold_released", "notifications.mail_guest"],
    "PaymentRefunded": ["notifications.mail_refund"],
    "PaymentWaived": ["notifications.mail_guest"],
    "SessionNotStarted": ["notifications.mail_hold_released"],
    "StaffInvited": ["notifications.mail_login_link"],
    "DriverLoginRequested": ["notifications.mail_driver_login_link"],
    "DriverClosedAccount": ["notifications.forget_mailbox"],
    "LoginLinkRequested": ["notifications.mail_login_link"],
    "AdminLoginRequested": ["notifications.mail_admin_login_link"],
}
RECURRING: list[tuple[str, str]] = []
