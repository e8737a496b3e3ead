"""Portal pages of brands: the settings, the look with its draft and versions, the brand's own domains."""

import hashlib
import re
from dataclasses import replace
from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import UploadFile

from app.brands import domains, faces, service
from app.brands.api import FIELDS
from app.brands.look import LANGUAGES, PICTURES, TEXTS, Look
from app.brands.models import Domain
from app.kernel.errors import Invalid, NotFound, Refused, TooMany
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, NavItem, form_again, page, preview_cookie, read_form, redirect, visit_of
from tenants.resolve import own_url
from tenants.scope import Scope
from themes.css import preview_stylesheet
from themes.theme import contrast_findings, read_theme

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Branding", "/branding", "palette", "settings.view", order=88),
    NavItem("Settings", "/settings", "settings", "settings.view", order=90),
    NavItem("Domains", "/domains", "globe", "settings.view", order=91),
]


@get("/settings", opt={"permission": "settings.view"})
async def show_settings(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    profile = await service.get_profile(tenant_scope)
    return page(
        request, tenant_scope, "brands/settings.html", title="Settings", errors={}, alert=None,
        values={name: getattr(profile, name) for name in FIELDS} | {"language": await faces.get_language(tenant_scope)},
        **await _settings(tenant_scope),
    )  # fmt: skip


async def _settings(scope: Scope) -> dict[str, Any]:
    offered = await faces.get_languages(scope)
    return {
        "profile": await service.get_profile(scope), "languages_offered": [(one, LANGUAGES[one]) for one in offered],
    }  # fmt: skip


@post("/settings", opt={"permission": "settings.manage"})
async def change_settings(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    changes = {name: form.text(name) for name in FIELDS if name in form}
    try:
        await service.update_profile(tenant_scope, changes)
    except Invalid as error:
        context = await _settings(tenant_scope)
        return form_again(
            request, tenant_scope, "brands/settings.html", error, form, title="Settings", **context
        )
    return redirect(request, "/settings", flash="The settings are saved.")


# -- the look ----------------------------------------------------------------------------------------------------------

MAX_UPLOAD = 5_000_000
SAMPLE_LINES = (("Energy", "27.176 kWh", "13.32"), ("Occupancy", "12 min", "0.30"))


@get("/branding", opt={"permission": "settings.view"})
async def show_branding(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    editing = await faces.get_editing(tenant_scope)
    return page(
        request, tenant_scope, "brands/branding.html", title="Branding", errors={}, alert=None,
        values=_values(editing.look), **await _branding(tenant_scope, editing),
    )  # fmt: skip


async def _outrun(
    request: AnyRequest, scope: Scope, error: Refused, form: Form | None, note: str = ""
) -> Response[Any]:
    """Somebody saved since: what was typed stays, what stands now is shown beside it, and pressing again puts the one
    in the other's place. Without a form it is the draft that was to be published or discarded, shown as it is now."""
    editing = await faces.get_editing(scope)
    values = _values(editing.look) | {"note": note}
    theirs = []
    if form is not None:
        theirs = _theirs(form, values)
        values = form.values | {"state": editing.state}
    return page(
        request, scope, "brands/branding.html", title="Branding", errors={}, alert=None, status=error.status,
        outrun=error.message, is_typed=form is not None, theirs=theirs, values=values,
        **await _branding(scope, editing),
    )  # fmt: skip


_NAMES = {
    "logo_text": "Name", "primary": "Main colour", "accent": "Accent", "neutral": "Grey", "secondary": "Second colour",
    "radius": "Corners", "font": "Type", "density": "Density", "lock_mode": "Light and dark",
} | {f"language_{key}": f"{name} for drivers" for key, name in LANGUAGES.items()}  # fmt: skip


def _theirs(form: Form, values: dict[str, str]) -> list[tuple[str, str]]:
    """(field, what stands there now) where that is another than what was typed."""
    names = _NAMES | {
        f"{kind}_{key}": f"{kind.capitalize()}, {name}" for kind in TEXTS for key, name in LANGUAGES.items()
    }  # fmt: skip
    return [
        (words, values.get(name, ""))
        for name, words in names.items()
        if " ".join(form.text(name).split()) != " ".join(values.get(name, "").split())
    ]


async def _branding(scope: Scope, editing: faces.Editing) -> dict[str, Any]:
    look = editing.look
    profile = await service.get_profile(scope)
    spoken = faces.spoken(profile.language, look.languages) if look.languages else profile.language
    digest = hashlib.sha256(preview_stylesheet(look.theme).encode()).hexdigest()[:16]
    return {
        "editing": editing, "look": look, "findings": contrast_findings(look.theme), "TEXTS": TEXTS,
        "LANGUAGES": LANGUAGES, "versions": await faces.list_versions(scope), "sample_lines": SAMPLE_LINES,
        "preview_css": f"/branding/preview-{digest}.css",
        "driver_preview": await own_url(scope, "driver", f"/preview/{faces.preview_pass(scope)}"),
        "profile": profile, "spoken": LANGUAGES[spoken], "is_own_language": spoken == profile.language,
    }  # fmt: skip


def _values(look: Look) -> dict[str, str]:
    values = {name: str(value) for name, value in look.theme.values().items() if value is not None}
    values |= {f"language_{name}": "on" for name in look.languages}
    return values | {
        f"{kind}_{language}": text for kind, found in look.texts.items() for language, text in found.items()
    }


@post(
    "/branding", request_max_body_size=MAX_UPLOAD,
    opt={"permission": "brand.manage", "too_large": "A picture may have up to 2 MB. Nothing was saved."},
)  # fmt: skip
async def save_branding(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """One draft, checked whole. Pictures come as files; what is not sent stays as it is."""
    sent = await request.form()
    form = Form(sent.multi_items())
    editing = await faces.get_editing(tenant_scope)
    try:
        look = await _read(tenant_scope, editing.look, form, sent)
        await faces.save_draft(tenant_scope, look, state=form.text("state"))
    except Refused as error:
        return await _outrun(request, tenant_scope, error, form)
    except Invalid as error:
        return form_again(
            request, tenant_scope, "brands/branding.html", error, form, title="Branding",
            **await _branding(tenant_scope, editing),
        )  # fmt: skip
    return redirect(request, "/branding", flash="The draft is saved. Look at it below, then publish it.")


async def _read(scope: Scope, look: Look, form: Form, sent: Any) -> Look:
    names = ("primary", "secondary", "accent", "neutral", "radius", "font", "density", "logo_text")
    theme = {name: form.text(name, getattr(look.theme, name)) for name in names}
    for name in ("primary", "secondary", "accent", "neutral"):
        theme[name] = theme[name].lower()
    changed = Look(
        theme=read_theme({**theme, "lock_mode": form.text("lock_mode") or None}), logo=look.logo, mark=look.mark,
        languages=tuple(name for name in LANGUAGES if form.flag(f"language_{name}")),
        texts={
            kind: {language: form.text(f"{kind}_{language}", look.texts.get(kind, {}).get(language, ""))
                   for language in LANGUAGES}
            for kind in TEXTS
        },
    )  # fmt: skip
    for field in PICTURES:
        upload = sent.get(field)
        content = await upload.read() if isinstance(upload, UploadFile) else b""
        if form.flag(f"remove_{field}"):
            changed = replace(changed, **{field: None})
        elif content:
            changed = replace(changed, **{field: await faces.store_picture(scope, content, field)})
    return changed


@get("/branding/{preview_name:str}", opt={"permission": "settings.view"})
async def preview_css(tenant_scope: Scope, preview_name: str) -> Response[str]:
    """The draft's values, for the part of the page that shows it."""
    if not re.fullmatch(r"preview-[0-9a-f]{16}\.css", preview_name):
        raise NotFound("file")
    editing = await faces.get_editing(tenant_scope)
    return Response(preview_stylesheet(editing.look.theme), media_type="text/css")


@post("/branding/publications", opt={"permission": "brand.manage"})
async def publish_branding(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        number = await faces.publish_draft(tenant_scope, form.text("note"), state=form.text("state"))
    except Refused as error:
        if error.code == "draft_changed":
            return await _outrun(request, tenant_scope, error, None, form.text("note"))
        return redirect(request, "/branding", flash=error.message, kind="error")
    return redirect(request, "/branding", flash=f"Version {number} is what everybody sees now.")


@post("/branding/discards", opt={"permission": "brand.manage"})
async def discard_branding(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        await faces.discard_draft(tenant_scope, state=form.text("state"))
    except Refused as error:
        return await _outrun(request, tenant_scope, error, None, form.text("note"))
    return redirect(request, "/branding", flash="The draft is gone. Nothing that people see has changed.")


@post("/branding/rollbacks", opt={"permission": "brand.manage"})
async def roll_back_branding(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    wanted = form.integer("version_no")
    if wanted is None:
        raise Invalid.field("version_no", "required", "Choose a version.")
    try:
        number = await faces.roll_back(tenant_scope, wanted, state=form.text("state"))
    except Refused as error:
        return await _outrun(request, tenant_scope, error, None)
    return redirect(request, "/branding", flash=f"The look of version {wanted} is back, as version {number}.")


@post("/branding/previews", opt={"permission": "settings.view"})
async def preview_in_portal(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """This browser wears the draft, everywhere in the portal, until it has enough of it."""
    response = redirect(request, "/")
    response.set_cookie(preview_cookie(faces.preview_pass(tenant_scope)))
    return response


@post("/branding/preview-ends", opt={"permission": "self"})
async def end_preview_in_portal(request: AnyRequest) -> Response[Any]:
    response = redirect(request, "/branding")
    response.set_cookie(preview_cookie(""))
    return response


# -- own domains -------------------------------------------------------------------------------------------------------

STEPS = ("Claimed", "Proven yours", "Leads here")
_STEP = {"pending": 1, "verified": 2, "active": 3, "suspended": 1}


@get("/domains", opt={"permission": "settings.view"})
async def show_domains(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    return page(
        request, tenant_scope, "brands/domains.html", title="Domains", values={}, errors={}, alert=None,
        **await _domains(tenant_scope),
    )  # fmt: skip


async def _domains(scope: Scope) -> dict[str, Any]:
    slug, _name, _status = await service.own_tenant(scope)
    settings = scope.settings
    hosts = {surface: domains.target_of(settings, slug, surface) for surface in domains.SURFACES}
    rows = [_row(scope, domain, hosts[domain.surface]) for domain in await domains.list_domains(scope)]
    return {
        "rows": [row for row in rows if row["domain"].state != "released"], "hosts": hosts,
        "released": [row["domain"] for row in rows if row["domain"].state == "released"],
        "names": {"driver": "Drivers", "portal": "Staff"},
    }  # fmt: skip


def _row(scope: Scope, domain: Domain, target: str) -> dict[str, Any]:
    reached = _STEP.get(domain.state, 0)
    if domain.failing_since:  # what its records say now, not what they once proved
        reached = 2 if domain.last_result.get("has_txt") else 1
    kind, sentence = domains.headline(domain)
    return {
        "id": public_id("domain", domain.id), "domain": domain, "spoken": domains.spoken(domain.host), "kind": kind,
        "sentence": sentence, "until": domains.served_until(domain), "records": domains.records(domain, target),
        "url": scope.settings.url_of(domain.host) if domain.state == "active" else None,
        "steps": [
            {"label": label, "state": "done" if no < reached else "current" if no == reached else "todo"}
            for no, label in enumerate(STEPS)
        ],
    }  # fmt: skip


@post("/domains", opt={"permission": "settings.manage"})
async def claim_domain(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        domain = await domains.claim(tenant_scope, form.text("host"), form.text("surface"))
    except (Invalid, Refused) as error:
        context = await _domains(tenant_scope)
        return form_again(
            request, tenant_scope, "brands/domains.html", error, form, title="Domains", **context
        )
    return redirect(request, "/domains", flash=f"{domain.host} is claimed. Now set its two records.")


@post("/domains/{domain_id:str}/checks", opt={"permission": "settings.manage"})
async def check_domain(request: AnyRequest, domain_id: str) -> Response[Any]:
    """No transaction is open while name servers are asked."""
    visit = visit_of(request)
    try:
        domain = await domains.check(visit.database, visit.tenant, visit.actor, parse_id("domain", domain_id))
    except (Refused, TooMany) as error:
        return redirect(request, "/domains", flash=error.message, kind="error")
    kind, sentence = domains.headline(domain)
    return redirect(request, "/domains", flash=f"{domain.host}: {sentence}", kind=kind)


@post("/domains/{domain_id:str}/releases", opt={"permission": "settings.manage"})
async def release_domain(request: AnyRequest, tenant_scope: Scope, domain_id: str) -> Response[Any]:
    domain = await domains.release(tenant_scope, parse_id("domain", domain_id))
    return redirect(request, "/domains", flash=f"{domain.host} is released and no longer served.")


routes = [
    show_settings, change_settings, show_branding, save_branding, preview_css, publish_branding, discard_branding,
    roll_back_branding, preview_in_portal, end_preview_in_portal, show_domains, claim_domain, check_domain,
    release_domain,
]  # fmt: skip
