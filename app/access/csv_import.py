"""A list of drivers, groups and cards from a spreadsheet: what the file says, and what it would change (pure).

File -> `decode` -> `read_table` -> `guess_columns` (which the person may change) -> `read_rows` -> `match` against
what is known. Row numbers are the spreadsheet's: the header is row 1.

A driver is found by mail. A row without one means whom its card belongs to, if that is their name, else the driver
of that name whom staff made without a mail: a driver with a mail logs in and chooses the name, so that a name alone
never leads to them. A card is found by its value. A column that is left out leaves things alone; an empty cell in a
column that is there empties group, label and expiry, and says nothing of name, mail and status.
"""

import codecs
import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from app.access.models import STATUSES, TYPES
from app.identity.service import check_email, email_norm
from app.kernel.errors import Invalid
from app.kernel.names import MAX_NAME, name_fault
from app.kernel.spreadsheet import plain

MAX_BYTES, MAX_ROWS, MAX_COLUMNS = 5_000_000, 10_000, 50
FIELDS = ("name", "email", "group", "card", "card_type", "label", "status", "expires")
HEADERS = ("name", "email", "group", "card", "card type", "label", "status", "expires")
# What other Windows encodings become when they are read as Western European: signs in the middle of words, and words of
# accents only.
_FOREIGN = re.compile(
    r"[\x80-\x9f]|[¢£¤¥¦¨¬¯±²³¶¸¹¼¾×÷](?=[^\W\d_])|(?<=[^\W\d_])[¡¢£¤¥¦¨¬¯±¶¸¼¾¿×÷]|(?<=[^\W\d_]{3})[²³¹]"
    r"|(?<!\w)[À-ÖØ-öø-ÿ]{3,}(?!\w)"
)
_LONGEST = {"name": MAX_NAME, "email": 254, "group": MAX_NAME, "card": 255, "label": MAX_NAME}
_KNOWN_AS = {
    "name": "name fullname driver drivername fahrer fahrername vollername mitarbeiter employee person user nutzer",
    "email": "email mail emailaddress mailaddress emailadresse mailadresse",
    "group": "group drivergroup groupname gruppe fahrergruppe gruppenname",
    "card": "card cardnumber cardno carduid cardid token idtoken idtag rfid rfidtag rfidcard rfiduid rfidkarte uid"
    " karte kartennummer kartennr kartenid ladekarte",
    "card_type": "cardtype type tokentype typ kartentyp kartenart",
    "label": "label cardlabel bezeichnung beschriftung kartenname aufdruck",
    "status": "status state cardstatus zustand kartenstatus",
    "expires": "expires expireson expiry expirydate validuntil worksuntil ablauf ablaufdatum laeuftab gueltigbis",
}  # fmt: skip
_FIELD_OF = {word: name for name, words in _KNOWN_AS.items() for word in words.split()}
_STATUS_OF = {status: status for status in STATUSES} | {
    "active": "accepted", "aktiv": "accepted", "gesperrt": "blocked", "abgelaufen": "expired", "ungueltig": "invalid",
}  # fmt: skip
_TYPE_OF = {name.lower(): name for name in TYPES} | {"rfid": "ISO14443", "mifare": "ISO14443"}
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong with a row. `column` is the header's own word, empty where it is the row as a whole."""

    row: int
    column: str
    message: str


# --- the file ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    header: list[str]
    rows: list[tuple[int, list[str]]]
    separator: str


def decode(raw: bytes) -> tuple[str, bool]:
    """The text, and whether its encoding is a guess: Western European Windows, where nothing names another.

    Errors of `file`: too_large, encoding.
    """
    if len(raw) > MAX_BYTES:
        raise _too_large()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig",) if raw.startswith(codecs.BOM_UTF8) else ("utf-8", "cp1252")
    for encoding in encodings:
        try:
            found = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        is_guess = encoding == "cp1252"
        if "\0" not in found and not (is_guess and _FOREIGN.search(found)):
            return found, is_guess
    raise Invalid.field(
        "file",
        "encoding",
        "The letters of this file cannot be read. In your spreadsheet, save it as “CSV UTF-8”.",
    )


def _too_large() -> Invalid:
    return Invalid.field("file", "too_large", f"The file is larger than {MAX_BYTES // 1_000_000} MB.")


