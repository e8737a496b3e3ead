"""`livery doctor` says what is wrong, and its exit code tells."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Databases, DatabaseUrls, settings_environment
from tests.setup.conftest import Person, ourselves


class Examination:
    """Runs the doctor on one environment; ports are free ones, so that nothing else on the machine matters."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment | {
            "LIVERY_WEB_PORT": str(free_port()),
            "LIVERY_OCPP_PORT": str(free_port()),
        }

    def run(self, *arguments: str, **changes: str) -> tuple[int, str, str]:
        us = ourselves()
        environment = {name: value for name, value in (self.environment | changes).items() if value}
        done = Person(us.uid, us.prefix, us.python, us.environment | environment).run(
            "-m", "app.cli", "doctor", *arguments
        )
        return done.returncode, done.stdout, done.stderr

    def findings(self, **changes: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.run("--json", **changes)
        assert out, err
        return code, {finding["name"]: finding for finding in json.loads(out)["findings"]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def doctor(database_urls: DatabaseUrls, redis_url: str) -> Examination:
    return Examination(settings_environment(database_urls, redis_url))


def only_fault(findings: dict[str, Any], name: str) -> str:
    assert [finding["name"] for finding in findings.values() if not finding["well"]] == [name]
    return findings[name]["detail"]


def test_a_fit_installation_passes(doctor: Examination) -> None:
    code, findings = doctor.findings()
    assert code == 0
    assert all(finding["well"] for finding in findings.values())
    wanted = {
        "configuration",
        "keys",
        "database",
        "roles",
        "isolation",
        "migrations",
        "redis",
        "web port",
        "ocpp port",
    }
    assert wanted <= findings.keys()


def test_a_person_reads_one_line_per_finding(doctor: Examination) -> None:
    code, out, err = doctor.run(REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, err) == (1, "")
    assert "ok    roles: row-level security binds them" in out
    assert "FAIL  redis: does not answer" in out


def test_a_superuser_is_not_fit_to_serve(doctor: Examination, database_urls: DatabaseUrls) -> None:
    code, findings = doctor.findings(DATABASE_URL=database_urls.superuser)
    assert code == 1
    assert "is a superuser and would bypass row-level security" in findings["roles"]["detail"]
    assert {finding["name"] for finding in findings.values() if not finding["well"]} == {"roles", "isolation"}


@pytest.fixture
def a_role_that_bypasses(database_urls: DatabaseUrls) -> Iterator[None]:
    with psycopg.connect(database_urls.superuser.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("alter role app_rw bypassrls")
        yield
        connection.execute("alter role app_rw nobypassrls")


def test_a_role_that_could_bypass_row_level_security_fails(
    doctor: Examination, a_role_that_bypasses: None
) -> None:
    code, findings = doctor.findings()
    assert code == 1
    assert "has BYPASSRLS" in findings["roles"]["detail"]
    assert "role could bypass row-level security: app_rw" in findings["isolation"]["detail"]


def test_a_policy_that_somebody_dropped_by_hand_fails(
    doctor: Examination, database_urls: DatabaseUrls
) -> None:
    with psycopg.connect(database_urls.superuser.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("drop policy tenant on livery.location")
    code, findings = doctor.findings()
    assert code == 1
    assert only_fault(findings, "isolation").startswith("policies are not the two: location")


def test_an_empty_database_wants_its_migrations(
    doctor: Examination, databases: Databases, database_urls: DatabaseUrls
) -> None:
    with psycopg.connect(database_urls.superuser.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("create database empty_one owner owner")
    try:
        code, findings = doctor.findings(DATABASE_URL=databases.urls("empty_one").app)
        assert code == 1
        assert "run `livery migrate`" in findings["migrations"]["detail"]
    finally:
        databases.drop("empty_one")


def test_a_database_that_is_away_is_a_finding(doctor: Examination) -> None:
    code, findings = doctor.findings(DATABASE_URL="postgresql+psycopg://app_rw:x@127.0.0.1:1/livery")
    assert code == 1
    assert findings["database"]["detail"].startswith("the database cannot be asked: ")


def test_without_a_key_nothing_secret_can_be_stored(doctor: Examination) -> None:
    code, findings = doctor.findings(LIVERY_SECRET_KEY="")
    assert code == 1
    assert "LIVERY_SECRET_KEY is not set" in only_fault(findings, "keys")


def test_a_port_of_somebody_else_is_named(doctor: Examination) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        answering = threading.Thread(target=_greet, args=(stranger,), daemon=True)
        answering.start()
        port = stranger.getsockname()[1]
        code, findings = doctor.findings(LIVERY_WEB_PORT=str(port))
    assert code == 1
    assert only_fault(findings, "web port") == f"{port} is taken by something that is not Livery"


def _greet(stranger: socket.socket) -> None:
    connection, _ = stranger.accept()
    connection.sendall(b"220 smtp.example ready\r\n")
    connection.close()
