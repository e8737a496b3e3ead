"""A brand with one object of every kind, made by ordinary verbs, and a canary in every text it has."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.access import local_lists
from app.access import service as access
from app.access.verdict import IdTokenValue
from app.billing import paper, sandbox, terminals, vouchers, wallets
from app.billing.models import (
    AcquirerPayout,
    BilledTenant,
    Dispute,
    Invoice,
    Payer,
    Payment,
    PaymentAccount,
    Payout,
    PlatformFee,
    PlatformInvoice,
    ProviderBalanceTxn,
    ReconItem,
    ReconRun,
    RefundRequest,
    Repayment,
    SavedCard,
    VoucherRedemption,
)
from app.brands import domains, faces
from app.brands import service as brands
from app.brands.look import Look
from app.charging import ingest, paid, settlement, site_hosts, smart_charging
from app.charging import service as charging
from app.charging.models import CDR, ChargingSession, HostStatement, Reservation
from app.charging.profiles import Period
from app.charging.reports import ENERGY, Reading, TransactionReport
from app.charging.smart_charging import Wish
from app.device_model import configuration, displays, monitors
from app.device_model import service as device_model
from app.device_model.paths import parse_path
from app.device_model.reports import Attribute, Part, ReportedMonitor, ReportedNotice, ReportedVariable
from app.identity import service as identity
from app.identity.permissions import ROLES
from app.kernel.clock import uuid7
from app.kernel.ids import parse_id, public_id
from app.maintenance import policy, security
from app.maintenance.models import (
    FirmwarePublication,
    FirmwareUpdate,
    InstalledCertificate,
    SecurityChange,
    StationCertificate,
    StationLog,
)
from app.metering import keys
from app.metering import service as metering
from app.notifications.models import Mail
from app.stations import alerts, availability, commands, makes, parking
from app.stations import service as stations
from app.stations.models import OCPPMessage
from app.stations.reports import Frame
from app.tariffs import service as tariffs
from tenants.database import Database
from tenants.scope import Actor, Scope
from tests.cast import PLATES
from tests.metering.meters import Meter
from tests.web import CLI, found_brand
from themes.theme import preset

STATION = "CP1"  # both brands have one of that name


@dataclass(frozen=True, slots=True)
class Furnished:
    tenant_id: UUID
    slug: str
    canary: str
    # What stands for each parameter of a path.
    ids: dict[str, str]

    def email(self, role: str) -> str:
        return f"{role}@{self.slug}.example"


async def furnish(database: Database, slug: str) -> Furnished:
    canary = f"canary{slug}"
    tenant_id = await found_brand(database, slug, f"owner@{slug}.example", name=canary)
    seller = {
        "legal_name": canary,
        "address": canary,
        "postal_code": "1",
        "city": canary,
        "vat_id": "DE136695976",
    }
    async with database.scope(tenant_id, CLI) as scope:
        await brands.update_profile(scope, seller)  # so that what was charged is on a numbered invoice
        ids = await _people(scope, slug, canary)
        location = await stations.create_location(
            scope,
            name=canary,
            address=canary,
            city=canary,
            postal_code="1",
            country="DEU",
            time_zone="Europe/Berlin",
        )
        made = await stations.create_station(
            scope, identity=STATION, name=canary, location_id=location.id,
            evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
        )  # fmt: skip
        quirk = await makes.add_quirk(scope, vendor="Nobody", model=canary, quirk="no_ping", note=canary)
        await alerts.raise_alert(scope, made.station.id, "handshake", canary)
        (alert,) = await alerts.open_alerts(scope, made.station.id)
        element = {"price_components": [{"type": "ENERGY", "price": "0.5", "vat": "19", "step_size": 1}]}
        tariff = await tariffs.create_tariff(
            scope, {"currency": "EUR", "elements": [element], "name": canary}, {"default": True}
        )
        station = await stations.get_station(scope, made.station.id)
        ids |= {
            "location_id": public_id("location", location.id), "code": station.evses[0].code,
            "station_id": public_id("charging_station", station.id), "tariff_id": public_id("tariff", tariff.id),
            "evse_id": public_id("evse", station.evses[0].id),
            "quirk_id": public_id("station_quirk", quirk.id), "alert_id": public_id("station_alert", alert.id),
            "sticker_file": f"{public_id('evse', station.evses[0].id)}.svg",
        }  # fmt: skip
    ids |= await _session(database, tenant_id, station.id, canary, ids["driver_id"])
    async with database.scope(tenant_id, CLI) as scope:
        ids |= await _host(scope, location.id, canary)
        ids |= await _terminal(scope, location.id, canary)
    ids["template_id"] = await _device_model(database, tenant_id, station.id, canary)
    ids |= await _energy(database, tenant_id, station.id, canary)
    async with database.scope(tenant_id, CLI) as scope:
        ids |= await _maintenance(scope, station.id, canary)
        ids |= await _meters(scope, station.id, parse_id("charging_session", ids["session_id"]), canary)
    async with database.scope(tenant_id, CLI) as scope:
        ids |= await _checkout(database)
        theme = preset("default")
        await faces.save_draft(scope, Look(theme=theme, texts={"imprint": {"en": canary}}))
        await faces.publish_draft(scope, canary)
        ids |= {"kind": "imprint", "preview_name": "preview-" + "0" * 16 + ".css"}
        ids["file_name"] = (await faces.get_face(scope)).brand.css_url.rpartition("/")[2]
    return Furnished(tenant_id, slug, canary, ids)


async def _device_model(database: Database, tenant_id: UUID, station_id: UUID, canary: str) -> str:
    """What a station told of itself, in every table; and how it should be set. The template's public id."""
    path = parse_path(f"{canary}/{canary}")
    now = datetime.now(UTC)
    part = Part(request_no=1, seq_no=0, has_more=False)
    told = ReportedVariable(path=path, attributes={"Actual": Attribute(value=canary)})
    monitor = ReportedMonitor(path=path, monitor_no=1, kind="Delta", value=Decimal(1), severity=3)
    notice = ReportedNotice(
        path=path, event_no=1, at=now, trigger="Delta", notification="CustomMonitor", value=canary, monitor_no=1
    )  # fmt: skip
    async with database.scope(tenant_id, Actor.station(station_id)) as scope:
        await device_model.take_report_part(scope, station_id, part, [told])
        await monitors.take_monitors(scope, station_id, [monitor])
        await monitors.take_notices(scope, station_id, [notice], now)
    async with database.scope(tenant_id, CLI) as scope:
        await displays.show_message(scope, station_id, displays.Text(content=canary))
        template = await configuration.create_template(
            scope, name=canary, ocpp_version="ocpp2.0.1", settings={str(path): canary}
        )
        return public_id("configuration_template", template.id)