def read_table(text: str) -> Table:
    """Errors of `file`: empty, too_large, too_many_rows, too_many_columns, unreadable."""
    if len(text) > MAX_BYTES + MAX_ROWS:  # a form that brings it back has made each line break longer
        raise _too_large()
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    named = re.match(r"sep=([,;\t])\n", text)
    separator = named[1] if named else _separator(text)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    number = 0
    try:
        lines = csv.reader(
            io.StringIO(text[named.end() if named else 0 :], newline=""), delimiter=separator, strict=True
        )
        for number, cells in enumerate(lines, 1):
            if any("\0" in cell for cell in cells):
                raise _unreadable(number, "it holds a NUL, which is no letter of any text")
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [_tidy(cell)[:60] for cell in cells]
                continue
            if len(rows) == MAX_ROWS:
                raise Invalid.field("file", "too_many_rows", f"The file has more than {MAX_ROWS:,} rows.")
            rows.append((number, cells))
    except csv.Error as error:
        raise _unreadable(number + 1, _in_words(str(error))) from None
    if not rows:
        raise Invalid.field(
            "file", "empty", "Choose a file, or paste its text: a row of column names, then a row per card."
        )
    if len(header) > MAX_COLUMNS:
        raise Invalid.field("file", "too_many_columns", f"The file has more than {MAX_COLUMNS} columns.")
    return Table(header, rows, separator)


def _unreadable(number: int, reason: str) -> Invalid:
    return Invalid.field("file", "unreadable", f"Row {number} cannot be read: {reason}.")


def _in_words(reason: str) -> str:
    """What Python's reader says, as somebody with a spreadsheet would."""
    if reason == "unexpected end of data":
        return "a quote in it is opened and never closed"
    return "there is text behind a closing quote" if "expected after" in reason else reason


def _separator(text: str) -> str:
    """What the first line that says something has most of, outside quotes."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    return max((",", ";", "\t"), key=bare.count)


def _tidy(cell: str) -> str:
    """One spelling of each letter, one blank where there were several, also the unbreakable ones."""
    return " ".join(unicodedata.normalize("NFC", cell).split())


def guess_columns(header: Sequence[str]) -> list[str]:
    """A field, or "" for a column that is left out; each field once."""
    found: list[str] = []
    for word in header:
        name = _FIELD_OF.get(re.sub(r"[^a-z0-9]", "", word.casefold().translate(_UMLAUTS)), "")
        found.append("" if name in found else name)
    return found


# --- rows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Cleaned cells. "" and None: nothing stands there."""

    number: int
    name: str = ""
    email: str = ""
    group: str = ""
    card: str = ""
    card_type: str = ""
    label: str = ""
    status: str = ""
    expires: date | None = None


def read_rows(table: Table, columns: Sequence[str]) -> tuple[list[Row], list[Fault]]:
    """The rows that are right, and what is wrong with the others. Invalid of `column`: unknown, twice, required."""
    chosen = [name for name in columns if name]
    if len(columns) != len(table.header) or not set(chosen) <= set(FIELDS):
        raise Invalid.field("column", "unknown", "Choose for each column what it holds.")
    if len(set(chosen)) < len(chosen):
        twice = next(name for name in chosen if chosen.count(name) > 1)
        raise Invalid.field("column", "twice", f"Two columns are said to hold the {twice.replace('_', ' ')}.")
    if not {"name", "email", "card"} & set(chosen):
        raise Invalid.field(
            "column", "required", "Say which column holds the name, the mail address or the card."
        )
    rows, faults = [], []
    for number, cells in table.rows:
        values: dict[str, str | date | None] = {}
        wrong = [
            Fault(number, title, message)
            for title, name, cell in zip(table.header, columns, cells, strict=False)
            if name and (message := _read(name, _tidy(plain(cell.strip())), values))
        ]
        if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            wrong.append(
                Fault(number, "", "There are more cells than in the header. A text with a separator needs quotes.")
            )  # fmt: skip
        if not wrong and not any(values.get(name) for name in ("name", "email", "card")):
            wrong.append(Fault(number, "", "This row names neither a driver nor a card."))
        faults += wrong
        if not wrong:
            rows.append(Row(number=number, **values))  # pyright: ignore[reportArgumentType]
    return rows, faults


