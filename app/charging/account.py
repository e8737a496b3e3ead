"""What a logged-in driver has of their own: their way to start, their sessions, and the end of the account.

Errors beside those of `service.request_start` and `paid.request_start`: `card_pays_at_once`, `session_running`.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, case, func, or_, select, tuple_, update
from sqlalchemy.orm import selectinload

from app.access import accounts
from app.access import service as access
from app.access.models import Driver, IdToken
from app.access.verdict import Accepted
from app.billing import cards, payments, wallets
from app.billing.models import Payment, SavedCard
from app.charging import queries, service, startable
from app.charging.models import CDR, ChargingSession
from app.identity.service import email_norm, logins_of
from app.kernel import events
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.money import to_decimal
from app.kernel.secrets import digest
from app.kernel.spreadsheet import Cell
from app.stations.models import ChargingStation
from tenants.scope import Scope
from themes.language import N_

WITHOUT_HOLD = ("free", "monthly")


# --- starting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """How a driver starts at a place. With a `card` by that card and without a hold, `collection` says who pays;
    else by checkout, by the `saved` payment card, or from the `wallet`, of which `most_minor` is there. `refusal` is
    why their card is of no use there; `is_due`: their saved card starts nothing before they have paid.
    """

    card: IdToken | None = None
    collection: str = "card"
    driver_group_id: UUID | None = None
    refusal: str = ""
    saved: SavedCard | None = None
    is_due: bool = False
    most_minor: int | None = None


async def find_way(scope: Scope, driver: Driver, station_id: UUID) -> Way:
    """A group counts where it may charge; elsewhere its drivers are guests like others. Free comes before monthly."""
    ways, refusal = [], ""
    for card in await accounts.list_cards(scope, driver.id):
        group_id = card.driver_group_id or driver.driver_group_id
        collection = await accounts.collection_of(scope, group_id)
        if collection not in WITHOUT_HOLD or card.status != "accepted":
            continue
        verdict = await access.judge(scope, card, station_id)
        if isinstance(verdict, Accepted):
            ways.append(Way(card, collection, group_id))
        else:
            refusal = verdict.message
    if ways:
        return min(ways, key=lambda way: WITHOUT_HOLD.index(way.collection))
    group_id = driver.driver_group_id
    may = group_id is not None and await access.may_charge_at(scope, group_id, station_id)
    is_due = bool(await payments.list_due(scope, driver.id))
    saved = None if is_due else await cards.find_usable(scope, driver.id)
    return Way(driver_group_id=group_id if may else None, refusal=refusal, saved=saved, is_due=is_due)


async def start_by_card(scope: Scope, evse_id: UUID, id_token_id: UUID) -> ChargingSession:
    """By the driver's own card, as if it were held to the reader. Pressed twice it is one wish."""
    card = await accounts.get_card(scope, id_token_id)
    group_id = card.driver_group_id or (card.driver.driver_group_id if card.driver else None)
    if await accounts.collection_of(scope, group_id) not in WITHOUT_HOLD:
        raise Refused(
            "card_pays_at_once", N_("This card pays each session at once. Look at the price and start again.")
        )
    await startable.lock_evse(scope, evse_id)
    waiting = select(ChargingSession).where(
        ChargingSession.evse_id == evse_id, ChargingSession.status == "PENDING",
        ChargingSession.id_token_id == card.id, ChargingSession.pending_until > scope.now,
    )  # fmt: skip
    known = (await scope.db.execute(waiting)).scalars().first()
    if known is not None:
        return known
    presented = accounts.presented(scope, card)
    session, _command = await service.request_start(scope, evse_id=evse_id, presented=presented)
    return session


# --- sessions ----------------------------------------------------------------------------------------------------


