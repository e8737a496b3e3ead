"""`livery …`: data on stdout, talk on stderr, exit code 0 done, 1 refused or failed, 2 wrong usage."""

import asyncio
import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from app.embedded import find_running
from app.kernel.errors import ConfigurationFault, FieldFault, Invalid, LiveryError, Refused
from app.kernel.settings import Settings, load_settings
from app.supervisor import StopRequested, end_with_parent, raise_on_stop_signals
from app.up import run_up

if TYPE_CHECKING:
    from tenants.database import Database
    from tenants.scope import Scope

JSON = "as_json"


# -- talk and data ----------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    click.echo(line, err=True)


def tell(data: Any, text: str | None = None) -> None:
    """The command's result: JSON where asked for, else the text a person reads."""
    if click.get_current_context().params.get(JSON):
        click.echo(json.dumps(data, default=str, ensure_ascii=False))
    else:
        click.echo(text if text is not None else _readable(data))


def _readable(data: Any) -> str:
    if isinstance(data, dict):
        width = max(map(len, data), default=0)
        return "\n".join(f"{key:<{width}}  {value}" for key, value in data.items())
    return "\n".join(map(str, data)) if isinstance(data, list) else str(data)


def _fail(error: LiveryError) -> NoReturn:
    """A wrong flag is wrong usage (2); everything else was refused or has failed (1)."""
    if "--json" in sys.argv:
        faults = [{"field": f.field, "code": f.code, "message": f.message} for f in error.faults]
        say(json.dumps({"error": {"code": error.code, "message": error.message, "faults": faults}}))
    elif error.faults:
        say(f"error: {error.code}")
        for fault in error.faults:
            say(f"  {fault.field}: {fault.message} ({fault.code})")
    else:
        say(f"error: {error.message} ({error.code})")
    sys.exit(2 if isinstance(error, Invalid) else 1)


def main() -> None:
    try:
        cli(prog_name="livery")
    except LiveryError as error:
        _fail(error)
    except StopRequested:
        sys.exit(0)
    except PermissionError as error:
        _fail(Refused("no_permission", f"{error.filename or 'A file'} cannot be opened: {error.strerror}."))
    except Exception as error:
        # By name: importing SQLAlchemy only to catch its error would cost every command half a second.
        if type(error).__name__ != "OperationalError":
            raise
        cause = str(getattr(error, "orig", error)).strip().splitlines()[0]
        _fail(Refused("database_away", f"The database does not answer: {cause}"))


# -- what commands share ----------------------------------------------------------------------------------------------

data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path, readable=False), metavar="DIR",
    help="The folder of an embedded instance (default: LIVERY_DATA_DIR).",
)  # fmt: skip
json_option = click.option("--json", JSON, is_flag=True, help="Answer in JSON.")


