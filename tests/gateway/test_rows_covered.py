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
    9: (
        "tests/conformance/test_certificates.py::"
        "test_profile_3_comes_in_by_its_certificate_alone_and_by_nobody_elses",
    ),
    10: (
        "tests/conformance/test_certificates.py::test_the_end_of_a_certificate_is_told_thirty_days_ahead_and_once",
    ),
    11: (
        "tests/conformance/test_security.py::"
        "test_a_new_key_holds_once_the_station_came_with_it_and_until_then_the_old_one_too",
        "tests/conformance/test_security.py::"
        "test_a_station_that_never_comes_back_with_its_key_keeps_the_old_one_and_staff_are_told",
    ),
    58: (
        "tests/conformance/test_firmware.py::test_firmware_comes_from_allowed_hosts_only_and_from_nowhere_inside",
    ),
    59: (
        "tests/conformance/test_logs.py::test_an_upload_is_bounded_belongs_to_its_brand_and_goes_after_a_month",
    ),
    67: (
        "tests/isolation/test_http.py::test_every_route_serves_its_own_and_refuses_everybody_else",
        "tests/isolation/test_http.py::test_an_object_of_the_other_brand_named_in_a_body_is_not_found",
    ),
    68: ("tests/gateway/test_charging.py::test_a_station_key_never_stays_in_the_log",),
    61: ("tests/kernel/test_spreadsheet.py::", "tests/isolation/test_hostile_input.py::"),
}
# Row -> why it is proved with what it belongs to, and not here.
LATER = {
    66: "OCMF signatures: signed readings are kept, and nothing is billed as calibrated",
}
QUIRKS_ELSEWHERE = {
    56: (
        "tests/conformance/test_charging_profiles.py::"
        "test_a_refused_station_maximum_becomes_a_default_where_the_table_says_so",
        "tests/conformance/test_charging_profiles.py::"
        "test_a_station_that_refuses_a_start_with_a_limit_is_given_it_afterwards",
    ),
}


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
    assert set(QUIRKS) - named("quirk") - set(QUIRKS_ELSEWHERE) == set()


def test_no_test_is_named_after_a_row_that_there_is_not():
    assert named("row") <= set(ROWS)
    assert named("quirk") <= set(QUIRKS)


@pytest.mark.parametrize(
    "test", sorted({test for tests in (ELSEWHERE | QUIRKS_ELSEWHERE).values() for test in tests})
)
def test_what_is_proved_elsewhere_is_there(test: str):
    path, _, name = test.partition("::")
    assert name in names_in(path) or (not name and names_in(path))
