"""A spreadsheet of drivers, groups and cards: seen before it is written, all or nothing, and twice is once."""

import asyncio
import html as entities
import random
import re
import time
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from app.access import csv_import, service
from app.access.csv_import import CardState, DriverState, Known, Plan
from app.access.models import Driver, DriverGroup, IdToken
from app.charging.models import ChargingSession
from app.identity import service as identity
from app.kernel.audit import AuditEntry, find_break
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid
from app.stations import service as stations
from tests.web import CLI, House, Visitor, found_brand

HEAD = "name,email,group,card,card type,label,status,expires"
ANNA = "Anna Beck,anna@example.org,Fleet,04A2B3C4D5E6F7,ISO14443,Car 12,accepted,2027-12-31"
BERT = "Bert Öz,,,04FFEEDD,,,,"


def read(text: str, columns: list[str] | None = None) -> tuple[list[csv_import.Row], list[csv_import.Fault]]:
    table = csv_import.read_table(text)
    return csv_import.read_rows(table, columns or csv_import.guess_columns(table.header))


def plan_of(text: str, known: Known | None = None) -> Plan:
    table = csv_import.read_table(text)
    columns = csv_import.guess_columns(table.header)
    rows, faults = csv_import.read_rows(table, columns)
    plan = csv_import.match(rows, columns, known or Known())
    plan.faults = sorted([*faults, *plan.faults])
    return plan


def faults_of(text: str, known: Known | None = None) -> list[tuple[int, str]]:
    return [(one.row, one.message) for one in plan_of(text, known).faults]


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_a_file_is_read_as_spreadsheets_save_it(encoding: str, separator: str, line_break: str) -> None:
    text = separator.join(["Fahrer", "E-Mail", "Gruppe", "Karte"]) + line_break
    text += separator.join(['"Weiß, Jörg"', "j@example.org", '"a;b\t€"', "04AA"]) + line_break
    found, is_guess = csv_import.decode(text.encode(encoding))
    assert is_guess is (encoding == "cp1252")
    rows, faults = read(found)
    assert not faults
    assert [(row.number, row.name, row.email, row.group, row.card) for row in rows] == [
        (2, "Weiß, Jörg", "j@example.org", "a;b €", "04AA")
    ]