def _read(name: str, cell: str, values: dict[str, str | date | None]) -> str | None:
    """Puts the value, or says in a sentence why not."""
    if not cell:
        return None
    values[name] = cell
    fault = name_fault(cell, name, most=_LONGEST.get(name, 255))
    if fault is not None:
        return fault.message
    if name == "email":
        try:
            check_email(cell)
        except Invalid as error:
            return error.message
        return None
    if name == "card":
        return _card_fault(cell)
    if name == "card_type":
        values[name] = _TYPE_OF.get(cell.lower())
        return None if values[name] else f"This is no kind of card. Write one of {', '.join(TYPES)}."
    if name == "status":
        values[name] = _STATUS_OF.get(cell.casefold().translate(_UMLAUTS))
        return None if values[name] else f"This is no state. Write one of {', '.join(STATUSES)}."
    if name == "expires":
        values[name] = _day(cell)
        return (
            None if values[name] else "This is not a day of our time. Write it like 2027-12-31 or 31.12.2027."
        )
    return None


def _card_fault(cell: str) -> str | None:
    if re.match(r"[•*?]{2}", cell):
        return (
            "This card number is masked. Leave the card column out, or use an export by somebody who may see whole"
            " numbers."
        )
    if re.fullmatch(r"\d([.,]\d+)?[eE]\+\d+", cell):
        return (
            "A spreadsheet made a number of this card number. Format its column as text and enter it again."
        )
    if not cell.isascii():
        return "A card number has letters, digits and signs of ASCII only."
    return None


def _day(cell: str) -> date | None:
    for form in ("%Y-%m-%d", "%d.%m.%Y"):
        try:
            day = datetime.strptime(cell, form).date()  # noqa: DTZ007 - a day, in no zone
        except ValueError:
            continue
        return day if 2000 <= day.year < 2200 else None
    return None


# --- what it would change ----------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True, kw_only=True)
class DriverState:
    """A driver as known, then as the file wants it. `id` None: new."""

    id: UUID | None = None
    name: str
    email: str = ""
    group: str = ""
    named_in: int = 0
    grouped_in: int = 0
    before: tuple[object, ...] = ()

    @property
    def called(self) -> str:
        return f"{self.name} ({self.email})" if self.email else self.name

    def facts(self) -> tuple[object, ...]:
        return self.name, self.email, self.group


@dataclass(eq=False, slots=True, kw_only=True)
class CardState:
    """A card as known, then as the file wants it. `group` is its own, beside its driver's."""

    id: UUID | None = None
    value: str
    type: str
    driver: DriverState | None = None
    label: str = ""
    status: str = "accepted"
    expires: date | None = None
    group: str = ""
    is_single_use: bool = False
    stands_in: int = 0
    before: tuple[object, ...] = ()

    def facts(self) -> tuple[object, ...]:
        return self.driver, self.label, self.status, self.expires, self.group

    @property
    def is_unblocked(self) -> bool:
        return self.id is not None and self.before[2] == "blocked" != self.status


@dataclass(slots=True)
class Known:
    """What is there already, as far as the file's mails, names, card values and groups touch it."""

    drivers: list[DriverState] = field(default_factory=list)
    cards: list[CardState] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for one in (*self.drivers, *self.cards):
            one.before = one.facts()


@dataclass(frozen=True, slots=True)
class Line:
    """A row and what becomes of it; no effects: it is there already. `driver` is who is meant, as they will be."""

    row: Row
    effects: list[str]
    driver: DriverState | None = None
    is_unblocking: bool = False

    @property
    def words(self) -> str:
        told = "; ".join(self.effects) or "unchanged"
        return told[0].upper() + told[1:]


