"""What an operator does from the command line, on a real database."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.embedded import EmbeddedServers
from tests.conftest import Databases, settings_environment
from tests.setup.conftest import Person, ourselves

BRAND = {"slug": "nordlicht", "name": "Nordlicht", "country": "DE", "currency": "EUR", "time-zone": "Europe/Berlin",
         "admin-email": "anke@nordlicht.example"}  # fmt: skip


class Livery:
    """Runs one command; `told` is its JSON answer, `refused` its JSON error."""

    def __init__(self, environment: dict[str, str]) -> None:
        us = ourselves()
        self._person = Person(us.uid, us.prefix, us.python, us.environment | environment)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        done = self._person.run("-m", "app.cli", *arguments)
        return done.returncode, done.stdout, done.stderr

    def told(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def refused(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.run(*arguments, "--json")
        assert code and not out, (out, err)
        return code, json.loads(err)["error"]

    def create_tenant(self, **changes: str) -> tuple[str, ...]:
        return (
            "tenant",
            "create",
            *(word for name, value in (BRAND | changes).items() for word in (f"--{name}", value)),
        )


@pytest.fixture(scope="module")
def livery(databases: Databases, servers: EmbeddedServers) -> Iterator[Livery]:
    with databases.copy() as urls:
        yield Livery(settings_environment(urls, servers.urls["REDIS_URL"]))


@pytest.fixture(scope="module")
def brand(livery: Livery) -> dict[str, Any]:
    return livery.told(*livery.create_tenant())


def test_a_platform_admin_gets_a_login_link(livery: Livery) -> None:
    told = livery.told("admin", "create", "--email", "ada@platform.example")
    assert re.fullmatch(r"http://console\.localhost:8000/login/[\w-]{40,}", told["login_link"])
    code, out, err = livery.run("admin", "create", "--email", "ada@platform.example")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"http://console\.localhost:8000/login/[\w-]{40,}\n", out)


def test_a_wrong_flag_is_named_and_is_wrong_usage(livery: Livery) -> None:
    code, error = livery.refused("admin", "create", "--email", "not an address")
    assert code == 2
    assert [fault["field"] for fault in error["faults"]] == ["email"]


def test_a_tenant_is_created_with_its_first_owner(livery: Livery, brand: dict[str, Any]) -> None:
    assert brand["slug"] == "nordlicht"
    assert brand["id"].startswith("ten_")
    assert re.fullmatch(r"http://portal-nordlicht\.localhost:8000/login/[\w-]{40,}", brand["login_link"])


def test_a_slug_is_taken_once_and_some_are_reserved(livery: Livery, brand: dict[str, Any]) -> None:
    assert livery.refused(*livery.create_tenant())[1]["code"] == "slug_taken"
    for slug in ("console", "portal-nordlicht"):
        code, error = livery.refused(*livery.create_tenant(slug=slug))
        assert (code, error["code"]) == (1, "slug_reserved")


@pytest.mark.parametrize(
    ("flag", "value", "field"),
    [
        ("slug", "No Good", "slug"),
        ("country", "Germany", "country"),
        ("currency", "MARK", "currency"),
        ("time-zone", "Mars/Olympus", "time_zone"),
        ("admin-email", "nobody", "admin_email"),
        ("name", " ", "name"),
    ],
)
def test_a_wrong_field_of_a_tenant_is_named_and_nothing_is_written(
    livery: Livery, flag: str, value: str, field: str
) -> None:
    before = livery.told("tenant", "list")
    code, error = livery.refused(*livery.create_tenant(**{"slug": "halfway", flag: value}))
    assert code == 2
    assert [fault["field"] for fault in error["faults"]] == [field]
    assert livery.told("tenant", "list") == before


def test_a_tenant_is_suspended_and_resumed(livery: Livery, brand: dict[str, Any]) -> None:
    def status() -> str:
        return next(
            row["status"] for row in livery.told("tenant", "list")["data"] if row["slug"] == "nordlicht"
        )

    livery.told("tenant", "suspend", "nordlicht")
    assert status() == "suspended"
    livery.told("tenant", "resume", "nordlicht")
    assert status() == "active"
    code, error = livery.refused("tenant", "suspend", "nobody-here")
    assert (code, error["code"]) == (1, "not_found")


def test_an_api_key_is_told_once(livery: Livery, brand: dict[str, Any]) -> None:
    told = livery.told("api-key", "create", "--tenant", "nordlicht", "--scope", "all")
    code, out, err = livery.run("api-key", "create", "--tenant", "nordlicht", "--scope", "all")
    assert (code, err) == (0, "")
    assert out.strip() != told["key"]
    assert out.strip()[:4] == told["key"][:4] == "lvk_"


def test_an_unknown_scope_and_an_unknown_tenant_are_refused(livery: Livery, brand: dict[str, Any]) -> None:
    code, error = livery.refused("api-key", "create", "--tenant", "nordlicht", "--scope", "everything")
    assert (code, [fault["field"] for fault in error["faults"]]) == (2, ["scopes"])
    code, error = livery.refused("api-key", "create", "--tenant", "nobody-here", "--scope", "all")
    assert (code, error["code"]) == (1, "unknown_tenant")


def test_a_station_gets_its_address_and_its_password(livery: Livery, brand: dict[str, Any]) -> None:
    told = livery.told("station", "create", "--tenant", "nordlicht", "--identity", "CP1")
    assert told["ocpp_url"] == "ws://localhost:9000/nordlicht/CP1"
    assert re.fullmatch(r"[0-9a-f]{40}", told["password"])
    assert told["id"].startswith("sta_")
    code, error = livery.refused("station", "create", "--tenant", "nordlicht", "--identity", "CP1")
    assert (code, error["code"]) == (1, "identity_taken")