def ends(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that ends: it takes --json and --data-dir, and its body gets `settings` for a reachable database."""

    @json_option
    @data_dir_option
    @functools.wraps(command)
    def run(*args: Any, data_dir: Path | None, as_json: bool, **kwargs: Any) -> None:
        settings = settings_of(data_dir)
        result = command(*args, settings=settings, **kwargs)
        if inspect.isawaitable(result):
            asyncio.run(_finish(result))

    return run


async def _finish(result: Any) -> None:
    await result


def settings_of(data_dir: Path | None, **overrides: Any) -> Settings:
    """From the environment; without DATABASE_URL there, from the `livery up` that uses the data folder."""
    settings = load_settings(data_dir=data_dir, **overrides)
    if settings.database_url:
        return settings
    found = find_running(settings.data_dir)
    if found is None:
        raise Refused(
            "no_database",
            f"DATABASE_URL is not set and no `livery up` runs on {settings.data_dir}; "
            "start one, or name its folder with --data-dir.",
        )
    return load_settings(found | dict(os.environ), data_dir=data_dir, **overrides)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator["Database"]:
    from tenants.database import Database
    from tenants.redis import Redis

    redis = Redis(settings.redis_url) if settings.redis_url else None
    database = Database(settings, redis=redis, pool_size=2)
    try:
        yield database
    finally:
        await database.close()
        if redis is not None:
            await redis.close()


@asynccontextmanager
async def open_tenant(settings: Settings, slug: str) -> AsyncIterator["Scope"]:
    """One transaction for the brand of that slug; committed when the block ends well."""
    from tenants.resolve import HostResolver
    from tenants.scope import Actor

    async with open_database(settings) as database:
        route = await HostResolver(database).resolve(settings.host_of("portal", slug))
        if route is None or route.slug != slug:
            raise Refused("unknown_tenant", f"--tenant: there is no tenant {slug}.")
        async with database.scope(route.tenant_id, Actor.cli()) as scope:
            yield scope


def run_process(serve: Callable[[Settings], Any], settings: Settings) -> None:
    """A process that stays: `serve` may be a coroutine function; it minds its own signals."""
    result = serve(settings)
    if inspect.isawaitable(result):
        asyncio.run(_finish(result))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="livery", message="%(version)s")
def cli() -> None:
    """Livery: a white-label platform for EV charging networks."""


# -- processes that stay -----------------------------------------------------------------------------------------------


@cli.command()
@click.option("--demo", is_flag=True, help="Two demo brands with stations that really connect.")
@data_dir_option
@click.option("--web-port", type=click.IntRange(1, 65535), help="Pages and REST (default 8000).")
@click.option("--ocpp-port", type=click.IntRange(1, 65535), help="Stations (default 9000).")
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
def up(demo: bool, **flags: Any) -> None:
    """Everything on this machine, in the foreground; Ctrl-C stops it."""
    raise_on_stop_signals()
    if os.environ.get("MAKELEVEL"):
        end_with_parent()
    run_up(load_settings(demo=demo or None, **flags), say, click.echo)


@cli.command()
@data_dir_option
@click.option("--port", "web_port", type=click.IntRange(1, 65535), help="LIVERY_WEB_PORT")
@click.option("--host", help="LIVERY_HOST")
def web(**flags: Any) -> None:
    """Pages, REST and webhooks."""
    from app.asgi import serve

    run_process(serve, settings_of(**flags))


@cli.command()
@data_dir_option
@click.option("--port", "ocpp_port", type=click.IntRange(1, 65535), help="LIVERY_OCPP_PORT")
@click.option("--host", help="LIVERY_HOST")
def gateway(**flags: Any) -> None:
    """Stations: OCPP over WebSocket."""
    from ocpp_gateway.server import serve

    run_process(serve, settings_of(**flags))


@cli.command()
@data_dir_option
def worker(**flags: Any) -> None:
    """Queued and recurring jobs."""
    from app.worker import serve

    run_process(serve, settings_of(**flags))


@cli.command()
@click.option("--url", help="ws://host:port/brand; stations append their identity.")
@click.option(
    "--stations", "count", type=click.IntRange(1, 10_000), default=1, metavar="N", show_default=True
)
@click.option("--version", type=click.Choice(["1.6", "2.0.1", "2.1"]), default="2.0.1", show_default=True)
@click.option(
    "--scenario", default="charge", metavar="NAME", show_default=True, help="What they live through."
)
@click.option("--password", help="The stations' password (security profile 1).")
@click.option(
    "--card", "cards", multiple=True, metavar="VALUE", help="A token its drivers carry; repeatable."
)
@click.option("--list-scenarios", is_flag=True, help="What a station can live through or do wrong.")
@click.option("--demo", is_flag=True, help="The demo's stations, with their own passwords.")
@data_dir_option
def simulate(
    url: str | None, demo: bool, list_scenarios: bool, data_dir: Path | None, scenario: str, **flags: Any
) -> None:
    """Simulated stations: real OCPP over real sockets; SIM-0001 and so on below the address.

    A scenario is a way of life, or one of the faults that stations have; a fault chooses its own OCPP version.
    """
    if list_scenarios:
        from ocpp_gateway import simulated_faults, simulator

        lines = [*simulator.SCENARIOS.items()]
        lines += [(one.name, one.says) for one in simulated_faults.FAULTS.values()]
        for name, says in lines:
            click.echo(f"{name:<22}{says}")
        return
    if demo:
        from app.demo.planting import run_stations

        told = load_settings(
            data_dir=data_dir
        )  # stations have no business with a database, only with the key
        settings = told if told.secret_keys else settings_of(data_dir)
        asyncio.run(_until_stopped(run_stations(settings)))
        return
    if not url:
        raise click.UsageError("--url is needed, such as ws://localhost:9000/brand")
    from ocpp_gateway import simulated_faults, simulator

    if (fault := simulated_faults.FAULTS.get(scenario)) is not None:
        boxes = simulated_faults.boxes_of(url, flags["count"], flags["password"], flags["cards"])
        asyncio.run(_until_stopped(simulated_faults.play_all(boxes, fault, say)))
        return
    try:
        stations = simulator.stations_of(url, scenario=scenario, **flags)
    except ValueError as error:
        raise click.UsageError(f"{error}; --list-scenarios names them all") from error
    asyncio.run(_until_stopped(simulator.simulate(stations)))


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


# -- commands that end -------------------------------------------------------------------------------------------------


@cli.command()
@ends
def bootstrap(settings: Settings) -> None:
    """Make roles and database, once per cluster, as a superuser; again without harm.

    Each role gets the password that stands in the address of its own: DATABASE_URL, _PLATFORM, _QUEUE, _MIGRATE.
    """
    from migrations.bootstrap import bootstrap as make
    from migrations.bootstrap import passwords_of

    if not settings.database_url_bootstrap:
        raise ConfigurationFault(
            [FieldFault("DATABASE_URL_BOOTSTRAP", "missing", "a superuser's, to make the roles")]
        )
    try:
        passwords, database = passwords_of(
            settings.database_url, settings.database_url_platform, settings.database_url_queue,
            settings.database_url_migrate,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigurationFault([FieldFault("DATABASE_URL", "incomplete", str(error))]) from error
    make(settings.database_url_bootstrap, passwords, database)
    tell({"database": database}, f"Roles and database {database} are there.")


@cli.command()
@ends
def migrate(settings: Settings) -> None:
    """Bring the database to this version."""
    from migrations.run import upgrade

    url = settings.database_url_migrate
    if not url:
        raise ConfigurationFault([FieldFault("DATABASE_URL_MIGRATE", "missing", "is needed to migrate")])
    tell({"revision": upgrade(url, say)})


@cli.command()
@click.option("--demo", is_flag=True, required=True, help="The demo brands, stations, drivers and tariffs.")
@click.option(
    "--part", type=click.Choice(["all", "brands", "history"]), default="all", show_default=True,
    help="Only the brands as they are, or only the month behind them.",
)  # fmt: skip
@ends
async def seed(demo: bool, part: str, settings: Settings) -> None:
    """Fill the database with the demo; what is there already stays."""
    from app.demo.planting import seed as plant

    await plant(settings, part)
    tell({"seeded": "demo"}, "The demo is in the database.")


@cli.command()
@ends
async def doctor(settings: Settings) -> None:
    """Check configuration, roles, migrations, isolation rules, Redis, ports and keys."""
    from app.doctor import examine
    from migrations.run import current, head

    findings = await examine(settings, revision_at=current, revision_wanted=head())
    well = all(finding.well for finding in findings)
    lines = [f"{'ok  ' if f.well else 'FAIL'}  {f.name}: {f.detail}" for f in findings]
    tell({"ok": well, "findings": [f.as_dict() for f in findings]}, "\n".join(lines))
    if not well:
        sys.exit(1)


@cli.command()
@click.option("--tenant", "slug", metavar="S", help="One brand's slug; all of them without it.")
@ends
async def reconcile(slug: str | None, settings: Settings) -> None:
    """The payment provider's books beside ours, now; exit code 1 where anything differs."""
    from app.billing.reconciliation import reconcile as compare
    from app.brands.service import find_tenant, list_tenants
    from tenants.scope import Actor

    async with open_database(settings) as database:
        if slug is not None:
            wanted = {slug: await find_tenant(database, Actor.cli(), slug)}
        else:
            wanted = {row.slug: row.id for row in await list_tenants(database, Actor.cli())}
        runs = {name: await compare(database, tenant_id) for name, tenant_id in wanted.items()}
    data = [
        {"tenant": name, "status": ("green" if run.is_green else "red") if run else "no_account",
         "matched": run.figures["matched"] if run else 0, "differences": run.figures["differences"] if run else {}}
        for name, run in runs.items()
    ]  # fmt: skip
    tell({"data": data}, "\n".join(f"{one['tenant']:<32}  {_verdict(one)}" for one in data))
    if any(one["status"] == "red" for one in data):
        sys.exit(1)


def _verdict(one: dict[str, Any]) -> str:
    if one["status"] == "red":
        return "red: " + ", ".join(f"{count} {name}" for name, count in one["differences"].items())
    return "no account" if one["status"] == "no_account" else f"green, {one['matched']} pairs agree"


@cli.group()
def admin() -> None:
    """Platform admins."""


@admin.command("create")
@click.option("--email", required=True, metavar="E")
@ends
async def create_admin(email: str, settings: Settings) -> None:
    """A platform admin, new or known; prints a login link."""
    from app.identity.admins import create_platform_admin

    async with open_database(settings) as database:
        link = await create_platform_admin(database, email)
    tell({"email": email, "login_link": link}, link)


@cli.group()
def tenant() -> None:
    """Brands: one tenant each."""


@tenant.command("create")
@click.option(
    "--slug", required=True, metavar="S", help="What its addresses carry: S.localhost, portal-S.localhost."
)
@click.option("--name", required=True, metavar="N")
@click.option("--country", required=True, metavar="DE", help="ISO 3166-1 alpha-2.")
@click.option("--currency", required=True, metavar="EUR", help="ISO 4217.")
@click.option("--time-zone", required=True, metavar="Europe/Berlin")
@click.option("--admin-email", required=True, metavar="E", help="Its first owner.")
@ends
async def create_tenant(settings: Settings, **values: str) -> None:
    """A brand and its first owner; prints the owner's login link."""
    from app.brands.service import create_tenant as create
    from app.identity.service import login_url
    from app.kernel.ids import public_id
    from tenants.scope import Actor

    async with open_database(settings) as database:
        made = await create(database, Actor.cli(), **values)
        async with database.scope(made.tenant_id, Actor.cli()) as scope:
            link = await login_url(scope, made.login_secret)
    tell({"id": public_id("tenant", made.tenant_id), "slug": made.slug, "login_link": link}, link)


@tenant.command("list")
@ends
async def list_tenants(settings: Settings) -> None:
    """Every brand and whether it is active."""
    from app.brands.service import list_tenants as listed
    from app.kernel.ids import public_id
    from tenants.scope import Actor

    async with open_database(settings) as database:
        rows = await listed(database, Actor.cli())
    data = [
        {"id": public_id("tenant", row.id), "slug": row.slug, "name": row.name, "status": row.status,
         "created_at": row.created_at.isoformat()}
        for row in rows
    ]  # fmt: skip
    tell({"data": data}, "\n".join(f"{row.slug:<32}  {row.status:<10}  {row.name}" for row in rows))


@tenant.command("suspend")
@click.argument("slug")
@ends
async def suspend_tenant(slug: str, settings: Settings) -> None:
    """Running sessions end normally, new ones are refused, staff read only."""
    from app.brands.service import suspend_tenant as suspend
    from tenants.scope import Actor

    async with open_database(settings) as database:
        await suspend(database, Actor.cli(), slug)
    tell({"slug": slug, "status": "suspended"}, f"{slug} is suspended.")


@tenant.command("resume")
@click.argument("slug")
@ends
async def resume_tenant(slug: str, settings: Settings) -> None:
    """Ends a suspension."""
    from app.brands.service import resume_tenant as resume
    from tenants.scope import Actor

    async with open_database(settings) as database:
        await resume(database, Actor.cli(), slug)
    tell({"slug": slug, "status": "active"}, f"{slug} is active.")


@cli.group("api-key")
def api_key() -> None:
    """Keys for REST."""


@api_key.command("create")
@click.option("--tenant", "slug", required=True, metavar="S", help="The brand's slug.")
@click.option(
    "--scope", "scopes", required=True, multiple=True, metavar="SCOPE", help="`all`, or names; repeatable."
)
@click.option("--name", default="command line", show_default=True)
@ends
async def create_api_key(slug: str, scopes: tuple[str, ...], name: str, settings: Settings) -> None:
    """A key, which is told once."""
    from app.identity.service import create_api_key as create
    from app.kernel.ids import public_id

    async with open_tenant(settings, slug) as scope:
        made = await create(scope, name, scopes)
    tell({"id": public_id("api_key", made.id), "key": made.key, "scopes": made.scopes}, made.key)


@cli.group()
def station() -> None:
    """Stations of one brand."""


@station.command("create")
@click.option("--tenant", "slug", required=True, metavar="S", help="The brand's slug.")
@click.option("--identity", required=True, metavar="CP1", help="What the station calls itself.")
@click.option(
    "--security-profile", type=click.IntRange(0, 3), help="1, or the least that the brand asks for."
)
@ends
async def create_station(slug: str, identity: str, security_profile: int | None, settings: Settings) -> None:
    """A station and its password, which is told once."""
    from app.kernel.ids import public_id
    from app.stations.service import create_station as create

    async with open_tenant(settings, slug) as scope:
        made = await create(scope, identity=identity, security_profile=security_profile)
        told = {"id": public_id("charging_station", made.station.id), "identity": identity,
                "ocpp_url": made.ocpp_url, "password": made.password}  # fmt: skip
    tell(told)


if __name__ == "__main__":
    main()
