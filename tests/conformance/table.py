"""Which test proves which conformance case: read off the markers, written to docs/ocpp-cases.md.

A case is proved by a test that is marked with it and not skipped. What is neither proved nor excluded stands in
`open_cases.txt`, one `version name` a line; a case that a test proves leaves that list when the table is written.
"""

import importlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from types import ModuleType
from typing import Any

from tests.conformance.cases import CASES, Case
from tests.conformance.exclusions import EXCLUDED, EXCLUSIONS
from tests.conftest import ROOT

Key = tuple[str, str]
DOCUMENT = ROOT / "docs" / "ocpp-cases.md"
OPEN = ROOT / "tests" / "conformance" / "open_cases.txt"
SIGNS = ("ocpp_case", "tests.conformance")  # a test file that marks cases names one of them

HEAD = """# OCPP conformance cases

Each case that the Open Charge Alliance's certification has for a CSMS, and the test that proves it here: a station of
the `ocpp` package or raw frames before the real gateway, with staff who act by REST, portal or the verb behind both.
The words are ours. Written by `python -m tests.conformance`; a test fails when it is out of date.
"""


def proofs() -> dict[Key, list[str]]:
    """`file::test` of every test that proves a case."""
    found: dict[Key, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if not any(sign in path.read_text() for sign in SIGNS):
            continue
        where = path.relative_to(ROOT)
        module = importlib.import_module(".".join(where.with_suffix("").parts))
        for name, marks in _tests(module):
            if {mark.name for mark in marks} & {"skip", "xfail"}:
                continue
            for mark in marks:
                if mark.name == "ocpp_case" and f"{where}::{name}" not in found[mark.args]:
                    found[mark.args].append(f"{where}::{name}")
    return found


def _tests(module: ModuleType) -> Iterator[tuple[str, list[Any]]]:
    own = [
        (name, value)
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
    ]
    for name, value in own:
        if name.startswith("test"):
            yield name, list(getattr(value, "pytestmark", []))
        elif name.startswith("Test"):
            for inner, method in vars(value).items():
                if inner.startswith("test"):
                    marks = [*getattr(value, "pytestmark", []), *getattr(method, "pytestmark", [])]
                    yield f"{name}::{inner}", marks


def open_cases() -> list[Key]:
    lines = [line.split() for line in OPEN.read_text().splitlines() if line.strip()]
    return [(version, name) for version, name in lines]


def faults(proved: dict[Key, list[str]], still_open: list[Key]) -> list[str]:
    """What is wrong with markers and lists, in sentences."""
    found = [
        f"{test} names {key}, which is no case" for key in proved if key not in CASES for test in proved[key]
    ]
    found += [f"{key} is excluded, and {proved[key][0]} proves it" for key in EXCLUDED if proved.get(key)]
    found += [f"{key} is open, and is no case" for key in still_open if key not in CASES]
    found += [f"{key} is excluded, and is no case" for key in EXCLUDED if key not in CASES]
    known = {*EXCLUDED, *still_open, *(key for key, tests in proved.items() if tests)}
    return found + [f"{key} has no test, is not excluded and not open" for key in CASES if key not in known]


def render(proved: dict[Key, list[str]]) -> str:
    parts = [HEAD, "## In figures\n", *_figures(proved)]
    for (version, block), cases in groupby(CASES.values(), key=lambda one: (one.version, one.block)):
        parts += [f"\n## {version} · {block}\n", "| Case | What | Proved by |", "|---|---|---|"]
        parts += [_line(case, proved) for case in cases]
    parts += ["\n## Excluded\n"]
    for one in EXCLUSIONS:
        names = ", ".join(f"`{name}`" for name in one.names)
        parts.append(f"- {one.version}: {names}. {one.reason} The clause: “{one.clause}”")
    return "\n".join(parts) + "\n"


def _figures(proved: dict[Key, list[str]]) -> list[str]:
    lines = ["| Version | Cases | Proved | Excluded | Not proved yet |", "|---|---|---|---|---|"]
    for version in sorted({version for version, _ in CASES}):
        keys = [key for key in CASES if key[0] == version]
        done = [key for key in keys if proved.get(key)]
        out = [key for key in keys if key in EXCLUDED and key not in done]
        rest = len(keys) - len(done) - len(out)
        lines.append(f"| {version} | {len(keys)} | {len(done)} | {len(out)} | {rest} |")
    return lines


def _line(case: Case, proved: dict[Key, list[str]]) -> str:
    key = (case.version, case.name)
    tests = "<br>".join(f"`{test}`" for test in proved.get(key, []))
    return (
        f"| {case.name} | {case.words} | {tests or ('excluded' if key in EXCLUDED else 'not proved yet')} |"
    )


def write() -> list[str]:
    """Table and list anew; what is still wrong."""
    proved = proofs()
    still_open = [key for key in open_cases() if not proved.get(key)]
    OPEN.write_text("".join(f"{version} {name}\n" for version, name in still_open))
    DOCUMENT.write_text(render(proved))
    return faults(proved, still_open)
