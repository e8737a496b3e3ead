"""Mails: written in the verb's own transaction, sent by a job, readable in the console where no SMTP is set."""

import re
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.identity.service import email_norm
from app.kernel import queue
from app.kernel.clock import uuid7
from app.kernel.errors import NotFound
from app.kernel.secrets import digests
from app.notifications.letter import one_line
from app.notifications.models import Mail
from tenants.scope import Scope

_LINK = re.compile(r"https?://\S+/login/\S+")
MAX_ATTEMPTS = 5


async def send_mail(
    scope: Scope, *, key: str, kind: str, to: str, subject: str, body: str, source_id: UUID | None = None,
    language: str = "en",
) -> bool:  # fmt: skip
    """Once per `key`, however often the cause runs: whether it was written now. Line breaks in a subject or an
    address are cut out."""
    values = {
        "id": uuid7(), "key": key, "kind": kind, "to_address": one_line(to), "subject": one_line(subject)[:200],
        "body": body, "source_id": source_id, "language": language,
    }  # fmt: skip
    statement = upsert(Mail).values(**values).on_conflict_do_nothing().returning(Mail.id)
    mail_id = (await scope.db.execute(statement)).scalar_one_or_none()
    if mail_id is not None:
        await queue.enqueue(scope, "notifications.send", mail_id=str(mail_id))
    return mail_id is not None


async def get_mail(scope: Scope, mail_id: UUID) -> Mail:
    mail = await scope.db.get(Mail, (scope.tenant_id, mail_id))
    if mail is None:
        raise NotFound("mail")
    return mail


async def list_mails(scope: Scope, limit: int = 100) -> list[Mail]:
    query = select(Mail).order_by(Mail.created_at.desc(), Mail.id.desc()).limit(limit)
    return list((await scope.db.execute(query)).scalars())


async def forget_mailbox(scope: Scope, mailbox: str) -> None:
    """All that went to a mailbox; `mailbox` is its digest."""
    keys = scope.settings.secret_keys
    for address in (await scope.db.execute(select(Mail.to_address).distinct())).scalars():
        if any(known.hex() == mailbox for known in digests(keys, "mailbox", email_norm(address))):
            await scope.db.execute(delete(Mail).where(Mail.to_address == address))


async def conclude(scope: Scope, mail_id: UUID, status: str, error: str | None = None) -> None:
    """Outside development a sent mail keeps no login link."""
    mail = await get_mail(scope, mail_id)
    mail.status, mail.error, mail.attempts_count = status, error, mail.attempts_count + 1
    mail.sent_at = scope.now if status == "sent" else mail.sent_at
    if scope.settings.is_production and status == "sent":
        mail.body = _LINK.sub("[login link]", mail.body)
