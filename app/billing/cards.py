"""Payment cards that drivers save at a brand: they lie on the brand's own account at the provider (money.md 0.4, 1.3).

A card is given on the provider's hosted page. The wish for one stands as a row before anything is called; news and the
janitor lead to the same reading of what the provider has. Correct with zero webhooks.
Errors: `cards_off`, `too_many_cards`, TooMany `too_many_checkouts`.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import selectinload

from app.access.models import Driver
from app.billing import payments
from app.billing.models import Payer, PaymentAccount, SavedCard
from app.billing.provider import CardSeen, OutcomeUnknown, Rejected, Setup
from app.identity import limits
from app.kernel import audit, queue
from app.kernel.clock import uuid7
from app.kernel.errors import NotFound, Refused, TooMany
from app.kernel.ids import public_id
from tenants.database import Database
from tenants.scope import Actor, Scope
from themes.language import N_

ACTOR = Actor.job("billing.cards")
MOST_PER_DAY = 10  # asked for by one driver: whoever tries stolen cards needs many pages
# Of an address, that came to no card: accounts cost nothing.
PAGES_PER_ADDRESS, PAGES_WINDOW = 8, timedelta(minutes=30)
PAGE_LIFETIME = timedelta(hours=23)  # a setup's page closes by itself after a day
PAGE_IS_FRESH = timedelta(hours=1)  # then most have given it up, and an hourly look is enough
LOOKED_AT_EACH = timedelta(days=7)  # a saved card: what its bank or the operator changes without us


async def find_account(scope: Scope) -> PaymentAccount | None:
    """Where cards may be saved now."""
    account = await payments.find_account(scope)
    return account if account is not None and account.card_on_file != "off" else None


async def list_cards(scope: Scope, driver_id: UUID) -> list[SavedCard]:
    """The one that pays first, then the newest."""
    query = (
        select(SavedCard)
        .join(SavedCard.payer)
        .where(Payer.driver_id == driver_id, SavedCard.state == "active")
        .options(selectinload(SavedCard.payer))
        .order_by(SavedCard.is_default.desc(), SavedCard.id.desc())
    )
    account = await payments.find_own_account(scope)
    if account is None:
        return []
    return list((await scope.db.execute(query.where(Payer.account_ref == account.account_ref))).scalars())


async def list_waiting(scope: Scope, driver_id: UUID) -> list[tuple[UUID, bool]]:
    """(card, may be asked now) of which we do not know yet whether their driver gave them. Who comes back often asks
    the provider no more often than we would."""
    query = select(SavedCard.id, SavedCard.observed_at).join(SavedCard.payer).where(
        Payer.driver_id == driver_id, SavedCard.state == "pending", SavedCard.checkout_ref.is_not(None)
    )  # fmt: skip
    just_now = scope.now - payments.ANSWER_TAKES
    rows = (await scope.db.execute(query)).all()
    return [(row.id, row.observed_at is None or row.observed_at < just_now) for row in rows]


async def find_usable(scope: Scope, driver_id: UUID | None) -> SavedCard | None:
    """The card that pays where its driver does not stand by: the default, else the newest; never an expired one."""
    if driver_id is None or await find_account(scope) is None:
        return None
    found = [card for card in await list_cards(scope, driver_id) if not card.is_expired(scope.now)]
    return found[0] if found else None


async def find_by_id(scope: Scope, card_id: UUID | None) -> SavedCard | None:
    """With its payer; None for one that is no card of anybody's any more."""
    query = select(SavedCard).where(SavedCard.id == card_id, SavedCard.state == "active")
    return (await scope.db.execute(query.options(selectinload(SavedCard.payer)))).scalar_one_or_none()


