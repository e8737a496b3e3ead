"""The REST description is a golden file: outsiders generate clients from it, so every change of it is seen in review.

After a change that is meant: `python -m tests.surfaces.test_openapi`.
"""

import json
from pathlib import Path

from app.surfaces.api import schema

GOLDEN = Path(__file__).parent / "openapi.json"


def written() -> str:
    return json.dumps(schema(), indent=1, sort_keys=True, default=str) + "\n"


def test_the_rest_description_is_what_was_promised():
    assert written() == GOLDEN.read_text(), (
        "the REST description changed: python -m tests.surfaces.test_openapi"
    )


def test_every_call_says_what_it_does_and_refuses_nothing_silently():
    operations = [
        (path, method, operation)
        for path, item in schema()["paths"].items()
        for method, operation in item.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]
    assert len(operations) >= 30
    unsaid = [
        (path, method) for path, method, one in operations if not one.get("summary") or not one.get("tags")
    ]
    assert not unsaid
    assert len({one["operationId"] for _, _, one in operations}) == len(operations)


if __name__ == "__main__":
    GOLDEN.write_text(written())
