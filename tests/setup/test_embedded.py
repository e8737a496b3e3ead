"""The embedded servers keep their promises to the person whose machine it is."""

import errno
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from app.embedded import CannotStart, EmbeddedServers, find_running
from tests.setup.conftest import Host, Person, ourselves, wait_until_gone

Start = Callable[..., Host]


def modes_of(*folders: Path) -> list[tuple[str, int, int, int]]:
    found = [(path, path.lstat()) for path in folders]
    return [(str(path), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) for path, status in found]


def test_a_killed_parent_leaves_no_orphan_and_the_next_start_works(
    person: Person, place: Path, start_host: Start
) -> None:
    host = start_host(person, place / "data")
    with psycopg.connect(host.url("DATABASE_URL_OWNER_BOOTSTRAP")) as connection:
        connection.execute("create table kept as select 42 as answer")
    host.process.kill()
    assert wait_until_gone(host.pids, 5) == []
    again = start_host(person, place / "data")
    with psycopg.connect(again.url("DATABASE_URL_OWNER_BOOTSTRAP")) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)
    assert again.end() == 0
    assert wait_until_gone(again.pids, 1) == []


def test_twenty_kills_in_a_row_never_wedge_the_folder(
    place: Path, start_host: Start, ordinary_user: Person
) -> None:
    for number in range(1, 21):
        host = start_host(ordinary_user, place / "data")
        with Redis.from_url(host.url("REDIS_URL")) as client:
            client.set(f"round{number}", number)
        host.process.kill()  # the next start meets the servers on their way out
    host = start_host(ordinary_user, place / "data")
    with Redis.from_url(host.url("REDIS_URL")) as client:
        assert client.dbsize() == 20


def test_the_second_start_is_quick(place: Path, start_host: Start, person: Person) -> None:
    start_host(person, place / "data").end()
    started = time.monotonic()
    start_host(person, place / "data")
    assert time.monotonic() - started < 5


def test_no_permission_of_a_folder_of_the_user_changes(
    place: Path, start_host: Start, person: Person
) -> None:
    private, data = place / "private", place / "private" / "data"
    for folder, mode in ((private, 0o700), (data, 0o750)):
        folder.mkdir(mode)
        folder.chmod(mode)
        os.chown(folder, person.uid, -1)
    mine = data / "mine.txt"
    mine.write_text("mine")
    before = modes_of(place, private, data, mine)
    assert start_host(person, data).end() == 0
    assert modes_of(place, private, data, mine) == before


def test_secrets_are_made_once_and_readable_by_their_owner_alone(
    place: Path, start_host: Start, person: Person
) -> None:
    first = start_host(person, place / "data")
    urls = first.facts["urls"]
    first.end()
    status = (place / "data" / "secrets.json").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, person.uid)
    assert start_host(person, place / "data").facts["urls"] == urls