@dataclass(slots=True)
class Plan:
    new_drivers: list[DriverState] = field(default_factory=list)
    changed_drivers: list[DriverState] = field(default_factory=list)
    new_cards: list[CardState] = field(default_factory=list)
    changed_cards: list[CardState] = field(default_factory=list)
    new_groups: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    digest: str = ""
    is_done: bool = False

    @property
    def changing(self) -> list[Line]:
        """What opens a card that was blocked comes first."""
        return sorted((line for line in self.lines if line.effects), key=lambda line: not line.is_unblocking)

    @property
    def unblocked(self) -> int:
        return sum(line.is_unblocking for line in self.lines)

    def seal(self) -> None:
        """`digest`: of all that it would do, and to whom."""
        whole = (
            self.lines, self.new_drivers, self.changed_drivers, self.new_cards, self.changed_cards, self.new_groups
        )  # fmt: skip
        self.digest = hashlib.sha256(repr(whole).encode()).hexdigest()

    @property
    def unchanged(self) -> int:
        return sum(not line.effects for line in self.lines)

    @property
    def is_empty(self) -> bool:
        return not (
            self.new_drivers
            or self.changed_drivers
            or self.new_cards
            or self.changed_cards
            or self.new_groups
        )


def match(rows: Iterable[Row], columns: Iterable[str], known: Known) -> Plan:
    """Rows with a mail address first: one of them may give an address to a driver without, in whatever order they
    stand."""
    return _Matching(list(rows), frozenset(columns), known).plan()