async def _maintenance(scope: Scope, station_id: UUID, canary: str) -> dict[str, str]:
    """A row of each kind, as if the station had said it."""
    now, about = scope.now, {"station_id": station_id}
    await policy.set_policy(scope, minimum_profile=1, organisation=canary, firmware_hosts=["fw.example.com"])
    await security.record_event(scope, station_id, "TamperDetectionActivated", canary, now, now)
    firmware = {"request_id": 1, "location": f"https://fw.example.com/{canary}", "status_at": now, **about}
    rows: dict[str, Any] = {
        "certificate_id": StationCertificate(
            kind="Combined", status="accepted", csr_pem="", subject=canary, reason=canary, fingerprint="00",
            serial_number="ab", valid_from=now, valid_until=now + timedelta(days=400), **about,
        ),
        "change_id": SecurityChange(kind="key", note=canary, expires_at=now + timedelta(days=1), **about),
        "installed_id": InstalledCertificate(
            certificate_type="CSMSRootCertificate", hash_data={"hashAlgorithm": "SHA256", "issuerNameHash": canary,
            "issuerKeyHash": canary, "serialNumber": canary}, **about,
        ),
        "update_id": FirmwareUpdate(is_signed=False, retrieve_at=now, **firmware),
        "publication_id": FirmwarePublication(checksum="0" * 32, **firmware),
        "log_file": StationLog(
            request_id=1, kind="SecurityLog", file_name=canary, expires_at=now, status_at=now, **about
        ),
    }  # fmt: skip
    scope.db.add_all(rows.values())
    await scope.db.flush()
    return {name: public_id(row.__tablename__, row.id) for name, row in rows.items()}


async def _meters(scope: Scope, station_id: UUID, session_id: UUID, canary: str) -> dict[str, str]:
    """A key that waits for staff, what the meter signed of the session, and a policy."""
    await metering.set_countries(scope, ["FRA"])
    told = metering.Told(f"OCMF|{canary}", "Transaction.End", scope.now)
    await metering.check_charge(scope, "charging_session", session_id, station_id, 1, [told])
    trusted = await keys.add_key(scope, station_id, 1, Meter().key)
    trusted.meter = canary
    waiting = await keys.note_key(scope, station_id, 1, Meter().key)
    assert waiting is not None and waiting.status == "waiting"
    return {"key_id": public_id("meter_key", waiting.id)}


