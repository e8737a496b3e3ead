"""Messages on a station's display (OCPP 2.0.1 block O), and what a station stores of a customer (N09, N10).

Errors: `not_in_16`, `choice`, `required`, `too_long`, `nothing_asked`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.device_model.models import DisplayMessage
from app.device_model.reports import Part, ReportedMessage
from app.device_model.service import EVERYTHING, needs_2x, open_report, take_part
from app.kernel.errors import Invalid
from app.stations import commands
from app.stations.models import StationCommand
from tenants.scope import Scope

PRIORITIES = ("AlwaysFront", "InFront", "NormalCycle")
STATES = ("Charging", "Faulted", "Idle", "Unavailable")
FORMATS = ("UTF8", "ASCII", "HTML", "URI")
LONGEST = 512
_WHAT = "messages on its display"
WORDS = {
    "wanted": "On its way to the station.",
    "Accepted": "The station shows it.",
    "NotSupportedMessageFormat": "The station cannot show this format.",
    "NotSupportedPriority": "The station does not know this priority.",
    "NotSupportedState": "The station cannot show messages in this state only.",
    "UnknownTransaction": "The station knows no such transaction.",
    "LanguageNotSupported": "The station does not know this language.",
    "Rejected": "The station refused it.",
    "failed": "The station has no such command.",
    "unknown": "The station did not answer.",
    "gone": "No longer on the display.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What shall be shown. `state` None is always; times are UTC; with a transaction it goes when that ends."""

    content: str
    priority: str = "NormalCycle"
    format: str = "UTF8"
    language: str | None = None
    state: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    ocpp_transaction_id: str | None = None


async def show_message(
    scope: Scope, station_id: UUID, text: Text, *, replaces: int | None = None
) -> StationCommand:
    """O01, O02, O06 SetDisplayMessage. `replaces` is the number of a message that gives way to this one."""
    await needs_2x(scope, station_id, _WHAT)
    _check(text)
    number = replaces if replaces is not None else random.randint(1, 2**31 - 1)  # noqa: S311 - only a name
    values = {
        "priority": text.priority, "state": text.state, "start_at": text.start_at, "end_at": text.end_at,
        "ocpp_transaction_id": text.ocpp_transaction_id, "format": text.format, "language": text.language,
        "content": text.content, "status": "wanted", "updated_at": scope.now,
    }  # fmt: skip
    statement = (
        upsert(DisplayMessage)
        .values(station_id=station_id, message_no=number, **values)
        .on_conflict_do_update(index_elements=["tenant_id", "station_id", "message_no"], set_=values)
    )
    await scope.db.execute(statement)
    payload = {"message": _wire(number, text)}
    return await commands.send_command(scope, station_id, "SetDisplayMessage", payload)


def _check(text: Text) -> None:
    if not text.content.strip():
        raise Invalid.field("content", "required", "Say what shall be shown.")
    if len(text.content) > LONGEST:
        raise Invalid.field("content", "too_long", f"A message has at most {LONGEST} characters.")
    told = (
        ("priority", text.priority, PRIORITIES),
        ("format", text.format, FORMATS),
        ("state", text.state, STATES),
    )
    for name, value, choices in told:
        if value is None:
            continue
        if value not in choices:
            raise Invalid.field(name, "choice", f"{name} is one of {', '.join(choices)}.")
    if text.format == "ASCII" and not text.content.isascii():
        raise Invalid.field("content", "ascii", "ASCII has no such characters: choose another format.")
    if text.start_at and text.end_at and text.end_at <= text.start_at:
        raise Invalid.field("end_at", "order", "The end is after the start.")


def _wire(number: int, text: Text) -> dict[str, Any]:
    message: dict[str, Any] = {"format": text.format, "content": text.content}
    if text.language:
        message["language"] = text.language
    info: dict[str, Any] = {"id": number, "priority": text.priority, "message": message}
    more = {
        "state": text.state, "startDateTime": _time(text.start_at), "endDateTime": _time(text.end_at),
        "transactionId": text.ocpp_transaction_id,
    }  # fmt: skip
    return info | {name: value for name, value in more.items() if value}


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None


async def request_messages(
    scope: Scope, station_id: UUID, *, numbers: Sequence[int] = (), priority: str | None = None,
    state: str | None = None,
) -> StationCommand:  # fmt: skip
    """O03, O04 GetDisplayMessages; all of them where nothing is named."""
    await needs_2x(scope, station_id, _WHAT)
    if priority is not None and priority not in PRIORITIES:
        raise Invalid.field("priority", "choice", f"priority is one of {', '.join(PRIORITIES)}.")
    if state is not None and state not in STATES:
        raise Invalid.field("state", "choice", f"state is one of {', '.join(STATES)}.")
    asked: dict[str, Any] = {"id": list(numbers), "priority": priority, "state": state}
    asked = {name: value for name, value in asked.items() if value}
    what = ", ".join(f"{name} {value}" for name, value in asked.items())[:200] or EVERYTHING
    report = await open_report(scope, station_id, "display_messages", what)
    return await commands.send_command(
        scope, station_id, "GetDisplayMessages", asked | {"requestId": report.request_no}
    )