async def begin(scope: Scope, driver: Driver, *, url: str, language: str, remote: str = "") -> SavedCard:
    """A card is asked for: after commit `run_setup` makes the provider's page. One page at a time; asked again it is
    the same. `url` is where the driver comes back to, `remote` the address they ask from."""
    account = await find_account(scope)
    if account is None:
        raise Refused("cards_off", N_("Cards cannot be saved here at the moment."))
    made = upsert(Payer).values(id=uuid7(), driver_id=driver.id, account_ref=account.account_ref)
    await scope.db.execute(made.on_conflict_do_nothing())
    query = select(Payer).where(Payer.driver_id == driver.id, Payer.account_ref == account.account_ref)
    payer = (await scope.db.execute(query.with_for_update())).scalar_one()
    mine = select(SavedCard).where(SavedCard.payer_id == payer.id)
    open_page = mine.where(
        SavedCard.state == "pending", SavedCard.created_at > scope.now - PAGE_LIFETIME
    ).options(selectinload(SavedCard.payer))
    known = (await scope.db.execute(open_page.order_by(SavedCard.id.desc()))).scalars().first()
    if known is not None:
        return known
    lately = select(func.count()).select_from(
        mine.where(SavedCard.created_at > scope.now - timedelta(days=1)).subquery()
    )
    if (await scope.db.execute(lately)).scalar_one() >= MOST_PER_DAY:
        raise Refused("too_many_cards", N_("Too many cards were saved here today. Try again tomorrow."))
    request = {
        "currency": account.currency, "success_url": f"{url}?saved=1", "cancel_url": url, "language": language,
        "email": driver.email or "",
    }  # fmt: skip
    attempt, name = uuid7(), f"setup:address:{limits.network_of(remote)}"
    if remote and not await limits.claim(
        scope.redis, scope.tenant_id, attempt, {name: PAGES_PER_ADDRESS}, PAGES_WINDOW
    ):
        raise TooMany(
            N_("Too many cards were tried from here in a short time. Try again in half an hour."),
            code="too_many_checkouts", retry_after_s=int(PAGES_WINDOW.total_seconds()),
        )  # fmt: skip
    card = SavedCard(id=attempt, payer_id=payer.id, state="pending", request=request, created_at=scope.now)
    scope.db.add(card)
    await scope.db.flush()
    return card


async def get_card(scope: Scope, driver_id: UUID, card_id: UUID) -> SavedCard:
    """NotFound for anybody else's, and for one that is gone. The payer is locked."""
    query = select(SavedCard).join(SavedCard.payer).where(
        SavedCard.id == card_id, SavedCard.state == "active", Payer.driver_id == driver_id
    ).options(selectinload(SavedCard.payer))  # fmt: skip
    card = (await scope.db.execute(query)).scalar_one_or_none()
    if card is None:
        raise NotFound("saved_card")
    return await _locked(scope, card.id)


async def make_default(scope: Scope, driver_id: UUID, card_id: UUID) -> SavedCard:
    card = await get_card(scope, driver_id, card_id)
    if not card.is_default:
        await _prefer(scope, card)
        await audit.record(scope, "saved_card.preferred", "saved_card", card.id, {})
    return card


async def remove(scope: Scope, driver_id: UUID, card_id: UUID) -> None:
    """At once; the provider forgets it by a job. What is held on it stays held and is taken."""
    await _remove(scope, await get_card(scope, driver_id, card_id), "removed")


async def forget(scope: Scope, driver_id: UUID) -> None:
    """They close their account: their cards go, and the provider forgets them."""
    query = select(Payer).where(Payer.driver_id == driver_id, Payer.closed_at.is_(None)).with_for_update()
    for payer in (await scope.db.execute(query)).scalars():
        payer.closed_at = scope.now
        cards = select(SavedCard).where(SavedCard.payer_id == payer.id)
        for card in (await scope.db.execute(cards)).scalars():
            card.request, card.checkout_url, card.is_default = {}, None, False
            card.brand = card.last4 = card.fingerprint = ""
            if card.state in ("pending", "active"):
                card.state, card.why = "removed", "closed"
        await queue.enqueue(scope, "billing.drop_payer", payer_id=str(payer.id), lock=f"payer:{payer.id}")


async def _locked(scope: Scope, card_id: UUID) -> SavedCard:
    """With its payer's lock, so that of two cards one is the default."""
    payer_id = select(SavedCard.payer_id).where(SavedCard.id == card_id).scalar_subquery()
    await scope.db.execute(select(Payer.id).where(Payer.id == payer_id).with_for_update())
    query = select(SavedCard).where(SavedCard.id == card_id).options(selectinload(SavedCard.payer))
    card = (await scope.db.execute(query.execution_options(populate_existing=True))).scalar_one_or_none()
    if card is None:
        raise NotFound("saved_card")
    return card


async def _prefer(scope: Scope, card: SavedCard) -> None:
    query = select(SavedCard).where(SavedCard.payer_id == card.payer_id, SavedCard.is_default)
    for other in (await scope.db.execute(query)).scalars():
        other.is_default = False
    await scope.db.flush()  # one default at any time
    card.is_default = True
    await scope.db.flush()


