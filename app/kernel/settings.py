"""Everything the environment may say (`contract.md`, "Environment"), read once, checked as a whole."""

import ipaddress
import os
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.kernel.errors import ConfigurationFault, FieldFault

SECRETS = (
    "DATABASE_URL", "DATABASE_URL_PLATFORM", "DATABASE_URL_MIGRATE", "DATABASE_URL_QUEUE", "DATABASE_URL_BOOTSTRAP",
    "REDIS_URL", "SMTP_URL", "LIVERY_SECRET_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET",
    "STRIPE_CONNECT_WEBHOOK_SECRET",
)  # fmt: skip


def default_data_dir() -> Path:
    """The user's XDG data home; for root /var/lib/livery, since the server process must be able to reach it."""
    if os.geteuid() == 0:
        return Path("/var/lib/livery")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "livery"


def _named(name: str) -> Any:
    return Field(validation_alias=AliasChoices(name), default=None)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="LIVERY_", populate_by_name=True, extra="ignore", frozen=True
    )

    env: Literal["development", "production"] = "development"
    demo: bool = False
    data_dir: Path = Field(default_factory=default_data_dir)
    # Above the 60 days that a reading may come late (ocpp_gateway/lenient.py): its day must not go while it is written.
    meter_value_days: int = Field(90, ge=62)
    host: str = "127.0.0.1"
    web_port: int = Field(8000, ge=1, le=65535)
    ocpp_port: int = Field(9000, ge=1, le=65535)
    health_port: int | None = Field(None, ge=1, le=65535)
    worker_health_port: int | None = Field(None, ge=1, le=65535)
    platform_domain: str = "localhost"
    public_url: str | None = None
    ocpp_public_url: str | None = None
    dns_server: str | None = None
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    ocpp_tls_port: int | None = Field(None, ge=1, le=65535)
    ocpp_tls_cert: Path | None = None
    ocpp_tls_key: Path | None = None
    ocpp_tls_client_ca: Path | None = None
    payments: Literal["auto", "stripe", "sandbox", "manual"] = "auto"
    allow_sandbox_payments: bool = False
    secret_key: str | None = None

    database_url: str | None = _named("DATABASE_URL")
    database_url_platform: str | None = _named("DATABASE_URL_PLATFORM")
    database_url_migrate: str | None = _named("DATABASE_URL_MIGRATE")
    database_url_queue: str | None = _named("DATABASE_URL_QUEUE")
    database_url_bootstrap: str | None = _named("DATABASE_URL_BOOTSTRAP")
    redis_url: str | None = _named("REDIS_URL")
    smtp_url: str | None = _named("SMTP_URL")
    otel_endpoint: str | None = _named("OTEL_EXPORTER_OTLP_ENDPOINT")
    stripe_secret_key: str | None = _named("STRIPE_SECRET_KEY")
    stripe_publishable_key: str | None = _named("STRIPE_PUBLISHABLE_KEY")
    stripe_api_base: str | None = _named("STRIPE_API_BASE")
    stripe_webhook_secret: str | None = _named("STRIPE_WEBHOOK_SECRET")
    stripe_connect_webhook_secret: str | None = _named("STRIPE_CONNECT_WEBHOOK_SECRET")
    host_transfers: bool = False
    account_profile: Literal["saas", "white_label"] = "saas"

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            ipaddress.ip_network(proxy, strict=False)
        return value

    @field_validator("dns_server")
    @classmethod
    def _name_server(cls, value: str | None) -> str | None:
        if value is not None:
            parse_name_server(value)
        return value

    @field_validator("public_url", "ocpp_public_url", "stripe_api_base")
    @classmethod
    def _urls(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "http://unset")
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
            raise ValueError(f"{value} is no address such as https://charge.example")
        return value

    @field_validator("otel_endpoint")
    @classmethod
    def _traces(cls, value: str | None) -> str | None:
        if value and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
            raise ValueError("traces need the packages of the extra otel: pip install 'livery[otel]'")
        return value or None

    @field_validator("secret_key")
    @classmethod
    def _keys(cls, value: str | None) -> str | None:
        parse_secret_keys(value or "")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.env == "production":
            missing = [
                name
                for name, value in (
                    ("DATABASE_URL", self.database_url),
                    ("DATABASE_URL_PLATFORM", self.database_url_platform),
                    ("REDIS_URL", self.redis_url),
                    ("SMTP_URL", self.smtp_url),
                    ("LIVERY_SECRET_KEY", self.secret_key),
                    ("LIVERY_PUBLIC_URL", self.public_url),
                )
                if not value
            ]
            if missing:
                raise ValueError(f"production needs {', '.join(missing)}")
            if self.uses_sandbox and not self.allow_sandbox_payments:
                raise ValueError(
                    "production takes no sandbox money: set STRIPE_SECRET_KEY, or LIVERY_PAYMENTS=manual for none,"
                    " or LIVERY_ALLOW_SANDBOX_PAYMENTS=1 if this installation is a rehearsal"
                )
        if self.payments == "stripe" and not self.stripe_secret_key:
            raise ValueError("LIVERY_PAYMENTS=stripe needs STRIPE_SECRET_KEY")
        if self.payments == "sandbox" and self.stripe_secret_key:
            raise ValueError("LIVERY_PAYMENTS=sandbox and STRIPE_SECRET_KEY exclude each other")
        if (self.ocpp_tls_cert is None) != (self.ocpp_tls_key is None):
            raise ValueError("LIVERY_OCPP_TLS_CERT and LIVERY_OCPP_TLS_KEY go together")
        return self

    def is_trusted_proxy(self, address: str) -> bool:
        """Whose X-Forwarded headers are believed; networks and single addresses alike."""
        try:
            return any(ipaddress.ip_address(address) in network for network in self._proxy_networks)
        except ValueError:
            return False

    @cached_property
    def _proxy_networks(self) -> tuple[Any, ...]:
        return tuple(ipaddress.ip_network(proxy, strict=False) for proxy in self.trusted_proxies)

    @property
    def is_production(self) -> bool:
        return self.env == "production"

    @property
    def takes_cards(self) -> bool:
        """False: drivers start with a token only, and nobody is asked for a card."""
        return self.payments != "manual"

    @property
    def uses_sandbox(self) -> bool:
        """The payment double instead of Stripe: where no key is set, unless the configuration says otherwise."""
        if self.payments in ("stripe", "manual"):
            return False
        return self.payments == "sandbox" or not self.stripe_secret_key

    @cached_property
    def secret_keys(self) -> dict[str, bytes]:
        """Newest first; what a key protects carries its id, so that keys can be rotated."""
        return parse_secret_keys(self.secret_key or "")

    @property
    def web_origin_port(self) -> str:
        """`:8000` where links need it, empty behind a proxy on the standard port."""
        if self.public_url:
            tail = self.public_url.split("://", 1)[1].partition("/")[0]
            return ":" + tail.rpartition(":")[2] if ":" in tail else ""
        return f":{self.web_port}"

    @property
    def web_scheme(self) -> str:
        return self.public_url.split("://", 1)[0] if self.public_url else "http"

    def url_of(self, host: str, path: str = "/") -> str:
        """The address of a page on one of our hosts, as a person would type it."""
        return f"{self.web_scheme}://{host}{self.web_origin_port}{path}"

    def host_of(self, surface: str, slug: str = "") -> str:
        """`console`, `sandbox`, `portal` + slug, `driver` + slug -> the host below the platform domain."""
        label = {"console": "console", "sandbox": "sandbox", "portal": f"portal-{slug}", "driver": slug}[
            surface
        ]
        return f"{label}.{self.platform_domain}"

    def ocpp_url_of(self, slug: str, identity: str) -> str:
        from urllib.parse import quote

        base = self.ocpp_public_url or f"ws://{self.platform_domain}:{self.ocpp_port}"
        return f"{base.rstrip('/')}/{slug}/{quote(identity, safe='')}"


