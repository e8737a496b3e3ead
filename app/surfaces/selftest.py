"""Console page: does the wall between tenants stand, here and now? The rules and probes that `livery doctor` runs."""

from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.kernel.errors import Invalid
from app.kernel.web import NavItem, form_again, page, platform, read_form, visit_of
from tenants import probes
from tenants.models import PlatformAuditEntry

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Isolation", "/isolation", "shield", "isolation.test", order=50)]
ACTION = "isolation.tested"
KEPT_FAULTS = 20


async def _last(request: AnyRequest) -> dict[str, Any]:
    """When it was run last, by whom and how it went; the audit log remembers it."""
    query = (
        select(PlatformAuditEntry)
        .where(PlatformAuditEntry.action == ACTION)
        .order_by(PlatformAuditEntry.seq.desc())
        .limit(1)
    )
    async with platform(request, "look at the isolation self-test") as scope:
        return {"last": (await scope.db.execute(query)).scalar_one_or_none()}


@get("/isolation", opt={"permission": "isolation.test"})
async def show_selftest(request: AnyRequest) -> Response[Any]:
    return page(
        request, None, "surfaces/selftest.html", title="Isolation", report=None, values={}, errors={}, alert=None,
        **await _last(request),
    )  # fmt: skip


@post("/isolation", opt={"permission": "isolation.test"})
async def run_selftest(request: AnyRequest) -> Response[Any]:
    """Runs within the request and shows what it found; nothing that it tries to write stays."""
    form, database = await read_form(request), visit_of(request).database
    reason = form.text("reason")
    if not reason or len(reason) > 500:
        error = Invalid.field(
            "reason", "required", "Give a reason, at most 500 characters: it stands in the audit log."
        )
        shown = await _last(request)
        return form_again(
            request, None, "surfaces/selftest.html", error, form, title="Isolation", report=None, **shown
        )
    report = await probes.examine(database)
    async with platform(request, reason) as scope:
        await scope.write_audit(ACTION, {
            "well": not report.faults, "rules": report.rules, "relations": len(report.relations),
            "probes": report.probes, "seconds": f"{report.seconds:.2f}", "faults": report.faults[:KEPT_FAULTS],
        })  # fmt: skip
    return page(
        request, None, "surfaces/selftest.html", title="Isolation", report=report, values=form.values, errors={},
        alert=None, most=probes.MOST, **await _last(request),
    )  # fmt: skip


routes = [show_selftest, run_selftest]
