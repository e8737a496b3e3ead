"""deploy/ on paper: there is no Docker here, but what the files name must exist, and what production needs be given."""

import os
import re
import stat
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from pydantic import AliasChoices
from sqlalchemy.engine import make_url

from app.kernel.errors import ConfigurationFault
from app.kernel.settings import SECRETS, Settings, load_settings
from migrations.bootstrap import bootstrap, passwords_of
from migrations.run import upgrade
from tests.conftest import ROOT, Databases

DEPLOY = ROOT / "deploy"
OURS = ("bootstrap", "migrate", "web", "worker", "gateway")
GIVEN = {
    "LIVERY_PUBLIC_URL": "https://charging.example", "LIVERY_OCPP_PUBLIC_URL": "wss://ocpp.charging.example",
    "LIVERY_PLATFORM_DOMAIN": "charging.example", "LIVERY_PAYMENTS": "manual", "ACME_EMAIL": "ops@charging.example",
}  # fmt: skip


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    subprocess.run([DEPLOY / "make-secrets.sh", folder], check=True)
    (folder / "smtp_url").write_text("smtps://user:password@mail.example\n")
    return folder


def filled_in(text: str, given: dict[str, str]) -> str:
    """As compose does it: `${NAME}`, `${NAME:-default}`, `${NAME:?why}`."""

    def value(found: re.Match[str]) -> str:
        name, operator, rest = found.groups()
        if given.get(name):
            return given[name]
        assert operator == ":-", f"{name} is not given: {rest}"
        return rest

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", value, text)


def environment_of(service: dict[str, Any], secrets: Path, **given: str) -> dict[str, str]:
    """What its process would see, with the secrets where they lie here."""
    mounted = set(service["secrets"])
    found = {}
    for name, text in service["environment"].items():
        value = filled_in(str(text), GIVEN | given)
        if value.startswith("/run/secrets/"):
            secret = value.rpartition("/")[2]
            assert secret in mounted, f"{name} names {secret}, which is not mounted"
            value = str(secrets / secret)
        found[name] = value
    return found


def known_names() -> set[str]:
    names = set(SECRETS) | {f"{name}_FILE" for name in SECRETS}
    for field, info in Settings.model_fields.items():
        alias = info.validation_alias
        names.add(str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"LIVERY_{field.upper()}")
    return names


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_process_is_one_that_the_settings_read(
    compose: dict[str, Any], name: str
) -> None:
    assert set(compose["services"][name]["environment"]) <= known_names()


@pytest.mark.parametrize("name", OURS)
def test_every_process_has_all_that_production_asks_for(
    compose: dict[str, Any], secrets: Path, name: str
) -> None:
    settings = load_settings(environment_of(compose["services"][name], secrets))
    assert settings.is_production and not settings.uses_sandbox
    assert settings.is_trusted_proxy(compose["services"]["caddy"]["networks"]["default"]["ipv4_address"])
    assert not settings.is_trusted_proxy("172.30.250.128")
    wanted = {
        "worker": settings.database_url_queue, "migrate": settings.database_url_migrate,
        "bootstrap": settings.database_url_bootstrap,
    }  # fmt: skip
    assert wanted.get(name, "nothing more")


def test_only_those_who_need_a_role_have_its_address(compose: dict[str, Any]) -> None:
    holders = {
        secret: {name for name in OURS if secret in compose["services"][name]["secrets"]}
        for secret in compose["secrets"]
    }
    assert holders["database_url_bootstrap"] == {"bootstrap"}
    assert holders["database_url_migrate"] == {"bootstrap", "migrate"}
    assert holders["database_url_queue"] == {"bootstrap", "worker"}
    assert holders["postgres_password"] == set()
    for service in compose["services"].values():
        assert set(service.get("secrets", ())) <= set(compose["secrets"])


def test_no_secret_stands_in_the_file_and_none_in_an_environment(compose: dict[str, Any]) -> None:
    for name in OURS:
        for variable in compose["services"][name]["environment"]:
            assert variable not in set(SECRETS) - {"REDIS_URL"}


