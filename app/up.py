"""`livery up`: databases, migrations, every process and, with the demo, its stations; in one terminal."""

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from app.embedded import CannotStart, EmbeddedServers
from app.kernel.errors import ConfigurationFault, FieldFault
from app.kernel.settings import Settings, load_settings
from app.supervisor import Child, ChildFailed, StopRequested, Supervisor, dies_with_parent

READY_TIMEOUT_S = 120
Say = Callable[[str], None]


def run_up(settings: Settings, say: Say, announce: Say) -> None:
    """`say` is talk (progress); `announce` is what was asked for: addresses, logins and the `ready` line."""
    started = time.monotonic()
    _refuse_half_external(settings)
    _refuse_taken_ports(settings)
    servers = None
    if not settings.database_url:
        servers = EmbeddedServers(settings.data_dir, progress=say, bootstrap=_bootstrap)
    supervisor = Supervisor(say)
    try:
        if servers is not None:
            servers.start()
        house = _House(settings, servers)
        house.migrate(say)
        house.start(supervisor, say)
        for line in house.addresses():
            announce(line)
        announce(f"ready in {time.monotonic() - started:.1f} s; Ctrl-C stops everything")
        supervisor.watch(lambda: _revive(servers, say))
    except StopRequested:
        say("stopping")
    finally:
        supervisor.stop()
        if servers is not None:
            servers.stop()
    say("stopped")


class _House:
    """The environment that each process gets: only the database doors it needs."""

    def __init__(self, settings: Settings, servers: EmbeddedServers | None) -> None:
        self._servers = servers
        self._logs = _folder_for_logs(settings.data_dir)
        found = _of_servers(servers) if servers is not None else {}
        self._env = os.environ | found | _chosen(settings)
        self.settings = load_settings(self._env)
        self._health = {name: _free_port(settings.host) for name in ("worker", "gateway")}
        if servers is not None:
            servers.announce(**_chosen(settings))

    def migrate(self, say: Say) -> None:
        from migrations.run import upgrade

        if self.settings.database_url_migrate:
            upgrade(self.settings.database_url_migrate, say)

    def start(self, supervisor: Supervisor, say: Say) -> None:
        settings, base = self.settings, f"http://{_reachable(self.settings.host)}"
        doors = ("DATABASE_URL", "REDIS_URL")
        say("starting web, worker and gateway")
        for name, more, port in (
            ("web", ("DATABASE_URL_PLATFORM",), settings.web_port),
            ("worker", ("DATABASE_URL_PLATFORM", "DATABASE_URL_QUEUE"), self._health["worker"]),
            ("gateway", (), self._health["gateway"]),
        ):
            supervisor.start(self._child(name, [name], (*doors, *more), ready_url=f"{base}:{port}/readyz"))
        if settings.demo:
            self._plant(say, (*doors, "DATABASE_URL_PLATFORM"))
        supervisor.wait_until_ready(READY_TIMEOUT_S)
        if settings.demo:
            supervisor.start(self._child("simulate", ["simulate", "--demo"], ()))
            self._remember(supervisor, (*doors, "DATABASE_URL_PLATFORM"))

    def _plant(self, say: Say, doors: tuple[str, ...]) -> None:
        """Once per embedded data folder: asking again would cost each start a process."""
        planted = self.settings.data_dir / "demo-planted"
        if self._servers is not None and planted.exists():
            return
        say("planting the demo")
        self._once(["seed", "--demo", "--part", "brands"], doors)
        if self._servers is not None:
            planted.touch()

    def _remember(self, supervisor: Supervisor, doors: tuple[str, ...]) -> None:
        """The month behind the demo, while it is running already: nobody waits for the past."""
        planted = self.settings.data_dir / "demo-remembered"
        if self._servers is None or not planted.exists():
            child = self._child("history", ["seed", "--demo", "--part", "history"], doors)
            child.is_errand = True
            supervisor.start(child)

    def addresses(self) -> list[str]:
        settings = self.settings
        stations = settings.ocpp_url_of("BRAND", "IDENTITY")
        lines = [
            _address("console", settings.url_of(settings.host_of("console"))),
            _address("stations", stations),
            _address("data", str(settings.data_dir)),
        ]
        return [*(_demo_addresses(settings) if settings.demo else ()), *lines]

    def _child(
        self, name: str, arguments: list[str], doors: tuple[str, ...], *, ready_url: str | None = None
    ) -> Child:
        env = self._environment(name, doors)
        return Child(name, _command(arguments), env, ready_url=ready_url, log=self._logs / f"{name}.log")

    def _once(self, arguments: list[str], doors: tuple[str, ...]) -> None:
        done = subprocess.run(
            _command(arguments), env=self._environment(arguments[0], doors), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            preexec_fn=dies_with_parent(),
        )  # fmt: skip
        if done.returncode:
            raise ChildFailed(message=f"livery {' '.join(arguments)} failed: {done.stdout.strip()[-2000:]}")

    def _environment(self, name: str, doors: tuple[str, ...]) -> Mapping[str, str]:
        guarded = ("DATABASE_URL", "REDIS_URL")
        env = {
            key: text
            for key, text in self._env.items()
            if not key.startswith(guarded) or key.removesuffix("_FILE") in doors
        }
        if name in self._health:
            env["LIVERY_HEALTH_PORT"] = env["LIVERY_WORKER_HEALTH_PORT"] = str(self._health[name])
        return env


