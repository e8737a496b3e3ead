"""A driver's own account: whoever reads the mailbox is the driver who has it. Credentials lie in `identity`.

Verbs of one driver on what is theirs; what is somebody else's is NotFound.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import selectinload

from app.access import local_lists
from app.access.models import Driver, DriverGroup, IdToken
from app.access.service import get_driver, update_id_token
from app.access.verdict import IdTokenValue
from app.identity import service as identity
from app.identity.permissions import SELF
from app.kernel import audit
from app.kernel.clock import uuid7
from app.kernel.errors import NotFound
from app.kernel.ids import public_id
from app.kernel.names import check_name
from app.kernel.secrets import unseal
from tenants.scope import Actor, Scope

LEFT = "Closed account"


def actor_of(driver: Driver) -> Actor:
    """Named by the id: audit logs are never rewritten, and a driver may leave."""
    name = public_id("driver", driver.id)
    return Actor(kind="driver", id=driver.id, name=name, role="driver", permissions=frozenset({SELF}))


async def get_own(scope: Scope) -> Driver:
    """The driver who acts."""
    if scope.actor.kind != "driver" or scope.actor.id is None:
        raise NotFound("driver")
    return await get_driver(scope, scope.actor.id)


async def find_by_mailbox(scope: Scope, mailbox: str) -> Driver | None:
    query = select(Driver).where(Driver.email_norm == mailbox)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def log_in(scope: Scope, token: str, *, host: str, language: str, browser: str = "") -> str:
    """Uses the mailed link up; the cookie's value. Who has no account yet gets one: the mailbox is proven now.
    `language` is the one they read."""
    use = await identity.prove_mailbox(scope, token, host=host, browser=browser)
    if use.session is not None:
        return use.secret
    mailbox = str(use.link.email)
    made = upsert(Driver).values(id=uuid7(), name=mailbox, email=mailbox, email_norm=mailbox)
    is_new = (await scope.db.execute(made.on_conflict_do_nothing().returning(Driver.id))).first() is not None
    driver = await find_by_mailbox(scope, mailbox)
    if driver is None:
        raise NotFound("driver")
    scope.actor, driver.language = actor_of(driver), language
    if is_new:
        await audit.record(scope, "driver.created", "driver", driver.id, {})
    await audit.record(scope, "driver.logged_in", "driver", driver.id, {"host": host})
    return await identity.open_driver_session(scope, use, host=host)


async def speak(scope: Scope, language: str) -> None:
    """Their papers and mails are in it from now on, where the brand offers it."""
    (await get_own(scope)).language = language


async def rename(scope: Scope, name: str) -> Driver:
    driver = await get_own(scope)
    driver.name = check_name(name)
    await audit.record(scope, "driver.updated", "driver", driver.id, {"fields": ["name"]})
    return driver


# --- cards -------------------------------------------------------------------------------------------------------


async def list_cards(scope: Scope, driver_id: UUID) -> list[IdToken]:
    """Oldest first; remote starts' one-off tokens are nobody's card."""
    query = (
        select(IdToken)
        .where(IdToken.driver_id == driver_id, IdToken.is_single_use.is_(False))
        .options(selectinload(IdToken.driver))
        .order_by(IdToken.created_at, IdToken.id)
    )
    return list((await scope.db.execute(query)).scalars())


async def get_card(scope: Scope, id_token_id: UUID) -> IdToken:
    driver = await get_own(scope)
    for card in await list_cards(scope, driver.id):
        if card.id == id_token_id:
            return card
    raise NotFound("id_token")


async def block_card(scope: Scope, id_token_id: UUID) -> None:
    """At once, and by nobody but the operator undone. A session that runs goes on."""
    card = await get_card(scope, id_token_id)
    await update_id_token(scope, card.id, status="blocked")


async def label_card(scope: Scope, id_token_id: UUID, label: str) -> None:
    card = await get_card(scope, id_token_id)
    await update_id_token(scope, card.id, label=label)


def presented(scope: Scope, card: IdToken) -> IdTokenValue:
    """As the station will read it."""
    return IdTokenValue(unseal(scope.settings.secret_keys, "id_token", card.value_sealed), card.type)


async def collection_of(scope: Scope, driver_group_id: UUID | None) -> str:
    """How a group pays; whoever is in none pays each session."""
    group = await scope.db.get(DriverGroup, (scope.tenant_id, driver_group_id)) if driver_group_id else None
    return group.collection if group else "per_session"


# --- leaving -----------------------------------------------------------------------------------------------------


async def close(scope: Scope, driver: Driver) -> None:
    """Nothing that tells who it was stays; cards are blocked and nobody's, logins end. Sessions keep the row they
    name."""
    for card in await list_cards(scope, driver.id):
        card.status, card.label, card.driver_id = "blocked", "", None
    if driver.email_norm:
        await identity.forget_mailbox(scope, driver.email_norm)
    driver.name, driver.email, driver.email_norm, driver.driver_group_id = LEFT, None, None, None
    driver.language, driver.deleted_at = None, scope.now
    await scope.db.flush()
    await audit.record(scope, "driver.closed_account", "driver", driver.id, {})
    await local_lists.changed(scope)
