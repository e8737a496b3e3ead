"""How a mail is written: its plain text as it is kept, and the same in the brand's colours beside it. Pure.

The text alone says everything. A paragraph that is only a link is a button in the HTML, named by the paragraph before
it where that ends with a colon; no picture, no tracking, nothing is loaded from anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.header import Header
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UniqueAddressHeader
from email.message import EmailMessage
from email.policy import Policy, default
from functools import lru_cache
from typing import Any

import jinja2

from app.billing import paper, payments
from app.billing.models import Invoice, Payment
from app.billing.payments import Settled
from app.charging import paid
from app.charging.models import ChargingSession
from app.identity.service import address_of
from app.kernel.ids import public_id
from app.kernel.money import Money
from app.kernel.slices import template_folders
from themes.css import light_tokens
from themes.language import _
from themes.render import day, environment, local, money
from themes.theme import Theme


@dataclass(frozen=True, slots=True)
class Part:
    """A paragraph, or a button where `href` is set."""

    text: str
    href: str = ""


def parts_of(body: str) -> list[Part]:
    found: list[Part] = []
    for paragraph in filter(None, (part.strip() for part in body.split("\n\n"))):
        if not _is_link(paragraph):
            found.append(Part(paragraph))
        elif found and not found[-1].href and found[-1].text.endswith(":"):
            found.append(Part(found.pop().text.removesuffix(":"), paragraph))
        else:
            found.append(Part(paragraph, paragraph))
    return found


def _is_link(paragraph: str) -> bool:
    return paragraph.startswith(("http://", "https://")) and len(paragraph.split()) == 1


@lru_cache(maxsize=1)
def _templates() -> jinja2.Environment:
    return environment(template_folders())


def as_html(subject: str, body: str, theme: Theme, sender: str, language: str) -> str:
    """Styles stand inline and colours are computed light ones: that is what mail programs show alike."""
    return _templates().get_template("notifications/letter.html").render(
        subject=subject, parts=parts_of(body), tokens=light_tokens(theme), theme=theme, sender=sender,
        language=language,
    )  # fmt: skip


class _OneMailbox(UniqueAddressHeader, BaseHeader):  # type: ignore[misc]
    """One name and its address, whatever the name: written as RFC 2047 words, which hold nothing that a reader could
    take for an address. The standard library's own folding drops the quotes of a long name, and its commas then
    part mailboxes."""

    def fold(self, *, policy: Policy) -> str:
        (mailbox,) = self.addresses
        name, address = mailbox.display_name, mailbox.addr_spec
        if not address.isascii():  # SMTPUTF8: the library knows how, and there is no name
            return super().fold(policy=policy)
        if not name:
            return f"{self.name}: {address}{policy.linesep}"
        if not (name.isascii() and name.replace(" ", "").isalnum() and len(name) <= _SHORT):
            name = (
                Header(name, "utf-8", header_name=self.name).encode(linesep=policy.linesep) + policy.linesep
            )
        return f"{self.name}: {name} <{address}>{policy.linesep}"


_SHORT = 40
_HEADERS = HeaderRegistry()
_HEADERS.map_to_type("from", _OneMailbox)
_HEADERS.map_to_type("to", _OneMailbox)
_POLICY = default.clone(header_factory=_HEADERS)


def compose(
    *, sender: str, domain: str, message_id: str, to: str, subject: str, body: str, html: str
) -> EmailMessage:
    """Names that people chose become header values, never header lines."""
    message = EmailMessage(_POLICY)
    message["From"] = Address(one_line(sender), "no-reply", domain)
    # The same however often it is tried, so that a mailbox can tell a repetition.
    message["Message-ID"] = f"<{message_id}@{domain}>"
    message["To"], message["Subject"] = address_of(to), one_line(subject)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body)
    message.add_alternative(html, subtype="html")
    return message


def one_line(value: str) -> str:
    """Without anything that ends a line, in ASCII or beyond."""
    return " ".join(value.replace("\0", " ").split())


# -- to drivers ------------------------------------------------------------------------------------------------------


def card_used_twice(name: str, masked: str) -> tuple[str, str]:
    """Subject and body, in the language that is being spoken."""
    body = (
        _("Hello,"),
        _("your card %(card)s was used at a second place while it charges at a first.") % {"card": masked},
        _("If both was you, there is nothing to do. If not, somebody may have a copy of it: ask %(name)s to block it.")
        % {"name": name},
    )  # fmt: skip
    return _("Your card was used in two places"), "\n\n".join(body) + "\n"


def payment_due(name: str, url: str, payment: Payment, owed_minor: int) -> tuple[str, str, str]:
    """A saved card gave nothing: kind, subject and body, in the language that is being spoken."""
    asks = payment.failure == "authentication_required"
    why = _("your bank wants you to confirm a payment by %(card)s.") if asks else _("%(card)s was declined.")
    what = _("Your session with %(name)s goes on meanwhile.") if asks else _(
        "Your session with %(name)s is being stopped."
    )  # fmt: skip
    if owed_minor:
        amount = money(owed_minor, payment.currency)
        what = _("Your session with %(name)s came to %(amount)s.") % {"name": name, "amount": amount}
    else:
        what = what % {"name": name}
    body = (
        _("Hello,"), f"{why % {'card': payment.method}} {what}",
        _("Confirm it here:") if asks else _("Pay it here, by any card:"), url,
        _("Until then your saved card starts nothing."),
    )  # fmt: skip
    return (
        "payment_due",
        _("Please confirm a payment") if asks else _("Please pay your session"),
        ("\n\n".join(body) + "\n"),
    )


# -- to owners -------------------------------------------------------------------------------------------------------

_DOMAIN_KINDS = {
    "DomainBeganFailing": "domain_failing", "DomainSuspended": "domain_suspended", "DomainTakenOut": "domain_released",
}  # fmt: skip


def domain_news(
    kind: str, about: Mapping[str, str], name: str, url: str, time_zone: str
) -> tuple[str, str, str]:
    """Kind, subject, body: a host of the brand's own fails, is suspended or was released by the platform. `about` is
    the event's data, `url` leads to the portal's page of domains."""
    host = about["host"]
    if kind == "DomainBeganFailing":
        until = local(datetime.fromisoformat(about["until"]), time_zone)
        subject, said = f"{host} is failing", (
            f"the daily look at {host}, a domain of {name}, found it failing.", about["sentence"],
            f"Until {until} it is served as before. If nothing changes it is suspended with the next daily look.",
        )  # fmt: skip
    elif kind == "DomainSuspended":
        subject, said = f"{host} is suspended", (
            f"{host}, a domain of {name}, is no longer served.", about["sentence"],
            "Pages and printed codes with this name do not work until then. New links lead to the platform's name.",
        )  # fmt: skip
    else:
        subject, said = f"{host} was released by the platform", (
            f"the platform's staff released {host}, a domain of {name}. It is no longer served.",
            f"Reason: {one_line(about['reason'])}", "To have it again, claim it anew and set the new record.",
        )  # fmt: skip
    return (
        _DOMAIN_KINDS[kind],
        subject,
        "\n\n".join(("Hello,", *said, "What to set, and what was found:", url)) + "\n",
    )


def money_news(kind: str, about: Mapping[str, Any], name: str, url: str) -> tuple[str, str, str]:
    """To those of the brand's staff who may give money back."""
    amount = Money(about["amount_minor"], about["currency"]).format() if "amount_minor" in about else ""
    if kind == "ReconciliationDiffers":
        count = sum(about["differences"].values())
        subject = "The payment provider's books and yours differ"
        they = "1 difference stands" if count == 1 else f"{count} differences stand"
        said = (
            f"{they} between the payment provider's books and those of {name}. Nothing was changed to make them"
            " fit.", "Look at what differs:",
        )  # fmt: skip
    elif kind == "PaymentAccountChanged":
        words = (
            "takes cards now"
            if about["is_ready"]
            else "takes no cards any more: the provider asks for something"
        )
        subject, said = f"Your payment account {words.partition(':')[0]}", (
            f"the account of {name} at the payment provider {words}.", "See how it stands:",
        )  # fmt: skip
    elif kind == "RefundFailed":
        subject = f"A refund of {amount} came back"
        said = (f"a card's bank sent back {amount} that {name} had given back. The money is in your account"
                " at the provider again, and the driver is still owed it.",
                "Try again, or pay it in another way:")  # fmt: skip
    elif kind == "RefundRequested":
        subject = f"A refund of {amount} waits for you"
        said = (f"a colleague at {name} wants to give {amount} back. So much needs a second pair of eyes: yours.",
                "Approve or reject it:")  # fmt: skip
    elif kind == "DisputeClosed":
        outcome = {"won": "won: the money is back", "lost": "lost: the money stays with the payer"}
        how = outcome.get(about["state"], "over: it came to nothing")
        subject, said = f"A dispute over {amount} is {how.partition(':')[0]}", (
            f"the dispute over {amount} at {name} is {how}.", "Look at it:",
        )  # fmt: skip
    elif about["state"].startswith("warning_"):
        subject, said = f"A payer's bank asks about {amount}", (
            f"a payer's bank asks {name} about a payment of {amount}. Nothing was taken yet; without a good answer it"
            " may become a dispute.", "See by when to answer, and what speaks for you:",
        )  # fmt: skip
    else:
        subject, said = f"A payer disputes {amount}", (
            f"a payer asks {amount} that they paid {name} back at their bank. The bank has the money until it decides;"
            " without an answer it decides for the payer.", "See by when to answer, and what speaks for you:",
        )  # fmt: skip
    return "money_news", subject, "\n\n".join(("Hello,", *said, url)) + "\n"


