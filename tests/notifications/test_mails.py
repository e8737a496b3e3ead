"""Mails reach a mail server as they should: in the brand's look, in the reader's language, nobody's header but ours."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any
from uuid import UUID

import pytest
from aiosmtplib.email import flatten_message
from hypothesis import example, given, settings, strategies
from sqlalchemy import select
from sqlalchemy import text as sql

from app.brands import service as brands
from app.identity import service as identity
from app.kernel import events
from app.kernel.errors import Invalid
from app.notifications import jobs, service
from app.notifications.letter import Part, as_html, compose, one_line, parts_of
from tenants.database import Database
from tests.billing.conftest import Shop
from tests.web import CLI, found_brand
from themes.theme import preset

pytestmark = pytest.mark.anyio


@dataclass
class MailServer:
    """Takes what it is given (RFC 5321); `refuses` is how often it first says no."""

    port: int = 0
    refuses: int = 0
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    @property
    def mails(self) -> list[EmailMessage]:
        return [email.message_from_bytes(one, policy=email.policy.default) for one in self.raw]  # type: ignore[misc]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, to = "", []
        writer.write(b"220 test\r\n")
        while line := await reader.readline():
            word = line[:4].upper()
            answer = b"250 ok\r\n"
            if word == b"MAIL":
                sender, to = line.decode().split("<")[1].split(">")[0], []
            elif word == b"RCPT":
                to.append(line.decode().split("<")[1].split(">")[0])
            elif word == b"DATA":
                if self.refuses:
                    self.refuses -= 1
                    answer = b"451 later\r\n"
                else:
                    writer.write(b"354 go on\r\n")
                    self.raw.append((await reader.readuntil(b"\r\n.\r\n"))[:-5].replace(b"\r\n..", b"\r\n."))
                    self.envelopes.append((sender, to))
            elif word == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            writer.write(answer)
        writer.close()


@asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    made = MailServer()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


async def mailed(database: Database, server: MailServer, tenant_id: UUID, **mail: Any) -> None:
    database.settings = database.settings.model_copy(update={"smtp_url": f"smtp://127.0.0.1:{server.port}"})
    values: dict[str, Any] = {"key": "k", "kind": "receipt", "to": "d@a.example", "subject": "S", "body": "B"}
    async with database.scope(tenant_id, CLI) as scope:
        await service.send_mail(scope, **(values | mail))
        (kept,) = await service.list_mails(scope)
    await jobs.send(database, tenant_id, str(kept.id))


async def test_a_mail_says_the_same_in_plain_text_and_in_the_brands_colours(database: Database) -> None:
    tenant_id = await found_brand(database)
    body = "Hello,\n\nYour receipt:\n\nhttps://n.example/s/1\n\nBye <b>now</b>\n"
    async with mail_server() as server:
        await mailed(database, server, tenant_id, subject="Grüße", body=body, language="de")
    (mail,) = server.mails
    assert server.envelopes == [("no-reply@localhost", ["d@a.example"])]
    assert (mail["Subject"], mail["To"]) == ("Grüße", "d@a.example")
    assert mail["From"].addresses[0].display_name == "Nordlicht"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None and html is not None
    assert plain.get_content().replace("\r\n", "\n") == body
    shown = html.get_content()
    assert '<html lang="de">' in shown and "Bye &lt;b&gt;now&lt;/b&gt;" in shown
    assert 'href="https://n.example/s/1"' in shown and ">Your receipt</a>" in shown
    async with database.scope(tenant_id, CLI) as scope:
        theme, _hash = await jobs.faces.get_theme(scope)
    assert theme.primary in shown
    assert (
        "<img" not in shown and "url(" not in shown and "<script" not in shown
    )  # nothing tells who reads it


INJECTIONS = (
    "\u202egnp.exe", "Evil\r\nBcc: all@a.example", "Evil\nX-Spam: no\n\nbody", "a\0b", "x\u2028Bcc: y",
    '"quoted" <a@b.example>',
)  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
async def test_no_text_of_anybodys_becomes_a_header(database: Database, text: str) -> None:
    """Whoever wrote the subject, and whatever name a brand came to have: also one that no form would take today."""
    tenant_id = await found_brand(database)
    with_name = text.replace("\0", "")
    async with database.scope(tenant_id, CLI) as scope:
        if "quoted" in text:
            await brands.update_profile(scope, {"name": text})
        else:
            with pytest.raises(Invalid) as refused:
                await brands.update_profile(scope, {"name": text})
            assert [fault.field for fault in refused.value.faults] == ["name"]
            await scope.db.execute(sql("select platform.put_own_name(:name)"), {"name": with_name})
    async with mail_server() as server:
        await mailed(database, server, tenant_id, subject=f"Hello {with_name}")
    (mail,) = server.mails
    ours = {
        "From", "Message-ID", "To", "Subject", "Auto-Submitted", "MIME-Version", "Content-Type", "Date",
    }  # fmt: skip
    assert set(mail.keys()) <= ours
    assert mail["Subject"].startswith("Hello") and server.envelopes[0][1] == ["d@a.example"]
    assert len(mail["From"].addresses) == len(mail["To"].addresses) == 1
    assert mail["From"].addresses[0].addr_spec == "no-reply@localhost"
    assert mail["From"].addresses[0].display_name == one_line(with_name)


# What header parsers trip over, and scripts that are not ours.
_SIGNS = list('abc XYZ,,,;:<>@""\\()[].=?_äßé李Жع\u202e\u2067\U0001f600')
_NAMES = strategies.one_of(
    strategies.text(strategies.sampled_from(_SIGNS), min_size=1, max_size=200),
    strategies.lists(
        strategies.sampled_from(
            ['"ceo@bank.com" <ceo@bank.com>', ", ", "x" * 60, "=?utf-8?q?a?=", "ü" * 90, "<a@b.example>", '"', "\\"]
        ),
        min_size=1, max_size=6,
    ).map(lambda parts: "".join(parts)[:200]),
)  # fmt: skip


@given(
    name=_NAMES,
    to=strategies.sampled_from(
        ("d@a.example", f"{'l' * 64}@{'d' * 60}.{'e' * 60}.example", "a=?b@c.example")
    ),
)
@example(name="x" * 60 + ', "ceo@bank.com" <ceo@bank.com>', to="d@a.example")
@settings(max_examples=150, deadline=None)
def test_a_sender_is_one_address_and_its_name_is_whole_however_it_is_called(name: str, to: str) -> None:
    message = compose(
        sender=name, domain="charging.example", message_id="m", to=to, subject="S", body="B", html="<p>B</p>"
    )
    for raw in (flatten_message(message), message.as_bytes()):
        assert max(len(line) for line in raw.split(b"\n\n")[0].splitlines()) < 998
        bare = email.message_from_bytes(raw)
        ((shown, _own),) = getaddresses([bare["From"]])
        assert str(make_header(decode_header(shown))) == one_line(name)
        assert [one for _name, one in getaddresses(bare.get_all("From", []))] == ["no-reply@charging.example"]
        assert [one for _name, one in getaddresses(bare.get_all("To", []))] == [to]
        parsed: Any = email.message_from_bytes(raw, policy=email.policy.default)
        (sender,), (recipient,) = parsed["From"].addresses, parsed["To"].addresses
        assert (sender.addr_spec, recipient.addr_spec) == ("no-reply@charging.example", to)
        # Python 3.11 keeps the blank between two encoded words, which nobody is to see (RFC 2047 6.2).
        assert sender.display_name.replace(" ", "") == name.replace(" ", "")
        assert not parsed["From"].defects and not parsed["To"].defects


async def test_a_brand_that_is_renamed_signs_its_mails_with_the_new_name(database: Database) -> None:
    tenant_id = await found_brand(database)
    async with database.scope(tenant_id, CLI) as scope:
        await brands.update_profile(scope, {"name": "Südlicht"})
        member = await identity.find_staff_member(scope, "anke@nordlicht-laden.example")
        assert member is not None
        link, _token = await identity.make_login_link(scope, member.id)
        event_id = await events.emit(
            scope,
            "LoginLinkRequested",
            "staff_member",
            member.id,
            {"login_link_id": str(link.id)},
            public=False,
        )
    async with mail_server() as server:
        await mailed(database, server, tenant_id)
    assert server.mails[0]["From"].addresses[0].display_name == "Südlicht"
    await jobs.mail_login_link(database, tenant_id, str(event_id))
    async with database.scope(tenant_id, CLI) as scope:
        assert "Log in to Südlicht" in [mail.subject for mail in await service.list_mails(scope)]
    (line,) = await brands.list_tenants(database, CLI)
    assert (line.slug, line.name) == ("nordlicht", "Südlicht")


async def test_a_mail_that_was_refused_is_tried_again_and_goes_out_once(database: Database) -> None:
    tenant_id = await found_brand(database)
    async with mail_server() as server:
        server.refuses = 1
        with pytest.raises(jobs.MailNotSent):
            await mailed(database, server, tenant_id)
        async with database.scope(tenant_id, CLI) as scope:
            (mail,) = await service.list_mails(scope)
            assert (mail.status, mail.attempts_count) == ("failed", 1)
        for _ in range(2):
            await jobs.send(database, tenant_id, str(mail.id))
    assert len(server.raw) == 1
    async with database.scope(tenant_id, CLI) as scope:
        (mail,) = await service.list_mails(scope)
        assert (mail.status, mail.attempts_count) == ("sent", 2)


@pytest.mark.parametrize(("language", "words"), [("en", "Thank you for charging"), ("de", "Danke, dass Sie")])
async def test_a_guests_receipt_speaks_the_language_they_paid_in(
    shop: Shop, language: str, words: str
) -> None:
    async with shop.scope() as scope:
        payment, op = await jobs.payments.open_payment(
            scope, source_type="charging_session", source_id=shop.source_id, hold_minor=3000, currency="EUR",
            title="Charging", success_url="http://a.localhost/s", cancel_url="http://a.localhost/c", email="",
            language=language,
        )  # fmt: skip
        await events.emit(scope, "PaymentCaptured", "payment", payment.id, {
            "source_type": "charging_session", "source_id": str(shop.source_id)})  # fmt: skip
        payment.payer_email = "d@a.example"
    assert op.kind == "checkout_create"
    async with shop.scope() as scope:
        event_id = (await scope.db.execute(select(events.Event.id))).scalars().all()[-1]
    for _ in range(2):
        await jobs.mail_guest(shop.database, shop.tenant_id, str(event_id))
    async with shop.scope() as scope:
        (mail,) = [one for one in await service.list_mails(scope) if one.kind == "receipt"]
    assert words in mail.body and mail.language == language
    assert f"/s/{jobs.paid.link_of(scope, shop.source_id)}/receipt.pdf" in mail.body


def test_a_link_alone_is_a_button_named_by_the_line_before_it() -> None:
    assert parts_of("Hi\n\nOpen:\n\nhttps://a/b\n\nhttps://c\n\nsee https://d too") == [
        Part("Hi"), Part("Open", "https://a/b"), Part("https://c", "https://c"), Part("see https://d too"),
    ]  # fmt: skip


def test_a_line_is_one_line() -> None:
    assert one_line("a\r\nb\u2028c\x85d\0e\tf") == "a b c d e f"


@pytest.mark.parametrize("name", ["default", "nordlicht", "solmark", "elbstrom", "worst_legal"])
def test_every_brands_mail_can_be_read(name: str) -> None:
    from themes.css import light_tokens
    from themes.theme import contrast

    theme = preset(name)
    tokens = light_tokens(theme)
    assert as_html("S", "B", theme, "Brand", "en").count(tokens["primary"]) >= 1
    assert contrast(tokens["text"], tokens["surface"]) >= 4.5 <= contrast(tokens["muted"], tokens["bg"])
    assert contrast(tokens["on-primary"], tokens["primary"]) >= 4.5
