"""What is in schema `livery`, read from the catalogue, and two tenants with a row in every table of it."""

import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zlib import crc32

import psycopg
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    is_required: bool
    has_default: bool


@dataclass(slots=True)
class Table:
    name: str
    is_partition: bool
    is_partitioned: bool
    columns: list[Column] = field(default_factory=list)
    # Column -> target table, for keys that lead into schema livery.
    references: dict[str, str] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    grants: frozenset[str] = frozenset()
    keys: list[list[str]] = field(default_factory=list)

    @property
    def has_own_key(self) -> bool:
        """A key of references only: a tenant's second row collides with its first whatever the values are."""
        return any(set(key) - {"tenant_id"} <= set(self.references) for key in self.keys)

    @property
    def full(self) -> str:
        return f'livery."{self.name}"'

    @property
    def plain_columns(self) -> list[str]:
        return [column.name for column in self.columns]


def read_tables(connection: Connection) -> dict[str, Table]:
    rows = connection.execute(
        "select c.relname, c.relispartition, c.relkind = 'p'"
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'livery' and c.relkind in ('r', 'p') order by c.relname"
    ).fetchall()
    tables = {str(row[0]): Table(str(row[0]), bool(row[1]), bool(row[2])) for row in rows}
    for table, name, kind, required, default in connection.execute(
        "select c.relname, a.attname, format_type(a.atttypid, null), a.attnotnull, a.atthasdef"
        " from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'livery' and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped"
        " order by a.attnum"
    ).fetchall():
        tables[table].columns.append(Column(name, kind, required, default))
    for table, target, column in connection.execute(
        "select c.relname, f.relname, a.attname from pg_constraint k join pg_class c on c.oid = k.conrelid"
        " join pg_namespace n on n.oid = c.relnamespace join pg_class f on f.oid = k.confrelid"
        " join pg_namespace fn on fn.oid = f.relnamespace"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum = k.conkey[cardinality(k.conkey)]"
        " where k.contype = 'f' and n.nspname = 'livery' and fn.nspname = 'livery' and k.conparentid = 0"
    ).fetchall():
        tables[table].references[column] = target
    for table, check in connection.execute(
        "select c.relname, pg_get_constraintdef(k.oid) from pg_constraint k join pg_class c on c.oid = k.conrelid"
        " join pg_namespace n on n.oid = c.relnamespace where k.contype = 'c' and n.nspname = 'livery'"
    ).fetchall():
        tables[table].checks.append(check)
    for table, privilege in connection.execute(
        "select c.relname, a.privilege_type from pg_class c join pg_namespace n on n.oid = c.relnamespace,"
        " aclexplode(c.relacl) a join pg_roles r on r.oid = a.grantee"
        " where n.nspname = 'livery' and r.rolname = 'app_rw' and c.relkind in ('r', 'p')"
    ).fetchall():
        tables[table].grants |= {privilege}
    for table, names in connection.execute(
        "select c.relname, array_agg(a.attname::text order by u.place) from pg_index i"
        " join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace,"
        " unnest(i.indkey) with ordinality u(no, place), pg_attribute a"
        " where n.nspname = 'livery' and i.indisunique and a.attrelid = c.oid and a.attnum = u.no"
        " group by c.relname, i.indexrelid"
    ).fetchall():
        tables[table].keys.append(names)
    return tables


# --- a row in every table ----------------------------------------------------------------------------------------

# What no catalogue tells: values that several columns must agree on.
AGREED: dict[str, dict[str, Any]] = {
    "tariff_assignment": {"target": "default", "driver_group_id": None, "evse_id": None, "location_id": None},
    "invoice": {"kind": "receipt", "number_no": None, "corrects_id": None},
    "ledger_entry": {"amount_minor": 1},
    # A login is staff's or a driver's mailbox's.
    "login_link": {"email": None},
    "login_session": {"email": None},
    # One change of a kind is under way at a time.
    "security_change": {"status": "confirmed"},
    # One key of an EVSE is trusted at a time.
    "meter_key": {"status": "refused"},
}
# What a reference asks of the columns beside it.
REFERRING: dict[tuple[str, str], dict[str, Any]] = {
    ("tariff_assignment", "driver_group_id"): {"target": "driver_group"},
    ("tariff_assignment", "evse_id"): {"target": "evse"},
    ("tariff_assignment", "location_id"): {"target": "location"},
}
_ONE_OF = re.compile(r"\((\w+) = ANY \(ARRAY\['([^']*)'::text")
_BETWEEN = re.compile(r"\((\w+) >= (\d+)\) AND \(\w+ <= (\d+)\)")


