"""Putting the demo's companies into the database, by the same verbs that people use."""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zlib import crc32
from zoneinfo import ZoneInfo

from app.access import accounts
from app.access import service as access
from app.billing import fees, payments, terminals, vouchers, wallets
from app.billing.provider import OutcomeUnknown
from app.brands import faces
from app.brands import service as brands
from app.charging import site_hosts
from app.demo.cast import COMPANIES, PLATES, PLATFORM, POWER_W, Box, Company, Site, legal_texts
from app.demo.guests import run_guests
from app.demo.history import plant_history
from app.demo.tending import tend
from app.device_model import configuration
from app.identity import service as identity
from app.kernel.secrets import digest
from app.kernel.settings import Settings
from app.stations import service as stations
from app.tariffs import service as tariffs
from ocpp_gateway.simulator import Plan, SimulatedStation, simulate
from tenants.database import Database
from tenants.redis import Redis
from tenants.scope import Actor, Scope

ACTOR = Actor(kind="cli", name="demo")


def station_password(settings: Settings, slug: str, identity: str) -> str:
    """Derived from the installation's key, so that simulator and database agree without a file between them."""
    return digest(settings.secret_keys, "demo-station", f"{slug}/{identity}")[:20].hex()


async def seed(settings: Settings, part: str = "all") -> None:
    """Puts the demo into the database; what is there already stays. `part`: `brands`, their `history`, or `all`."""
    redis = Redis(settings.redis_url) if settings.redis_url else None
    database = Database(settings, redis=redis)
    try:
        known = {tenant.slug for tenant in await brands.list_tenants(database, ACTOR)}
        if part != "history":
            await brands.put_platform_profile(database, ACTOR, PLATFORM, "the demo's platform")
        for company in COMPANIES:
            if company.slug not in known and part != "history":
                await _found(database, company)
        if part == "history":
            os.nice(5)  # beside a running demo: its pages come first
        if part != "brands":
            await _remember(database, tends=part == "history")
            if settings.data_dir.is_dir():
                (settings.data_dir / "demo-remembered").touch()
    finally:
        await database.close()
        if redis is not None:
            await redis.close()


async def _remember(database: Database, *, tends: bool) -> None:
    """All at once, so that no brand's pages stay empty until the others' are full. `tends`: its stations are there."""
    known = {tenant.slug: tenant for tenant in await brands.list_tenants(database, ACTOR)}
    async with asyncio.TaskGroup() as group:
        for company in COMPANIES:
            if (tenant := known.get(company.slug)) is not None:
                group.create_task(plant_history(database, tenant.id, company, tenant.created_at))
                if tends:
                    group.create_task(tend(database, tenant.id, company))


async def _found(database: Database, company: Company) -> None:
    owner = company.people[0]
    made = await brands.create_tenant(
        database, ACTOR, slug=company.slug, name=company.name, country=company.country, currency=company.currency,
        time_zone=company.time_zone, admin_email=owner.email, admin_name=owner.name,
        theme=company.preset,
    )  # fmt: skip
    async with database.scope(made.tenant_id, ACTOR) as scope:
        await brands.update_profile(scope, company.profile)
        await _publish_texts(scope, company)
        for person in company.people[1:]:
            await identity.invite_staff(scope, email=person.email, name=person.name, role=person.role)
        sites = [(await stations.create_location(scope, **_fields(site))).id for site in company.sites]
        for box in company.boxes:
            await stations.create_station(
                scope, identity=box.identity, location_id=sites[box.site], name=box.name,
                evses=[
                    {"evse_no": number, "connectors": [{"connector_no": 1, **PLATES[box.kind]}]}
                    for number in range(1, box.evse_count + 1)
                ],
                password=station_password(scope.settings, company.slug, box.identity),
            )  # fmt: skip
        await configuration.create_template(
            scope, name="Wallboxes", ocpp_version="ocpp1.6",
            settings={"HeartbeatInterval": "300", "MeterValueSampleInterval": "5"},
        )  # fmt: skip
        await _people(scope, company)
        for tariff, assign in company.tariffs:
            where = {"location_id": sites[assign["site"]]} if "site" in assign else assign
            await tariffs.create_tariff(scope, tariff, where)
        await _share_with_host(scope, company, sites[0])
        await _hear_terminal(scope, sites[0])
        code = await _pay_ahead(scope, company)
        driver = await accounts.find_by_mailbox(scope, company.drivers[0][1])
    if driver is not None:
        async with database.scope(made.tenant_id, accounts.actor_of(driver)) as scope:
            await vouchers.redeem(scope, code, remote="demo")
    with suppress(OutcomeUnknown):  # where no web process answers yet, the janitor does it within a minute
        await payments.open_account(database, made.tenant_id)
        await _agree_on_fee(database, made.tenant_id, company)


async def _agree_on_fee(database: Database, tenant_id: UUID, company: Company) -> None:
    today = datetime.now(ZoneInfo(company.time_zone)).date()
    await fees.plan_fee(
        database, ACTOR, tenant_id, percent="2.5", fixed="0.10", valid_from=today.isoformat(), reason="the contract"
    )  # fmt: skip