# -- to guests ---------------------------------------------------------------------------------------------------------

Letter = tuple[str, str, str]  # kind, subject, body; in the language that is being spoken


def way_back(name: str, url: str, payment: Payment) -> Letter:
    """The hold stands: where a guest's session can be watched and stopped."""
    held = money(payment.hold_minor, payment.currency)
    lead = _("%(name)s holds %(amount)s on your card. You pay only what you charge.")
    if payment.provider == payments.VOUCHER:
        lead = _(
            "%(name)s keeps %(amount)s of your voucher. You pay only what you charge; the rest stays on it."
        )
    body = (
        _("Hello,"),
        lead % {"name": name, "amount": held},
        _("Watch and stop your session, from any device:"), url,
        _("Who has this address can stop it: keep it to yourself."),
    )  # fmt: skip
    return (
        "guest_session",
        _("Your charging session with %(name)s") % {"name": name},
        "\n\n".join(body) + "\n",
    )


def receipt(
    name: str, url: str, settled: Settled, invoice: Invoice | None = None, *, is_signed: bool = False
) -> Letter:
    """The money was taken, or it never will be: then the mail says first that nothing is to be paid. What was given
    back with a note by then has a mail of its own. `is_signed`: the meter signed it, and anybody may check that."""
    payment, waived = settled.payment, paper.waived(settled)
    taken_words = (
        _("%(amount)s were taken from your wallet.")
        if payment.provider == payments.WALLET
        else _("%(amount)s were taken from your voucher.")
        if payment.provider == payments.VOUCHER
        else _("%(amount)s were taken from %(card)s; the rest of the hold is released.")
        if payment.captured_minor < payment.hold_minor
        else _("%(amount)s were taken from %(card)s.")
    )
    taken = {
        "amount": money(payment.captured_minor, payment.currency),
        "card": payment.method or _("your card"),
    }  # fmt: skip
    body = (
        _("Hello,"), _("Thank you for charging with %(name)s.") % {"name": name},
        *_charged(invoice), *([taken_words % taken] if payment.captured_minor else []),
        *([_("Given back: %(amount)s.") % {"amount": money(settled.unpapered_minor, payment.currency)}]
          if settled.unpapered_minor else []),
        *([waived] if waived else []),
        *([_("The hold on your card is released and nothing is charged.")]
          if waived and not payment.captured_minor and payment.provider not in payments.PAID_AHEAD else []),
        _("Your receipt:"), f"{url}/receipt", _("The receipt as PDF:"), f"{url}/receipt.pdf",
        *([_("What the meter signed, to be checked by you:"), f"{url}/signed-data.xml"] if is_signed else []),
    )  # fmt: skip
    return "receipt", _("Your receipt from %(name)s") % {"name": name}, "\n\n".join(body) + "\n"