def parse_name_server(text: str) -> tuple[str, int]:
    """`192.0.2.1`, `192.0.2.1:5353` or `[2001:db8::1]:5353` -> (address, port). Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if parts.netloc != text or not parts.hostname:
        raise ValueError(f"{text} is no name server such as 192.0.2.1:53")
    return str(ipaddress.ip_address(parts.hostname)), parts.port or 53


def parse_secret_keys(text: str) -> dict[str, bytes]:
    """`id:key[,id:key…]`, each key of at least 32 characters. Raises ValueError that names the part."""
    keys: dict[str, bytes] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key_id, colon, key = part.partition(":")
        if not colon or not key_id.isalnum():
            raise ValueError("LIVERY_SECRET_KEY must be `id:key`, the id of letters and digits")
        if len(key) < 32:
            raise ValueError(f"the key with id {key_id} needs at least 32 characters")
        keys[key_id] = key.encode()
    return keys


def _with_files(environment: Mapping[str, str]) -> tuple[dict[str, str], list[FieldFault]]:
    values, faults = dict(environment), []
    for name in SECRETS:
        path = environment.get(f"{name}_FILE")
        if not path:
            continue
        try:
            values[name] = Path(path).read_text().strip()
        except OSError as error:
            faults.append(FieldFault(f"{name}_FILE", "unreadable", f"cannot be read: {error.strerror}"))
    return values, faults


def load_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (field names) win. ConfigurationFault lists all faults at once."""
    values, faults = _with_files(os.environ if environment is None else environment)
    fields: dict[str, Any] = {}
    for name, info in Settings.model_fields.items():
        alias = info.validation_alias
        key = alias.choices[0] if isinstance(alias, AliasChoices) else f"LIVERY_{name.upper()}"
        if values.get(str(key)):
            fields[name] = values[str(key)]
    fields.update({name: value for name, value in overrides.items() if value is not None})
    settings = None
    try:
        settings = _FromValues(**fields)
    except ValidationError as error:
        faults += [_fault(e) for e in error.errors()]
        wrong = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
        if wrong:
            # What concerns several fields is looked at once more without the wrong ones: all faults at once.
            try:
                _FromValues(**{name: value for name, value in fields.items() if name not in wrong})
            except ValidationError as again:
                faults += [_fault(e) for e in again.errors()]
    if faults or settings is None:
        raise ConfigurationFault(faults)
    return settings


class _FromValues(Settings):
    """Takes its values from the call alone: `load_settings` has read the environment already."""

    @classmethod
    def settings_customise_sources(cls, settings_cls, init_settings, **_sources):  # type: ignore[override]
        return (init_settings,)


def _fault(error: Any) -> FieldFault:
    name = str(error["loc"][0]) if error["loc"] else "configuration"
    info = Settings.model_fields.get(name)
    alias = info.validation_alias if info else None
    shown = str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"LIVERY_{name.upper()}"
    return FieldFault(
        shown if info else "configuration", error["type"], error["msg"].removeprefix("Value error, ")
    )
