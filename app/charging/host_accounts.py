"""A site host's own account at the payment provider: opened by staff, proven by the host on the provider's pages.

Only where the installation passes shares on (`HOST_TRANSFERS`), for until they are passed on the platform holds money
of others. Each verb calls the provider with no transaction open. Errors: `transfers_off`, `no_email`, `no_account`.
"""

import hashlib
import json
from contextlib import suppress
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app.billing import payments
from app.billing.payments import HostShare
from app.billing.provider import Account, ProviderError, Rejected
from app.brands.models import TenantProfile
from app.charging import site_hosts
from app.charging.models import CDR, ChargingSession, HostContract, SiteHost
from app.kernel import audit, tax
from app.kernel.clock import uuid7
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from app.stations.models import ChargingStation
from tenants.database import Database
from tenants.scope import Actor, Scope


async def begin(database: Database, tenant_id: UUID, actor: Actor, host_id: UUID, *, page_url: str) -> str:
    """The address of the provider's pages where the host says who they are, good once and for minutes; the account is
    opened where there is none yet."""
    provider = payments.provider_of(database.settings)
    async with database.scope(tenant_id, actor) as scope:
        host = await site_hosts.get_host(scope, host_id)
        currency = (await scope.db.execute(select(TenantProfile.currency))).scalar_one()
    if not database.settings.host_transfers or not database.settings.takes_cards:
        raise Refused("transfers_off", "This installation does not pass shares on.")
    if not host.email:
        raise Refused("no_email", "The provider writes to the host: give their e-mail address first.")
    ref = host.account_ref if host.account_provider == provider.name else ""
    if not ref:
        asked = {
            "name": host.name, "email": host.email, "country": tax.alpha_2(host.country), "currency": currency,
        }  # fmt: skip
        mark = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        made = await provider.open_recipient(**asked, key=f"host:{tenant_id}:{host.id}:{mark}")
        async with database.scope(tenant_id, actor) as scope:
            host, ref = await site_hosts.get_host(scope, host_id), made.ref
            host.account_provider, host.account_ref = provider.name, made.ref
            host.is_account_ready, host.account_due, host.account_seen_at = (
                made.is_ready, list(made.due), scope.now,
            )  # fmt: skip
            await audit.record(scope, "host_account.opened", "site_host", host.id, {"ref": made.ref})
    return await provider.create_onboarding(
        ref, return_url=f"{page_url}/account/returned", refresh_url=page_url, key=f"onboarding:{uuid7()}"
    )


async def observe(database: Database, tenant_id: UUID, host_id: UUID) -> None:
    """What the provider says of the account now. `no_account`."""
    provider = payments.provider_of(database.settings)
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        host = await site_hosts.get_host(scope, host_id)
    if not host.account_ref or host.account_provider != provider.name:
        raise Refused("no_account", "This host has no account at the payment provider yet.")
    try:
        seen = await provider.get_recipient(host.account_ref)
    except Rejected:  # closed, or no account of ours any more
        seen = Account(ref=host.account_ref, is_ready=False, is_live=provider.is_live)
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        host = await site_hosts.get_host(scope, host_id)
        was_ready, host.is_account_ready = host.is_account_ready, seen.is_ready
        host.account_due, host.account_seen_at = list(seen.due), scope.now
        if was_ready != seen.is_ready:
            news = {"is_ready": seen.is_ready, "due": list(seen.due)}
            await audit.record(scope, "host_account.changed", "site_host", host.id, news)


async def observe_all(database: Database, tenant_id: UUID) -> None:
    """Each hour: the provider may ask for papers at any time."""
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        name = payments.provider_name(scope.settings)
        query = select(SiteHost.id).where(SiteHost.account_ref != "", SiteHost.account_provider == name)
        hosts = list((await scope.db.execute(query)).scalars())
    for host_id in hosts:
        with suppress(ProviderError):  # one account that cannot be read keeps no other from being looked at
            await observe(database, tenant_id, host_id)


async def share_of(scope: Scope, cdr: CDR) -> HostShare | None:
    """What of a session's money is passed on when its card is charged: the contract's share, with VAT where we write
    their invoice, rounded down: what a month's rounding leaves is the statement's."""
    if not scope.settings.host_transfers:
        return None
    profile = (await scope.db.execute(select(TenantProfile))).scalar_one()
    on = cdr.ended_at.astimezone(ZoneInfo(profile.time_zone)).date()
    query = (
        select(HostContract, SiteHost)
        .join(SiteHost, SiteHost.id == HostContract.site_host_id)
        .join(ChargingStation, ChargingStation.location_id == HostContract.location_id)
        .join(ChargingSession, ChargingSession.station_id == ChargingStation.id)
        .where(ChargingSession.id == cdr.session_id, HostContract.valid_from <= on)
        .order_by(HostContract.valid_from.desc()).limit(1)
    )  # fmt: skip
    found = (await scope.db.execute(query)).first()
    if found is None or not found[1].is_account_ready:
        return None
    contract, host = found
    if host.account_provider != payments.provider_name(scope.settings):
        return None
    net = site_hosts.share_of(
        contract, cdr.currency, revenue_minor=cdr.excl_vat_minor, energy_wh=cdr.energy_wh, sessions=1
    )
    vat = site_hosts.tax_of(profile, host, on)
    gross = net * (1 + Fraction(vat.rate) / 100) if vat else net
    return HostShare(public_id("site_host", host.id), host.account_ref, gross.__floor__())
