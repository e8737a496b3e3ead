"""From a finished session to its CDR, its invoice and the books: one transaction that can run twice.

The session's own prices (frozen at its start) and its readings decide; CDR = invoice to the cent, because both come
from one `Price` whose total was rounded once.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select, text
from sqlalchemy.orm import selectinload

from app.access import accounts
from app.access.models import DriverGroup
from app.billing import payments
from app.billing import service as billing
from app.billing.models import Invoice, Payment, PaymentOp
from app.brands import faces
from app.brands.models import TenantProfile
from app.charging import host_accounts, off_session, service
from app.charging.models import CDR, ChargingSession, PriceSnapshot, SessionEvent
from app.charging.periods import Sample, StateChange, Stretch, stretches
from app.charging.snapshot import digest_of
from app.kernel import audit, events, tax
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.money import Money, to_minor
from app.stations.models import EVSE, Location
from app.tariffs import explain, ocpi_tariff, pricing
from app.tariffs.pricing import Period, Price
from tenants.scope import Scope
from themes.language import N_, _, speaking
from themes.render import day

DESCRIPTIONS = {
    "ENERGY": N_("Energy"), "TIME": N_("Charging time"), "PARKING_TIME": N_("Time after charging"),
    "FLAT": N_("Session fee"), "MIN_PRICE": N_("Minimum price"), "MAX_PRICE": N_("Maximum price"),
}  # fmt: skip

DIMENSIONS = ("ENERGY", "TIME", "PARKING_TIME", "FLAT")  # what a limit changes is told without tax


async def settle(scope: Scope, session_id: UUID, *, is_undecided: bool = False) -> CDR | None:
    """The CDR of a completed session, and what follows from it. None where there is nothing to bill.

    A session under `no_tariff` ends in a CDR of 0 and stays under review; so does one that `is_undecided` while its
    hold ends (`holds`).
    """
    await service.lock_settling(scope, session_id)
    session = await service.get_session(scope, session_id)
    if session.settled_at is not None:
        return await find_cdr(scope, session_id)
    if (
        session.status != "COMPLETED"
        or (session.review not in (None, "no_tariff") and not is_undecided)
        or session.energy_wh is None
    ):
        return None
    session.settled_at = scope.now
    if session.energy_wh == 0 and (session.id_token_status != "Accepted"):
        session.status = "INVALID"  # a token we refused or nobody at all, and nothing was given
        return None
    cdr = await _freeze(scope, session)
    is_unheld = session.cost_cap_minor is None and not await _is_paid_at_terminal(scope, session)
    if cdr.collection == "card" and is_unheld:  # nobody came to it before the end
        held = await off_session.place_hold(scope, session, owed_minor=cdr.incl_vat_minor)
        cdr.collection = "card" if held is not None else "per_session"
    await invoice(scope, cdr)
    if cdr.collection == "card":
        await off_session.cover(scope, session, cdr.incl_vat_minor)
        await _capture(scope, session.id, cdr, cdr.incl_vat_minor)
    return cdr


async def _capture(scope: Scope, session_id: UUID, cdr: CDR | None, gross_minor: int) -> None:
    host = await host_accounts.share_of(scope, cdr) if cdr is not None else None
    await payments.capture(scope, "charging_session", session_id, gross_minor, host=host)


async def find_cdr(scope: Scope, session_id: UUID) -> CDR | None:
    """The newest that is not corrected."""
    query = (
        select(CDR).where(CDR.session_id == session_id, CDR.kind == "cdr").order_by(CDR.revision_no.desc())
    )
    return (await scope.db.execute(query)).scalars().first()


async def get_cdr(scope: Scope, cdr_id: UUID) -> CDR:
    query = select(CDR).where(CDR.id == cdr_id).options(selectinload(CDR.session))
    cdr = (await scope.db.execute(query)).scalar_one_or_none()
    if cdr is None:
        raise NotFound("cdr")
    return cdr


async def list_papers(scope: Scope, session_id: UUID) -> list[Invoice]:
    """The session's own invoices, receipts and credit notes, oldest first. A month's invoice holds other drivers'
    sessions too and is none of theirs."""
    query = select(CDR).where(CDR.session_id == session_id, CDR.collection.in_(("per_session", "card")))
    cdrs = (await scope.db.execute(query.order_by(CDR.created_at, CDR.id))).scalars().all()
    return [one for cdr in cdrs for one in await billing.list_invoices_of(scope, "cdr", cdr.id)]


# --- what it costs -----------------------------------------------------------------------------------------------


async def running_price(scope: Scope, session: ChargingSession) -> Price | None:
    """What the session has cost by now, at its frozen prices; None before it began to charge.

    Energy by its last reading. Time by the clock where the station says what goes on: many send nothing while the car
    only stands there. Without that nobody knows whether the time since the last reading was one of charging.
    """
    frozen = await _snapshot(scope, session.id)
    if frozen is None or session.status not in ("ACTIVE", "COMPLETED"):
        return None
    live = session.live
    read_at = scope.now if live is None or live.charging_state is not None else live.reading_at
    until = session.ended_at or max(read_at or scope.now, session.started_at)
    energy = session.energy_wh
    if energy is None:
        energy = max((live.energy_wh or 0) if live else 0, 0)
    return await price_at(scope, session, until, energy)


async def standing_price(scope: Scope, session: ChargingSession) -> str:
    """What it costs to stand there after charging, by the prices of the start, in words; empty where nothing."""
    frozen = await _snapshot(scope, session.id)
    if frozen is None or frozen.tariff is None:
        return ""
    on = scope.now.astimezone(ZoneInfo(frozen.time_zone)).date()
    return explain.standing(
        ocpi_tariff.read_tariff(frozen.tariff), default_vat=tax.vat_rate(frozen.country, on), on=on
    )


async def price_if_standing(
    scope: Scope, session: ChargingSession, at: datetime, energy_wh: int
) -> Price | None:
    """What it would have cost by then if it took no more energy than that and stood there from now on. Where the
    station has not said what goes on, it is taken to have charged until now."""
    live = session.live
    assumed = [StateChange(scope.now, "SuspendedEV")]
    if live is None or live.charging_state is None:
        since = (live.reading_at if live else None) or session.started_at
        assumed.append(StateChange(min(since, scope.now), "Charging"))
    return await price_at(scope, session, at, energy_wh, assumed)


async def price_at(
    scope: Scope, session: ChargingSession, at: datetime, energy_wh: int, assumed: Sequence[StateChange] = (), *,
    tariff: dict[str, Any] | None = None,
) -> Price | None:  # fmt: skip
    """What it would cost if it ended then with that energy, and with those changes of state beside the known; by
    another `tariff` (an OCPI object) than its own where one is given."""
    frozen = await _snapshot(scope, session.id)
    if frozen is None:
        return None
    return _price(frozen, await _stretches(scope, session, at, energy_wh, assumed), at, tariff)


async def _snapshot(scope: Scope, session_id: UUID) -> PriceSnapshot | None:
    query = select(PriceSnapshot).where(PriceSnapshot.session_id == session_id)
    return (await scope.db.execute(query)).scalar_one_or_none()


def _price(
    frozen: PriceSnapshot,
    parts: Sequence[Stretch],
    ended_at: datetime,
    instead: dict[str, Any] | None = None,
) -> Price:
    """The VAT rate is that of the place at the end of supply; a component's own `vat` wins (money.md 4.2)."""
    tariff = instead or frozen.tariff
    if tariff is None:
        return pricing.free(frozen.currency)
    on = ended_at.astimezone(ZoneInfo(frozen.time_zone)).date()
    default_vat = tax.vat_rate(frozen.country, on)
    periods = [_priced(part) for part in parts]
    return pricing.price(
        ocpi_tariff.read_tariff(tariff), periods, time_zone=frozen.time_zone, default_vat=default_vat
    )