def test_an_accent_that_stands_for_an_apostrophe_is_western_european():
    text, is_guess = csv_import.decode("name\nJörg O´Neill\nJürgen´s Auto".encode("cp1252"))
    assert "O´Neill" in text and is_guess


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("cp1250", "Paweł Dąbrowski"), ("cp1250", "Łukasz"), ("cp1251", "Иван Петров"), ("cp1253", "Μαρία"),
     ("cp1250", "Wałęsa")],
)  # fmt: skip
def test_letters_of_another_encoding_are_refused_and_never_guessed(encoding: str, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        csv_import.decode(f"name,card\n{name},04AA".encode(encoding))
    assert refused.value.faults[0].code == "encoding"


@pytest.mark.parametrize(
    "text",
    ["Jörg Weiß – 50 m², 20 °C", "Señor Íñigo ¿Qué?", "Crêpe «à emporter» №".replace("№", "½"),
     "Øre Åse, Ærø", "5 µg £5 ±3"],
)  # fmt: skip
def test_western_european_letters_are_taken_and_said_to_be_a_guess(text: str) -> None:
    assert csv_import.decode(text.encode("cp1252")) == (text, True)


def test_what_is_no_csv_is_refused() -> None:
    for raw, code in ((b"PK\x03\x04\0\0", "encoding"), ("a,b\n1,2".encode("utf-16-le"), "encoding"),
                      (b"\xef\xbb\xbfname\nJ\xf6rg", "encoding"),
                      (b"x" * (csv_import.MAX_BYTES + 1), "too_large")):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            csv_import.decode(raw)
        assert refused.value.faults[0].code == code
    many = "card\n" + "".join(f"C{number}\n" for number in range(csv_import.MAX_ROWS + 1))
    for text, code in (("", "empty"), ("name\n\n", "empty"), (many, "too_many_rows"),
                       (",".join("abc" * 20) + "\nx", "too_many_columns"), ("card\n" + "x" * 200_000, "unreadable"),
                       ("x" * 6_000_000, "too_large")):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            csv_import.read_table(text)
        assert refused.value.faults[0].code == code
    assert len(csv_import.read_table(many.rpartition("C")[0]).rows) == csv_import.MAX_ROWS


@pytest.mark.parametrize(
    ("text", "told"),
    [('name,card\nBert,04BB\n\n"Anna,04BC\n', "Row 4 cannot be read: a quote in it is opened and never closed."),
     ('"name,card\nAnna,04BC', "Row 1 cannot be read: a quote in it is opened and never closed."),
     ('name,card\n"Anna" B,04BC', "Row 2 cannot be read: there is text behind a closing quote."),
     ("name,card\nAnna,04\0BC", "Row 2 cannot be read: it holds a NUL, which is no letter of any text."),
     ("name,card\nAnna," + "x" * 200_000, "Row 2 cannot be read: field larger than field limit (131072).")],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named(text: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        csv_import.read_table(text)
    assert [(one.code, one.message) for one in refused.value.faults] == [("unreadable", told)]


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        plan_of(text)
    except Invalid:
        pass


def test_columns_are_known_by_their_names_in_english_and_german() -> None:
    assert csv_import.guess_columns(list(csv_import.HEADERS)) == list(csv_import.FIELDS)
    german = [
        "Fahrer",
        "E-Mail-Adresse",
        "Gruppe",
        "RFID",
        "Kartentyp",
        "Bezeichnung",
        "Zustand",
        "Gültig bis",
    ]
    assert csv_import.guess_columns(german) == list(csv_import.FIELDS)
    assert csv_import.guess_columns(["Card", "Karte", "Schuhgröße", ""]) == ["card", "", "", ""]


def test_columns_that_make_no_sense_are_refused() -> None:
    for columns, code in ((["name", "name"], "twice"), (["", "label"], "required"), (["name", "shoe"], "unknown"),
                          (["name"], "unknown")):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            read("a,b\n1,2", columns)
        assert refused.value.faults[0].code == code


# --- rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "words"),
    [("Anna,nobody,,,,,,", "no e-mail address"), ('Anna,"a,b@x.de",,,,,,', "no e-mail address"),
     ('Anna,"x@y.de,z.de",,,,,,', "no e-mail address"), ("Anna,<x>@y.de,,,,,,", "no e-mail address"),
     (f"{'x' * 201},,,,,,,", "too long"),
     (f"A,,,{'F' * 256},,,,", "too long"), ("A,,,••••••B2C4,,,,", "masked"), ("A,,,??????B2C4,,,,", "masked"),
     ("A,,,4.12E+13,,,,", "spreadsheet made a number"), ("A,,,04ÄÖ,,,,", "ASCII"),
     ("A,,,04,Paper,,,", "no kind of card"),
     ("A,,,04,,,maybe,", "no state"), ("A,,,04,,,,12/31/2027", "2027-12-31 or 31.12.2027"),
     ("A,,,04,,,,2027-02-30", "not a day"), ("A,,,04,,,,0001-01-01", "not a day"), ("A,,,04,,,,,more", "more cells"),
     (",,Fleet,,,,,", "neither a driver nor a card"), (",new@example.org,,,,,,", "needs a name"),
     ("A\x01,,,,,,,", "cannot be printed"), ("A\u202eB,,,,,,,", "cannot be printed or seen")],
)  # fmt: skip
def test_a_wrong_row_is_named_with_its_number_and_a_sentence(cells: str, words: str) -> None:
    ((row, message),) = faults_of(f"{HEAD}\n\n{ANNA}\n{cells}\n")
    assert row == 4 and words in message and message.endswith(".")


def test_cells_that_look_like_formulas_are_data() -> None:
    rows, faults = read(f"{HEAD}\n=1+1,,@home,-04,,+x,,\n'=2,,,,,,,")
    assert not faults
    assert [(row.name, row.group, row.card, row.label) for row in rows] == [
        ("=1+1", "@home", "-04", "+x"),
        ("=2", "", "", ""),
    ]


def test_words_are_understood_however_they_are_written() -> None:
    (row,), faults = read("Karte;Typ;Status;Ablauf\n04AA;rfid;Gesperrt;31.12.2027")
    assert not faults
    assert (row.card_type, row.status, row.expires) == ("ISO14443", "blocked", date(2027, 12, 31))


def test_two_rows_that_contradict_each_other_are_named() -> None:
    assert "Row 2 gives this mail" in faults_of("name,email\nA,a@x.org\nB,A@x.org")[0][1]
    assert "Row 2 puts this driver" in faults_of("name,group\nA,One\nA,Two")[0][1]
    assert "stands in row 2" in faults_of("name,card\nA,04aa\nB,04AA")[0][1]
    assert "Say by the mail address" in faults_of("name,email\nA,a@x.org\nA,b@x.org\nA,")[0][1]
    assert not faults_of("name,group,card\nA,One,1\nA,,2\nA,ONE,3")


def test_a_name_alone_never_leads_to_a_driver_who_chose_it() -> None:
    """Whoever has a mail address logs in, and may call themselves like anybody else."""

    def known(*others: DriverState) -> Known:
        eve = DriverState(id=_ID, name="Anna Beck", email="eve@x.org")
        return Known([eve, *others], [CardState(id=_ID, value="04EE", type="ISO14443", driver=eve)])

    ((row, message),) = faults_of("name,group,card\nAnna Beck,Fleet,04A2", known())
    assert row == 2 and "eve@x.org" in message and "Say by the mail address" in message
    assert faults_of("name,email,card\nAnna Beck,eve@x.org,\nAnna Beck,,04A2", known())
    # The card says who is meant, and the preview shows the address.
    plan = plan_of("name,label,card\nAnna Beck,Blue,04EE", known())
    assert not plan.faults and plan.lines[0].driver is not None and plan.lines[0].driver.email == "eve@x.org"
    # Whom staff made without a mail address is meant by the name.
    made = DriverState(id=UUID(int=8), name="Anna Beck")
    plan = plan_of("name,group,card\nAnna Beck,Fleet,04A2", known(made))
    assert not plan.faults and plan.new_cards[0].driver is made


def test_a_card_of_somebody_else_is_not_taken() -> None:
    owner = DriverState(id=_ID, name="Owner")
    known = Known([owner], [CardState(id=_ID, value="04AA", type="ISO14443", driver=owner)])
    assert "belongs to Owner already" in faults_of("name,card\nThief,04aa", known)[0][1]
    known = Known([], [CardState(id=_ID, value="04AA", type="Central", is_single_use=True)])
    assert "in use" in faults_of("card\n04aa", known)[0][1]


# --- twice is once -----------------------------------------------------------------------------------------------

_ID = UUID(int=7)
_names = st.sampled_from(["Anna", "Bert", "Cem", ""])
_mails = st.sampled_from(["a@x.org", "A@X.ORG", "b@x.org", "c@x.org", "", ""])
_cells = st.tuples(
    _names, _mails, st.sampled_from(["One", "one", "Two", "", ""]), st.sampled_from(["1", "2", "3", "aa", "AA", ""]),
    st.sampled_from(["ISO14443", "ISO15693", "", ""]), st.sampled_from(["L", "M", ""]),
    st.sampled_from(["accepted", "blocked", ""]), st.sampled_from(["2027-12-31", ""]),
)  # fmt: skip


def after(known: Known, plan: Plan) -> Known:
    """What is known once the plan is carried out."""
    ids = (UUID(int=number) for number in range(1000, 9999))
    for one in (*plan.new_drivers, *plan.new_cards):
        one.id = next(ids)
    drivers, cards = [*known.drivers, *plan.new_drivers], [*known.cards, *plan.new_cards]
    for one in drivers:
        one.named_in = one.grouped_in = 0
    for card in cards:
        card.stands_in = 0
    return Known(drivers, cards, [*known.groups, *plan.new_groups])


def written(rows: list[tuple[str, ...]]) -> str:
    return "\n".join([HEAD, *(",".join(row) for row in rows)])


@given(st.lists(_cells, min_size=1, max_size=8), st.lists(_cells, min_size=1, max_size=8))
def test_what_was_imported_changes_nothing_the_next_time(before: list[Any], rows: list[Any]) -> None:
    known, first = Known(), plan_of(written(before))
    if not first.faults:
        known = after(known, first)
    plan = plan_of(written(rows), known)
    if plan.faults:
        return
    again = plan_of(written(rows), after(known, plan))
    assert not again.faults and again.is_empty and again.unchanged == len(rows)


def test_columns_that_are_left_out_leave_things_alone_and_empty_cells_empty_them() -> None:
    def known() -> Known:
        anna = DriverState(id=_ID, name="Anna", email="a@x.org", group="One")
        card = CardState(id=_ID, value="1", type="ISO14443", driver=anna, label="L", status="blocked",
                         expires=date(2027, 1, 1))  # fmt: skip
        return Known([anna], [card], ["One"])

    assert plan_of("email,card\nA@x.org,1", known()).is_empty
    plan = plan_of("name,email,group,card,label,status,expires\n,a@x.org,,1,,,", known())
    (driver,), (card,) = plan.changed_drivers, plan.changed_cards
    assert (driver.name, driver.email, driver.group) == ("Anna", "a@x.org", "")
    assert (card.label, card.status, card.expires) == ("", "blocked", None)
    assert plan.lines[0].words == "Driver: group; card: label, expiry"


def test_a_card_that_works_again_is_said_first_and_in_words() -> None:
    def known() -> Known:
        cards = [
            CardState(id=UUID(int=n), value=f"04{n:02}", type="ISO14443", status="blocked") for n in range(40)
        ]
        return Known([], cards, [])

    rows = [f"04{n:02},{'accepted' if n == 35 else 'blocked'},{'L' if n == 3 else ''}" for n in range(40)]
    plan = plan_of("\n".join(["card,status,label", *rows]), known())
    assert [(line.row.number, line.words) for line in plan.changing] == [
        (37, "Unblocks this blocked card"), (5, "Card: label"),
    ]  # fmt: skip
    assert (plan.unblocked, plan.unchanged) == (1, 38)
    same = plan_of("\n".join(["card,status,label", *rows]), known())
    other = plan_of("\n".join(["card,status,label", *rows[:-1]]), known())
    assert plan.digest == same.digest != other.digest


def test_one_mailbox_is_one_driver_however_its_domain_is_written() -> None:
    known = Known([DriverState(id=_ID, name="Anna", email="anna@exämple.org")])
    plan = plan_of("name,email,card\nAnna,Anna@xn--exmple-cua.org,04AA\n,anna@EXÄMPLE.org,04BB", known)
    assert not plan.faults and not plan.new_drivers and len(plan.new_cards) == 2


def test_a_driver_known_by_name_gets_the_mail_address() -> None:
    plan = plan_of("name,email\nAnna,a@x.org", Known([DriverState(id=_ID, name="Anna")]))
    assert not plan.new_drivers and [one.email for one in plan.changed_drivers] == ["a@x.org"]


# --- in the portal -----------------------------------------------------------------------------------------------


async def counts(house: House, tenant_id: Any) -> tuple[int, int, int]:
    async with house.database.scope(tenant_id, CLI) as scope:
        queries = (select(func.count()).select_from(table) for table in (Driver, DriverGroup, IdToken))
        drivers, groups, cards = [(await scope.db.execute(query)).scalar_one() for query in queries]
        return drivers, groups, cards


async def send(person: Visitor, path: str = "/drivers/import", file: bytes | None = None, **form: Any) -> Any:
    """As a browser does: a file field that nobody used is sent empty."""
    data = {"_csrf": person.csrf, "csv": "", **form}
    return await person.send(
        "POST", path, data=data, files={"file": ("drivers.csv", file or b"", "text/csv")}
    )


def form_of(page: str) -> dict[str, Any]:
    shown = re.search(r'<textarea name="csv" hidden[^>]*>\n(.*?)</textarea>', page, re.S)
    seen = re.search(r'name="seen" value="([^"]*)"', page)
    assert shown is not None
    columns = [
        (re.search(r'<option value="(\w*)" selected>', select) or [None, ""])[1]
        for select in re.findall(r'name="column">(.*?)</select>', page, re.S)
    ]
    # A browser sends the text's line breaks as CR LF.
    text = entities.unescape(shown[1]).replace("\r\n", "\n").replace("\n", "\r\n")
    return {"csv": text, "column": columns, **({"seen": seen[1]} if seen else {})}


@pytest.mark.anyio
async def test_a_file_is_seen_then_imported_and_the_second_time_nothing_changes(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers/import")
    file = f"{HEAD}\n{ANNA}\n{BERT}\nAnna Beck,anna@example.org,,'=04,,,,\n".encode("cp1252")
    seen = await send(owner, file=file)
    assert seen.status_code == 200 and "Bert Öz" in seen.text and "New driver; new card" in seen.text
    assert "Western European (Windows-1252)" in seen.text and 'name="is_guess"' in seen.text
    assert await counts(house, tenant_id) == (0, 0, 0)

    done = await send(owner, **form_of(seen.text), action="import")
    assert (done.status_code, done.headers["location"]) == (303, "/drivers")
    assert "Imported: 2 new drivers, 3 new cards, 1 new group." in (await owner.get("/drivers")).text
    assert await counts(house, tenant_id) == (2, 1, 3)
    async with house.database.scope(tenant_id, CLI) as scope:
        card = await service.find_id_token(scope, service.IdTokenValue("04a2b3c4d5e6f7"))
        assert card is not None and card.driver is not None and card.driver.email == "anna@example.org"
        assert card.expires_at is not None and card.expires_at.isoformat() == "2027-12-31T22:59:59+00:00"
        assert await service.find_id_token(scope, service.IdTokenValue("=04"))
        query = select(AuditEntry.action).order_by(AuditEntry.seq.desc()).limit(1)
        assert (await scope.db.execute(query)).scalar_one() == "drivers.imported"
        assert await find_break(scope) is None

    again = await send(owner, file=file)
    assert "Everything in this file is there already." in again.text
    assert "Imported" not in (await owner.get("/drivers")).text
    assert (
        await send(owner, **form_of(again.text), seen=form_of(seen.text)["seen"], action="import")
    ).status_code == 303
    assert await counts(house, tenant_id) == (2, 1, 3)


@pytest.mark.anyio
async def test_a_pasted_text_is_read_as_it_was_sent(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers/import")
    for text, told in (("name,card\nAn\0na,04BC", "Row 2 cannot be read"),
                       ('name,card\n"A,04BC', "Row 2 cannot be read")):  # fmt: skip
        answer = await send(owner, csv=text)
        assert answer.status_code == 422 and told in answer.text


@pytest.mark.anyio
async def test_a_list_to_take_away_says_once_what_it_is(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    answer = await owner.get("/drivers.csv")
    assert answer.headers.get_list("content-type") == ["text/csv; charset=utf-8"]


@pytest.mark.anyio
async def test_a_row_that_is_wrong_leaves_nothing_behind(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers/import")
    form = {"csv": f"{HEAD}\n{ANNA}\nX,nobody,New,1,,,,", "column": list(csv_import.FIELDS)}
    answer = await send(owner, **form, seen=",".join(csv_import.FIELDS), action="import")
    assert answer.status_code == 422 and "This is no e-mail address." in answer.text
    assert await counts(house, tenant_id) == (0, 0, 0)
    answer = await send(owner, csv=f"{HEAD}\n{ANNA}\nX,nobody,New,1,,,,")
    assert answer.status_code == 200 and 'name="seen"' not in answer.text


@pytest.mark.anyio
async def test_another_choice_of_columns_is_seen_before_it_is_imported(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers/import")
    seen = await send(owner, csv="Alpha\tBeta\nAnna\t04AA")
    assert seen.status_code == 422 and "Say which column holds the name" in seen.text
    form = form_of(seen.text) | {"column": ["name", "card"]}
    seen = await send(owner, **form, action="import")
    assert seen.status_code == 200 and await counts(house, tenant_id) == (0, 0, 0)
    swapped = form_of(seen.text) | {"column": ["name", "label"]}
    again = await send(owner, **swapped, action="import")
    assert again.status_code == 409 and "Nothing is imported yet" in again.text
    assert (await send(owner, **form_of(seen.text), action="import")).status_code == 303
    assert await counts(house, tenant_id) == (1, 0, 1)


@pytest.mark.anyio
async def test_what_has_changed_since_it_was_looked_at_is_shown_before_it_is_imported(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers/import")
    seen = await send(owner, csv="name,card\nAnna Beck,04AA")
    async with house.database.scope(tenant_id, CLI) as scope:
        await service.create_driver(scope, name="Anna Beck")
    again = await send(owner, **form_of(seen.text), action="import")
    assert again.status_code == 409 and "Nothing is imported yet" in again.text and "New card" in again.text
    assert await counts(house, tenant_id) == (1, 0, 0)
    assert (await send(owner, **form_of(again.text), action="import")).status_code == 303
    assert await counts(house, tenant_id) == (1, 0, 1)


@pytest.mark.anyio
async def test_a_second_import_at_the_same_time_is_told_to_wait(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers/import")
    seen = await send(owner, csv="name,card\nAnna Beck,04AA")
    table = csv_import.read_table("name\nBert")
    async with house.database.scope(tenant_id, CLI) as scope:
        await service.import_drivers(scope, table, ["name"], time_zone="UTC", seen="")
        answer = await send(owner, **form_of(seen.text), action="import")
    assert answer.status_code == 409 and "Another import is being written right now." in answer.text
    assert await counts(house, tenant_id) == (0, 0, 0)


@pytest.mark.anyio
async def test_a_file_as_large_as_it_may_be_goes_through_while_others_are_served(house: House) -> None:
    """And a larger one does not."""
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers/import")
    rows = [
        f"Fahrer {n},d{n}@example.org,G{n % 50},{n:014X},,{'ü' * 100},," for n in range(csv_import.MAX_ROWS)
    ]
    file = "\n".join([HEAD, *rows]).encode()
    assert len(file) > 2_000_000
    waits: list[float] = []

    async def heart() -> None:
        while True:
            before = time.thread_time()  # not what a busy machine makes of it
            await asyncio.sleep(0.01)
            waits.append(time.thread_time() - before)

    beating = asyncio.create_task(heart())
    seen = await send(owner, file=file)
    assert seen.status_code == 200 and "And 9,900 more rows that change something." in seen.text
    form = form_of(seen.text)
    done = await send(owner, **form, action="import")
    beating.cancel()
    assert done.status_code == 303, done.text[:2000]
    # In one piece it would be nearly all of it; a share, since machines differ.
    assert max(waits) < sum(waits) / 3, sorted(waits)[-5:]
    assert await counts(house, tenant_id) == (10_000, 50, 10_000)
    first = await owner.get("/drivers")
    assert first.text.count('data-label="Driver"') == 50 and "Next page" in first.text
    answer = await send(owner, file=b"card\n" + b"x" * csv_import.MAX_BYTES)
    assert answer.status_code == 422 and "larger than 5 MB" in answer.text
    assert (await send(owner, file=b"x" * 16_000_000)).status_code == 413


@pytest.mark.anyio
async def test_what_is_exported_is_imported_again_by_those_who_see_whole_numbers(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    async with house.database.scope(tenant_id, CLI) as scope:
        link = '=HYPERLINK("http://evil.example","x")'
        group = await service.create_driver_group(scope, name="@Fleet;1")
        driver = await service.create_driver(scope, name=link, driver_group_id=group.id)
        await service.create_driver(scope, name="Ohne Karte", email="+x@example.org")
        await service.create_id_token(
            scope, value="04AA11BB22", driver_id=driver.id, label="-1", expires_at=scope.now
        )
        await service.create_id_token(
            scope, value="DE*8AA*C1", type="eMAID", driver_group_id=group.id, status="blocked"
        )
        await service.create_one_off_token(scope)
        await identity.invite_staff(scope, email="op@nordlicht.example", name="Op", role="operator")
    export = await owner.get("/drivers.csv")
    assert export.headers["content-disposition"] == 'attachment; filename="drivers.csv"'
    assert "\"'=HYPERLINK" in export.text and "04AA11BB22" in export.text
    await owner.open("/drivers/import")
    seen = await send(owner, file=export.content)
    assert "Everything in this file is there already." in seen.text, seen.text

    operator = await house.staff("nordlicht", tenant_id, "op@nordlicht.example")
    masked = await operator.get("/drivers.csv")
    assert "04AA11BB22" not in masked.text and "BB22" in masked.text
    await operator.open("/drivers/import")
    refused = await send(operator, file=masked.content)
    assert "This card number is masked." in refused.text and 'name="seen"' not in refused.text
    async with house.database.scope(tenant_id, CLI) as scope:
        query = select(func.count()).where(AuditEntry.action == "id_tokens.exported")
        assert (await scope.db.execute(query)).scalar_one() == 1


@pytest.mark.anyio
async def test_the_other_exports_run_nothing_either(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await stations.create_station(
            scope, identity="CP1", evses=[{"evse_no": 1, "connectors": [{"connector_no": 1}]}]
        )
        driver = await service.create_driver(scope, name='=HYPERLINK("http://evil.example")')
        scope.db.add(ChargingSession(
            id=uuid7(), station_id=made.station.id, driver_id=driver.id, status="ACTIVE", started_at=scope.now,
            origin="local",
            ocpp_transaction_id="1", evse_no=1, connector_no=1,
        ))  # fmt: skip
    assert "\"'=HYPERLINK" in (await owner.get("/charging-sessions.csv")).text


def test_the_order_of_rows_does_not_matter() -> None:
    rows = ["Anna,a@x.org,One,1", "Anna,a@x.org,,2", "Bert,,Two,3", ",a@x.org,,4", "Cem,c@x.org,,", ",,Two,5"]
    ends = set()
    for seed in range(200):
        random.Random(seed).shuffle(rows)
        plan = plan_of("\n".join(["name,email,group,card", *rows]))
        assert not plan.faults
        ends.add((
            tuple(sorted((one.name, one.email, one.group) for one in plan.new_drivers)),
            tuple(sorted((one.value, one.driver.name if one.driver else "", one.group) for one in plan.new_cards)),
        ))  # fmt: skip
    assert len(ends) == 1