def _own(driver: Driver) -> ColumnElement[bool]:
    """Those by their cards and those they began logged in, as frozen at the start: a card that changes hands takes no
    history along. And what a guest paid whose receipts went to this driver's mailbox."""
    mailed = select(Payment.source_id).where(
        Payment.source_type == "charging_session", Payment.payer_email == driver.email_norm,
        Payment.state.in_(("authorized", "capturing", *payments.TAKEN)),
    )  # fmt: skip
    as_guest = and_(
        ChargingSession.driver_id.is_(None), ChargingSession.origin == "guest", ChargingSession.id.in_(mailed)
    )
    return or_(ChargingSession.driver_id == driver.id, as_guest)


async def check_own(scope: Scope, session_id: UUID) -> None:
    """NotFound for anybody else's session."""
    driver = await accounts.get_own(scope)
    query = select(ChargingSession.id).where(ChargingSession.id == session_id, _own(driver))
    if (await scope.db.execute(query)).first() is None:
        raise NotFound("charging_session")


Row = tuple[ChargingSession, CDR | None]


async def list_history(
    scope: Scope, driver: Driver, *, before: UUID | None = None, limit: int | None = None
) -> list[Row]:
    """Newest first, each with its valid CDR; a wish of which nothing came is no session."""
    query = (
        select(ChargingSession)
        .where(_own(driver), ChargingSession.status != "INVALID")
        .options(
            selectinload(ChargingSession.station).selectinload(ChargingStation.location),
            selectinload(ChargingSession.live),
        )
        .order_by(ChargingSession.started_at.desc(), ChargingSession.id.desc())
        .limit(limit)
    )
    if before is not None:
        await check_own(scope, before)
        last = await service.get_session(scope, before)
        query = query.where(
            tuple_(ChargingSession.started_at, ChargingSession.id) < tuple_(last.started_at, last.id)
        )
    rows = list((await scope.db.execute(query)).scalars())
    cdrs = await queries.cdrs_of(scope, [row.id for row in rows])
    return [(row, cdrs.get(row.id)) for row in rows]


def month_of(at: datetime, time_zone: str) -> str:
    return at.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m")


def month_start(month: str, time_zone: str) -> datetime:
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=ZoneInfo(time_zone))


def cost_of(cdr: CDR | None) -> tuple[int, str] | None:
    """Minor units incl. VAT and their currency: what it costs the driver. None while that is not known."""
    return (0 if cdr.collection == "free" else cdr.incl_vat_minor, cdr.currency) if cdr else None


def zone_of(session: ChargingSession, brands_own: str) -> str:
    """The clock of the place; of a charger without a site the brand's own."""
    location = session.station.location
    return location.time_zone if location is not None and location.country else brands_own


def cells(row: Row, time_zone: str) -> list[Cell]:
    """A line of the download, in the order of its head: start, end, place, charger, kWh, cost, currency, card, time
    zone. Times are the place's; `time_zone` is the brand's own."""
    session, cdr = row
    zone, station, cost = ZoneInfo(zone_of(session, time_zone)), session.station, cost_of(cdr)
    return [
        f"{session.started_at.astimezone(zone):%Y-%m-%d %H:%M}",
        f"{session.ended_at.astimezone(zone):%Y-%m-%d %H:%M}" if session.ended_at else "",
        station.location.name if station.location else "", station.name or station.ocpp_identity,
        Decimal(session.energy_wh) / 1000 if session.energy_wh is not None else None,
        to_decimal(*cost) if cost else None, cost[1] if cost else "",
        "" if session.origin == "guest" else session.id_token_masked, zone.key,
    ]  # fmt: skip


