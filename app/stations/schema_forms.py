"""A command's form from OCPP's own JSON schema, and the payload from what was filled in (pure).

A field's name is its path on the wire, joined by dots (`setVariableData.0.variable.name`). What is left empty is left
out; an optional group of which nothing is filled in does not exist. Errors: `required`, `number`, `choice`, `time`.
"""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from app.kernel.errors import FieldFault, Invalid
from app.stations import ocpp_schemas
from app.stations.command_words import ACTIONS, FIELDS, NOT_IN_2X, NOT_IN_16, SUBJECTS, Words

# Nobody types these: vendors' extensions, what belongs to ISO 15118, and numbers that only name the request.
_HIDDEN = frozenset({"customData", "salesTariff"})
_DRAWN = frozenset({"requestId", "remoteStartId"})
_ROWS = {
    "setVariableData": 3, "getVariableData": 3, "setMonitoringData": 2, "componentVariable": 2,
    "chargingSchedulePeriod": 4, "localAuthorizationList": 4,
}  # fmt: skip
_LONG = 300
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Field:
    """`kind`: text, long, integer, number, time, choice, choices (several), lines (a list, one to a line)."""

    name: str
    label: str
    kind: str
    is_required: bool
    hint: str = ""
    options: tuple[tuple[str, str], ...] = ()
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that belong together; an optional one may stay closed."""

    name: str
    label: str
    is_required: bool
    parts: tuple["Field | Group", ...]

    def fields(self) -> Iterator[Field]:
        for part in self.parts:
            if isinstance(part, Group):
                yield from part.fields()
            else:
                yield part


@dataclass(frozen=True, slots=True)
class Entry:
    """A command in the list of all of them; `refusal` says why this station cannot be asked."""

    action: str
    words: Words
    refusal: str


def words_of(action: str) -> Words:
    return ACTIONS.get(action) or Words(spelled(action), "", "Other")


def is_known(action: str) -> bool:
    """In any version."""
    return any(action in ocpp_schemas.actions(version) for version in ocpp_schemas.VERSIONS)


def refusal(version: str, action: str) -> str:
    """Why a station of this version has no such command; empty where it has."""
    if action in ocpp_schemas.actions(version):
        return ""
    number = version.removeprefix("ocpp")
    reasons = NOT_IN_16 if version == "ocpp1.6" else NOT_IN_2X
    if ocpp_schemas.is_addition(version, action):
        return f"{action} came with OCPP {number}, and is not offered here."
    reason = reasons.get(action) or f"OCPP {number} has no command {action!r} to a station."
    return reason.replace("OCPP 2.0.1", f"OCPP {number}")


def catalogue(version: str) -> list[tuple[str, list[Entry]]]:
    """Every command there is, by subject: what this version has, then what it has not and why."""
    every = sorted({action for one in ocpp_schemas.VERSIONS for action in ocpp_schemas.actions(one)})
    entries = [Entry(action, words_of(action), refusal(version, action)) for action in every]
    # A command that only has another name in this version is there under that name.
    entries = [one for one in entries if "calls it" not in one.refusal]
    by_subject = {subject: [one for one in entries if one.words.subject == subject] for subject in SUBJECTS}
    order = lambda one: (bool(one.refusal), one.words.title)  # noqa: E731
    return [(subject, sorted(found, key=order)) for subject, found in by_subject.items() if found]


def spelled(name: str) -> str:
    """`chargingRateUnit` -> `Charging rate unit`; acronyms stay."""
    parts = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+|\d+", name)
    text = " ".join(part if part.isupper() and len(part) > 1 else part.lower() for part in parts) or name
    return text[:1].upper() + text[1:]


# --- the form ----------------------------------------------------------------------------------------------------


def form_of(version: str, action: str) -> Group:
    """KeyError for an action the version does not have."""
    if action not in ocpp_schemas.actions(version):
        raise KeyError(action)
    schema = _drawn_from(version, action)
    return Group("", words_of(action).title, True, _parts(schema, schema, ""))


def _drawn_from(version: str, action: str) -> dict[str, Any]:
    """2.1's forms are 2.0.1's: what fits those fits 2.1's schemas too, and what it adds would fill pages."""
    return ocpp_schemas.schema("ocpp2.0.1" if version == "ocpp2.1" else version, action, "request")


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = root["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def _parts(schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> tuple[Field | Group, ...]:
    """Required ones come first."""
    required = schema.get("required", [])
    names = [name for name in schema.get("properties", {}) if name not in _HIDDEN | _DRAWN]
    found: list[Field | Group] = []
    for name in sorted(names, key=lambda one: one not in required):
        one = _resolved(schema["properties"][name], root)
        found += _part(one, root, f"{prefix}{name}", name, name in required)
    return tuple(found)


def _part(
    schema: Mapping[str, Any], root: Mapping[str, Any], path: str, name: str, is_required: bool
) -> list[Field | Group]:
    label, hint = FIELDS.get(name) or (spelled(name), "")
    if schema.get("type") == "object":
        return [Group(path, label, is_required, _parts(schema, root, f"{path}."))]
    if schema.get("type") == "array":
        items = _resolved(schema.get("items", {}), root)
        if items.get("type") == "object":
            return [
                Group(
                    f"{path}.{number}", f"{label} {number + 1}", is_required and number == 0,
                    _parts(items, root, f"{path}.{number}."),
                )
                for number in range(_rows(schema, name))
            ]  # fmt: skip
        if "enum" in items:
            options = tuple((one, spelled(one)) for one in items["enum"])
            return [Field(path, label, "choices", is_required, hint, options)]
        hint = hint or "one to a line"
        return [Field(path, label, "lines", is_required, hint, longest=items.get("maxLength"))]
    return [_field(schema, path, label, hint, is_required)]


def _rows(schema: Mapping[str, Any], name: str) -> int:
    return min(_ROWS.get(name, 1), schema.get("maxItems") or 99)


def _field(schema: Mapping[str, Any], path: str, label: str, hint: str, is_required: bool) -> Field:
    """A choice is made, never found made: what comes first in a schema may be the graver one."""
    if "enum" in schema or schema.get("type") == "boolean":
        values = schema.get("enum") or ("true", "false")
        words = {"true": "Yes", "false": "No"}
        options = tuple((str(one), words.get(str(one)) or spelled(str(one))) for one in values)
        empty = ("", "Choose …" if is_required else "–")
        return Field(path, label, "choice", is_required, hint, (empty, *options))
    longest = schema.get("maxLength")
    if schema.get("type") in ("integer", "number"):
        return Field(path, label, str(schema["type"]), is_required, hint)
    if schema.get("format") == "date-time":
        return Field(path, label, "time", is_required, hint)
    return Field(
        path, label, "long" if (longest or 0) >= _LONG else "text", is_required, hint, longest=longest
    )


# --- the payload -------------------------------------------------------------------------------------------------


def payload_of(version: str, action: str, form: Any, zone: ZoneInfo) -> dict[str, Any]:
    """`form` as `app/kernel/web.py` reads it; times are in `zone`. Invalid names every wrong field."""
    schema = _drawn_from(version, action)
    faults: list[FieldFault] = []
    payload = _Reader(schema, form, zone, faults).object(schema, "", is_sure=True)
    if faults:
        raise Invalid("invalid", faults[0].message, faults=faults)
    return {} if payload is _MISSING else payload


@dataclass(slots=True)
class _Reader:
    root: Mapping[str, Any]
    form: Any
    zone: ZoneInfo
    faults: list[FieldFault]

    def object(self, schema: Mapping[str, Any], prefix: str, *, is_sure: bool) -> Any:
        """Missing where nothing of it is filled in; once something is, what is required is asked for."""
        known = len(self.faults)
        found: dict[str, Any] = {}
        lacking: list[FieldFault] = []
        required = schema.get("required", [])
        for name in schema.get("properties", {}):
            if name in _HIDDEN:
                continue
            path = f"{prefix}{name}"
            if name in _DRAWN:
                found[name] = random.randint(1, 2**31 - 1)  # noqa: S311 - names a request, protects nothing
                continue
            one = _resolved(schema["properties"][name], self.root)
            value = self.value(one, path, name, is_sure=is_sure and name in required)
            if value is not _MISSING:
                found[name] = value
            elif name in required:
                label = (FIELDS.get(name) or (spelled(name), ""))[0]
                lacking.append(FieldFault(_first(one, self.root, path), "required", f"{label} is needed."))
        typed = found.keys() - _DRAWN
        if not typed and not is_sure and len(self.faults) == known:
            return _MISSING
        self.faults += lacking
        return found

    def value(self, schema: Mapping[str, Any], path: str, name: str, *, is_sure: bool) -> Any:
        if schema.get("type") == "object":
            return self.object(schema, f"{path}.", is_sure=is_sure)
        if schema.get("type") == "array":
            return self.array(schema, path, name, is_sure=is_sure)
        text = self.form.text(path)
        return _MISSING if not text else self.scalar(schema, path, text)

    def array(self, schema: Mapping[str, Any], path: str, name: str, *, is_sure: bool) -> Any:
        items = _resolved(schema.get("items", {}), self.root)
        if items.get("type") == "object":
            rows = [
                self.object(items, f"{path}.{number}.", is_sure=is_sure and number == 0)
                for number in range(_rows(schema, name))
            ]
            return [row for row in rows if row is not _MISSING] or _MISSING
        texts = [one for given in self.form.texts(path) for one in given.splitlines()]
        return [self.scalar(items, path, one.strip()) for one in texts if one.strip()] or _MISSING

    def scalar(self, schema: Mapping[str, Any], path: str, text: str) -> Any:
        if "enum" in schema and text not in schema["enum"]:
            return self.fault(path, "choice", "Choose one of these.")
        kind = schema.get("type")
        if kind == "boolean":
            return text == "true"
        if kind in ("integer", "number"):
            return self.number(path, text, whole=kind == "integer")
        if schema.get("format") == "date-time":
            return self.time(path, text)
        longest = schema.get("maxLength")
        if longest is not None and len(text) > longest:
            return self.fault(path, "too_long", f"At most {longest} characters.")
        return text

    def number(self, path: str, text: str, *, whole: bool) -> Any:
        try:
            number = int(text) if whole else float(text.replace(",", "."))
        except ValueError:
            number = float("nan")
        if not abs(number) < 2**31:
            return self.fault(
                path, "number", "This must be a whole number." if whole else "This must be a number."
            )
        return int(number) if number == int(number) else number

    def time(self, path: str, text: str) -> Any:
        try:
            at = datetime.fromisoformat(text)
            at = (at if at.tzinfo else at.replace(tzinfo=self.zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            return self.fault(path, "time", "This must be a time.")
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")

    def fault(self, path: str, code: str, message: str) -> Any:
        self.faults.append(FieldFault(path, code, message))
        return _MISSING


def _first(schema: Mapping[str, Any], root: Mapping[str, Any], path: str) -> str:
    """The field on the page where something is missing: of a group its first one."""
    for part in _part(schema, root, path, path.rpartition(".")[2], True):
        if isinstance(part, Field):
            return part.name
        for field in part.fields():
            return field.name
    return path