async def _share_with_host(scope: Scope, company: Company, location_id: UUID) -> None:
    """Whoever owns the ground has a share of what is earned there, from this month on."""
    profile = company.profile
    host = await site_hosts.save_host(scope, {
        "name": f"Grundstücksgemeinschaft {profile['city']}", "address": "Marktplatz 1",
        "postal_code": profile["postal_code"], "city": profile["city"], "country": company.country,
        "language": "de",
    })  # fmt: skip
    today = scope.now.astimezone(ZoneInfo(company.time_zone)).date()
    await site_hosts.add_contract(
        scope,
        host.id,
        location_id,
        {"valid_from": today.replace(day=1).isoformat(), "percent": "10", "per_kwh": "0.02"},
    )


async def _hear_terminal(scope: Scope, location_id: UUID) -> None:
    """A card terminal at the first site: of one payment nobody knows yet what it was for."""
    terminal = await terminals.register(scope, {
        "name": "Kartenterminal an der Einfahrt", "vendor": "Payter", "serial": f"P68-{str(location_id)[-6:]}",
        "acquirer": "Worldline", "contract_no": "4711-08",
    }, location_id=location_id, station_id=None)  # fmt: skip
    currency, at = await terminals.own_currency(scope), scope.now - timedelta(hours=3)
    for kind, amount_minor, minutes in (("authorized", 5000, 0), ("settled", 1240, 42)):
        await terminals.take(scope, terminals.Told(
            terminal_id=terminal.id, record_ref=f"{kind}-1", transaction_ref="0042-7781", kind=kind,
            amount_minor=amount_minor, currency=currency, at=at + timedelta(minutes=minutes), card="Visa •••• 1881",
            approval_code="K41902",
        ))  # fmt: skip


async def _pay_ahead(scope: Scope, company: Company) -> str:
    """Wallets are offered; its first driver has some credit, and may redeem the code."""
    await wallets.offer(scope, is_on=True)
    driver = await accounts.find_by_mailbox(scope, company.drivers[0][1])
    if driver is not None:
        await wallets.credit(scope, driver.id, "25.00", "Entschuldigung für das Warten")
    batch = await vouchers.issue(
        scope, name="Willkommen", amount="10.00", code_count=5, uses_per_code=1,
        valid_until=f"{scope.now + timedelta(days=180):%Y-%m-%d}", paid_by="brand",
    )  # fmt: skip
    return (await vouchers.reveal(scope, batch.id))[0][1]


async def _publish_texts(scope: Scope, company: Company) -> None:
    look = (await faces.get_editing(scope)).look
    await faces.save_draft(scope, replace(look, texts=legal_texts(company)))
    await faces.publish_draft(scope, "Legal texts")


def _fields(site: Site) -> dict[str, Any]:
    return {name: getattr(site, name) for name in Site.__slots__}


async def _people(scope: Scope, company: Company) -> None:
    groups = {
        name: (
            await access.create_driver_group(
                scope, name=name, collection=collection, invoice_to=company.invoice_to.get(name)
            )
        ).id
        for name, collection in company.groups
    }
    drivers = {
        name: (
            await access.create_driver(scope, name=name, email=email, driver_group_id=groups.get(group))
        ).id
        for name, email, group in company.drivers
    }
    for card in company.cards:
        await access.create_id_token(
            scope, value=card.value, label=card.label, status=card.status, driver_id=drivers.get(card.driver),
            driver_group_id=groups.get(card.group),
        )  # fmt: skip


# --- its stations ------------------------------------------------------------------------------------------------


async def run_stations(settings: Settings) -> None:
    """The demo's stations, as real OCPP clients, and the guests who pay there, until cancelled."""
    stations = [_simulated(settings, company, box) for company in COMPANIES for box in company.boxes]
    strangers = [_knock(settings, company) for company in COMPANIES]
    await asyncio.gather(simulate(stations), run_guests(settings, COMPANIES), *strangers)


async def _knock(settings: Settings, company: Company) -> None:
    """A box that was hung up and that nobody has written down yet asks now and then to be let in."""
    box = replace(
        company.boxes[0], identity=f"{company.boxes[0].identity.rstrip('0123456789')}9", scenario="idle"
    )
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await _simulated(settings, company, box).run()
        await asyncio.sleep(900)


def _simulated(settings: Settings, company: Company, box: Box) -> SimulatedStation:
    # Cards of nobody in particular: no driver's account shows them at five plugs at once.
    cards = tuple(card.value for card in company.cards if card.status == "accepted" and not card.driver)
    plan = Plan(
        scenario=box.scenario, max_power_w=POWER_W[box.kind], evse_count=box.evse_count,
        cards=() if box.scenario == "idle" else cards, seed=crc32(f"{company.slug}/{box.identity}".encode()),
        signs=True, gap_s=(120, 1500),  # as long as a charge: who tries the demo out finds something free at any time
    )  # fmt: skip
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    kept = settings.data_dir / "demo-keys" / company.slug / box.identity
    password = kept.read_text() if kept.is_file() else station_password(settings, company.slug, box.identity)
    return SimulatedStation(
        settings.ocpp_url_of(company.slug, box.identity), password, box.version, plan,
        connect_to=(host, settings.ocpp_port), keep_key=lambda key: _keep_key(kept, key),
    )  # fmt: skip


def _keep_key(path: Path, key: str) -> None:
    """Staff gave the station a new key: after a restart it must still know it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_text(key)
