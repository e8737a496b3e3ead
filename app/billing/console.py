"""Console page of billing: the payment sandbox's panel. Not there where real money could be, nor in production."""

import re
from datetime import UTC, datetime
from typing import Any

from litestar import Request, Response, get, post

from app.billing import exposure_pages, fee_pages, payments, platform_pages, sandbox
from app.kernel.errors import Invalid, NotFound
from app.kernel.settings import Settings
from app.kernel.web import Form, NavItem, form_again, page, platform, read_form, redirect, visit_of

AnyRequest = Request[Any, Any, Any]
HOUR_S, DAY_S = 3600, 86_400
MOST_DAYS, MOST_FAULTS, MOST_TIMES = 365, 20, 100
FAULT_WORDS = {
    "before": "the answer is lost before anything was done",
    "after": "it is done, but the answer is lost",
    "500": "answered 500, and again to the same key",
    "409": "answered 409: another request holds this key",
    "429": "answered 429: too many requests",
    "balance_insufficient": "refused: too little money in the account",
}
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "normal": ("delivered as they come", {}),
    "lost": ("lost: nothing is told", {"drop": True}),
    "doubled": ("doubled: each is told twice", {"copies": 2}),
    "reversed": ("reversed: the newest first", {"reverse": True}),
}
REQUESTS = {f"{method} {path}": (method, path) for method, path, _endpoint in sandbox.ENDPOINTS}


def has_panel(settings: Settings) -> bool:
    return settings.uses_sandbox and not settings.is_production


nav = [
    NavItem("Payment sandbox", "/sandbox", "wrench", "sandbox.view", order=40, when=has_panel),
    *platform_pages.nav,
    *exposure_pages.nav,
]


def _refuse_elsewhere(request: AnyRequest) -> None:
    if not has_panel(visit_of(request).database.settings):
        raise NotFound()


@get("/sandbox", opt={"permission": "sandbox.view"})
async def show_sandbox(request: AnyRequest) -> Response[Any]:
    _refuse_elsewhere(request)
    return page(
        request, None, "billing/sandbox.html", title="Payment sandbox", values={}, errors={}, alert=None,
        **await _shown(request),
    )  # fmt: skip


async def _shown(request: AnyRequest) -> dict[str, Any]:
    state = await sandbox.look(visit_of(request).database)
    plan = next((name for name, (_words, value) in PLANS.items() if value == state.webhooks), "")
    return {
        "state": state, "plan": plan, "accounts": [(one, _rows(one)) for one in state.accounts],
         "plans": [(name, words) for name, (words, _value) in PLANS.items()],
        "clock": _in_words(state.clock_s), "hold_lasts": _in_words(sandbox.HOLD_LIFETIME_S),
        "page_minutes": int(payments.CHECKOUT_LIFETIME.total_seconds()) // 60, "fault_words": FAULT_WORDS,
        "requests": list(REQUESTS), "asks": state.asks, "refuses": state.refuses,
        "disputes": [(account, one | {"made": datetime.fromtimestamp(one["created"], UTC)})
                     for account, one in await sandbox.list_disputes(visit_of(request).database)],
        "cards": [(number, brand, what) for number, (brand, _way, what) in sandbox.CARDS.items()],
    }  # fmt: skip


def _rows(account: sandbox.Account) -> list[dict[str, Any]]:
    return [
        {
            "what": "Checkout" if one["object"] == "checkout.session" else "Payment intent", "id": one["id"],
            "status": one["status"], "currency": one["currency"].upper(),
            "amount": one["amount_total"] if "amount_total" in one else one["amount"],
            "made": datetime.fromtimestamp(one["created"], UTC),
        }
        for one in account.objects
    ]  # fmt: skip


def _in_words(seconds: int) -> str:
    """`2 days 3 h`; the clock is set in hours."""
    days, rest = divmod(seconds, DAY_S)
    parts = [f"{days} day{'s' if days != 1 else ''}" if days else "", f"{rest // HOUR_S} h" if rest else ""]
    return " ".join(filter(None, parts))


@post("/sandbox/clock", opt={"permission": "sandbox.manage"})
async def move_clock(request: AnyRequest) -> Response[Any]:
    """Ahead by days and hours, in all and not on top of where it stood; `back` returns to now."""
    _refuse_elsewhere(request)
    form, database = await read_form(request), visit_of(request).database
    try:
        offset_s = 0 if form.flag("back") else _offset(form)
    except Invalid as error:
        return await _again(request, error, form)
    async with platform(request, "move the payment sandbox's clock") as scope:
        await scope.write_audit("sandbox.clock", {"ahead_s": offset_s})
        await sandbox.set_clock(database, offset_s)
    told = (
        f"The sandbox's clock is {_in_words(offset_s)} ahead." if offset_s else "The sandbox's clock is ours."
    )
    return redirect(request, "/sandbox", flash=told)