def _priced(part: Stretch) -> Period:
    if part.is_charging:
        return Period.charging(part.start, part.end, part.energy_wh)
    return Period.parking(part.start, part.end)


async def _stretches(
    scope: Scope,
    session: ChargingSession,
    ended_at: datetime,
    energy_wh: int,
    assumed: Sequence[StateChange] = (),
) -> list[Stretch]:
    readings = text("select sampled_at, value from livery.session_register(:session) order by sampled_at")
    rows = (await scope.db.execute(readings, {"session": session.id})).all()
    changes = select(SessionEvent).where(SessionEvent.session_id == session.id, SessionEvent.kind == "state")
    states = [StateChange(e.at, e.data["state"]) for e in (await scope.db.execute(changes)).scalars()]
    states += assumed
    samples = [Sample(row.sampled_at, row.value) for row in rows]
    start = None if session.meter_start_wh is None else Decimal(session.meter_start_wh)
    if start is None:  # what is billed then counts from the first reading of the visit
        start = next((one.meter_wh for one in samples if one.at >= session.started_at), None)
    return stretches(session.started_at, ended_at, Decimal(energy_wh), start, samples, states)


# --- the CDR -----------------------------------------------------------------------------------------------------


async def _freeze(scope: Scope, session: ChargingSession, *, revision_no: int = 1, reason: str = "") -> CDR:
    frozen = await _snapshot(scope, session.id)
    assert frozen is not None and session.ended_at is not None and session.energy_wh is not None
    parts = await _stretches(scope, session, session.ended_at, session.energy_wh)
    price = _price(frozen, parts, session.ended_at)
    cdr = CDR(
        id=uuid7(), session_id=session.id, revision_no=revision_no, started_at=session.started_at,
        ended_at=session.ended_at, energy_wh=session.energy_wh, currency=frozen.currency,
        excl_vat_minor=price.total_cost.excl_minor, incl_vat_minor=price.total_cost.incl_minor,
        price=price.as_json(), charging_periods=[_period(part) for part in parts], tariff=frozen.tariff,
        location=await _place(scope, session, frozen), collection=await collection_of(scope, session),
        driver_group_id=session.driver_group_id, reason=reason, hash=b"", created_at=scope.now,
    )  # fmt: skip
    cdr.hash = digest_of(
        [str(cdr.id), str(session.id), cdr.energy_wh, cdr.price, cdr.charging_periods, cdr.location]
    )
    scope.db.add(cdr)
    await scope.db.flush()
    news = {"session": str(session.id), "incl_vat_minor": cdr.incl_vat_minor}
    await events.emit(scope, "CDRCreated", "cdr", cdr.id, news)
    scope.publish(f"session:{session.id}", {"what": "cdr"})
    scope.publish("sessions", {"session": str(session.id)})
    return cdr