async def _checkout(database: Database) -> dict[str, str]:
    """An open payment page of the sandbox, and a way to its onboarding, made at its wire."""

    async def ask(path: str, params: dict[str, Any], account: str = "") -> dict[str, Any]:
        key = sandbox.api_key(database.settings)
        answer = await sandbox.handle(database, sandbox.Wire("POST", path, params, key, account))
        assert answer.status == 200, answer
        return answer.body

    account = await ask("/v2/core/accounts", {"display_name": "Test"})
    item = {"price_data": {"currency": "eur", "unit_amount": "3000", "product_data": {"name": "Test"}}}
    made = await ask(
        "/v1/checkout/sessions",
        {"mode": "payment", "line_items": [item], "success_url": "http://alpha.localhost/s"},
        account["id"],
    )
    use = {
        "type": "account_onboarding",
        "account_onboarding": {"refresh_url": "http://portal-alpha.localhost/"},
    }
    link = await ask("/v2/core/account_links", {"account": account["id"], "use_case": use})
    return {"ref": made["id"], "onboarding": link["url"]}


async def _people(scope: Scope, slug: str, canary: str) -> dict[str, str]:
    for role in ROLES[1:]:
        await identity.invite_staff(scope, email=f"{role}@{slug}.example", name=canary, role=role)
    colleague = await identity.invite_staff(
        scope, email=f"colleague@{slug}.example", name=canary, role="viewer"
    )
    _link, token = await identity.make_login_link(scope, colleague.id)
    key = await identity.create_api_key(scope, canary, ("all",))
    domain = await domains.claim(scope, f"{canary}.example", "driver")
    group = await access.create_driver_group(scope, name=canary)
    driver = await access.create_driver(scope, name=canary, email=f"{canary}@driver.example")
    await access.create_driver(scope, name="Somebody else", email=f"else@{slug}.example")
    _link, driver_token = await identity.make_driver_link(scope, f"{canary}@driver.example")
    card = await access.create_id_token(scope, value=f"CARD{slug}", label=canary, driver_id=driver.id)
    await wallets.offer(scope, is_on=True)
    await wallets.credit(scope, driver.id, "5.00", canary)
    batch = await vouchers.issue(
        scope, name=canary, amount="5.00", code_count=2, uses_per_code=1, paid_by="brand",
        valid_until=f"{scope.now + timedelta(days=9):%Y-%m-%d}",
    )  # fmt: skip
    voucher = (await vouchers.list_vouchers(scope, batch.id))[0]
    redemption = VoucherRedemption(
        voucher_id=voucher.id, driver_id=driver.id, amount_minor=500, currency="EUR", created_at=scope.now
    )
    scope.db.add(redemption)
    mail = Mail(key=canary, kind="test", to_address=f"{canary}@mail.example", subject=canary, body=canary)
    scope.db.add(mail)
    await scope.db.flush()
    return {
        "staff_member_id": public_id("staff_member", colleague.id), "api_key_id": public_id("api_key", key.id),
        "driver_group_id": public_id("driver_group", group.id), "driver_id": public_id("driver", driver.id),
        "id_token_id": public_id("id_token", card.id), "token": token, "slug": slug, "driver_token": driver_token,
        "mail_id": public_id("mail", mail.id), "domain_id": public_id("domain", domain.id),
        "batch_id": public_id("voucher_batch", batch.id),
    }  # fmt: skip