def _offset(form: Form) -> int:
    days, hours = form.integer("days") or 0, form.integer("hours") or 0
    for name, value, most in (("days", days, MOST_DAYS), ("hours", hours, 23)):
        if not 0 <= value <= most:
            raise Invalid.field(name, "range", f"{name.title()} are 0 to {most}: the clock only goes ahead.")
    if not days and not hours:
        raise Invalid.field("days", "required", "Say how many days or hours ahead, or press Back to now.")
    return days * DAY_S + hours * HOUR_S


@post("/sandbox/faults", opt={"permission": "sandbox.manage"})
async def plan_fault(request: AnyRequest) -> Response[Any]:
    """One more fault at the end of the plan; `clear` empties it."""
    _refuse_elsewhere(request)
    form, database = await read_form(request), visit_of(request).database
    try:
        planned = None if form.flag("clear") else _fault(form)
        left = [
            entry for entry in await sandbox.get_setting(database, "faults", []) if entry.get("times", 1) > 0
        ]
        if planned and len(left) >= MOST_FAULTS:
            raise Invalid.field(
                "request", "too_many", f"The plan holds at most {MOST_FAULTS} faults: clear it first."
            )
    except Invalid as error:
        return await _again(request, error, form)
    async with platform(request, "plan faults of the payment sandbox") as scope:
        await scope.write_audit("sandbox.faults", {"planned": planned})
        await sandbox.set_faults(database, [*left, planned] if planned else [])
    told = "The fault is planned." if planned else "No faults are planned any more."
    return redirect(request, "/sandbox", flash=told)


def _fault(form: Form) -> dict[str, Any]:
    asked, fault, times = form.text("request"), form.text("fault"), form.integer("times")
    if asked not in REQUESTS:
        raise Invalid.field("request", "unknown", "Choose one of the sandbox's requests.")
    if fault not in sandbox.FAULTS:
        raise Invalid.field("fault", "unknown", f"A fault is one of {', '.join(sandbox.FAULTS)}.")
    if times is None or not 1 <= times <= MOST_TIMES:
        raise Invalid.field("times", "range", f"How often is 1 to {MOST_TIMES}.")
    method, path = REQUESTS[asked]
    pattern = f"^{method} {re.escape(path).replace(re.escape('{id}'), '[A-Za-z0-9_]+')}$"
    return {"path": pattern, "fault": fault, "times": times, "request": asked}


@post("/sandbox/webhooks", opt={"permission": "sandbox.manage"})
async def plan_webhooks(request: AnyRequest) -> Response[Any]:
    _refuse_elsewhere(request)
    form, database = await read_form(request), visit_of(request).database
    plan = form.text("plan")
    if plan not in PLANS:
        error = Invalid.field("plan", "unknown", f"A plan for webhooks is one of {', '.join(PLANS)}.")
        return await _again(request, error, form)
    words, value = PLANS[plan]
    async with platform(request, "plan webhooks of the payment sandbox") as scope:
        await scope.write_audit("sandbox.webhooks", {"plan": plan})
        await sandbox.set_webhook_plan(database, value)
    return redirect(request, "/sandbox", flash=f"Webhooks are {words}.")


@post("/sandbox/behaviour", opt={"permission": "sandbox.manage"})
async def plan_behaviour(request: AnyRequest) -> Response[Any]:
    """How accounts open and what the bank does with payouts, from now on."""
    _refuse_elsewhere(request)
    form, database = await read_form(request), visit_of(request).database
    asks, refuses = form.flag("asks"), form.flag("refuses")
    async with platform(request, "plan accounts and bank of the payment sandbox") as scope:
        await scope.write_audit("sandbox.behaviour", {"asks": asks, "refuses": refuses})
    await sandbox.set_accounts(database, ask=asks)
    await sandbox.set_bank(database, refuses=refuses)
    return redirect(request, "/sandbox", flash="The sandbox's accounts and bank behave so from now on.")


@post("/sandbox/disputes", opt={"permission": "sandbox.manage"})
async def decide_dispute(request: AnyRequest) -> Response[Any]:
    """What the payer's bank says; the news go out as they are planned to."""
    _refuse_elsewhere(request)
    form, database = await read_form(request), visit_of(request).database
    ref, outcome = form.text("dispute"), form.text("outcome")
    if outcome not in ("won", "lost"):
        raise Invalid.field("outcome", "unknown", "A dispute is won or lost.")
    async with platform(request, "decide a dispute of the payment sandbox") as scope:
        await scope.write_audit("sandbox.dispute", {"dispute": ref, "outcome": outcome})
    try:
        await sandbox.decide_dispute(database, form.text("account"), ref, outcome)
    except sandbox.WireError:
        raise NotFound("dispute") from None
    return redirect(request, "/sandbox", flash="The bank has decided.")


async def _again(request: AnyRequest, error: Invalid, form: Form) -> Response[Any]:
    shown = await _shown(request)
    return form_again(request, None, "billing/sandbox.html", error, form, title="Payment sandbox", **shown)


routes = [
    show_sandbox,
    move_clock,
    plan_fault,
    plan_webhooks,
    plan_behaviour,
    decide_dispute,
    *fee_pages.routes,
    *platform_pages.routes,
    *exposure_pages.routes,
]
