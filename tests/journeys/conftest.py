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
