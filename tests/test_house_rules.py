"""House rules that no linter knows (docs/architecture.md)."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCE = [
    path
    for folder in ("app", "tenants", "themes", "ocpp_gateway", "migrations")
    for path in (ROOT / folder).rglob("*.py")
]
MONEY = [
    path for path in SOURCE
    if path.parts[-2] in ("billing", "tariffs") or path.name in ("money.py", "tax.py", "settlement.py", "periods.py")
]  # fmt: skip
SQL_HOMES = ("tenants", "migrations")
RAW_SQL_ALLOWED = re.compile(r"text\(\s*f[\"']")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MONEY, ids=names)
def test_money_is_never_a_float(path: Path):
    tree = ast.parse(path.read_text())
    floats = [
        node.lineno for node in ast.walk(tree)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float")
    ]  # fmt: skip
    assert not floats, f"{names(path)}: float at lines {floats}"


def test_no_module_is_a_drawer():
    drawers = {"utils", "helpers", "common", "base", "misc"}
    assert not [names(path) for path in SOURCE if path.stem in drawers]


def test_sql_is_never_put_together_from_strings_outside_the_doors():
    """Bound parameters only: an f-string in text() or exec_driver_sql() is how an injection begins."""
    wrong = []
    for path in SOURCE:
        if path.parts[len(ROOT.parts)] in SQL_HOMES:
            continue
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args
        ]
        wrong += [
            f"{names(path)}:{call.lineno}"
            for call in calls
            if _takes_sql(call.func) and not _is_plain(call.args[0])
        ]
    assert not wrong


def _takes_sql(function: ast.expr) -> bool:
    """`text(...)`, `sa.text(...)`, `connection.exec_driver_sql(...)`; a form's own `form.text(...)` is none of them."""
    if isinstance(function, ast.Attribute):
        owner = getattr(function.value, "id", "")
        return function.attr == "exec_driver_sql" or (
            function.attr == "text" and owner in ("sa", "sqlalchemy")
        )
    return isinstance(function, ast.Name) and function.id == "text"


def _is_plain(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_plain(node.left) and _is_plain(node.right)
    return isinstance(node, ast.Constant | ast.Name | ast.Attribute)


def test_only_the_database_door_sets_the_tenant():
    setters = [names(path) for path in SOURCE if "set_config(" in path.read_text()]
    assert set(setters) <= {"tenants/database.py", "tenants/rls.py", "tenants/rules.py"}


@pytest.mark.parametrize("path", sorted((ROOT / "migrations" / "versions").glob("*.py")), ids=names)
def test_a_migration_touches_rows_only_tenant_by_tenant(path: Path):
    """FORCE binds the owner: a bare UPDATE changes 0 rows and says nothing. `for_each_tenant` is the way."""
    text = path.read_text().lower()
    assert not re.search(r"execute\(\s*f?[\"'](update|delete)\s", text)


def test_models_are_imported_by_the_migrations():
    """A slice whose tables Alembic does not see would pass its check in silence."""
    gathered = (ROOT / "migrations" / "models.py").read_text()
    slices = {path.parent.name for path in (ROOT / "app").glob("*/models.py")}
    assert {name for name in slices if f"app.{name}" not in gathered} == set()