def _charged(invoice: Invoice | None) -> list[str]:
    """When and where, as the paper says it."""
    when = paper.charged_of(invoice) if invoice else []
    if invoice is None or not when:
        return []
    times = (" " if when[0].endswith("–") else ", ").join(when)
    return [f"{_('Charged')}: {times}\n{_('Charging point')}: {invoice.supply['place']}"]


def hold_released(name: str, url: str, session: ChargingSession, payment: Payment) -> Letter:
    """The hold stood and is gone, and nothing was taken: the session never began, staff voided it, or it cost
    nothing."""
    if session.status != "INVALID":
        lead = (
            f"{_('Thank you for charging with %(name)s.') % {'name': name}} {_('There was nothing to pay.')}"
        )
    elif session.not_started is None:
        lead = _("%(name)s looked at your charging session: you pay nothing for it.") % {"name": name}
    else:
        began = _("Your charging session with %(name)s did not begin.") % {"name": name}
        lead = f"{began} {paid.why_not_started(session)}".strip()
    released = _("The hold of %(amount)s on your card is released and nothing is charged.") % {
        "amount": money(payment.hold_minor, payment.currency)
    }
    body = (
        _("Hello,"), lead, f"{released} {_('Your bank may need some days to show it.')}", _("Your session:"), url,
    )  # fmt: skip
    return "hold_released", _("The hold on your card is released"), "\n\n".join(body) + "\n"