def _period(part: Stretch) -> dict[str, Any]:
    """OCPI ChargingPeriod: what was used from its start on."""
    microseconds = (part.end - part.start) // timedelta(microseconds=1)
    hours = (Decimal(microseconds) / 3_600_000_000).quantize(Decimal("0.0001"))
    time = {"type": "TIME" if part.is_charging else "PARKING_TIME", "volume": str(hours)}
    energy = {"type": "ENERGY", "volume": str((part.energy_wh / 1000).quantize(Decimal("0.0001")))}
    return {
        "start_date_time": part.start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "dimensions": [energy, time] if part.energy_wh else [time],
    }


async def _place(scope: Scope, session: ChargingSession, frozen: PriceSnapshot) -> dict[str, Any]:
    """Where it was, as it was called then: a CDR must not change when a site is renamed. Country and clock are those
    of the price."""
    location: Location | None = session.station.location
    evse = await scope.db.get(EVSE, (scope.tenant_id, session.evse_id)) if session.evse_id else None
    names = ("name", "address", "city", "postal_code")
    return ({name: getattr(location, name) for name in names} if location else {}) | {
        "country": frozen.country, "time_zone": frozen.time_zone,
        "station": session.station.ocpp_identity, "station_name": session.station.name or session.station.ocpp_identity,
        "evse_no": session.evse_no, "evse_id": evse.evse_id if evse else None,
        "connector_no": session.connector_no, "token": session.id_token_masked,
    }  # fmt: skip