def test_a_wrong_password_opens_nothing(place: Path, start_host: Start, ordinary_user: Person) -> None:
    host = start_host(ordinary_user, place / "data")
    secret = json.loads((place / "data" / "secrets.json").read_text())["postgres"]
    wrong = host.url("DATABASE_URL_OWNER_BOOTSTRAP").replace(secret, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_a_killed_server_comes_back(place: Path, start_host: Start, ordinary_user: Person) -> None:
    host = start_host(ordinary_user, place / "data")
    for number, name in enumerate(("postgres", "valkey")):
        os.kill(host.pids[number], signal.SIGKILL)
        assert host.process.stdout is not None
        assert host.process.stdout.readline().strip() == f"revived {name}"
    with psycopg.connect(host.url("DATABASE_URL_OWNER_BOOTSTRAP")) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    with Redis.from_url(host.url("REDIS_URL")) as client:
        assert client.ping()


def test_a_folder_in_use_is_refused_in_one_sentence(
    place: Path, start_host: Start, ordinary_user: Person
) -> None:
    start_host(ordinary_user, place / "data")
    second = ordinary_user.run("-m", "tests.setup.host", str(place / "data"))
    assert second.returncode == 1
    assert second.stderr.startswith("already_running: Another `livery up` already uses ")
    assert len(second.stderr.splitlines()) == 1


def test_two_folders_are_two_independent_installations(
    place: Path, start_host: Start, ordinary_user: Person
) -> None:
    first, second = (start_host(ordinary_user, place / name) for name in ("first", "second"))
    for number, host in enumerate((first, second)):
        with Redis.from_url(host.url("REDIS_URL")) as client:
            assert client.set("number", number, nx=True)
        with psycopg.connect(host.url("DATABASE_URL_OWNER_BOOTSTRAP")) as connection:
            connection.execute("create table mine ()")
    assert first.end() == 0
    with psycopg.connect(second.url("DATABASE_URL_OWNER_BOOTSTRAP")) as connection:
        assert connection.execute("select count(*) from mine").fetchone() == (0,)


def test_an_unwritable_folder_is_refused_in_one_sentence(place: Path, ordinary_user: Person) -> None:
    place.chmod(0o555)
    os.chown(place, 0 if os.geteuid() == 0 else os.geteuid(), -1)
    refused = ordinary_user.run("-m", "tests.setup.host", str(place / "data"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"cannot_start: The data folder {place / 'data'} cannot be written to")
    assert len(refused.stderr.splitlines()) == 1


def test_a_file_in_place_of_the_folder_is_refused(place: Path) -> None:
    (place / "data").write_text("a file")
    with pytest.raises(CannotStart, match="is a file, not a folder"):
        EmbeddedServers(place / "data", progress=print).start()


def test_a_newer_folder_is_refused_and_left_alone(place: Path) -> None:
    (place / "data").mkdir()
    written = json.dumps({"format": 99, "postgres": "18"})
    (place / "data" / "instance.json").write_text(written)
    with pytest.raises(CannotStart, match="was written by a newer Livery"):
        EmbeddedServers(place / "data", progress=print).start()
    assert (place / "data" / "instance.json").read_text() == written
    assert not (place / "data" / "postgres").exists()


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A real file system that is too small."""
    disk = place / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m,mode=0777", "livery-test", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_before_anything_is_written(small_disk: Path, person: Person) -> None:
    refused = person.run("-m", "tests.setup.host", str(small_disk / "data"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"disk_full: The disk of {small_disk / 'data'} is full: ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_disk_that_fills_up_while_starting_is_named_too(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.ROOM_FIRST_START_BYTES", 0)
    (small_disk / "big").write_bytes(b"\0" * 40_000_000)
    with pytest.raises(CannotStart, match="is full") as refused:
        EmbeddedServers(small_disk / "data", progress=print, fsync=False).start()
    assert os.strerror(errno.ENOSPC) not in str(refused.value)


def test_a_long_path_gets_a_short_private_folder_for_its_sockets(
    place: Path, start_host: Start, person: Person
) -> None:
    host = start_host(person, place / ("long" * 30) / "data")
    sockets = Path(host.url("DATABASE_URL").rpartition("host=")[2])
    assert sockets.parent == Path("/tmp")
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    with psycopg.connect(host.url("DATABASE_URL_OWNER_BOOTSTRAP")) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    host.end()
    sockets.rmdir()


def test_a_folder_somebody_else_made_for_our_sockets_is_refused(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of somebody else")
    (place / "data").mkdir()
    (place / "data" / "run").mkdir()  # root's, while the server's account is nobody
    with pytest.raises(CannotStart, match="not the database server's own folder"):
        EmbeddedServers(place / "data", progress=print).start()


def test_other_commands_find_a_running_instance_and_no_stopped_one(place: Path, start_host: Start) -> None:
    assert find_running(place / "data") is None
    host = start_host(ourselves(), place / "data")
    found = find_running(place / "data")
    assert found is not None
    assert found["DATABASE_URL"] == host.facts["urls"]["DATABASE_URL"]
    assert found["LIVERY_SECRET_KEY"].startswith("1:")
    assert found["LIVERY_WEB_PORT"] == "18123", "what it announced: links carry its port"
    host.process.kill()
    wait_until_gone(host.pids, 5)
    assert find_running(place / "data") is None


@pytest.fixture
def private_packages(place: Path) -> Path:
    """Our packages as root's private checkout holds them: nobody else may walk there."""
    if os.geteuid() != 0:
        pytest.skip("only root's servers run as somebody else")
    private = place / "private"
    private.mkdir(0o700)
    (private / "packages").symlink_to(Path(psycopg.__file__).parent.parent)
    return private / "packages"


def test_a_private_checkout_of_root_is_copied_from_and_not_opened(
    place: Path, private_packages: Path, start_host: Start
) -> None:
    us = ourselves()
    path = {"PYTHONPATH": f"{private_packages}:{us.environment['PYTHONPATH']}"}
    person = Person(us.uid, us.prefix, us.python, us.environment | path)
    (place / "data").mkdir(0o755)
    before = modes_of(private_packages.parent)
    host = start_host(person, place / "data")
    running = Path(f"/proc/{host.pids[0]}/exe").readlink()
    assert running.is_relative_to(place / "data" / "bin")
    host.end()
    copied = running.stat().st_ino
    again = start_host(person, place / "data")
    assert Path(f"/proc/{again.pids[0]}/exe").stat().st_ino == copied, "it is copied once"
    assert modes_of(private_packages.parent) == before


def test_root_with_everything_private_runs_programs_from_the_systems_folder(
    place: Path, private_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.SYSTEM_PROGRAMS", place / "system" / "bin")
    monkeypatch.setattr("app.embedded._package", lambda name: private_packages / name)
    data = private_packages.parent / "data"
    with EmbeddedServers(data, fsync=False, progress=print) as servers:
        running = Path(f"/proc/{servers.pids['postgres']}/exe").readlink()
        assert running.is_relative_to(place / "system" / "bin")
        url = servers.urls["DATABASE_URL_OWNER_BOOTSTRAP"].replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    assert stat.S_IMODE(private_packages.parent.stat().st_mode) == 0o700