async def _remove(scope: Scope, card: SavedCard, why: str) -> None:
    """The payer is locked. What its driver saved last before becomes the default."""
    was_default, card.is_default, card.state, card.why = card.is_default, False, "removed", why
    await scope.db.flush()
    if why == "revoked":
        card.detached_at = scope.now
    else:
        await queue.enqueue(scope, "billing.detach_card", card_id=str(card.id), lock=f"card:{card.id}")
    if was_default:
        query = select(SavedCard).where(SavedCard.payer_id == card.payer_id, SavedCard.state == "active")
        others = (await scope.db.execute(query.order_by(SavedCard.id.desc()))).scalars().all()
        good = [other for other in others if not other.is_expired(scope.now)]
        for other in (good or others)[:1]:
            await _prefer(scope, other)
    await audit.record(scope, "saved_card.removed", "saved_card", card.id, {"why": why})


# -- calls to the provider -------------------------------------------------------------------------------------------


async def run_setup(database: Database, tenant_id: UUID, card_id: UUID) -> None:
    """The customer, then the page; twice is once, for the keys are made of our rows. Raises OutcomeUnknown."""
    async with database.scope(tenant_id, ACTOR) as scope:
        card = await _locked(scope, card_id)
        payer, request = card.payer, card.request
        if card.state != "pending" or card.checkout_ref is not None or payer.closed_at is not None:
            return
    provider = payments.provider_of(database.settings)
    tenant, customer, tries = str(tenant_id), payer.customer_ref, f":{request['n']}" if "n" in request else ""
    try:
        if customer is None:
            marks = {"tenant": tenant, "driver": public_id("driver", payer.driver_id)}
            customer = await provider.create_customer(
                payer.account_ref, email=request["email"], metadata=marks, key=f"cus:{payer.id}{tries}"
            )
            async with database.scope(tenant_id, ACTOR) as scope:
                known = (await _locked(scope, card_id)).payer
                known.customer_ref, known.gone_at = (
                    customer,
                    None,
                )  # who left meanwhile is forgotten by `tidy`
        asked = {name: request[name] for name in ("currency", "success_url", "cancel_url", "language")}
        seen = await provider.create_setup(
            payer.account_ref, customer=customer, metadata={"tenant": tenant, "saved_card": str(card_id)},
            key=f"setup:{card_id}{tries}", **asked,
        )  # fmt: skip
    except OutcomeUnknown as error:
        if error.is_final:  # kept under that key (decision 0010): what nobody heard of is nobody's page
            async with database.scope(tenant_id, ACTOR) as scope:
                card = await _locked(scope, card_id)
                card.request = {**card.request, "n": card.request.get("n", 1) + 1}
        raise
    except Rejected as error:
        async with database.scope(tenant_id, ACTOR) as scope:
            card = await _locked(scope, card_id)
            card.state, card.why = "failed", error.code
        return
    async with database.scope(tenant_id, ACTOR) as scope:
        card = await _locked(scope, card_id)
        card.checkout_ref, card.checkout_url = seen.ref, seen.url
        await _see(scope, card, seen)


async def observe(database: Database, tenant_id: UUID, card_id: UUID) -> None:
    """Reads the page, then the card, at the provider, and believes that."""
    async with database.scope(tenant_id, ACTOR) as scope:
        card = await _locked(scope, card_id)
        account = card.payer.account_ref
        own = await payments.find_own_account(scope)
    if own is None or own.account_ref != account or card.state not in ("pending", "active"):
        return
    provider, seen, gone = payments.provider_of(database.settings), None, False
    try:
        if card.provider_ref is not None:
            seen = await provider.get_card(account, card.provider_ref)
        elif card.checkout_ref is not None:
            seen = await provider.get_setup(account, card.checkout_ref)
    except Rejected as error:
        gone = error.code == "resource_missing"
        if not gone:
            raise
    async with database.scope(tenant_id, ACTOR) as scope:
        card = await _locked(scope, card_id)
        card.observed_at = scope.now
        if gone and card.state == "active":
            await _remove(scope, card, "revoked")
        elif seen is not None:
            await _see(scope, card, seen)


