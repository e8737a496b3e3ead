"""Frames <-> messages (OCPP-J section 4). Lenient in what it takes, strict in what it writes; pure.

What cannot be read becomes `Broken` with all that could be saved of it, so that the log shows it and the socket lives.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_ID = 36
UNKNOWN_ID = "-1"
NUL = "\\u0000"  # as JSON writes it: the character itself is no JSON
# Read strictly; a report tells of what has been done (ocpp.md 2, row 33).
QUESTIONS = frozenset({"Authorize"})

_ID = re.compile(r'^\s*\[\s*2\s*,\s*"([^"\\]{1,36})"')
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Call:
    """`remark` names what is odd about a frame that is understood all the same."""

    message_id: str
    action: str
    payload: dict[str, Any]
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """`raw`, here and in an Error, is the frame as it came. What cannot be stored of it, NUL, is not read.
    A payload that is no object (`is_object`) is read as an empty one."""

    message_id: str
    payload: dict[str, Any]
    raw: str = field(default="", compare=False)
    is_object: bool = True


@dataclass(frozen=True, slots=True)
class Error:
    message_id: str
    code: str
    description: str
    details: dict[str, Any]
    raw: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Broken:
    """`code` is 1.6's name of the fault; `message_id` None where none could be found.

    `is_call` where it is a CALL beyond doubt, which is answered in every version.
    """

    message_id: str | None
    code: str
    reason: str
    is_call: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """OCPP 2.1 only: a SEND, or a CALLRESULTERROR about an answer of ours (`code`, and no action).

    Nobody answers it.
    """

    message_id: str | None
    action: str
    code: str | None


Message = Call | Result | Error | Broken | Unanswered
ErrorCode = Literal[
    "NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError", "FormationViolation",
    "PropertyConstraintViolation", "OccurenceConstraintViolation", "TypeConstraintViolation", "GenericError",
]  # fmt: skip

# 2.x spells two of them otherwise.
_IN_2X = {
    "FormationViolation": "FormatViolation",
    "OccurenceConstraintViolation": "OccurrenceConstraintViolation",
}


def error_code(version: str, code: str) -> str:
    return code if version == "ocpp1.6" else _IN_2X.get(code, code)


def decode(raw: str, version: str = "") -> Message:
    """NaN, Infinity, lone surrogates and numbers that overflow are refused by the JSON reader itself.

    `version` matters for the two kinds of frames that only 2.1 has.
    """
    try:
        frame = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        return Broken(_rescued_id(raw), "FormationViolation", f"not JSON: {str(error)[:80]}")
    if not isinstance(frame, list) or not frame:
        return Broken(_rescued_id(raw), "FormationViolation", "not an OCPP frame")
    keys = _count_keys(frame, MAX_DEPTH)
    if keys is None:
        return Broken(_rescued_id(raw), "FormationViolation", "nested too deeply")
    # A `":` more than there are keys may stand in a text: only then it is worth reading the frame a second time.
    has_doubles = raw.count('":') > keys and _names_a_key_twice(raw)
    if version == "ocpp2.1" and frame[0] in (5, 6):
        return _unanswered(frame)
    return _message(frame, raw, "duplicate_key" if has_doubles else None)


def _message(frame: list[Any], raw: str, remark: str | None) -> Message:
    kind, message_id = frame[0], _id_of(frame[1] if len(frame) > 1 else None)
    if kind == 2:
        if message_id is None:
            return Broken(
                None,
                "FormationViolation",
                "the message id is missing or longer than 36 characters",
                is_call=True,
            )
        if len(frame) < 4 or not isinstance(frame[2], str) or not isinstance(frame[3], dict):
            return Broken(message_id, "FormationViolation", "a CALL is [2, id, action, payload]")
        if NUL in raw and _has_nul(frame[2:4]):
            if "\0" in frame[2] or frame[2] in QUESTIONS:
                return Broken(message_id, "PropertyConstraintViolation", "NUL characters cannot be stored")
            frame, remark = _without_nul(frame), "nul"
        return Call(message_id, frame[2], frame[3], remark)
    if NUL in raw:
        frame = _without_nul(frame)
    if kind == 3 and message_id is not None and len(frame) >= 3:
        is_object = isinstance(frame[2], dict)
        return Result(message_id, frame[2] if is_object else {}, raw, is_object)
    if kind == 4 and message_id is not None and len(frame) >= 3:
        details = frame[4] if len(frame) > 4 and isinstance(frame[4], dict) else {}
        description = str(frame[3])[:255] if len(frame) > 3 else ""
        return Error(message_id, str(frame[2])[:64], description, details, raw)
    return Broken(message_id, "FormationViolation", "the message type is not 2, 3 or 4")


def _unanswered(frame: list[Any]) -> Unanswered:
    message_id = _id_of(frame[1] if len(frame) > 1 else None)
    said = str(frame[2])[:64].replace("\0", "") if len(frame) > 2 else ""
    return Unanswered(message_id, said if frame[0] == 6 else "", said or "?" if frame[0] == 5 else None)


def _id_of(value: Any) -> str | None:
    """Numbers are read as their text: some stations count."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if 0 < len(text) <= MAX_ID and "\0" not in text else None


def _rescued_id(raw: str) -> str | None:
    """The id of a CALL whose payload is broken JSON (AEFA: `"transactionId":,`), so that it can be answered."""
    found = _ID.match(raw[:200])
    return found.group(1) if found else None


def _count_keys(value: Any, limit: int) -> int | None:
    """How many keys its objects have together; None where it is nested more deeply than `limit`."""
    level, keys = [value], 0
    for _ in range(limit + 1):
        inner: list[Any] = []
        for item in level:
            if type(item) is dict:
                keys += len(item)
                inner.extend(item.values())
            elif type(item) is list:
                inner.extend(item)
        level = [item for item in inner if type(item) is dict or type(item) is list]
        if not level:
            return keys
    return None


def _names_a_key_twice(raw: str) -> bool:
    doubled = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal doubled
        doubled = doubled or len({name for name, _ in pairs}) < len(pairs)

    json.loads(raw, object_pairs_hook=look)
    return doubled


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_nul(item) for item in value)


def _without_nul(value: Any) -> Any:
    """Those at the end of a text fill a C program's field; what stands inside is told as U+FFFD."""
    if isinstance(value, str):
        return value.rstrip("\0").replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return [_without_nul(item) for item in value] if isinstance(value, list) else value


def encode_call(message_id: str, action: str, payload: dict[str, Any]) -> str:
    return _ENCODER.encode([2, message_id, action, payload]).decode()


def encode_result(message_id: str, payload: dict[str, Any]) -> str:
    return _ENCODER.encode([3, message_id, payload]).decode()


def encode_error(version: str, message_id: str | None, code: str, description: str = "") -> str:
    """OCPP-J 4.2.3; the id is "-1" where the frame's own could not be read (2.0.1)."""
    frame = [4, message_id or UNKNOWN_ID, error_code(version, code), description[:255], {}]
    return _ENCODER.encode(frame).decode()


def timestamp(at: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SS.mmmZ`: some stations read nothing else (ocpp.md 3, no. 21)."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
