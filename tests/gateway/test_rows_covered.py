"""Every row of ocpp.md sections 2 and 3 has a test of that name, or says which test of another name proves it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = (
    "test_rows_2_handshake",
    "test_rows_2_frames",
    "test_rows_2_reports",
    "test_rows_3_link",
    "test_rows_3_reports",
)
ROWS, QUIRKS = range(1, 69), range(1, 60)

# Row -> file::test, where another file proves it.
ELSEWHERE = {
    67: (
        "tests/isolation/test_http.py::test_every_route_serves_its_own_and_refuses_everybody_else",
        "tests/isolation/test_http.py::test_an_object_of_the_other_brand_named_in_a_body_is_not_found",
    ),
    68: ("tests/gateway/test_charging.py::test_a_station_key_never_stays_in_the_log",),
    61: ("tests/kernel/test_spreadsheet.py::", "tests/isolation/test_hostile_input.py::"),
}
# Row -> why it is proved with what it belongs to, and not here.
LATER = {
    9: "client certificates: security profile 3",
    10: "client certificates: security profile 3",
    11: "key rotation with overlap: security profiles 1 and 2",
    58: "firmware addresses: the firmware forms",
    59: "upload addresses: diagnostics and logs",
    66: "OCMF signatures: signed readings are kept, and nothing is billed as calibrated",
}
QUIRKS_LATER = {56: "strategies of charging profiles by model: smart charging"}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")
    )


def named(prefix: str) -> set[int]:
    names = [name for file in HERE for name in names_in(f"tests/gateway/{file}.py")]
    found = [re.match(rf"test_{prefix}((?:_\d+)+)_", name) for name in names]
    return {int(number) for match in found if match for number in match.group(1).split("_")[1:]}


def test_every_row_of_section_2_has_a_test():
    assert set(ROWS) - named("row") - set(ELSEWHERE) - set(LATER) == set()


def test_every_quirk_of_section_3_has_a_test():
    assert set(QUIRKS) - named("quirk") - set(QUIRKS_LATER) == set()


def test_no_test_is_named_after_a_row_that_there_is_not():
    assert named("row") <= set(ROWS)
    assert named("quirk") <= set(QUIRKS)


@pytest.mark.parametrize("test", sorted({test for tests in ELSEWHERE.values() for test in tests}))
def test_what_is_proved_elsewhere_is_there(test: str):
    path, _, name = test.partition("::")
    assert name in names_in(path) or (not name and names_in(path))