def test_the_sandbox_is_refused_unless_it_is_a_rehearsal(compose: dict[str, Any], secrets: Path) -> None:
    web = compose["services"]["web"]
    with pytest.raises(ConfigurationFault) as caught:
        load_settings(environment_of(web, secrets, LIVERY_PAYMENTS="sandbox"))
    assert "takes no sandbox money" in str(caught.value.faults)
    rehearsal = environment_of(web, secrets, LIVERY_PAYMENTS="sandbox", LIVERY_ALLOW_SANDBOX_PAYMENTS="true")
    assert load_settings(rehearsal).uses_sandbox


def test_one_starts_when_what_it_needs_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("web", "worker", "gateway"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert "healthcheck" in services[name]
    assert services["migrate"]["depends_on"] == {"bootstrap": {"condition": "service_completed_successfully"}}
    for service in services.values():
        for needed, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], needed
    assert services["postgres"]["image"] == "postgres:18" and "valkey" in services["valkey"]["image"]


def test_health_checks_ask_where_the_processes_answer(compose: dict[str, Any], secrets: Path) -> None:
    for name, field in (("worker", "worker_health_port"), ("gateway", "health_port"), ("web", "web_port")):
        service = compose["services"][name]
        port = getattr(load_settings(environment_of(service, secrets)), field)
        assert f"http://127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]


def test_the_proxy_asks_web_and_knows_its_variables(compose: dict[str, Any]) -> None:
    caddyfile = (DEPLOY / "Caddyfile").read_text()
    assert "ask http://web:8000/tls/ask" in caddyfile
    assert "respond /metrics 404" in caddyfile  # it asks from the Internet
    assert set(re.findall(r"\{\$(\w+)", caddyfile)) <= set(compose["services"]["caddy"]["environment"])
    for host, port in re.findall(r"reverse_proxy (\w+):(\d+)", caddyfile):
        assert any(str(one).endswith(f":{port}") for one in compose["services"][host]["ports"])


def test_the_proxy_compresses_pages_and_never_holds_a_live_one_back() -> None:
    """Caddy's own list of types has `text/*` in it, and its compressor keeps an event until a window is full."""
    caddyfile = (DEPLOY / "Caddyfile").read_text()
    assert "encode zstd gzip {" in caddyfile
    types = re.findall(r"header Content-Type (\S+)", caddyfile)
    assert any(fnmatch("text/html; charset=utf-8", one) for one in types)
    assert not [one for one in types if fnmatch("text/event-stream", one)]


def test_secrets_are_made_once_and_their_folder_is_closed(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([DEPLOY / "make-secrets.sh", secrets], check=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert stat.S_IMODE(os.stat(secrets).st_mode) == 0o700
    assert len(set(before.values()) - {""}) == len([value for value in before.values() if value])


def test_the_roles_get_the_passwords_of_their_addresses_and_the_database_its_tables(
    databases: Databases, secrets: Path
) -> None:
    """The steps `bootstrap` and `migrate`, on the test's cluster and a database of its own."""
    urls = databases.urls("compose_one")
    passwords, database = passwords_of(urls.app, urls.platform, urls.queue, urls.migrate)
    assert database == "compose_one" and set(passwords) == {"app_rw", "platform_rw", "queue_rw", "migrate"}
    try:
        for _ in range(2):
            bootstrap(databases.urls("postgres").superuser, passwords, database)
        upgrade(urls.migrate)
        with psycopg.connect(urls.app.replace("+psycopg", "")) as connection:
            assert connection.execute("select count(*) from livery.location").fetchone() == (0,)
    finally:
        databases.drop("compose_one")
    made = [
        (secrets / name).read_text()
        for name in ("database_url", "database_url_queue", "database_url_migrate")
    ]
    assert passwords_of(*made)[1] == "livery"


@pytest.mark.parametrize(
    "urls",
    [
        ("postgresql+psycopg://app_rw:x@h/livery", "postgresql+psycopg://queue_rw:x@h/other"),
        ("postgresql+psycopg://app_rw@h/livery",),
        ("postgresql+psycopg://postgres:x@h/livery",),
        (),
    ],
)
def test_addresses_that_do_not_fit_are_refused(urls: tuple[str, ...]) -> None:
    assert all(make_url(url) for url in urls)
    with pytest.raises(ValueError, match=r"lacks|one database"):
        passwords_of(*urls)