async def clear_message(scope: Scope, station_id: UUID, number: int) -> StationCommand:
    """O05 ClearDisplayMessage."""
    await needs_2x(scope, station_id, _WHAT)
    return await commands.send_command(scope, station_id, "ClearDisplayMessage", {"id": number})


async def list_messages(scope: Scope, station_id: UUID) -> list[DisplayMessage]:
    """Those on the display first, then what became of the others."""
    query = select(DisplayMessage).where(DisplayMessage.station_id == station_id)
    rows = list(
        (await scope.db.execute(query.order_by(DisplayMessage.updated_at.desc()).limit(200))).scalars()
    )
    return sorted(rows, key=lambda row: row.status == "gone")


# --- taking ------------------------------------------------------------------------------------------------------


async def message_answered(scope: Scope, station_id: UUID, number: int, status: str) -> None:
    """`status` is the station's word, or `failed` / `unknown` where it gave none."""
    statement = (
        update(DisplayMessage)
        .where(DisplayMessage.station_id == station_id, DisplayMessage.message_no == number)
        .values(status=status, updated_at=scope.now)
    )
    await scope.db.execute(statement)
    scope.publish(f"station:{station_id}", {"what": "display"})


async def take_messages(
    scope: Scope, station_id: UUID, part: Part, messages: Sequence[ReportedMessage]
) -> None:
    """O03 NotifyDisplayMessages. After the last part of a report of everything, what it did not name is gone."""
    for one in sorted(messages, key=lambda message: message.message_no):
        values = {
            "priority": one.priority, "state": one.state, "start_at": one.start_at, "end_at": one.end_at,
            "ocpp_transaction_id": one.ocpp_transaction_id, "format": one.format, "language": one.language,
            "content": one.content[: 4 * LONGEST], "status": "Accepted", "updated_at": scope.now,
        }  # fmt: skip
        statement = (
            upsert(DisplayMessage)
            .values(station_id=station_id, message_no=one.message_no, **values)
            .on_conflict_do_update(index_elements=["tenant_id", "station_id", "message_no"], set_=values)
        )
        await scope.db.execute(statement)
    report = await take_part(scope, station_id, "display_messages", part, len(messages))
    if report.status == "complete" and report.what == EVERYTHING:
        await all_are_gone(scope, station_id, report.asked_at)
    scope.publish(f"station:{station_id}", {"what": "display"})


async def all_are_gone(scope: Scope, station_id: UUID, since: datetime) -> None:
    """What the station had accepted and did not name in a report of everything."""
    statement = (
        update(DisplayMessage)
        .where(
            DisplayMessage.station_id == station_id, DisplayMessage.status == "Accepted",
            DisplayMessage.updated_at < since,
        )
        .values(status="gone", updated_at=scope.now)
    )  # fmt: skip
    await scope.db.execute(statement)


# --- customers ---------------------------------------------------------------------------------------------------


async def request_customer(
    scope: Scope, station_id: UUID, *, report: bool, clear: bool, id_token: tuple[str, str] | None = None,
    customer_identifier: str | None = None,
) -> StationCommand:  # fmt: skip
    """N09 what the station stores of a customer, N10 to clear it. `id_token` is (value, type).

    The report's parts are joined; the text is for who may see card numbers, and forgotten after a month.
    """
    await needs_2x(scope, station_id, "report of what it stores of a customer")
    if not report and not clear:
        raise Invalid.field("report", "nothing_asked", "Ask for a report, for clearing, or for both.")
    if bool(id_token) == bool(customer_identifier):
        raise Invalid.field("id_token", "required", "Name a card, or a customer by identifier.")
    what = " and ".join(word for word, asked in (("report", report), ("clear", clear)) if asked)
    made = await open_report(scope, station_id, "customer_information", what)
    payload: dict[str, Any] = {"requestId": made.request_no, "report": report, "clear": clear}
    if id_token:
        payload["idToken"] = {"idToken": id_token[0], "type": id_token[1]}
    else:
        payload["customerIdentifier"] = customer_identifier
    return await commands.send_command(scope, station_id, "CustomerInformation", payload)


async def take_customer_part(scope: Scope, station_id: UUID, part: Part, data: str) -> None:
    """N09 NotifyCustomerInformation."""
    await take_part(scope, station_id, "customer_information", part, 1 if data.strip() else 0, text=data)