async def _see(scope: Scope, card: SavedCard, seen: Setup | CardSeen) -> None:
    """The payer is locked; the same in any order and however often."""
    if isinstance(seen, Setup):
        card.setup_ref = seen.setup_ref or card.setup_ref
        if card.state != "pending":
            return
        if seen.card is None:
            if seen.status == "expired":
                card.state, card.why, card.checkout_url = "failed", "page_expired", None
            return
        seen = seen.card
    if card.state not in ("pending", "active"):
        return
    is_new, card.provider_ref, card.checkout_url = card.state == "pending", seen.ref, None
    card.brand, card.last4, card.fingerprint = seen.brand, seen.last4, seen.fingerprint
    card.exp_month, card.exp_year, card.state = seen.exp_month, seen.exp_year, "active"
    await scope.db.flush()
    if not seen.customer_ref:
        await _remove(scope, card, "revoked")
        return
    if not is_new:
        return
    await limits.forgive(scope.redis, scope.tenant_id, card.id)
    await audit.record(scope, "saved_card.added", "saved_card", card.id, {})
    query = select(SavedCard).where(
        SavedCard.payer_id == card.payer_id, SavedCard.state == "active", SavedCard.id != card.id
    )
    others = (await scope.db.execute(query)).scalars().all()
    same = [one for one in others if one.fingerprint and one.fingerprint == card.fingerprint]
    if not others or any(one.is_default for one in same):
        await _prefer(scope, card)
    for one in same:
        await _remove(scope, one, "replaced")


async def detach(database: Database, tenant_id: UUID, card_id: UUID) -> None:
    async with database.scope(tenant_id, ACTOR) as scope:
        card = await _locked(scope, card_id)
        if card.detached_at is not None or card.provider_ref is None:
            return
    try:
        await payments.provider_of(database.settings).detach_card(
            card.payer.account_ref, card.provider_ref, key=f"detach:{card.id}"
        )
    except Rejected:  # it belongs to nobody any more: that is what was asked for
        pass
    async with database.scope(tenant_id, ACTOR) as scope:
        (await _locked(scope, card_id)).detached_at = scope.now


async def drop_payer(database: Database, tenant_id: UUID, payer_id: UUID) -> None:
    async with database.scope(tenant_id, ACTOR) as scope:
        payer = await scope.db.get_one(Payer, (tenant_id, payer_id))
        if payer.closed_at is None or payer.gone_at is not None:
            return
    if payer.customer_ref is not None:
        try:
            await payments.provider_of(database.settings).delete_customer(
                payer.account_ref, payer.customer_ref
            )
        except Rejected:  # deleted already
            pass
    async with database.scope(tenant_id, ACTOR) as scope:
        (await scope.db.get_one(Payer, (tenant_id, payer_id))).gone_at = scope.now


async def watch(scope: Scope, card_id: UUID) -> None:
    """A look at the provider, soon."""
    await queue.enqueue(scope, "billing.observe_card", card_id=str(card_id), lock=f"card:{card_id}")


async def tidy(database: Database, tenant_id: UUID) -> None:
    """Every minute: pages that were never made, pages that are open, what the provider has yet to forget, and saved
    cards that nobody has looked at for a week."""
    async with database.scope(tenant_id, ACTOR) as scope:
        stale, own = scope.now - payments.STALE, await payments.find_own_account(scope)
        if own is None:
            return
        mine = (
            select(SavedCard.id).join(SavedCard.payer).where(Payer.account_ref == own.account_ref).limit(200)
        )
        open_pages = mine.where(
            SavedCard.state == "pending", SavedCard.created_at < stale,
            or_(
                SavedCard.observed_at.is_(None), SavedCard.observed_at < scope.now - PAGE_IS_FRESH,
                (SavedCard.observed_at < stale) & (SavedCard.created_at > scope.now - PAGE_IS_FRESH),
            ),
        )  # fmt: skip
        for card_id in (await scope.db.execute(open_pages)).scalars():
            await queue.enqueue(scope, "billing.set_up_card", card_id=str(card_id), lock=f"card:{card_id}")
            await watch(scope, card_id)
        old = mine.where(SavedCard.state == "active", SavedCard.observed_at < scope.now - LOOKED_AT_EACH)
        for card_id in (await scope.db.execute(old)).scalars():
            await watch(scope, card_id)
        kept = mine.where(
            SavedCard.state == "removed", SavedCard.why != "closed", SavedCard.detached_at.is_(None),
            SavedCard.provider_ref.is_not(None),
        )  # fmt: skip
        for card_id in (await scope.db.execute(kept)).scalars():
            await queue.enqueue(scope, "billing.detach_card", card_id=str(card_id), lock=f"card:{card_id}")
        leaving = select(Payer.id).where(
            Payer.account_ref == own.account_ref, Payer.closed_at < stale, Payer.gone_at.is_(None)
        )
        for payer_id in (await scope.db.execute(leaving.limit(200))).scalars():
            await queue.enqueue(scope, "billing.drop_payer", payer_id=str(payer_id), lock=f"payer:{payer_id}")