async def _session(
    database: Database, tenant_id: UUID, station_id: UUID, canary: str, driver_id: str
) -> dict[str, str]:
    """Charged, priced and invoiced; beside it a command and a frame."""
    began = datetime.now(UTC) - timedelta(hours=2)
    card = IdTokenValue("CARD" + canary.removeprefix("canary"))
    actor = Actor.station(station_id)
    async with database.scope(tenant_id, actor) as scope:
        verdict = await charging.report_transaction(scope, station_id, TransactionReport(
            kind="Started", at=began, received_at=began, natural_key="start", evse_no=1, connector_no=1, id_token=card,
            meter_start_wh=Decimal(1000),
        ))  # fmt: skip
    read_at = began + timedelta(minutes=30)
    reading = Reading(measurand=ENERGY, value=Decimal(6000), unit="Wh", sampled_at=read_at, received_at=read_at,
                      context="Sample.Periodic")  # fmt: skip
    ended = began + timedelta(hours=1)
    async with database.scope(tenant_id, actor) as scope:
        await ingest.ingest(scope, station_id, 1, verdict.ocpp_transaction_id, [reading])
        await charging.report_transaction(scope, station_id, TransactionReport(
            kind="Ended", at=ended, received_at=ended, natural_key="stop", meter_stop_wh=Decimal(11_000),
            ocpp_transaction_id=verdict.ocpp_transaction_id,
        ))  # fmt: skip
        frame = Frame(at=ended, direction="in", kind="call", ocpp_version="1.6", message_id="1", action="DataTransfer",
                      raw=f'[2,"1","DataTransfer",{{"vendorId":"{canary}"}}]', error=None)  # fmt: skip
        await stations.record_frames(scope, station_id, [frame])
        parked = await parking.park(
            scope, station_id, received_at=ended, ocpp_version="ocpp1.6", action="StatusNotification", message_id="9",
            raw=f'[2,"9","StatusNotification",{{"vendorId":"{canary}"}}]', error=canary,
        )  # fmt: skip
    async with database.scope(tenant_id, CLI) as scope:
        session = (await scope.db.execute(select(ChargingSession))).scalar_one()
        await settlement.settle(scope, session.id)
        command = await commands.send_command(scope, station_id, "Reset", {"type": "Soft"})
        cdr = (await scope.db.execute(select(CDR.id))).scalar_one()
        link = paid.link_of(scope, session.id)
        held = faces.preview_pass(scope)
        payment = Payment(
            id=uuid7(), source_type="charging_session", source_id=session.id, provider="sandbox", account_ref=canary,
            provider_ref=canary, state="captured", currency="EUR", hold_minor=3000, captured_minor=100, method=canary,
            payer_email=f"{canary}@payer.example",
        )  # fmt: skip
        scope.db.add(payment)
        payer = Payer(
            id=uuid7(), driver_id=parse_id("driver", driver_id), account_ref=canary, customer_ref=canary
        )
        saved = SavedCard(
            id=uuid7(), payer_id=payer.id, state="active", request={"email": canary}, checkout_ref=canary,
            setup_ref=canary, provider_ref=canary, brand=canary, last4="4242", exp_month=12, exp_year=2034,
        )  # fmt: skip
        scope.db.add_all([payer, saved])
        waits = RefundRequest(
            id=uuid7(), payment_id=payment.id, amount_minor=100, currency="EUR", reason=canary, asked_by=canary,
            asked_by_kind="staff", asked_by_id=uuid7(), wish={"deed": "refund", "amount_minor": None},
        )  # fmt: skip
        dispute = Dispute(
            id=uuid7(), payment_id=payment.id, account_ref=canary, ref=canary, amount_minor=100, currency="EUR",
            reason=canary, state="needs_response", opened_at=ended, observed_at=ended,
        )  # fmt: skip
        await scope.db.flush()
        repayment = Repayment(
            id=uuid7(),
            payment_id=payment.id,
            amount_minor=1,
            currency="EUR",
            reference=canary,
            recorded_by=canary,
        )
        scope.db.add_all([waits, dispute, repayment])
        books = await _books(scope, canary)
        invoice = (await scope.db.execute(select(Invoice.id))).scalar_one()
        paper_link = paper.link_of(scope, invoice)
        message = (await scope.db.execute(select(OCPPMessage.id))).scalars().first()
        assert message is not None
    return {
        "session_id": public_id("charging_session", session.id), "cdr_id": public_id("cdr", cdr),
        "invoice_id": public_id("invoice", invoice), "command_id": public_id("station_command", command.id),
        "message_id": public_id("ocpp_message", message), "link": link, "paper_link": paper_link,
        "payment_id": public_id("payment", payment.id), "refund_id": public_id("refund", waits.id),
        "dispute_id": public_id("dispute", dispute.id), "held": held, "action": "Reset",
        "saved_card_id": public_id("saved_card", saved.id),
        "parked_id": public_id("parked_message", parked.id),
    } | books  # fmt: skip


