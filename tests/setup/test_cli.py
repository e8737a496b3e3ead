"""Exit codes, one clear sentence, data on stdout and talk on stderr."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.setup.conftest import Host, Person, ourselves


@pytest.fixture
def us() -> Person:
    return ourselves()


def livery(person: Person, *arguments: str, **environment: str):  # noqa: ANN201
    told = Person(person.uid, person.prefix, person.python, person.environment | environment)
    return told.run("-m", "app.cli", *arguments)


def test_help_is_told_on_stdout_and_lists_every_command(us: Person) -> None:
    done = livery(us, "--help")
    assert done.returncode == 0
    for name in ("up", "web", "gateway", "worker", "bootstrap", "migrate", "seed", "simulate", "doctor"):
        assert f"\n  {name} " in done.stdout


def test_simulate_lists_ways_of_life_and_faults_with_a_line_each(us: Person) -> None:
    done = livery(us, "simulate", "--list-scenarios")
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert {"charge", "offline", "broken-json", "boot-loop"} <= set(told)


def test_wrong_usage_is_exit_code_2(us: Person) -> None:
    for arguments in (["nonsense"], ["up", "--web-port", "70000"], ["up", "--nonsense"], ["seed"]):
        done = livery(us, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "Error: " in done.stderr


def test_a_wrong_configuration_lists_all_its_faults_at_once(us: Person) -> None:
    done = livery(us, "up", LIVERY_WEB_PORT="abc", LIVERY_ENV="moon", LIVERY_SECRET_KEY="short")
    assert done.returncode == 1
    for name in ("LIVERY_WEB_PORT", "LIVERY_ENV", "LIVERY_SECRET_KEY"):
        assert f"\n  {name}: " in done.stderr


def test_production_refuses_to_start_half_configured(us: Person) -> None:
    done = livery(us, "up", LIVERY_ENV="production")
    assert done.returncode == 1
    assert "SMTP_URL" in done.stderr and "DATABASE_URL" in done.stderr


def test_one_external_server_without_the_other_is_refused(us: Person, place: Path) -> None:
    done = livery(us, "up", "--data-dir", str(place / "data"), REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "DATABASE_URL: is missing" in done.stderr
    assert not (place / "data").exists()


@pytest.mark.parametrize("flag", ["--web-port", "--ocpp-port"])
def test_a_taken_port_is_refused_before_anything_starts(us: Person, place: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        flags = {"--web-port": str(other), "--ocpp-port": str(other)} | {flag: str(port)}
        done = livery(
            us, "up", "--data-dir", str(place / "data"), *(word for pair in flags.items() for word in pair)
        )
    assert done.returncode == 1
    assert (
        done.stderr == f"error: Port {port} on 127.0.0.1 is taken; choose another with {flag}. (port_taken)\n"
    )
    assert not (place / "data").exists()


def test_a_command_without_a_database_says_how_to_get_one(us: Person, place: Path) -> None:
    done = livery(us, "migrate", "--json", "--data-dir", str(place / "data"))
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "no_database"
    assert str(place / "data") in error["message"]


def test_the_data_folder_of_somebody_else_is_refused_in_one_sentence(
    us: Person, place: Path, ordinary_user: Person, start_host: Callable[..., Host]
) -> None:
    if us.uid == ordinary_user.uid:
        pytest.skip("there is nobody else here")
    start_host(us, place / "data")
    done = livery(ordinary_user, "migrate", "--data-dir", str(place / "data"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Permission denied" in done.stderr


def test_secrets_may_come_from_files(us: Person, place: Path) -> None:
    missing = place / "missing"
    done = livery(us, "migrate", DATABASE_URL_FILE=str(missing))
    assert done.returncode == 1
    assert "DATABASE_URL_FILE: cannot be read" in done.stderr


def test_a_database_that_is_away_is_one_sentence(us: Person) -> None:
    away = "postgresql+psycopg://migrate:x@127.0.0.1:1/livery"
    done = livery(us, "migrate", DATABASE_URL=away, DATABASE_URL_MIGRATE=away)
    assert done.returncode == 1
    assert done.stderr.startswith("error: The database does not answer: ")
    assert len(done.stderr.splitlines()) == 1