async def totals(
    scope: Scope, driver: Driver, *, since: datetime, time_zone: str
) -> dict[str, list[dict[str, Any]]]:
    """Month -> a line per currency: `energy_wh`, `incl_vat_minor`, `currency`, `count`. What is free costs nothing."""
    credited = select(CDR.corrects_id).where(CDR.kind == "credit")
    valid = and_(
        CDR.tenant_id == ChargingSession.tenant_id, CDR.session_id == ChargingSession.id, CDR.kind == "cdr",
        CDR.id.not_in(credited),
    )  # fmt: skip
    month = func.to_char(func.timezone(time_zone, ChargingSession.started_at), "YYYY-MM")
    cost = case((CDR.collection == "free", 0), else_=CDR.incl_vat_minor)
    query = (
        select(
            month.label("month"), CDR.currency, func.count().label("count"),
            func.coalesce(func.sum(ChargingSession.energy_wh), 0).label("energy_wh"),
            func.coalesce(func.sum(cost), 0).label("incl_vat_minor"),
        )
        .outerjoin(CDR, valid)
        .where(_own(driver), ChargingSession.status == "COMPLETED", ChargingSession.started_at >= since)
        .group_by("month", CDR.currency)
    )  # fmt: skip
    query = query.order_by("month", CDR.currency.asc().nulls_last())
    found: dict[str, list[dict[str, Any]]] = {}
    for row in (await scope.db.execute(query)).mappings():
        line = dict(row) | {"energy_wh": int(row["energy_wh"]), "incl_vat_minor": int(row["incl_vat_minor"])}
        lines = found.setdefault(row["month"], [])
        if lines and row["currency"] is None:  # not priced yet: it counts with the others
            lines[0]["count"] += line["count"]
            lines[0]["energy_wh"] += line["energy_wh"]
        else:
            lines.append(line)
    return found


# --- leaving -----------------------------------------------------------------------------------------------------


async def close(scope: Scope, typed: str) -> None:
    """Personal data goes, invoices and CDRs stay, their driver nobody any more. Refused while a session runs, and until
    its paper is written: an invoice names its buyer, and what the law has kept comes before erasure (GDPR 17(3)(b)).
    Errors: `session_running`, `session_in_review`, `session_unsettled`, `wallet_not_empty`."""
    driver = await accounts.get_own(scope)
    await scope.db.refresh(driver, with_for_update=True)
    if driver.deleted_at is not None:  # by the same form, a moment ago
        return
    mailbox = driver.email_norm or ""
    if email_norm(typed) != mailbox:
        raise Invalid.field("email", "confirmation", N_("Type your e-mail address as it stands above."))
    running = select(ChargingSession.id).where(
        _own(driver), ChargingSession.status.in_(("PENDING", "ACTIVE"))
    )
    if (await scope.db.execute(running.limit(1))).first():
        raise Refused("session_running", N_("A session of yours waits or runs. End it first."))
    unsettled = select(ChargingSession.review).where(
        _own(driver), ChargingSession.status == "COMPLETED", ChargingSession.settled_at.is_(None)
    )
    reviews = (await scope.db.execute(unsettled)).scalars().all()
    if any(reviews):
        raise Refused("session_in_review", N_(
            "The operator still checks a session of yours, and its invoice needs your name. You can close your account"
            " once that is done; ask the operator if it takes long."
        ))  # fmt: skip
    if reviews:
        raise Refused("session_unsettled", N_(
            "Your last session is being settled, and its invoice needs your name. Try again in a few minutes."
        ))  # fmt: skip
    if await payments.list_due(scope, driver.id):
        raise Refused(
            "payment_due",
            N_("A session of yours is to be paid. You can close your account once that is done."),
        )
    await wallets.check_empty(scope, driver.id)
    await scope.db.execute(update(ChargingSession).where(_own(driver)).values(driver_id=driver.id))
    sessions = select(ChargingSession.id).where(ChargingSession.driver_id == driver.id)
    await payments.forget_payer(scope, mailbox, (await scope.db.execute(sessions)).scalars())
    # The mails are found by this digest: an event is kept for ever and names nobody. Who comes with a login that ended
    # by this is told why (`has_closed`).
    about = {
        "mailbox": digest(scope.settings.secret_keys, "mailbox", mailbox).hex(),
        "logins": await logins_of(scope, mailbox),
    }
    await cards.forget(scope, driver.id)
    await events.emit(scope, "DriverClosedAccount", "driver", driver.id, about, public=False)
    await accounts.close(scope, driver)