async def _books(scope: Scope, canary: str) -> dict[str, str]:
    """A payout with a part, and a difference that somebody else has to explain."""
    at = scope.now
    payout = Payout(
        id=uuid7(), account_ref=canary, provider_ref=canary, state="paid", amount_minor=100, currency="EUR",
        created_at=at, arrives_on=at.date(), is_automatic=True, items_minor=100,
    )  # fmt: skip
    line = ProviderBalanceTxn(
        id=uuid7(), account_ref=canary, provider_ref=canary, type="charge", reporting_category="charge",
        amount_minor=100, fee_minor=0, net_minor=100, currency="EUR", source_ref=canary, charge_ref=canary,
        payout_ref=canary, created_at=at, available_at=at, is_pending=False,
    )  # fmt: skip
    figures = {
        "matched": 0,
        "fresh": 0,
        "differences": {},
        "explained": 0,
        "currencies": {},
        "has_balance": True,
    }
    run = ReconRun(id=uuid7(), account_ref=canary, from_at=at, to_at=at, is_green=False, figures=figures)
    account = PaymentAccount(
        id=uuid7(), provider=canary, account_ref=canary, currency="EUR", due=[canary], opening={}, schedule={}
    )
    scope.db.add_all([payout, line, run, account])
    await scope.db.flush()
    scope.db.add(
        PlatformFee(account_id=account.id, valid_from=at, percent=1, fixed_minor=1, set_by=canary, set_at=at)
    )
    item = ReconItem(
        id=uuid7(), run_id=run.id, account_ref=canary, category="amount", key=canary, balance_txn_id=line.id,
        currency="EUR", found_at=at,
    )  # fmt: skip
    received = PlatformInvoice(
        id=uuid7(), kind="invoice", number=canary, supplied_on=at.date(), issued_at=at, currency="EUR", net_minor=100,
        vat_minor=19, gross_minor=119, content=await _received(scope), pdf=canary.encode(), xml=canary.encode(),
        received_at=at,
    )  # fmt: skip
    billed = BilledTenant(billed_id=uuid7(), slug=canary, buyer={"name": canary}, evidence={}, updated_at=at)
    scope.db.add_all([item, received, billed])
    return {
        "payout_id": public_id("payout", payout.id), "item_id": public_id("recon_item", item.id),
        "platform_invoice_id": public_id("platform_invoice", received.id),
    }  # fmt: skip


async def _host(scope: Scope, location_id: UUID, canary: str) -> dict[str, str]:
    """A site host with a contract and a statement."""
    values = {"name": canary, "address": canary, "postal_code": "1", "city": canary, "country": "DE"}
    host = await site_hosts.save_host(scope, values)
    terms = {"valid_from": f"2026-01-{len(canary):02}", "percent": "10"}
    await site_hosts.add_contract(scope, host.id, location_id, terms)
    statement = HostStatement(
        id=uuid7(), site_host_id=host.id, month=date(2026, 1, len(canary)), number=canary, is_self_billing=False,
        issued_at=scope.now, currency="EUR", sessions_count=1, energy_wh=1, revenue_minor=1, net_minor=1, vat_minor=0,
        gross_minor=1, content=await _received(scope),
    )  # fmt: skip
    scope.db.add(statement)
    await scope.db.flush()
    return {
        "site_host_id": public_id("site_host", host.id),
        "host_statement_id": public_id("host_statement", statement.id),
    }


async def _terminal(scope: Scope, location_id: UUID, canary: str) -> dict[str, str]:
    """A card terminal, a payment there that waits for its session, and a payout of its acquirer."""
    fields = dict.fromkeys(terminals.FIELDS, canary)
    terminal = await terminals.register(scope, fields, location_id=location_id, station_id=None)
    told = terminals.Told(
        terminal_id=terminal.id, record_ref=canary, transaction_ref=canary, kind="settled", amount_minor=500,
        currency="EUR", at=scope.now, card=canary, approval_code=canary, session_ref=canary,
    )  # fmt: skip
    record, _is_new = await terminals.take(scope, told)
    scope.db.add(AcquirerPayout(
        contract=canary, reference=canary, paid_on=scope.now.date(), amount_minor=1, fee_minor=0, currency="EUR",
        recorded_by=canary,
    ))  # fmt: skip
    return {
        "terminal_id": public_id("payment_terminal", terminal.id),
        "record_id": public_id("terminal_record", record.id),
    }


async def _received(scope: Scope) -> dict[str, Any]:
    """The words of a paper: those of the brand's own will do."""
    invoice = (await scope.db.execute(select(Invoice.id))).scalar_one()
    return (await paper.find_paper(scope, invoice)).content("Europe/Berlin")


async def _energy(database: Database, tenant_id: UUID, station_id: UUID, canary: str) -> dict[str, str]:
    """A reservation and a charging profile, as a station would have them."""
    async with database.scope(tenant_id, CLI) as scope:
        reservation = Reservation(
            id=uuid7(), station_id=station_id, reservation_no=1, id_token_masked=canary, state="active", said=canary,
            expires_at=scope.now + timedelta(hours=1),
        )  # fmt: skip
        wish = Wish(purpose="TxDefaultProfile", periods=(Period(0, Decimal(11_000)),))
        scope.db.add(reservation)
        profile = await smart_charging.set_profile(scope, station_id, wish)
        profile.state = "installed"
        await local_lists.cover(scope, station_id, "all")
        await availability.change(scope, station_id, is_operative=False)
    return {
        "reservation_id": public_id("reservation", reservation.id),
        "charging_profile_id": public_id("charging_profile", profile.id),
    }
