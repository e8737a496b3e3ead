"""Tables that people open in a spreadsheet: every CSV we hand out is written here (pure).

A spreadsheet runs a cell that begins with = + - or @ as a formula, whoever wrote it (CWE-1236). Such a text gets an
apostrophe in front, which spreadsheets take as "this is text"; `plain` takes it away again, so that what we wrote
and read back is what it was. Numbers are written as numbers. Letters that turn the direction of reading are left out:
they would turn the cells beside.
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
# Some spreadsheets skip blanks, and some take the full-width signs for the ordinary ones.
_FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")


def csv_cell(value: Cell) -> str:
    """The value as a cell that no program runs."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    return "'" + value if _FORMULA.match(value) else value


def plain(cell: str) -> str:
    """The text that `csv_cell` made inert, as it was."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_text(head: Iterable[str], rows: Iterable[Iterable[Cell]], *, separator: str = ",") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    for row in (head, *rows):
        writer.writerow([csv_cell(shown(value) if isinstance(value, str) else value) for value in row])
    return out.getvalue()


def csv_file(name: str, text: str) -> Response[bytes]:
    """A download. The byte order mark is what makes a spreadsheet read it as UTF-8."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(text.encode("utf-8-sig"), media_type="text/csv", headers=headers)
