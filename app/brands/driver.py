"""What belongs to a brand on its drivers' host: legal texts, the installable app, the page without a network."""

import hashlib
import json
from typing import Any

from litestar import Request, Response, get, post

from app.brands import faces, service
from app.brands.look import paragraphs
from app.kernel.errors import NotFound
from app.kernel.web import BrandFace, page, preview_cookie, redirect, visit_of
from tenants.scope import Scope
from themes.language import N_, _
from themes.render import asset, built_text

AnyRequest = Request[Any, Any, Any]
TITLES = {"imprint": N_("Imprint"), "terms": N_("Terms"), "privacy": N_("Privacy")}


@get("/legal/{kind:str}", opt={"public": True})
async def show_text(request: AnyRequest, tenant_scope: Scope, kind: str) -> Response[str]:
    visit = visit_of(request)
    text, language = await faces.get_text(tenant_scope, kind, visit.language, drafted=visit.is_preview)
    return page(
        request, tenant_scope, "brands/legal.html", title=_(TITLES[kind]), blocks=paragraphs(text), kind=kind,
        text_language=language,
    )  # fmt: skip


@get("/preview/{held:str}", opt={"public": True})
async def begin_preview(request: AnyRequest, tenant_scope: Scope, held: str) -> Response[Any]:
    """From the brand editor: this browser wears the draft until it has enough of it."""
    if not faces.is_preview_pass(tenant_scope, held):
        raise NotFound("preview")
    response = redirect(request, "/")
    response.set_cookie(preview_cookie(held))
    return response


@post("/preview-ends", opt={"public": True})
async def end_preview(request: AnyRequest) -> Response[Any]:
    response = redirect(request, "/")
    response.set_cookie(preview_cookie(""))
    return response


async def _for_everybody(request: AnyRequest, scope: Scope) -> BrandFace:
    """What a browser keeps is nobody's own, and shows no draft."""
    visit = visit_of(request)
    visit.person, visit.session_digest = None, ""
    if visit.is_preview:
        visit.brand, visit.is_preview = (await faces.get_face(scope)).brand, False
    assert visit.brand is not None
    return visit.brand


@get("/offline", opt={"public": True})
async def show_offline(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """Kept by the service worker, under an address that changes with what it says."""
    await _for_everybody(request, tenant_scope)
    return await _offline(request, tenant_scope)


async def _offline(request: AnyRequest, scope: Scope) -> Response[str]:
    profile = await service.get_profile(scope)
    return page(request, scope, "brands/offline.html", title=_("No connection"), profile=profile, flashes=[])


@get("/manifest.webmanifest", opt={"public": True})
async def show_manifest(request: AnyRequest, tenant_scope: Scope) -> Response[bytes]:
    """W3C Web Application Manifest: what a phone's home screen shows."""
    visit, brand = visit_of(request), await _for_everybody(request, tenant_scope)
    icons = [
        {"src": url, "sizes": f"{size}x{size}", "type": "image/png", "purpose": purpose}
        for size, url in brand.icons.items()
        if size >= 192
        for purpose in ("any", "maskable")
    ]
    manifest = {
        "id": "/", "name": brand.name, "short_name": brand.logo_text[:12], "start_url": "/", "scope": "/",
        "display": "standalone", "lang": visit.language, "background_color": "#ffffff", "theme_color": brand.color,
        "icons": icons,
    }  # fmt: skip
    return Response(
        json.dumps(manifest, ensure_ascii=False).encode(), media_type="application/manifest+json",
        headers={"Cache-Control": "max-age=300"},
    )  # fmt: skip


@get("/sw.js", opt={"public": True})
async def show_service_worker(request: AnyRequest, tenant_scope: Scope) -> Response[bytes]:
    """The worker with the names of the shell it keeps. Whatever that shows is in them, so that a new look or release is
    a new worker, and so is another language or mode of the reader's and another telephone number: browsers compare the
    worker at every page."""
    brand = await _for_everybody(request, tenant_scope)
    words = (await _offline(request, tenant_scope)).content
    shell = [
        f"/offline?{hashlib.sha256(words.encode()).hexdigest()[:16]}",
        brand.css_url,
        asset("app.css"),
        asset("app.js"),
        asset("sprite.svg"),
        brand.icons[192],
    ]
    script = f"const SHELL = {json.dumps(shell)};\n{built_text('sw.js')}"
    return Response(script.encode(), media_type="text/javascript", headers={"Cache-Control": "no-cache"})


routes = [show_text, begin_preview, end_preview, show_offline, show_manifest, show_service_worker]