def _address(what: str, where: str) -> str:
    return f"  {what:<20} {where}"


def _demo_addresses(settings: Settings) -> list[str]:
    """The start page, then each company with the people who may log in."""
    from app.demo.cast import COMPANIES

    lines = [_address("start here", settings.url_of(settings.platform_domain))]
    for company in COMPANIES:
        lines.append(
            _address(f"{company.slug} portal", settings.url_of(settings.host_of("portal", company.slug)))
        )
        lines += [_address("", f"{person.email} ({person.role})") for person in company.people]
        drivers = settings.url_of(settings.host_of("driver", company.slug))
        lines.append(_address(f"{company.slug} drivers", drivers))
    return lines


def _bootstrap(superuser_url: str, passwords: dict[str, str]) -> None:
    from migrations.bootstrap import bootstrap

    bootstrap(superuser_url, passwords)


def _of_servers(servers: EmbeddedServers) -> dict[str, str]:
    found = {name: url for name, url in servers.urls.items() if name != "DATABASE_URL_OWNER_BOOTSTRAP"}
    return found | ({} if os.environ.get("LIVERY_SECRET_KEY") else {"LIVERY_SECRET_KEY": servers.secret_key})


def _chosen(settings: Settings) -> dict[str, str]:
    """Flags as environment names, for the children and for other commands on the same data folder."""
    return {
        "LIVERY_DATA_DIR": str(settings.data_dir),
        "LIVERY_HOST": settings.host,
        "LIVERY_WEB_PORT": str(settings.web_port),
        "LIVERY_OCPP_PORT": str(settings.ocpp_port),
        "LIVERY_DEMO": "true" if settings.demo else "false",
    }


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


def _folder_for_logs(data_dir: Path) -> Path:
    logs = data_dir / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    return logs


def _revive(servers: EmbeddedServers | None, say: Say) -> None:
    for name in servers.revive() if servers is not None else ():
        say(f"{name} had crashed and was started again")


def _refuse_half_external(settings: Settings) -> None:
    wanted = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    missing = [name for name, value in wanted.items() if not value]
    if len(missing) == 1:
        text = "is missing: set both DATABASE_URL and REDIS_URL, or neither for embedded servers"
        raise ConfigurationFault([FieldFault(missing[0], "missing", text)])


def _refuse_taken_ports(settings: Settings) -> None:
    for flag, port in (("--web-port", settings.web_port), ("--ocpp-port", settings.ocpp_port)):
        try:
            with socket.create_server((settings.host, port)):
                pass
        except OSError as error:
            raise CannotStart("port_taken", _about_port(flag, port, settings.host, error)) from error


def _about_port(flag: str, port: int, host: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken; choose another with {flag}."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"Port {port} on {host} cannot be opened ({reason}); choose another {flag} or --host."


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return listener.getsockname()[1]


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
