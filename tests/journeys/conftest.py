from collections.abc import Iterator

import pytest

from tests.journeys.house import House


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One installation per module, without a demo: the tests bring their own brands."""
    made = House()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A journey that fails tells what its house said, and what it still had to do."""
    report = yield
    made = getattr(item, "funcargs", {}).get("house")
    if report.when == "call" and report.failed and isinstance(made, House):
        report.sections.append(("what the house said", made.logs() + made.unfinished()))
    return report
