"""Tariffs as screens and REST show them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from app.kernel.ids import public_id
from app.tariffs import ocpi_tariff, service
from app.tariffs.explain import explain
from app.tariffs.models import Tariff, TariffAssignment
from tenants.scope import Scope


async def show_tariffs(scope: Scope, tariffs: Iterable[Tariff]) -> list[dict[str, Any]]:
    """`tariffs` come with their versions loaded (`get_tariff`, `list_tariffs`)."""
    tariffs = list(tariffs)
    assignments = await service.list_assignments(scope, [tariff.id for tariff in tariffs])
    return [_show(tariff, assignments[tariff.id]) for tariff in tariffs]


def _show(tariff: Tariff, assignments: list[TariffAssignment]) -> dict[str, Any]:
    """`assign` is what a PUT would take back; `assignments` all there are."""
    current = tariff.versions[-1]
    targets = [show_target(assignment) for assignment in assignments]
    return {
        "id": public_id("tariff", tariff.id), "name": tariff.name, "version_no": tariff.version_no,
        "currency": current.currency, "tariff": current.ocpi, "assign": targets[-1] if targets else {},
        "assignments": targets, "summary": explain(ocpi_tariff.read_tariff(current.ocpi)),
        "created_at": _stamp(tariff.created_at), "updated_at": _stamp(current.created_at),
    }  # fmt: skip


def show_target(assignment: TariffAssignment) -> dict[str, Any]:
    if assignment.target == "default":
        return {"default": True}
    name = f"{assignment.target}_id"
    return {name: public_id(assignment.target, getattr(assignment, name))}


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
