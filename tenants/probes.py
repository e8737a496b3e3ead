"""The wall between tenants, tried out on the running database: what the catalogue rules (`rules.py`) promise must hold.

As role app_rw, for every relation of schema `livery`: with no tenant set nothing is visible, under one tenant nothing
of any other, and a row for another tenant cannot be put in. That is tried for two tenants, each against all others, and
one's own rows must be visible, so that "nothing" is no accident. Every attempt to write is undone at once.
"""

# ruff: noqa: S608 (names come from the catalogue, quoted there)
import random
import time
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.database import Database
from tenants.rules import RULES, find_faults
from tenants.scope import Actor

MOST = 1000  # rows are counted up to here
REFUSED = "42501"  # insufficient_privilege: a policy or a missing grant said no

_RELATIONS = text("""
  select c.relname as name, c.oid::regclass::text as relation, c.relkind = 'p' as is_partitioned,
         has_table_privilege(c.oid, 'INSERT') as is_written, has_table_privilege(c.oid, 'UPDATE') as is_changed,
         (select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attname <> 'tenant_id'
             and a.attgenerated = '' and a.attidentity = '') as columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where n.nspname = 'livery' and c.relkind in ('r', 'p') and not c.relispartition
     and has_table_privilege(c.oid, 'SELECT')
   order by c.relname""")
_OPEN_PARTITIONS = text("""
  select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where n.nspname = 'livery' and c.relispartition and c.relkind in ('r', 'p')
     and has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE') order by c.relname""")


@dataclass(slots=True)
class Probed:
    """One relation. `own`, `unset`, `foreign`: rows that were visible, each counted up to MOST per tenant."""

    name: str
    own: int = 0
    unset: int = 0
    foreign: int = 0
    writes: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """`faults` is empty when the database isolates: the rules' and the probes', each a sentence."""

    relations: list[Probed] = field(default_factory=list)
    broken_rules: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    rules: int = len(RULES)
    probes: int = 0
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        probed = [f"{one.name}: {fault}" for one in self.relations for fault in one.faults]
        return [*self.broken_rules, *self.others, *probed]


@dataclass(frozen=True, slots=True)
class _Relation:
    name: str
    relation: str
    is_partitioned: bool
    is_written: bool
    is_changed: bool
    columns: str


async def examine(database: Database) -> Report:
    """Rules and probes. Well below a second on a small installation; it reads a few rows per relation, not all."""
    report, began = Report(), time.monotonic()
    async with database.anonymous() as db:
        report.broken_rules = await find_faults(db)
        ids = list((await db.execute(text("select platform.active_tenant_ids()"))).scalars())
        relations = [_Relation(**row._mapping) for row in await db.execute(_RELATIONS)]
        report.others = [
            f"{name}: a partition can be reached past its table"
            for name in (await db.execute(_OPEN_PARTITIONS)).scalars()
        ]
        report.relations = [Probed(one.name) for one in relations]
        for relation, probed in zip(relations, report.relations, strict=True):
            await _probe_unset(db, relation, probed)
    real = random.sample(ids, min(2, len(ids)))
    mine, theirs = (*real, uuid4(), uuid4())[:2]  # a made-up tenant where there are fewer than two
    await _probe_side(database, relations, report, mine, theirs)
    await _probe_side(database, relations, report, theirs, mine)
    if real and not any(one.own for one in report.relations):
        report.others.append("no tenant saw a row of its own: the probes prove nothing")
    report.probes = sum(3 + one.writes for one in report.relations)
    report.seconds = time.monotonic() - began
    return report


async def _probe_side(
    database: Database, relations: list[_Relation], report: Report, mine: UUID, theirs: UUID
) -> None:
    async with database.scope(mine, Actor.job("isolation probe")) as scope:
        for relation, probed in zip(relations, report.relations, strict=True):
            await _probe_reading(scope.db, relation, probed, mine)
            await _probe_writing(scope.db, relation, probed, mine, theirs)
        await scope.db.rollback()


async def _count(db: AsyncSession, relation: str, condition: str = "true", **values: UUID) -> int:
    counted = text(f"select count(*) from (select from {relation} where {condition} limit {MOST}) found")
    return int(await db.scalar(counted, values) or 0)


async def _probe_unset(db: AsyncSession, relation: _Relation, probed: Probed) -> None:
    probed.unset = await _count(db, relation.relation)
    if probed.unset:
        probed.faults.append(f"{_rows(probed.unset)} visible with no tenant set")


async def _probe_reading(db: AsyncSession, relation: _Relation, probed: Probed, mine: UUID) -> None:
    """Every key begins with the tenant, so that looking left and right of one's own costs nothing."""
    foreign = 0
    for side in ("<", ">"):
        foreign += await _count(db, relation.relation, f"tenant_id {side} :mine", mine=mine)
    probed.own += await _count(db, relation.relation, "tenant_id = :mine", mine=mine)
    probed.foreign += foreign
    if foreign:
        probed.faults.append(f"{_rows(foreign)} of others visible to a tenant")


def _rows(count: int) -> str:
    return f"{count}{'+' if count >= MOST else ''} row{'s' if count != 1 else ''}"


async def _probe_writing(
    db: AsyncSession, relation: _Relation, probed: Probed, mine: UUID, theirs: UUID
) -> None:
    """A row of the other's asks to be let in. The policy speaks before any constraint: all but its no is a fault."""
    own = f"from {relation.relation} where tenant_id = :mine limit 1"
    source = f"select cast(:theirs as uuid), {relation.columns} {own}"
    copies_own = await _count(db, relation.relation, "tenant_id = :mine", mine=mine) > 0
    if copies_own:
        statement = f"insert into {relation.relation} (tenant_id, {relation.columns}) {source}"
    elif relation.is_partitioned:
        return  # without a row to copy no partition would fit, and nobody would have asked the policy
    else:
        statement = f"insert into {relation.relation} (tenant_id) values (:theirs)"
    probed.writes += 1
    values = {"theirs": theirs} | ({"mine": mine} if copies_own else {})
    refusal = await _refusal(db, statement, values)
    if refusal != REFUSED:
        probed.faults.append(f"a row for another tenant was let in ({refusal or 'and undone'})")
    if relation.is_changed and copies_own:
        probed.writes += 1
        moved = f"update {relation.relation} set tenant_id = :theirs where tenant_id = :mine"
        # One row is enough, and by its place: not every table has an id.
        # One that somebody works on is left alone: nobody waits for a probe, and no probe for anybody.
        one = f"select tableoid, ctid {own} for update skip locked"
        refusal = await _refusal(db, f"{moved} and (tableoid, ctid) = ({one})", values)
        if refusal != REFUSED:
            probed.faults.append(f"a row could be given to another tenant ({refusal or 'and undone'})")


async def _refusal(db: AsyncSession, statement: str, values: dict[str, UUID]) -> str | None:
    """PostgreSQL's code for its no; None when it let it happen. Nothing stays. No row touched is as good as a no."""
    attempt = await db.begin_nested()
    try:
        done = await db.execute(text(statement), values)
        if not done.rowcount:  # pyright: ignore[reportAttributeAccessIssue]
            return REFUSED
    except DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", "") or "unknown")
    finally:
        await attempt.rollback()
    return None