async def collection_of(scope: Scope, session: ChargingSession) -> str:
    """`card`, `per_session`, `monthly` or `free`: a held card, the driver's saved one, or the driver group's rule,
    frozen at the start. Without any token there is nobody to collect from."""
    if session.cost_cap_minor is not None or await _is_paid_at_terminal(scope, session):
        return "card"
    if session.id_token_id is None or (session.id_token is not None and session.id_token.is_single_use):
        return "free"
    frozen = await _snapshot(scope, session.id)
    if frozen is not None and frozen.collection is not None:
        return frozen.collection
    return await accounts.collection_of(scope, session.driver_group_id)


async def _is_paid_at_terminal(scope: Scope, session: ChargingSession) -> bool:
    payment = await payments.find_payment(scope, "charging_session", session.id)
    return payment is not None and payment.provider == payments.TERMINAL


# --- invoices ----------------------------------------------------------------------------------------------------


async def invoice(scope: Scope, cdr: CDR) -> None:
    """In the language of the payment; where none was made, in the driver's, else the brand's. The paper keeps it."""
    if cdr.collection in ("per_session", "card"):
        session = await service.get_session(scope, cdr.session_id)
        payment = payments.as_one(await payments.list_legs(scope, "charging_session", session.id))
        if payment is not None:
            language = await payments.language_of(scope, payment.id)
        else:
            language = await faces.get_language(scope, session.driver.language if session.driver else None)
        with speaking(language):
            await billing.issue_invoice(
                scope, currency=cdr.currency, lines=lines_of(cdr), buyer=await _buyer(scope, session, payment),
                began_at=cdr.started_at, supplied_at=cdr.ended_at, time_zone=cdr.location.get("time_zone") or "",
                place=cdr.location.get("evse_id") or _charger({**cdr.location, "name": ""}),
                language=language, payment_id=payment.id if payment else None,
            )  # fmt: skip


async def _buyer(scope: Scope, session: ChargingSession, payment: Payment | None) -> dict[str, Any]:
    """Whoever closed their account since stays the buyer whom the session's first paper names."""
    driver = session.driver
    if driver is not None and driver.deleted_at is not None:
        for paper in await list_papers(scope, session.id):
            return {name: paper.buyer[name] for name in ("name", "email", "driver_id") if name in paper.buyer}
    is_guest = session.cost_cap_minor is not None or (payment and payment.provider == payments.TERMINAL)
    if is_guest and driver is None:
        return {"name": _("Guest"), "email": payment.payer_email if payment else ""}
    if driver is not None:
        return {"name": driver.name, "email": driver.email or "", "driver_id": str(driver.id)}
    return {"name": _("Holder of card %(card)s") % {"card": session.id_token_masked}, "email": ""}


def lines_of(cdr: CDR, *, dated: bool = False) -> list[billing.Line]:
    """One line per line of the price; their sums are the CDR's totals. In the language that is being spoken.

    `Energy, Hafen West, charger 2`; `dated` with the day too, where one paper holds many sessions.
    """
    country = tax.alpha_2(cdr.location.get("country", "")) or "--"
    began = cdr.started_at.astimezone(ZoneInfo(cdr.location.get("time_zone") or "UTC"))
    words = ", ".join([_charger(cdr.location), *([day(began)] if dated else [])])
    lines = []
    for number, line in enumerate(cdr.price["lines"]):
        net, gross = _minor(line["excl_vat"], cdr.currency), _minor(line["incl_vat"], cdr.currency)
        rate = Decimal(line["vat"])
        is_gross = line["component"] in DIMENSIONS and cdr.price["is_tax_included"]
        lines.append(
            billing.Line(
                source_type="cdr",
                source_id=cdr.id,
                source_part=str(number),
                description=f"{_(DESCRIPTIONS[line['component']])}, {words}",
                quantity=Decimal(line["volume"]),
                unit=line["unit"],
                unit_price=_without_vat(Decimal(line["unit_price"]), rate, is_gross=is_gross),
                vat_rate=rate,
                vat_code=f"{country}{rate.normalize():f}",
                net_minor=net,
                vat_minor=gross - net,
                gross_minor=gross,
            )
        )
    return lines