class _Matching:
    def __init__(self, rows: list[Row], given: frozenset[str], known: Known) -> None:
        self.rows, self.given = rows, given
        self.out = Plan()
        self.drivers, self.cards = list(known.drivers), list(known.cards)
        tidied = {_tidy(name): name for name in known.groups}
        self.groups = {name.casefold(): group for name, group in tidied.items()} | tidied
        self.by_mail = {email_norm(one.email): one for one in known.drivers if one.email}
        self.by_value: dict[str, list[CardState]] = {}
        for card in known.cards:
            self.by_value.setdefault(card.value.lower(), []).append(card)
        self.driver_of: dict[int, DriverState | None] = {}
        self.card_of: dict[int, CardState] = {}

    def plan(self) -> Plan:
        nameless: dict[str, list[DriverState]] = {}
        for one in self.drivers:
            if not one.email:
                nameless.setdefault(_tidy(one.name), []).append(one)
        for row in sorted((row for row in self.rows if row.email), key=lambda row: not row.name):
            self._by_mail(row, nameless)
        names: dict[str, list[DriverState]] = {}
        for one in self.drivers:
            names.setdefault(_tidy(one.name), []).append(one)
        for row in self.rows:
            if not row.email:
                self._by_name(row, names)
        for row in self.rows:
            if row.number in self.driver_of:
                self._rest(row)
        return self._concluded()

    def _fault(self, row: Row, column: str, message: str) -> None:
        self.out.faults.append(Fault(row.number, column, message))

    def _by_mail(self, row: Row, nameless: dict[str, list[DriverState]]) -> None:
        driver = self.by_mail.get(email_norm(row.email))
        if driver is None:
            if not row.name:
                self._fault(row, "name", "This driver is new and needs a name.")
                return
            same_name = nameless.get(row.name, [])
            if len(same_name) == 1:  # known by name so far, now with a mail address
                driver = same_name.pop()
                driver.email = row.email
            else:
                driver = self._new_driver(row)
            self.by_mail[email_norm(row.email)] = driver
        if row.name and driver.named_in and _tidy(driver.name) != row.name:
            self._fault(row, "name", f"Row {driver.named_in} gives this mail address to {driver.name}.")
            return
        if row.name:
            driver.named_in = driver.named_in or row.number
            if _tidy(driver.name) != row.name:
                driver.name = row.name
        self.driver_of[row.number] = driver

    def _by_name(self, row: Row, names: dict[str, list[DriverState]]) -> None:
        if not row.name:
            self.driver_of[row.number] = None
            return
        found, card = names.get(row.name, []), self._find_card(row)
        if card is not None and card.driver in found:
            self.driver_of[row.number] = card.driver
            return
        without_mail = [one for one in found if not one.email]
        if len(without_mail) > 1:
            self._fault(
                row,
                "name",
                f"{len(without_mail)} drivers have this name. Say by the mail address who is meant.",
            )
            return
        if found and not without_mail:
            mails = ", ".join(one.email for one in found[:3]) + (" and others" if len(found) > 3 else "")
            self._fault(
                row,
                "email",
                f"This is the name of {mails}, and drivers with a login choose their own. Say by the mail address who"
                " is meant.",
            )
            return
        driver = without_mail[0] if without_mail else self._new_driver(row)
        if not found:
            names.setdefault(row.name, []).append(driver)
        self.driver_of[row.number] = driver

    def _new_driver(self, row: Row) -> DriverState:
        driver = DriverState(name=row.name, email=row.email)
        self.drivers.append(driver)
        return driver

    def _rest(self, row: Row) -> None:
        driver, group = self.driver_of[row.number], self._group(row)
        if driver is not None and "group" in self.given:
            if group and driver.grouped_in and driver.group != group:
                self._fault(row, "group", f"Row {driver.grouped_in} puts this driver into {driver.group}.")
                return
            # Of a driver's several rows one may name the group for all.
            if group or not driver.grouped_in:
                driver.group = group
            driver.grouped_in = driver.grouped_in or (row.number if group else 0)
        if row.card:
            self._card(row, driver, group)

    def _group(self, row: Row) -> str:
        """The known group of that name, however its letters are written, or the new one."""
        if not row.group:
            return ""
        found = self.groups.get(row.group) or self.groups.get(row.group.casefold())
        if found is None:
            found = self.groups[row.group.casefold()] = self.groups[row.group] = row.group
            self.out.new_groups.append(found)
        return found

    def _find_card(self, row: Row) -> CardState | None:
        """Without a type a value means its only card."""
        same_value = self.by_value.get(row.card.lower(), [])
        if not row.card_type and len(same_value) == 1:
            return same_value[0]
        kind = row.card_type or "ISO14443"
        return next((one for one in same_value if one.type == kind), None)

    def _card(self, row: Row, driver: DriverState | None, group: str) -> None:
        card = self._find_card(row)
        if card is None:
            card = CardState(value=row.card, type=row.card_type or "ISO14443", driver=driver)
            self.by_value.setdefault(row.card.lower(), []).append(card)
            self.cards.append(card)
        if card.stands_in:
            self._fault(row, "card", f"This card stands in row {card.stands_in} already.")
            return
        if card.is_single_use:
            self._fault(row, "card", "This number is in use for a start from the portal.")
            return
        if driver is not None and card.driver is not None and card.driver is not driver:
            self._fault(row, "card", f"This card belongs to {card.driver.called} already.")
            return
        card.stands_in = row.number
        card.driver = driver or card.driver
        if "group" in self.given and driver is None and card.driver is None:
            card.group = group
        if "label" in self.given:
            card.label = row.label
        if "expires" in self.given:
            card.expires = row.expires
        if row.status:
            card.status = row.status
        self.card_of[row.number] = card

    def _concluded(self) -> Plan:
        out = self.out
        out.new_drivers = [one for one in self.drivers if one.id is None]
        out.new_cards = [one for one in self.cards if one.id is None]
        out.changed_drivers = [
            one for one in self.drivers if one.id is not None and one.facts() != one.before
        ]
        out.changed_cards = [one for one in self.cards if one.id is not None and one.facts() != one.before]
        new_groups, told = set(out.new_groups), set[object]()
        wrong = {fault.row for fault in out.faults}
        for row in self.rows:
            if row.number not in wrong:
                card = self.card_of.get(row.number)
                driver = self.driver_of.get(row.number) or (card.driver if card else None)
                effects = list(self._effects(row, new_groups, told))
                out.lines.append(Line(row, effects, driver, card is not None and card.is_unblocked))
        out.seal()
        return out

    def _effects(self, row: Row, new_groups: set[str], told: set[object]) -> Iterable[str]:
        """What this row is the first to bring."""
        driver, card = self.driver_of.get(row.number), self.card_of.get(row.number)
        group = self._group(row) if "group" in self.given else ""
        if group in new_groups and group not in told:
            yield f"new group {group}"
        told.add(group)
        if driver is not None and driver not in told:
            yield from _difference(driver, "driver", ("name", "mail", "group"))
        told.add(driver)
        if card is not None:
            yield from _difference(card, "card", ("driver", "label", "state", "expiry", "group"))


def _difference(one: DriverState | CardState, kind: str, names: tuple[str, ...]) -> Iterable[str]:
    if one.id is None:
        yield f"new {kind}"
        return
    changed = [name for name, was, now in zip(names, one.before, one.facts(), strict=True) if was != now]
    if isinstance(one, CardState) and one.is_unblocked:
        changed.remove("state")
        yield "unblocks this blocked card"
    if changed:
        yield f"{kind}: {', '.join(changed)}"
