"""Tables that people open in a spreadsheet: every CSV we hand out is written here (pure).

A spreadsheet runs a cell that begins with = + - or @ as a formula, whoever wrote it (CWE-1236), and one that is set to
another separator than ours begins its cells elsewhere. Such a beginning gets an apostrophe in front, which spreadsheets
take as "this is text", also behind every separator and line break; `plain` takes them away again, so that what we wrote
and read back is what it was. Each text stands in quotes. Numbers are written as numbers. Letters that turn the
direction of reading are left out: they would turn the cells beside.
"""

import csv
import io
import re
from collections.abc import Iterable
from datetime import date
from decimal import Decimal

from litestar import Response

from themes.letters import shown

Cell = str | int | Decimal | date | None
# Some spreadsheets skip blanks, and some take the full-width signs for the ordinary ones; where a text is split at a
# separator that is not ours, a quote opens the next cell.
_BEGINNING = r"(?:(?:^|(?<=[,;\t\r\n]))(?={0}[\s'\"]*[=+\-@＝＋－＠])|^(?={0}'*[\t\r\n]))"
_FORMULA = re.compile(_BEGINNING.format(""))
_INERT = re.compile(_BEGINNING.format("'") + "'")


def csv_cell(value: Cell) -> Cell:
    """The value as a cell that no program runs."""
    if isinstance(value, str):
        return _FORMULA.sub("'", value)
    return value.isoformat() if isinstance(value, date) else value


def plain(cell: str) -> str:
    """The text that `csv_cell` made inert, as it was."""
    return _INERT.sub("", cell)


def csv_text(head: Iterable[str], rows: Iterable[Iterable[Cell]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    for row in (head, *rows):
        writer.writerow([csv_cell(shown(value) if isinstance(value, str) else value) for value in row])
    return out.getvalue()


def csv_file(name: str, text: str) -> Response[bytes]:
    """A download. The byte order mark is what makes a spreadsheet read it as UTF-8."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(text.encode("utf-8-sig"), media_type="text/csv", headers=headers)