def _charger(place: dict[str, Any]) -> str:
    """As the driver's own page calls it: the site, the charger there, and which of its places if it has several."""
    station, site = place.get("station_name") or place["station"], place.get("name") or ""
    which = f" · {place['evse_no']}" if (place.get("evse_no") or 1) > 1 else ""
    return f"{station}{which}" if station.startswith(site) else f"{site}, {station}{which}"


def _without_vat(unit_price: Decimal, rate: Decimal, *, is_gross: bool) -> Decimal:
    """As far as it is kept, to eight decimals; the amounts were computed from the tariff's own price."""
    return round(unit_price / (1 + rate / 100), 8).normalize() + 0 if is_gross else unit_price


def _minor(amount: str, currency: str) -> int:
    return to_minor(Decimal(amount), currency)


async def invoice_month(scope: Scope) -> int:
    """What waits for the month's invoice: CDRs of months that are over (the tenant's calendar), per driver group. As
    many invoices as it takes for their tax to be that of their sums (`billing.bundle`): nearly always one."""
    profile = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
    if profile is None:
        return 0
    local = scope.now.astimezone(ZoneInfo(profile.time_zone))
    month = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    query = text("""
        select c.id from livery.cdr c where c.kind = 'cdr' and c.collection = 'monthly' and c.ended_at < :month
           and c.incl_vat_minor <> 0
           and not exists (select from livery.cdr k where k.tenant_id = c.tenant_id and k.corrects_id = c.id)
           and not exists (select from livery.invoice_line l where l.tenant_id = c.tenant_id
                            and l.source_type = 'cdr' and l.source_id = c.id)
         order by c.ended_at, c.id""")
    waiting = [
        await get_cdr(scope, cdr_id) for cdr_id in (await scope.db.execute(query, {"month": month})).scalars()
    ]
    language = await faces.get_language(scope)
    bundles: dict[tuple[UUID | None, str], list[CDR]] = defaultdict(list)
    for cdr in waiting:
        bundles[cdr.driver_group_id, cdr.currency].append(cdr)
    issued = 0
    for (group_id, currency), cdrs in bundles.items():
        by_id = {cdr.id: cdr for cdr in cdrs}
        group = await scope.db.get(DriverGroup, (scope.tenant_id, group_id)) if group_id else None
        with speaking(language):
            buyer = {"name": group.name if group else "", "email": ""} | (group.invoice_to if group else {})
            for lines in billing.bundle([lines_of(cdr, dated=True) for cdr in cdrs], currency):
                last = max((by_id[line.source_id] for line in lines), key=lambda cdr: cdr.ended_at)
                await billing.issue_invoice(
                    scope, currency=currency, lines=lines, buyer=buyer, supplied_at=last.ended_at,
                    time_zone=last.location.get("time_zone") or "", language=language,
                )  # fmt: skip
                issued += 1
    return issued


# --- corrections -------------------------------------------------------------------------------------------------


