"""How a brand looks: what pages wear now, what is drafted, what was published before.

Draft -> preview -> publish -> roll back: a draft is checked whole when it is saved, publishing makes a
numbered version, rolling back publishes an old one again.

Errors: `invalid_look`, `contrast`, `image`, `image_too_large`, `no_draft`, `draft_changed`.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import undefer

from app.brands.look import TEXTS, Look, check_look, read_look
from app.brands.models import Brand, BrandPicture, BrandVersion, TenantProfile
from app.kernel import audit, secrets
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.web import BrandFace
from tenants.scope import Scope
from themes import images
from themes.css import stylesheet
from themes.theme import Theme, preset

PREVIEW_LIFETIME = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Face:
    """What a page wears: the brand, how its readers write times, the languages they can choose."""

    brand: BrandFace
    time_zone: str
    language: str
    languages: tuple[str, ...]
    is_draft: bool = False


async def get_face(scope: Scope, *, drafted: bool = False) -> Face:
    """`drafted`: the draft where there is one."""
    query = select(TenantProfile, Brand).outerjoin(Brand, Brand.tenant_id == TenantProfile.tenant_id)
    row = (await scope.db.execute(query)).first()
    if row is None:
        raise NotFound()
    profile, brand = row
    draft = await _draft(scope) if drafted else None
    look = draft or _look(brand)
    kinds = draft.text_kinds if draft else tuple(brand.details.get("text_kinds", ())) if brand else ()
    face = replace(
        _face_of(profile.name, look, kinds),
        support_phone=profile.support_phone, support_email=profile.support_email,
        has_wallet="wallet" in profile.pays_by,
    )  # fmt: skip
    language = spoken(profile.language, look.languages)
    return Face(face, profile.time_zone, language, look.languages, is_draft=draft is not None)


def spoken(own: str, offered: Sequence[str], wanted: str | None = None) -> str:
    """What a brand speaks that offers these languages to its drivers: the wanted one, else its own (its profile's),
    else the first. What is not offered is never spoken: its legal texts may not be there (pure)."""
    return next(one for one in (wanted or own, own, *offered) if one in offered)


async def get_language(scope: Scope, wanted: str | None = None) -> str:
    """The language of whatever is written for somebody who is not looking: papers, mails, stickers. `wanted` is the
    reader's, where it is known."""
    own = (await scope.db.execute(select(TenantProfile.language))).scalar_one_or_none()
    if own is None:
        raise NotFound()
    return spoken(own, await get_languages(scope), wanted)


async def get_languages(scope: Scope) -> tuple[str, ...]:
    """Those that drivers are offered: the published look's."""
    return (await _current(scope)).languages


async def _draft(scope: Scope) -> Look | None:
    values = (await scope.db.execute(select(Brand.draft))).scalar_one_or_none()
    return read_look(values) if values else None


def _look(brand: Brand | None) -> Look:
    """Without its texts. What is stored was checked; a page must not fail because a later release is stricter."""
    if brand is None:
        return Look(theme=preset("default"))
    try:
        return read_look({**brand.details, "theme": brand.theme})
    except Invalid:
        return Look(theme=preset("default"))


def _face_of(name: str, look: Look, text_kinds: tuple[str, ...] = ()) -> BrandFace:
    css_hash, _css = stylesheet(look.theme)
    icons = {size: f"/brand/icon-{size}-{_icon_hash(look)}.png" for size in images.ICON_SIZES}
    return BrandFace(
        name, f"/brand/{css_hash}.css", look.theme.logo_text, lock_mode=look.theme.lock_mode,
        logo_url=f"/brand/picture-{look.logo}.png" if look.logo else None, icons=icons, text_kinds=text_kinds,
        color=look.theme.primary,
    )  # fmt: skip


def _icon_hash(look: Look) -> str:
    """Of what an icon is drawn from."""
    seed = look.mark or f"{look.theme.primary}:{look.theme.logo_text}:DejaVu"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def platform_face(logo_text: str = "") -> BrandFace:
    """The platform's own look; the console's name stands on it where no other is given."""
    face = _face_of("Livery", Look(theme=preset("console")))
    return replace(face, logo_text=logo_text) if logo_text else face


# -- files, each named by its content ----------------------------------------------------------------------------------


async def find_file(scope: Scope | None, name: str) -> tuple[bytes, str]:
    """(content, media type) of `{hash}.css`, `icon-{size}-{hash}.png` or `picture-{digest}.png`. NotFound for another.

    Without a scope the platform's own. A draft's files are served too: their names cannot be guessed.
    """
    stem, _, kind = name.rpartition(".")
    if kind == "css":
        async for look in _worn(scope):
            known, css = stylesheet(look.theme)
            if known == stem:
                return css.encode(), "text/css"
    elif kind == "png" and stem.startswith("icon-"):
        size, _, digest = stem.removeprefix("icon-").partition("-")
        async for look in _worn(scope):
            if size.isdigit() and int(size) in images.ICON_SIZES and digest == _icon_hash(look):
                mark = await _picture(scope, look.mark) if scope is not None and look.mark else None
                return images.icon_png(look.theme, mark, int(size)), "image/png"
    elif kind == "png" and stem.startswith("picture-") and scope is not None:
        content = await _picture(scope, stem.removeprefix("picture-"))
        if content is not None:
            return content, "image/png"
    raise NotFound("file")


async def _worn(scope: Scope | None) -> AsyncIterator[Look]:
    """What somebody may have on right now: the published look, then the draft."""
    yield await _current(scope)
    draft = await _draft(scope) if scope is not None else None
    if draft is not None:
        yield draft


async def _current(scope: Scope | None) -> Look:
    if scope is None:
        return Look(theme=preset("console"))
    return _look((await scope.db.execute(select(Brand))).scalar_one_or_none())


async def _picture(scope: Scope, digest: str) -> bytes | None:
    query = select(BrandPicture.content).where(BrandPicture.digest == digest)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def get_theme(scope: Scope) -> tuple[Theme, str]:
    """The theme and the hash under which its stylesheet is served."""
    theme = (await _current(scope)).theme
    return theme, stylesheet(theme)[0]


async def get_text(scope: Scope, kind: str, language: str, *, drafted: bool = False) -> tuple[str, str]:
    """A legal text as it is published or drafted, and its language: the reader's, or else another. NotFound."""
    draft = await _draft(scope) if drafted else None
    texts = draft.texts if draft else (await _brand(scope)).texts
    found = texts.get(kind, {}) if kind in TEXTS else {}
    for spoken_in in (language, *found):
        if text := found.get(spoken_in):
            return text, spoken_in
    raise NotFound("text")


# -- seeing the draft on the real pages --------------------------------------------------------------------------------


def preview_pass(scope: Scope) -> str:
    """Whoever holds it sees the draft on every page of this tenant, for half an hour: `{expires}.{mac}`."""
    expires = str(int((scope.now + PREVIEW_LIFETIME).timestamp()))
    mac = secrets.digest(scope.settings.secret_keys, "look-preview", f"{scope.tenant_id}:{expires}")
    return f"{expires}.{mac.hex()}"


def is_preview_pass(scope: Scope, presented: str | None) -> bool:
    expires, _, mac = (presented or "").partition(".")
    if not re.fullmatch(r"[0-9]{1,12}", expires) or int(expires) < scope.now.timestamp():
        return False
    known = secrets.digests(scope.settings.secret_keys, "look-preview", f"{scope.tenant_id}:{expires}")
    return any(secrets.same(one.hex().encode(), mac.encode()) for one in known)


# -- draft, publish, roll back -----------------------------------------------------------------------------------------


async def found(scope: Scope, theme: Theme) -> None:
    """A new tenant's first look."""
    css_hash, _css = stylesheet(theme)
    look = Look(theme=theme)
    scope.db.add(Brand(theme=theme.values(), css_hash=css_hash, details=_details(look), version_no=1))
    scope.db.add(BrandVersion(
        version_no=1, look=look.values(), note="First look", published_by=scope.actor.name, published_at=scope.now,
    ))  # fmt: skip
    await scope.db.flush()


def _details(look: Look) -> dict[str, Any]:
    values = look.values()
    return {name: values[name] for name in ("logo", "mark", "languages")} | {
        "text_kinds": list(look.text_kinds)
    }


async def _brand(scope: Scope, *, lock: bool = False) -> Brand:
    query = select(Brand).options(undefer(Brand.texts), undefer(Brand.draft))
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    brand = (await scope.db.execute(query)).scalar_one_or_none()
    if brand is None:
        brand = Brand(theme=preset("default").values(), css_hash=stylesheet(preset("default"))[0], details={}, texts={},
                      version_no=0, drafted_by="")  # fmt: skip
        scope.db.add(brand)
        await scope.db.flush()
    return brand


@dataclass(frozen=True, slots=True)
class Editing:
    """What the editor works on: the draft where there is one, else what is published."""

    look: Look
    published: Look
    is_draft: bool
    version_no: int
    drafted_by: str
    drafted_at: Any
    state: str  # changes with whatever is drafted or published: who acts on an older one did not see what they act on


async def get_editing(scope: Scope) -> Editing:
    brand = await _brand(scope)
    published = replace(_look(brand), texts=brand.texts)
    draft = read_look(brand.draft) if brand.draft else None
    return Editing(
        draft or published, published, draft is not None, brand.version_no, brand.drafted_by, brand.drafted_at,
        _state(brand),
    )  # fmt: skip


def _state(brand: Brand) -> str:
    seen = json.dumps([brand.draft, brand.version_no], sort_keys=True)
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def _check_state(brand: Brand, state: str | None) -> None:
    if state is not None and state != _state(brand):
        who = brand.drafted_by if brand.draft else ""
        raise Refused("draft_changed", f"{who or 'Somebody'} saved since you opened this page.")


async def save_draft(scope: Scope, look: Look, *, state: str | None = None) -> None:
    """Checked whole: what cannot be seen or read is refused here, with what would pass. `state` is what the editor had
    before their eyes (`Editing.state`): what somebody else has saved since is not lost to an older form."""
    check_look(look)
    for name in ("logo", "mark"):
        digest = getattr(look, name)
        if digest is not None and await _picture(scope, digest) is None:
            raise Invalid.field(name, "image", "There is no such picture.")
    brand = await _brand(scope, lock=True)
    _check_state(brand, state)
    brand.draft, brand.drafted_at, brand.drafted_by = look.values(), scope.now, scope.actor.name
    await scope.db.flush()


async def discard_draft(scope: Scope, *, state: str | None = None) -> None:
    """`state` as in `save_draft`."""
    brand = await _brand(scope, lock=True)
    _check_state(brand, state)
    brand.draft, brand.drafted_at, brand.drafted_by = None, None, ""
    await scope.db.flush()


async def publish_draft(scope: Scope, note: str = "", *, state: str | None = None) -> int:
    """The version's number. Every page wears it from its next request on. `state` as in `save_draft`: nothing goes out
    that whoever publishes has not seen."""
    brand = await _brand(scope, lock=True)
    if brand.draft is None:
        raise Refused("no_draft", "There is nothing drafted that could be published.")
    _check_state(brand, state)
    look = check_look(read_look(brand.draft))
    brand.draft, brand.drafted_at, brand.drafted_by = None, None, ""
    return await _publish(scope, brand, look, note)


async def roll_back(scope: Scope, version_no: int, *, state: str | None = None) -> int:
    """An old version is published again, under a new number; a draft stays as it is. `state` as in `save_draft`: what
    somebody published or drafted since is not rolled back by whoever has not seen it."""
    query = (
        select(BrandVersion).where(BrandVersion.version_no == version_no).options(undefer(BrandVersion.look))
    )
    version = (await scope.db.execute(query)).scalar_one_or_none()
    if version is None:
        raise NotFound("brand_version")
    brand = await _brand(scope, lock=True)
    _check_state(brand, state)
    return await _publish(scope, brand, check_look(read_look(version.look)), f"As version {version_no}")


async def _publish(scope: Scope, brand: Brand, look: Look, note: str) -> int:
    brand.theme, brand.details, brand.texts = look.theme.values(), _details(look), look.texts
    brand.css_hash, brand.updated_at = stylesheet(look.theme)[0], scope.now
    brand.version_no += 1
    scope.db.add(BrandVersion(
        version_no=brand.version_no, look=look.values(), note=" ".join(note.split())[:200],
        published_by=scope.actor.name, published_at=scope.now,
    ))  # fmt: skip
    await scope.db.flush()
    await audit.record(scope, "brand.published", "brand", brand.id, {"version_no": brand.version_no})
    return brand.version_no


async def list_versions(scope: Scope, limit: int = 20) -> list[BrandVersion]:
    query = select(BrandVersion).order_by(BrandVersion.version_no.desc()).limit(limit)
    return list((await scope.db.execute(query)).scalars())


async def store_picture(scope: Scope, content: bytes, field: str) -> str:
    """The digest under which it is kept; the same picture twice is one."""
    most = images.LOGO_SIZE if field == "logo" else images.MARK_SIZE
    png, width, height = await asyncio.to_thread(images.reencode, content, field, most)  # up to half a second
    digest = hashlib.sha256(png).hexdigest()[:16]
    row = {"id": uuid7(), "digest": digest, "content": png, "width": width, "height": height}
    await scope.db.execute(upsert(BrandPicture).values(**row).on_conflict_do_nothing())
    return digest
