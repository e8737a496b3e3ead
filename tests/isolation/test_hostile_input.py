"""Nothing that somebody types is a 500: every route, every field there is, every value that once broke a program."""

import re

import pytest

from app.kernel.slices import template_folders
from tests.conftest import Proof
from tests.isolation.routes import Proving, Route, routes_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
VALUES = (
    "\0", "a\0b", "", " ", "-1", "0", "9" * 30, "9" * 400, "1e400", "NaN", "Infinity", "-0.0000001",
    "'; drop table x; --",
    "<script>alert(1)</script>", "{{ 7*7 }}", "\u202egnp.exe", "\U0001f4a9" * 3, "0000-00-00", "2026-13",
    "9999-12-31",     "0001-01-01T00:00", "25:61", "../../etc/passwd",
    "%s%n", "[", "{", "null", "true", "x" * 1500, "a,b;c\r\nd", "\u2028",
)  # fmt: skip
QUERY = ("after", "limit", "q", "month", "kind", "status", "state", "since", "until", "location", "station", "action",
         "direction", "errors", "follow", "raw", "start", "energy_kwh", "charging_min", "parking_min", "next",
         "driver_id", "value", "text", "from", "to")  # fmt: skip


def fields() -> list[str]:
    """Every name that a form of ours has."""
    found: set[str] = set()
    for folder in template_folders().values():
        for path in folder.rglob("*.html"):
            text = path.read_text()
            found |= set(re.findall(r'name="([a-z_]+)"', text))
            found |= set(re.findall(r'(?:field|select|textarea|checkbox|entry)\("([a-z_]+)"', text))
    return sorted(found - {"_csrf"})


def is_tried(route: Route) -> bool:
    return route.surface != "start" and not (route.surface == "console" and route.changes)


async def answers(proving: Proving, route: Route, value: str) -> tuple[int, str]:
    """The route's answer to that value in every place it could stand in."""
    visitor = proving.keys["all"] if route.surface == "api" else proving.staff["owner"]
    if route.surface == "console":
        visitor = proving.admin
    elif route.surface == "driver":
        visitor = proving.house.driver(proving.a.slug)
    path = route.at(proving.a.ids)
    options: dict[str, object] = {"params": dict.fromkeys(QUERY, value)}
    if route.changes and route.surface == "api":
        options["json"] = dict.fromkeys((*fields(), "tariff", "session", "evses", "assign", "payload"), value)
    elif route.changes:
        options["data"] = {"_csrf": visitor.csrf} | dict.fromkeys(fields(), value)
    answer = await proving.send(visitor, route.method, path, {"headers": {}, **options})
    return answer.status, answer.body


@pytest.mark.proof
async def test_no_value_in_any_field_of_any_route_is_a_500(proving: Proving, proof: Proof) -> None:
    assert {"identity", "energy_price", "reason", "email"} <= set(fields())
    # Logging out and the logins of others would change who asks; the console's forms write for good.
    left_out = {"/logout", "/login", "/login/{token}"}
    routes = [route for route in routes_of(proving.house) if route.path not in left_out and is_tried(route)]
    everything = [(route, value) for route in routes for value in VALUES]
    chosen = proof.random("hostile-input").sample(everything, proof.share(len(everything)))
    wrong = []
    for route, value in chosen:
        status, body = await answers(proving, route, value)
        if status >= 500:
            wrong.append(f"{route} with {value[:30]!r}: {status} {body[:100]}")
    proof.write("hostile-input", {
        "requests": len(chosen), "of": len(everything), "routes": len(routes), "values": len(VALUES),
        "places": len(QUERY) + len(fields()), "answered_500": len(wrong),
    })  # fmt: skip
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", ["\0", "%00", "..%2f..", "%ff", "a" * 3000, "%F0%9F%92%A9"])
async def test_no_id_in_any_path_is_a_500(proving: Proving, part: str) -> None:
    for route in routes_of(proving.house):
        if route.parameters and route.surface in ("portal", "api", "driver"):
            path = re.sub(r"\{\w+\}", part.replace("\0", "%00"), route.path)
            visitor = proving.keys["all"] if route.surface == "api" else proving.staff["owner"]
            if route.surface == "driver":
                visitor = proving.house.driver(proving.a.slug)
            body = {"data": {"_csrf": visitor.csrf}} if route.surface == "portal" and route.changes else {}
            answer = await proving.send(visitor, route.method, path, {"headers": {}, **body})
            assert answer.status < 500, f"{route} {part!r}: {answer.status}"