async def credit(scope: Scope, cdr_id: UUID, reason: str, *, energy_wh: int | None = None) -> CDR:
    """A credit CDR over the whole, and the credit note with it; with `energy_wh` a corrected CDR follows.

    Nothing is ever changed. Errors: `already_credited`, `not_creditable`, `charge_disputed`.
    """
    if not reason.strip():
        raise Invalid.field("reason", "required", "Say in a sentence why.")
    cdr = await get_cdr(scope, cdr_id)
    if cdr.kind != "cdr":
        raise Refused("not_creditable", "Only a CDR can be credited.")
    await service.lock_settling(scope, cdr.session_id)
    if cdr.collection == "card":
        for payment in await payments.lock_legs(scope, "charging_session", cdr.session_id):
            payments.refuse_disputed(payment)
    if await _find_credit(scope, cdr) is not None:
        raise Refused("already_credited", "This CDR was credited already.")
    note = CDR(
        id=uuid7(), kind="credit", corrects_id=cdr.id, session_id=cdr.session_id, revision_no=cdr.revision_no,
        started_at=cdr.started_at, ended_at=cdr.ended_at, energy_wh=-cdr.energy_wh, currency=cdr.currency,
        excl_vat_minor=-cdr.excl_vat_minor, incl_vat_minor=-cdr.incl_vat_minor, price=cdr.price,
        charging_periods=cdr.charging_periods, tariff=cdr.tariff, location=cdr.location, collection=cdr.collection,
        driver_group_id=cdr.driver_group_id, reason=reason.strip()[:1000], hash=b"", created_at=scope.now,
    )  # fmt: skip
    note.hash = digest_of([str(note.id), str(cdr.id), note.energy_wh, note.incl_vat_minor, note.reason])
    scope.db.add(note)
    await scope.db.flush()
    await billing.credit_source(scope, "cdr", cdr.id, note.reason)
    await audit.record(scope, "cdr.credited", "cdr", cdr.id, {"reason": note.reason})
    await events.emit(scope, "CDRCredited", "cdr", note.id, {"corrects": str(cdr.id)})
    if energy_wh is not None:
        await _correct(scope, cdr, energy_wh, note.reason)
    if cdr.collection == "card":
        await correct_payment(scope, cdr.session_id)
    return note


async def _find_credit(scope: Scope, cdr: CDR) -> CDR | None:
    return (await scope.db.execute(select(CDR).where(CDR.corrects_id == cdr.id))).scalars().first()


async def correct_payment(scope: Scope, session_id: UUID) -> None:
    """A guest has paid what the corrected papers say, or is given the difference; more is never asked for. Papers that
    are corrected this moment are waited for: a sum without them would be written off. So it is with what was taken
    while the session ran, and came to too much."""
    await service.lock_settling(scope, session_id)
    query = select(CDR).where(CDR.session_id == session_id).order_by(CDR.id)
    cdrs = list((await scope.db.execute(query)).scalars())
    if len(cdrs) > 1 or (cdrs and len(await payments.list_legs(scope, "charging_session", session_id)) > 1):
        gross, why = await papers_minor(scope, session_id), cdrs[-1].reason or payments.LESS_USED
        await payments.correct(scope, "charging_session", session_id, gross, why)


async def capture(scope: Scope, session_id: UUID) -> None:
    """The hold came after the end: it is taken for what stands on the papers by now."""
    await service.lock_settling(scope, session_id)
    session = await service.get_session(scope, session_id)
    if session.settled_at is not None:
        cdr = await find_cdr(scope, session_id)
        await _capture(scope, session_id, cdr, await papers_minor(scope, session_id))


async def papers_minor(scope: Scope, session_id: UUID) -> int:
    """What a session's invoices and credit notes come to, gross: notes over a part are no CDRs."""
    return sum(paper.gross_minor for paper in await list_papers(scope, session_id))


