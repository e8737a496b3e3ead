"""Nobody reaches another brand over HTTP: every route x every wrong visitor, and every check taken away once."""

from collections import Counter

import pytest

from tests.conftest import Proof
from tests.isolation.routes import Proving, routes_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1200)]


async def test_every_route_serves_its_own_and_refuses_everybody_else(proving: Proving) -> None:
    routes = routes_of(proving.house)
    faults = [fault for route in routes for fault in await proving.notices(route)]
    print(f"\nisolation over HTTP: {len(routes)} routes, {proving.requests} requests, {len(faults)} leaks")
    assert not faults, "\n".join(faults)
    assert proving.requests > 8 * len(routes)


async def test_an_object_of_the_other_brand_named_in_a_body_is_not_found(proving: Proving) -> None:
    """Ids in forms and JSON lead nowhere else than ids in paths do: the answer names a field, or finds nothing."""
    names = {name: proving.b.ids[name] for name in ("location_id", "driver_id", "driver_group_id", "evse_id")}
    key = proving.keys["all"]
    bodies = [
        ("/api/v1/stations", {"identity": "NEW", "location_id": names["location_id"]}),
        ("/api/v1/id-tokens", {"value": "NEW", "driver_id": names["driver_id"]}),
        ("/api/v1/id-tokens", {"value": "NEW", "group_id": names["driver_group_id"]}),
        ("/api/v1/charging-sessions", {"evse_id": names["evse_id"]}),
        *(
            ("/api/v1/tariffs", {"assign": {name: names[name]}, "tariff": {"currency": "EUR", "elements": [
                {"price_components": [{"type": "FLAT", "price": "1", "step_size": 1}]}]}})
            for name in ("location_id", "evse_id", "driver_group_id")
        ),
    ]  # fmt: skip
    for path, body in bodies:
        answer = await key.send("POST", path, json=body)
        assert answer.status_code in (404, 422), (path, body, answer.text)
        assert proving.b.canary not in answer.text
    owner = proving.staff["owner"]
    forms = [
        (
            "/stations",
            {"identity": "NEW", "plate": "ac22", "evse_count": "1", "security_profile": "1", **names},
        ),
        ("/id-tokens", {"value": "NEW", "type": "ISO14443", "driver_id": names["driver_id"]}),
        ("/drivers", {"name": "New", "driver_group_id": names["driver_group_id"]}),
        ("/driver-groups", {"name": "New", "collection": "free", "location_id": names["location_id"]}),
        ("/tariffs", {"name": "New", "energy_price": "1", "assign": f"location:{names['location_id']}"}),
    ]
    for path, form in forms:
        answer = await owner.post(path, form)
        assert answer.status_code in (404, 422), (path, answer.status_code, answer.headers)
        assert proving.b.canary not in answer.text


async def test_lists_and_streams_show_ones_own_canary_so_that_no_silence_is_mistaken_for_safety(
    proving: Proving,
) -> None:
    """The positive control: the canary that must never cross is really there to be seen at home."""
    seen = [
        path
        for path in ("/", "/stations", "/locations", "/charging-sessions", "/id-tokens", "/drivers", "/driver-groups",
                     "/tariffs", "/invoices", "/team", "/settings", "/domains", "/stations/live",
                     "/charging-sessions/live")
        if proving.a.canary in await _body(proving, path)
    ]  # fmt: skip
    assert len(seen) == 14, seen


async def _body(proving: Proving, path: str) -> str:
    route = next(
        r for r in routes_of(proving.house) if (r.surface, r.method, r.path) == ("portal", "GET", path)
    )
    return (await proving.ask(proving.staff["owner"], route, path)).body


@pytest.mark.proof
async def test_every_check_taken_from_every_route_is_noticed(proving: Proving, proof: Proof) -> None:
    everything = [(route, name) for route in routes_of(proving.house) for name in proving.mutants(route)]
    chosen = proof.random("http-mutants").sample(everything, proof.share(len(everything)))
    survivors, kinds = [], Counter[str]()
    for route, name in chosen:
        kinds[name] += 1
        with proving.without(route, name):
            if not await proving.notices(route):
                survivors.append(f"{route} without {name}")
    proving.canaries.clear()
    proof.write("isolation-http", {
        "routes": len(routes_of(proving.house)), "mutants": len(chosen), "of": len(everything), "kinds": dict(kinds),
        "survivors": len(survivors), "requests": proving.requests,
    })  # fmt: skip
    assert not survivors, survivors
