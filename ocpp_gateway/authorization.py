"""May this token charge? plan (transaction) -> ask (none open, 3 s) -> conclude (transaction), for every version."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from app.access import service as access
from app.access.verdict import Accepted, AskOutside, IdTokenValue, Refused, Verdict
from tenants.database import Database
from tenants.scope import Actor, Scope

ASK_TIMEOUT_S = 3.0
Asker = Callable[[AskOutside], Awaitable[Verdict]]
Finish = Callable[[Scope, Accepted | Refused], Awaitable[str]]

# Party -> how it is asked. Roaming partners and OCSP register here; nobody does yet.
ASKERS: dict[str, Asker] = {}


async def authorize(
    database: Database, tenant_id: UUID, station_id: UUID, presented: IdTokenValue, finish: Finish
) -> str:
    """`finish` writes what belongs to the answer in the same transaction as the verdict, and returns the answer."""
    actor = Actor.station(station_id)
    async with database.scope(tenant_id, actor) as scope:
        verdict = await access.plan_authorization(scope, station_id, presented)
        if not isinstance(verdict, AskOutside):
            if isinstance(verdict, Refused) and verdict.reason == "in_use_elsewhere" and verdict.id_token_id:
                await access.tell_second_use(scope, verdict.id_token_id, station_id)
            return await finish(scope, verdict)
    answer = await _ask(verdict)
    async with database.scope(tenant_id, actor) as scope:
        return await finish(scope, await access.conclude_authorization(scope, station_id, presented, answer))


async def _ask(question: AskOutside) -> Verdict:
    asker = ASKERS.get(question.party)
    if asker is None:
        return question
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await asker(question)
    except TimeoutError:
        return question
