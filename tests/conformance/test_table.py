"""docs/ocpp-cases.md is true: each case has a test that proves it, a clause that excludes it, or is said to be open."""

from tests.conformance.cases import CASES
from tests.conformance.table import DOCUMENT, faults, open_cases, proofs, render


def test_every_case_is_proved_excluded_or_said_to_be_open_and_the_table_is_up_to_date():
    proved = proofs()
    assert faults(proved, open_cases()) == []
    assert not [key for key in open_cases() if proved.get(key)], "run: python -m tests.conformance"
    assert DOCUMENT.read_text() == render(proved), "run: python -m tests.conformance"


def test_a_marker_of_no_case_and_a_case_of_no_test_are_faults():
    key, stranger = next(iter(CASES)), ("1.6", "TC_999_CSMS")
    proved = {stranger: ["tests/x.py::test_y"]}
    found = faults(proved, [one for one in CASES if one != key])
    assert f"tests/x.py::test_y names {stranger}, which is no case" in found
    assert f"{key} has no test, is not excluded and not open" in found
    assert "TC_999_CSMS" not in render(proved)