def refund_failed(name: str, url: str, payment: Payment, amount_minor: int) -> Letter:
    """What went back to the card did not arrive."""
    words = {"name": name, "amount": money(amount_minor, payment.currency), "card": payment.method}
    body = (
        _("Hello,"),
        _("The bank of your card %(card)s did not take the %(amount)s that %(name)s gave back.") % words,
        _("You will still get it: by another try, or in another way. There is nothing for you to do."),
        _("Your session:"), url,
    )  # fmt: skip
    return "refund", _("Your bank sent back a refund"), "\n\n".join(body) + "\n"


def repaid(name: str, url: str, payment: Payment, amount_minor: int, reference: str) -> Letter:
    """What the card did not take was paid by other means."""
    words = {"name": name, "amount": money(amount_minor, payment.currency), "reference": one_line(reference)}
    body = (
        _("Hello,"),
        _("%(name)s paid you %(amount)s back, and not by your card. Reference: %(reference)s") % words,
        _("Your session:"), url,
    )  # fmt: skip
    return "refund", _("%(name)s gave you money back") % {"name": name}, "\n\n".join(body) + "\n"


def refund(
    name: str, url: str, payment: Payment, amount_minor: int, note: Invoice | None, corrected: Invoice | None = None
) -> Letter:  # fmt: skip
    """Money went back to the card. `note` is what was issued for it, `corrected` what the note takes back."""
    given_back = _("%(name)s gave %(amount)s back to your card %(card)s.") % {
        "name": name, "amount": money(amount_minor, payment.currency), "card": payment.method,
    }  # fmt: skip
    may_take_days = _("Your bank may need some days to show it.")
    if payment.provider == payments.WALLET:
        given_back, may_take_days = _("%(name)s gave %(amount)s back to your wallet.") % {
            "name": name, "amount": money(amount_minor, payment.currency),
        }, ""  # fmt: skip
    if payment.provider == payments.VOUCHER:
        given_back = _("%(name)s gave %(amount)s back to your voucher %(code)s: charge with it again.") % {
            "name": name, "amount": money(amount_minor, payment.currency), "code": payment.method.split()[-1],
        }  # fmt: skip
        may_take_days = ""
    reason = note.buyer.get("reason") if note else ""
    waived = paper.waived_before(corrected, payment)
    body = (
        _("Hello,"), f"{given_back} {may_take_days}".strip(),
        *([_("Reason: %(reason)s") % {"reason": one_line(reason)}] if reason else []), *([waived] if waived else []),
        _("Your receipt:"), f"{url}/receipt",
        *([f"{_(paper.NAMES[note.kind])} (PDF):", f"{url}/receipt.pdf?paper={public_id('invoice', note.id)}"]
          if note else []),
    )  # fmt: skip
    return "refund", _("%(name)s gave you money back") % {"name": name}, "\n\n".join(body) + "\n"


# -- whom a paper is for ---------------------------------------------------------------------------------------------


def copy_of(name: str, invoice: Invoice, pdf_url: str, receipt_url: str = "") -> Letter:
    """A paper once more, to its buyer or to whom they named. `receipt_url`: the payer's own page of the session."""
    kind = _(paper.NAMES[invoice.kind])
    title = f"{kind} {invoice.number or ''}".strip()
    words = {
        "name": name, "paper": title, "day": day(invoice.issued_on),
        "amount": money(invoice.gross_minor, invoice.currency),
    }  # fmt: skip
    body = (
        _("Hello,"), _("%(name)s sends you a copy: %(paper)s of %(day)s, %(amount)s.") % words,
        f"{kind} (PDF):", pdf_url, *([_("Your receipt:"), receipt_url] if receipt_url else []),
        _("Whoever has the link can read it: keep it to yourself."),
    )  # fmt: skip
    return "paper_copy", _("%(paper)s from %(name)s") % words, "\n\n".join(body) + "\n"
