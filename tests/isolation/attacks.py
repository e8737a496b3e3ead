"""Attacks on one table, generated from the catalogue: what one tenant tries on another's rows, in five contexts.

Every attack runs in a savepoint as role app_rw and is undone. `leaks` names what succeeded and must not have;
`controls` counts the same statements succeeding on one's own rows, so that "no leak" is not merely "nothing works".
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.isolation.catalogue import REFERRING, Connection, Seeds, Table, insert, row_id

CONTEXTS = ("own", "empty", "unset", "ghost", "junk")


@dataclass
class Outcome:
    attempts: int = 0
    leaks: list[str] = field(default_factory=list)
    controls: int = 0
    dead_controls: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.attempts += other.attempts
        self.leaks += other.leaks
        self.controls += other.controls
        self.dead_controls += other.dead_controls


class Attacker:
    """`connection` acts as app_rw already (a login, or `set local role` inside a mutant's transaction)."""

    def __init__(self, connection: Connection, seeds: Seeds, mine: uuid.UUID, theirs: uuid.UUID) -> None:
        self.connection, self.seeds, self.mine, self.theirs = connection, seeds, mine, theirs
        self.outcome = Outcome()

    # -- the ground --------------------------------------------------------------------------------------------

    def _become(self, context: str) -> None:
        values = {"own": str(self.mine), "empty": "", "ghost": str(uuid.uuid4()), "junk": "' or true --"}
        if context == "unset":
            self.connection.execute("reset livery.tenant_id")
        else:
            self.connection.execute("select set_config('livery.tenant_id', %s, true)", [values[context]])

    def _try(self, context: str, deed: Callable[[], Any]) -> Any:
        """The deed's answer, or the error that stopped it; undone either way."""
        self.outcome.attempts += 1
        answer: Any = None
        try:
            with self.connection.transaction() as savepoint:
                self._become(context)
                answer = deed()
                raise psycopg.Rollback(savepoint)
        except psycopg.Error as error:
            return error
        return answer

    def _count(self, query: str, *parameters: Any) -> int:
        row = self.connection.execute(query.encode(), parameters).fetchone()
        return int(row[0]) if row else 0

    def _changed(self, query: str, *parameters: Any) -> int:
        return self.connection.execute(query.encode(), parameters).rowcount

    def _must_not(self, table: Table, what: str, context: str, deed: Callable[[], Any]) -> None:
        """Nothing, zero rows or an error is well; anything else is a leak."""
        answer = self._try(context, deed)
        if not isinstance(answer, psycopg.Error) and answer:
            self.outcome.leaks.append(f"{table.name}: {what} ({context}): {answer}")

    def _must_not_enter(self, table: Table, what: str, context: str, deed: Callable[[], Any]) -> None:
        """A row that only a unique index keeps out has passed the policy."""
        answer = self._try(context, deed)
        if isinstance(answer, psycopg.errors.UniqueViolation) or (
            not isinstance(answer, psycopg.Error) and answer
        ):
            self.outcome.leaks.append(f"{table.name}: {what} ({context}): {answer}")

    def _must(self, table: Table, what: str, deed: Callable[[], Any]) -> None:
        self.outcome.controls += 1
        answer = self._try("own", deed)
        entered = isinstance(answer, psycopg.errors.UniqueViolation) and table.has_own_key
        if not entered and (isinstance(answer, psycopg.Error) or not answer):
            self.outcome.dead_controls.append(f"{table.name}: {what}: {answer!r}")

    # -- the attacks -------------------------------------------------------------------------------------------

    def attack(self, table: Table) -> Outcome:
        if table.is_partition:
            self._partition(table)
            return self.outcome
        theirs = ("tenant_id = %s", self.theirs)
        for context in CONTEXTS:
            self._rows(table, context, *theirs)
            self._everything(table, context)
            self._inserts(table, context)
            self._must_not(table, "truncate", context, lambda: self.connection.execute(
                f"truncate {table.full}".encode()) and "done")  # fmt: skip
            self._must_not(table, "copy in", context, lambda: self._copy_in(table))
        self._move(table)
        self._reference(table)
        self._oracle(table)
        return self.outcome

    def _rows(self, table: Table, context: str, where: str, who: uuid.UUID) -> None:
        name, column = table.full, f'"{table.plain_columns[-1]}"'
        reads = {
            "read": f"select count(*) from {name} where {where}",
            "read by join": f"select count(*) from (select 1) one join {name} on {where}",
            "lock": f"select count(*) from (select 1 from {name} where {where} for update) locked",
        }
        for what, query in reads.items():
            self._must_not(table, what, context, lambda query=query: self._count(query, who))
        changes = {
            "update": f"update {name} set {column} = {column} where {where}",
            "delete": f"delete from {name} where {where}",
        }
        for what, query in changes.items():
            self._must_not(table, what, context, lambda query=query: self._changed(query, who))

    def _everything(self, table: Table, context: str) -> None:
        """Without WHERE: no more than one's own rows; without a tenant, none at all."""
        own = 1 if context == "own" else 0
        name, column = table.full, f'"{table.plain_columns[-1]}"'
        deeds: dict[str, Callable[[], int]] = {
            "count": lambda: self._count(f"select count(*) from {name}"),
            "update all": lambda: self._changed(f"update {name} set {column} = {column}"),
            "delete all": lambda: self._changed(f"delete from {name}"),
            "copy out": lambda: self._copy_out(table),
        }
        for what, deed in deeds.items():
            self._must_not(table, what, context, lambda deed=deed: max(deed() - own, 0))

    def _copy_out(self, table: Table) -> int:
        with self.connection.cursor().copy(
            f"copy (select tenant_id from {table.full}) to stdout".encode()
        ) as copy:
            return sum(bytes(chunk).count(b"\n") for chunk in copy)

    def _copy_in(self, table: Table) -> str:
        with self.connection.cursor().copy(f"copy {table.full} (tenant_id) from stdin".encode()) as copy:
            copy.write_row([str(self.theirs)])
        return "done"

    def _fresh(self, table: Table, tenant: uuid.UUID) -> dict[str, Any]:
        """A second row of that tenant, with values that nobody has."""
        row = self.seeds.row(table, tenant, f"x{uuid.uuid4().hex[:8]}", turn=1)
        stranger = uuid.uuid4()
        for column in table.columns:
            if column.name in row and column.name not in table.references and column.name != "tenant_id":
                if column.type == "uuid":
                    row[column.name] = uuid.uuid5(stranger, column.name) if row[column.name] else None
                elif column.type == "bytea":
                    row[column.name] = stranger.bytes
                elif (
                    (column.name in ("seq", "year") or column.name.endswith("_no"))
                    and column.name not in ("evse_no", "connector_no")
                    and row[column.name]
                ):
                    row[column.name] = int(stranger) % 10**9
        return row

    def _inserts(self, table: Table, context: str) -> None:
        """With and without RETURNING: RETURNING hides a broken WITH CHECK behind a failing USING."""
        for returning in (False, True):
            what = "insert as the other" + (" returning" if returning else "")
            self._must_not_enter(table, what, context, lambda returning=returning: insert(
                self.connection, table, self._fresh(table, self.theirs), returning=returning).rowcount)  # fmt: skip
        # A ghost's rows are kept out by the key into platform.tenant, which the partitioned logs do without.
        if context in ("empty", "unset") or (context == "ghost" and not table.is_partitioned):
            nobody = {
                name: value for name, value in self._fresh(table, self.mine).items() if name != "tenant_id"
            }
            self._must_not(
                table,
                "insert without a tenant",
                context,
                lambda: insert(self.connection, table, nobody).rowcount,
            )

    def _move(self, table: Table) -> None:
        query = f"update {table.full} set tenant_id = %s where tenant_id = %s"
        self._must_not(table, "give away", "own", lambda: self._changed(query, self.theirs, self.mine))
        self._must_not(table, "take over", "own", lambda: self._changed(query, self.mine, self.theirs))

    def _reference(self, table: Table) -> None:
        for column, target in table.references.items():
            row = self._fresh(table, self.mine) | REFERRING.get((table.name, column), {})
            row[column] = row_id(self.theirs, target)
            self._must_not(
                table,
                f"reference the other's {target}",
                "own",
                lambda row=row: insert(self.connection, table, row).rowcount,
            )

    def _oracle(self, table: Table) -> None:
        """The other's natural keys must be free for me: a refusal would tell that they exist."""
        row = dict(self.seeds.rows[self.theirs][table.name]) | {"tenant_id": self.mine}
        for column, target in table.references.items():
            if row[column] is not None:
                row[column] = row_id(self.mine, target)
        answer = self._try("own", lambda: insert(self.connection, table, row).rowcount)
        if isinstance(answer, psycopg.errors.UniqueViolation) and not table.has_own_key:
            self.outcome.leaks.append(f"{table.name}: the other's keys are taken: {answer}")

    def _partition(self, table: Table) -> None:
        """Nothing is granted on a partition: its rows are reached through the parent, where the policy stands."""
        for context in CONTEXTS:
            for what in ("read", "delete", "truncate"):
                query = {"read": f"select count(*) + 1 from {table.full}", "delete": f"delete from {table.full}",
                         "truncate": f"truncate {table.full}"}[what]  # fmt: skip
                self._must_not(table, f"{what} a partition", context, lambda query=query: str(
                    self.connection.execute(query.encode()).statusmessage))  # fmt: skip

    # -- the controls ------------------------------------------------------------------------------------------

    def control(self, table: Table) -> Outcome:
        if table.is_partition:
            return self.outcome
        name, column = table.full, f'"{table.plain_columns[-1]}"'
        own = ("where tenant_id = %s", self.mine)
        self._must(table, "read", lambda: self._count(f"select count(*) from {name} {own[0]}", own[1]))
        self._must(table, "copy out", lambda: self._copy_out(table))
        if "UPDATE" in table.grants:
            self._must(table, "lock", lambda: self._count(
                f"select count(*) from (select 1 from {name} {own[0]} for update) x", own[1]))  # fmt: skip
            self._must(table, "update", lambda: self._changed(
                f"update {name} set {column} = {column} {own[0]}", own[1]))  # fmt: skip
        if "INSERT" in table.grants:
            self._must(table, "insert", lambda: self._held_own(table))
        if "DELETE" in table.grants:
            self._must(table, "delete", lambda: self._delete_own(table))
        return self.outcome

    def _held_own(self, table: Table) -> int:
        """The row of the attack, with nothing wrong about it: also its references hold."""
        row = self._fresh(table, self.mine)
        return insert(self.connection, table, row).rowcount

    def _delete_own(self, table: Table) -> int:
        """A row that nothing refers to yet, so that only the policy could keep it."""
        row = self._fresh(table, self.mine)
        insert(self.connection, table, row)
        where = " and ".join(f'"{name}" = %s' for name in ("id",) if name in row) or "tenant_id = %s"
        return self._changed(f"delete from {table.full} where {where}", row.get("id", self.mine))