async def refund(
    scope: Scope, payment_id: UUID, reason: str, *, amount_minor: int | None = None
) -> PaymentOp:
    """A guest's payment goes back, with a credit note: all that is left of it, over what was supplied (by the note that
    stands where the provider refused before), or `amount_minor` of it, over that part. A session that several payments
    paid is one: the latest gives back first, whichever was asked. The newest call. Errors: `not_refundable`,
    `refund_too_high`, `charge_disputed`, Invalid of `reason` or `amount`."""
    if not reason.strip():
        raise Invalid.field("reason", "required", "Say in a sentence why.")
    if amount_minor is not None and amount_minor <= 0:
        raise Invalid.field("amount", "amount", "The amount is more than nothing.")
    payment = await lock_refunding(scope, payment_id)
    several = await payments.legs_beside(scope, payment)
    if len(several) == 1:
        payments.refuse_disputed(payment)
    cdr = await find_cdr(scope, payment.source_id) if payment.source_type == "charging_session" else None
    left = await refundable_minor(scope, payment)
    if cdr is None or not left:
        for leg in several if amount_minor is None else ():
            if (await payments.find_back(scope, leg)).refused_minor:
                return await payments.refund_again(scope, leg.id)
        for leg in several:
            payments.refuse_disputed(leg)
        why = "There is nothing left of this payment that could be given back."
        if payment.captured_minor and cdr is not None:
            why = "This payment was given back already, or is on its way back."
        raise Refused("not_refundable", why)
    if amount_minor is not None and amount_minor > left:
        most = Money(left, payment.currency).format()
        raise Refused("refund_too_high", f"At most {most} of this payment can still be given back.")
    reason = reason.strip()[:1000]
    is_all = (amount_minor or left) == left == await billing.creditable_minor(scope, "cdr", cdr.id)
    if is_all or (amount_minor is None and len(several) == 1):
        await credit(scope, cdr.id, reason)
        made = await payments.list_refunds(scope, [leg.id for leg in several])
        return max((op for ops in made.values() for op in ops), key=lambda op: op.id)
    await billing.credit_part(scope, "cdr", cdr.id, amount_minor or left, reason)
    return (await payments.refund_legs(scope, several, reason, amount_minor or left))[-1]


async def lock_refunding(scope: Scope, payment_id: UUID) -> Payment:
    """Whoever else settles, credits or refunds its session waits. Of several legs the first, which the papers name."""
    payment = await payments.get_payment(scope, payment_id)
    await service.lock_settling(scope, payment.source_id)
    if payment.source_type == payments.WALLET:
        return payment
    return (await payments.lock_legs(scope, payment.source_type, payment.source_id))[0]


async def refundable_minor(scope: Scope, payment: Payment, cdr: CDR | None = None) -> int:
    """The most that `refund` gives back of a session's payment now: taken, not given back nor promised by a note, and
    still on the papers."""
    if payment.source_type != "charging_session":
        return 0
    cdr = cdr or await find_cdr(scope, payment.source_id)
    if cdr is None or cdr.collection != "card" or await _find_credit(scope, cdr) is not None:
        return 0
    legs = await payments.legs_beside(scope, payment)
    refunds = await payments.list_refunds(scope, [leg.id for leg in legs])
    left = sum(payments.refundable_minor(leg, refunds.get(leg.id, [])) for leg in legs)
    left -= (await payments.find_back_by(scope, legs)).refused_minor
    return max(min(left, await billing.creditable_minor(scope, "cdr", cdr.id)), 0)


async def credit_given_back(scope: Scope, payment_id: UUID, reason: str) -> CDR:
    """The credit note over a payment that was given back at the provider itself, all of it: no money moves. Errors:
    `not_creditable`."""
    payment = await payments.get_payment(scope, payment_id)
    await service.lock_settling(scope, payment.source_id)
    cdr = await find_cdr(scope, payment.source_id) if payment.source_type == "charging_session" else None
    legs = await payments.legs_beside(scope, payment)
    is_all_back = all(leg.refunded_minor >= leg.captured_minor for leg in legs)
    unpapered = sum([await payments.find_unpapered(scope, leg) for leg in legs])
    if cdr is None or not is_all_back or not unpapered:
        raise Refused("not_creditable", "No credit note is missing for all of this payment.")
    return await credit(scope, cdr.id, reason)


async def _correct(scope: Scope, cdr: CDR, energy_wh: int, reason: str) -> None:
    service.check_energy(energy_wh)
    session = await service.get_session(scope, cdr.session_id)
    session.energy_wh = energy_wh
    await invoice(scope, await _freeze(scope, session, revision_no=cdr.revision_no + 1, reason=reason))