class Seeds:
    """Values differ from tenant to tenant; `rows[tenant][table]` is the row as it was inserted."""

    def __init__(self, connection: Connection, tables: dict[str, Table]) -> None:
        self.connection, self.tables = connection, tables
        self.rows: dict[uuid.UUID, dict[str, dict[str, Any]]] = {}

    def plant(self, slug: str) -> uuid.UUID:
        """Triggers and foreign keys rest meanwhile (the balance of a posting needs more than one row)."""
        tenant = uuid.uuid4()
        self.rows[tenant] = {}
        with self.connection.transaction():
            self.connection.execute("set local session_replication_role = replica")
            self.connection.execute(
                "insert into platform.tenant (id, slug, name) values (%s, %s, %s)", [tenant, slug, slug]
            )
            for table in self.tables.values():
                if not table.is_partition:
                    self._insert(table, tenant, slug)
        return tenant

    def _insert(self, table: Table, tenant: uuid.UUID, slug: str) -> None:
        row = self.row(table, tenant, slug)
        insert(self.connection, table, row)
        self.rows[tenant][table.name] = row

    def row(self, table: Table, tenant: uuid.UUID, slug: str, turn: int = 0) -> dict[str, Any]:
        """`turn` 1 is a second row of the tenant: it differs from the first wherever a range leaves few values."""
        ranges = [found.groups() for check in table.checks for found in _BETWEEN.finditer(check)]
        between = {name: int(low) + 2 * list(self.rows).index(tenant) + turn for name, low, _high in ranges}
        chosen = {found[1]: found[2] for check in table.checks for found in _ONE_OF.finditer(check)}
        row: dict[str, Any] = {"tenant_id": tenant}
        for column in table.columns:
            if column.name == "tenant_id":
                continue
            target = table.references.get(column.name)
            if column.name == "id":
                row["id"] = row_id(tenant, table.name)
            elif target is not None:
                # A self reference is left open where it may be: a row that names itself moves with nothing.
                row[column.name] = (
                    row_id(tenant, target) if target != table.name or column.is_required else None
                )
            elif column.name in chosen:
                row[column.name] = chosen[column.name]
            elif column.name in between:
                row[column.name] = between[column.name]
            else:
                row[column.name] = _value(column, tenant, slug)
        return row | AGREED.get(table.name, {})


def row_id(tenant: uuid.UUID, table: str) -> uuid.UUID:
    return uuid.uuid5(tenant, table)


def _value(column: Column, tenant: uuid.UUID, slug: str) -> Any:
    number = int(tenant) % 1_000_000
    if column.type.endswith("[]"):
        return []
    if column.type == "uuid":
        return uuid.uuid5(tenant, column.name)
    if column.type == "text":
        return f"{slug}-{column.name}-{number}"
    if column.type in ("bigint", "integer", "smallint"):
        return 0 if column.name.endswith("_minor") else number
    if column.type.startswith(("numeric", "double")):
        return 1
    if column.type == "boolean":
        return False
    if column.type.startswith("timestamp"):
        return datetime.now(UTC)
    if (
        column.type == "date"
    ):  # a key of a reference and a day is the tenant's own, and a second row has another
        return date.today() - timedelta(days=crc32(f"{tenant}{slug}".encode()) % 9000)
    if column.type in ("json", "jsonb"):
        return Jsonb({})
    if column.type == "bytea":
        return tenant.bytes
    raise NotImplementedError(
        f"no value for a column of type {column.type}: teach tests/isolation/catalogue.py"
    )


def insert(connection: Connection, table: Table, row: dict[str, Any], *, returning: bool = False) -> Any:
    names = ", ".join(f'"{name}"' for name in row)
    marks = ", ".join(["%s"] * len(row))
    query = f"insert into {table.full} ({names}) values ({marks})" + (" returning 1" if returning else "")
    return connection.execute(query.encode(), list(row.values()))
