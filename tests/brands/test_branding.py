"""A brand's look: drafted, seen, published, brought back; and whatever an upload tries, only pixels come out of it."""

import io
import re
import zlib
from dataclasses import replace
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from PIL import ExifTags, Image

from app.brands import faces
from app.brands.look import Look, check_look, paragraphs
from app.kernel.errors import Invalid
from tests.web import CLI, House, Visitor, found_brand
from themes import images
from themes.theme import Theme, contrast, contrast_findings, preset

pytestmark = pytest.mark.anyio
COLOURS = {"primary": "#0b5d6b", "secondary": "#2d4a53", "accent": "#13a38b", "neutral": "#54686d"}
SHAPE = {
    "radius": "large",
    "font": "system",
    "density": "comfortable",
    "logo_text": "Nordlicht",
    "language_en": "on",
}


def png(width: int = 300, height: int = 80, colour: str = "#ff0000", **more: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG", **more)
    return out.getvalue()


async def editor(house: House) -> tuple[Visitor, UUID]:
    tenant_id = await found_brand(house.database)
    visitor = await house.staff("nordlicht", tenant_id)
    await visitor.open("/branding")
    return visitor, tenant_id


async def state_of(visitor: Visitor) -> str:
    """What the forms of the page as it is now say of what their reader sees."""
    [state] = set(re.findall(r'name="state" value="(\w+)"', (await visitor.get("/branding")).text))
    return state


async def publish(visitor: Visitor, note: str = "") -> Any:
    return await visitor.post("/branding/publications", {"note": note, "state": await state_of(visitor)})


async def save(visitor: Visitor, files: dict[str, Any] | None = None, **changes: str) -> Any:
    seen = {} if "state" in changes else {"state": await state_of(visitor)}
    data = {"_csrf": visitor.csrf, **COLOURS, **SHAPE, **seen, **changes}
    parts = files or {"logo": ("", b"", "application/octet-stream")}
    return await visitor.send("POST", "/branding", data=data, files=parts)


async def test_a_draft_is_seen_by_staff_alone_until_it_is_published_and_can_come_back(house: House):
    visitor, _tenant = await editor(house)
    driver = house.driver("nordlicht")
    before = (await driver.get("/")).text
    assert (await save(visitor, primary="#7a1f5c", logo_text="Neu")).status_code == 303
    page = (await visitor.open("/branding")).text
    css = re.search(r"/branding/preview-[0-9a-f]{16}\.css", page)
    assert css and "--primary:#7a1f5c" in (await visitor.get(css.group(0))).text
    assert "Neu" in page
    driver_css = re.search(r"/brand/[0-9a-f]{16}\.css", before)
    assert driver_css and driver_css.group(0) in (await driver.get("/")).text
    assert (await publish(visitor, "Herbst")).status_code == 303
    after = (await driver.get("/")).text
    assert "Neu" in after and driver_css.group(0) not in after
    await visitor.open("/branding")
    seen = await state_of(visitor)
    assert (await visitor.post("/branding/rollbacks", {"version_no": "1", "state": seen})).status_code == 303
    assert driver_css.group(0) in (await driver.get("/")).text
    assert "As version 1" in (await visitor.get("/branding")).text


async def test_settings_name_no_language_that_drivers_are_not_offered_and_branding_says_so(house: House):
    visitor, tenant_id = await editor(house)
    assert "which drivers are not offered" not in (await visitor.get("/branding")).text
    assert (await save(visitor, language_en="", language_de="on")).status_code == 303
    drafted = (await visitor.get("/branding")).text
    assert (
        "Settings name English, which drivers are not offered in this draft." in drafted
        and "speak Deutsch" in drafted
    )
    assert (await publish(visitor)).status_code == 303
    assert (
        "Settings name English, which drivers are not offered any more."
        in (await visitor.get("/branding")).text
    )
    settings = (await visitor.open("/settings")).text
    assert 'value="de" selected' in settings and 'value="en"' not in settings
    assert (
        await visitor.post("/settings", {"support_phone": "+49 40 1", "language": "en"})
    ).status_code == 303
    assert (await visitor.post("/settings", {"language": "de"})).status_code == 303, (
        "and from there no way back"
    )
    refused = await visitor.post("/settings", {"language": "en"})
    assert refused.status_code == 422 and "Drivers are offered Deutsch only." in refused.text
    assert "which drivers are not offered" not in (await visitor.get("/branding")).text
    async with house.database.scope(tenant_id, CLI) as scope:
        assert [await faces.get_language(scope, wanted) for wanted in (None, "en", "de", "fr")] == ["de"] * 4


async def test_of_two_editors_neither_loses_to_the_others_older_form(house: House):
    """Ann's form is older than Ben's draft: hers is refused, kept as typed, with his beside it, and her next press
    counts."""
    ann, tenant_id = await editor(house)
    ben = await house.staff("nordlicht", tenant_id)
    await ben.open("/branding")
    old = await state_of(ann)
    assert (await save(ben, imprint_en="Ben's imprint")).status_code == 303
    answer = await save(ann, state=old, terms_en="Ann's terms", logo_text="Anns")
    page = unescape(answer.text)
    assert (
        answer.status_code == 409
        and "saved since you opened this page" in page
        and "Nothing was lost" in page
    )
    assert "Ann's terms</textarea>" in page and 'value="Anns"' in page
    beside = page.partition("What stands now")[2].partition("</section>")[0]
    assert "Ben's imprint" in beside and "Nordlicht" in beside and "Main colour" not in beside
    async with house.database.scope(tenant_id, CLI) as scope:
        assert (await faces.get_editing(scope)).look.texts["imprint"]["en"] == "Ben's imprint"
    invalid = await save(ann, state=old, primary="#ffe600")
    assert invalid.status_code == 422 and f'name="state" value="{old}"' in invalid.text, "no back door"
    [again] = set(re.findall(r'name="state" value="(\w+)"', answer.text))
    saved = await save(ann, state=again, terms_en="Ann's terms", imprint_en="Ben's imprint", logo_text="Anns")
    assert saved.status_code == 303


async def test_nobody_rolls_back_what_they_have_not_seen(house: House):
    """Ben publishes while Ann looks at the versions: hers would undo his work unseen."""
    ann, tenant_id = await editor(house)
    assert (await save(ann, logo_text="Anns")).status_code == 303
    assert (await publish(ann)).status_code == 303
    seen = await state_of(ann)
    ben = await house.staff("nordlicht", tenant_id)
    await ben.open("/branding")
    assert (await save(ben, logo_text="Bens")).status_code == 303
    assert (await publish(ben)).status_code == 303
    answer = await ann.post("/branding/rollbacks", {"version_no": "1", "state": seen})
    assert answer.status_code == 409 and "saved since you opened this page" in answer.text
    assert "Bens" in (await house.driver("nordlicht").get("/")).text
    again = {"version_no": "1", "state": await state_of(ann)}
    assert (await ann.post("/branding/rollbacks", again)).status_code == 303
    assert "Bens" not in (await house.driver("nordlicht").get("/")).text


async def test_nobody_publishes_or_discards_a_draft_that_they_have_not_seen(house: House):
    ann, tenant_id = await editor(house)
    assert (await save(ann, logo_text="Anns")).status_code == 303
    seen = await state_of(ann)
    ben = await house.staff("nordlicht", tenant_id)
    await ben.open("/branding")
    assert (await save(ben, logo_text="Bens")).status_code == 303
    for act in ("publications", "discards"):
        answer = await ann.post(f"/branding/{act}", {"note": "Autumn", "state": seen})
        assert (
            answer.status_code == 409 and 'value="Bens"' in answer.text and 'value="Autumn"' in answer.text
        ), act
    assert (await ann.post("/branding/publications", {"note": "Autumn"})).status_code == 409
    assert "Bens" not in (await house.driver("nordlicht").get("/")).text
    assert (await publish(ann, "Autumn")).status_code == 303
    assert "Bens" in (await house.driver("nordlicht").get("/")).text


async def test_a_logo_is_drawn_anew_and_stands_on_the_drivers_page(house: House):
    visitor, _tenant = await editor(house)
    comment = b"<script>alert(1)</script>"
    sent = png() + b"PK\x03\x04" + comment  # a picture with something else hung behind it
    answer = await save(visitor, {"logo": ("a.php.png", sent, "image/svg+xml")})
    assert answer.status_code == 303, answer.text
    await visitor.open("/branding")
    await publish(visitor)
    driver = house.driver("nordlicht")
    src = re.search(r"/brand/picture-[0-9a-f]{16}\.png", (await driver.get("/")).text)
    assert src
    served = await driver.get(src.group(0))
    assert served.headers["content-type"] == "image/png" and comment not in served.content
    assert served.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(served.content)).size == (300, 80)


def bomb() -> bytes:
    """Few bytes that say they are 60,000 by 60,000 pixels."""
    head = png(1, 1)
    width = (60_000).to_bytes(4, "big")
    ihdr = b"IHDR" + width + width + head[24:29]
    return head[:8] + (13).to_bytes(4, "big") + ihdr + zlib.crc32(ihdr).to_bytes(4, "big") + head[33:]


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"GIF89a<script>alert(1)</script>", b"",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50, png()[:60], b"%PDF-1.7 <</JS>>", bomb(), b"\xff\xd8\xff\xe0" + b"x" * 200,
        b"P6 9999 9999 255\n", b"\x89PNG" + b"a" * 3_000_000,
    ],
    ids=["svg", "gif-html", "empty", "broken-png", "cut-png", "pdf", "bomb", "broken-jpeg", "ppm", "3-mb"],
)  # fmt: skip
def test_what_is_no_picture_is_refused_by_its_field(content: bytes):
    with pytest.raises(Invalid) as refused:
        images.reencode(content, "logo", images.LOGO_SIZE)
    assert refused.value.faults[0].field == "logo"


async def test_a_logo_of_ten_megabytes_is_refused_and_nothing_is_kept(house: House):
    visitor, tenant_id = await editor(house)
    sent = {"logo": ("a.png", b"\x89PNG" + b"a" * 10_000_000, "image/png")}
    answer = await visitor.send(
        "POST", "/branding", data={"_csrf": visitor.csrf}, files=sent,
        headers={"Referer": f"{visitor.origin}/branding"},
    )  # fmt: skip
    assert answer.status_code == 413
    assert "A picture may have up to 2 MB." in answer.text and 'href="/branding"' in answer.text
    stranger = await visitor.send(
        "POST", "/branding", data={"_csrf": visitor.csrf}, files=sent,
        headers={"Referer": "https://elsewhere.example/branding"},
    )  # fmt: skip
    assert "elsewhere" not in stranger.text
    async with house.database.scope(tenant_id, CLI) as scope:
        assert not (await faces.get_editing(scope)).is_draft


def test_metadata_and_transparency_are_what_they_should_be():
    out = io.BytesIO()
    Image.new("RGBA", (2000, 100), (255, 0, 0, 0)).save(out, "PNG")
    made, width, height = images.reencode(out.getvalue(), "logo", images.LOGO_SIZE)
    assert (width, height) == (640, 32)
    assert Image.open(io.BytesIO(made)).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


def test_a_picture_stands_as_its_camera_was_held():
    tall, out = Image.new("RGB", (40, 20), "red"), io.BytesIO()
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    tall.save(out, "JPEG", exif=turned)
    assert images.reencode(out.getvalue(), "logo", images.LOGO_SIZE)[1:] == (20, 40)


@pytest.mark.parametrize("size", images.ICON_SIZES)
@pytest.mark.parametrize("mark", [None, png(40, 400)])
def test_icons_are_square_and_of_their_size(size: int, mark: bytes | None):
    made = Image.open(io.BytesIO(images.icon_png(preset("solmark"), mark, size)))
    assert made.size == (size, size)


def icon_of(name: str) -> bytes:
    return images.icon_png(replace(preset("solmark"), logo_text=name), None, 192)


def test_an_icon_shows_the_brands_letter_or_a_bolt_and_never_an_empty_box():
    names = ["Łódź", "Żar", "Ćma", "Ęko", "Ωmega", "Україна", "Єва", "Їжак", "שמש", "Nord", "ßtrom"]
    bolt = icon_of("")
    assert len({icon_of(name) for name in names} - {bolt}) == len(names)
    assert icon_of("北京") == icon_of("充電") == icon_of("–") == bolt
    ink = (
        Image.open(io.BytesIO(bolt))
        .convert("L")
        .point([255 * (value > 200) for value in range(256)])
        .getbbox()
    )
    assert ink is not None and all(0.1 < edge / 192 < 0.9 for edge in ink), "a launcher may cut it round"


async def test_colours_that_cannot_be_seen_are_refused_with_the_nearest_that_can(house: House):
    visitor, _tenant = await editor(house)
    answer = await save(visitor, primary="#ffe600")
    assert answer.status_code == 422
    offered = re.search(r"#ffe600 reaches 1\.3 : 1 on its ground; (#[0-9a-f]{6}) would pass", answer.text)
    assert offered and contrast(offered.group(1), "#ffffff") >= 3
    assert 'value="#ffe600"' in answer.text  # as it was typed
    assert (await save(visitor, primary=offered.group(1))).status_code == 303
    assert "too pale for text" in (await visitor.get("/branding")).text


def test_a_brand_that_is_always_dark_is_measured_on_dark():
    assert contrast_findings(Theme(primary="#ffe600", accent="#ffe600", lock_mode="dark")) == []
    assert contrast_findings(Theme(primary="#0b1020", lock_mode="dark"))[0].is_refused


def test_the_worst_legal_brand_is_legal():
    check_look(Look(theme=preset("worst_legal")))


ATTACKS = {
    "primary": ("#12345;}body{display:none}", "red;background:url(//evil)", "{{7*7}}"),
    "logo_text": ("<script>alert(1)</script>", "\u202egnp.exe", "a\r\nBcc: evil@example.org"),
    "radius": ("9px;x:expression(1)",), "font": ("Comic Sans', url(//evil)",), "lock_mode": ("sepia",),
    "density": ("\0",), "imprint_en": ("\u202eevil", "x" * 20_001),
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in ATTACKS.items() for v in values])
async def test_a_value_that_is_no_value_is_refused(house: House, field: str, value: str):
    visitor, tenant_id = await editor(house)
    answer = await save(visitor, **{field: value})
    assert answer.status_code == 422
    async with house.database.scope(tenant_id, CLI) as scope:
        assert not (await faces.get_editing(scope)).is_draft


async def test_template_syntax_and_markup_in_texts_are_only_letters(house: House):
    visitor, _tenant = await editor(house)
    text = "# {{ 7*7 }} <b>bold</b>\n\n- one\n- {% raw %}\n\n<img src=x onerror=alert(1)>"
    assert (await save(visitor, imprint_en=text)).status_code == 303
    await visitor.open("/branding")
    await publish(visitor, "{{ 7*7 }}")
    page = (await house.driver("nordlicht").get("/legal/imprint")).text
    assert (
        "{{ 7*7 }} &lt;b&gt;" in page
        and "&lt;img src=x" in page
        and "49" not in page.partition("<article")[2].partition("</article>")[0]
    )
    assert (await house.driver("nordlicht").get("/legal/terms")).status_code == 404
    assert (await house.driver("nordlicht").get("/legal/..%2fetc")).status_code == 404


async def test_a_legal_text_in_another_language_than_the_page_says_so_to_eyes_and_to_screen_readers(
    house: House,
):
    visitor, _tenant = await editor(house)
    assert (
        await save(visitor, language_de="on", imprint_en="Responsible", terms_de="Bedingungen")
    ).status_code == 303
    await publish(visitor)
    driver, german = house.driver("nordlicht"), {"Accept-Language": "de"}
    shown = (await driver.get("/legal/imprint", headers=german)).text
    assert '<div class="prose" lang="en">' in shown and "Diesen Text gibt es nur auf Englisch." in shown
    shown = (await driver.get("/legal/terms")).text
    assert '<div class="prose" lang="de">' in shown and "This text is available in German only." in shown
    for path, headers in (("/legal/imprint", {}), ("/legal/terms", german)):
        shown = (await driver.get(path, headers=headers)).text
        assert '<div class="prose">' in shown and "available in" not in shown and "gibt es nur" not in shown


def test_a_legal_text_falls_into_headings_lists_and_paragraphs():
    found = paragraphs("# Who\nWe\nus\n\n- a\n- b\n")
    assert found == [("h", "Who"), ("p", "We\nus"), ("ul", ["a", "b"])]


async def test_the_installable_app_wears_the_brand(house: House):
    await found_brand(house.database)
    driver = house.driver("nordlicht")
    manifest = (await driver.get("/manifest.webmanifest")).json()
    assert manifest["name"] == "Nordlicht" and manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        answer = await driver.get(icon["src"])
        size = int(icon["sizes"].split("x")[0])
        assert Image.open(io.BytesIO(answer.content)).size == (size, size)
    worker = (await driver.get("/sw.js")).text
    assert '"/offline?' in worker and (await driver.get("/offline")).status_code == 200


async def test_a_driver_reads_german_by_browser_or_by_choice(house: House):
    await found_brand(house.database)
    driver = house.driver("nordlicht")
    assert "Charge with" in (await driver.get("/")).text
    german = await driver.get("/", headers={"Accept-Language": "de-DE,de;q=0.9"})
    assert "Laden bei Nordlicht" in german.text and '<html lang="de"' in german.text
    answer = await driver.send("POST", "/preferences", data={"language": "de", "mode": "dark"},
                               headers={"Referer": f"{driver.origin}/?free=1"})  # fmt: skip
    assert (answer.status_code, answer.headers["location"]) == (303, "/?free=1")
    page = (await driver.get("/")).text
    assert "Laden bei" in page and 'data-theme="dark"' in page
    assert (await driver.send("POST", "/preferences", data={"language": "fr"})).status_code == 422


async def test_a_draft_is_worn_by_the_real_pages_for_whoever_holds_the_pass_and_nobody_else(house: House):
    visitor, _tenant = await editor(house)
    driver, stranger = house.driver("nordlicht"), house.driver("nordlicht")
    await save(visitor, primary="#7a1f5c", logo_text="Neu", imprint_en="Drafted words")
    page = (await visitor.open("/branding")).text
    path = re.search(r'href="http://nordlicht\.[^/"]+(/preview/[^"]+)"', page)
    assert path
    answer = await driver.get(path.group(1))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    shown = (await driver.get("/")).text
    assert "Neu" in shown and "You see a draft of this look." in shown
    css = re.search(r"/brand/[0-9a-f]{16}\.css", shown)
    assert css and "--primary:#7a1f5c" in (await driver.get(css.group(0))).text
    assert "Neu" not in (await stranger.get("/")).text
    for kept in ("/offline", "/sw.js", "/manifest.webmanifest"):  # what a browser keeps shows no draft
        shown = (await driver.get(kept)).text
        assert css.group(0) not in shown and "Neu" not in shown and "preview-ends" not in shown
    assert "Drafted words" in (await driver.get("/legal/imprint")).text
    assert (await stranger.get("/legal/imprint")).status_code == 404
    assert "Neu" not in (await driver.send("POST", "/preview-ends")).text
    assert "Neu" not in (await driver.get("/")).text
    await visitor.post("/branding/previews")
    portal = (await visitor.open("/settings")).text
    assert "Neu" in portal and "Leave the preview" in portal
    await visitor.post("/branding/preview-ends")
    assert "Leave the preview" not in (await visitor.open("/settings")).text


async def test_a_pass_is_one_brands_own_and_for_half_an_hour(house: House):
    _visitor, tenant_id = await editor(house)
    other = await found_brand(house.database, "solmark")
    async with house.database.scope(tenant_id, CLI) as scope:
        held = faces.preview_pass(scope)
        assert faces.is_preview_pass(scope, held)
        later = scope.now + faces.PREVIEW_LIFETIME + timedelta(seconds=1)
        longer = f"{int(held.split('.')[0]) + 3600}.{held.split('.')[1]}"
        assert not any(faces.is_preview_pass(scope, one) for one in (longer, "", None, ".", "٣.x", held[:-1]))
    async with house.database.scope(tenant_id, CLI, now=later) as scope:
        assert not faces.is_preview_pass(scope, held)
    async with house.database.scope(other, CLI) as scope:
        assert not faces.is_preview_pass(scope, held)
    for wrong in (held, "9" * 5000 + ".aa"):
        assert (await house.driver("solmark").get(f"/preview/{wrong}")).status_code == 404


async def test_the_editor_shows_the_mail_that_the_draft_would_send(house: House):
    visitor, _tenant = await editor(house)
    await save(visitor, primary="#7a1f5c", logo_text="Neu")
    answer = await visitor.get("/mail-preview")
    assert "#7a1f5c" in answer.text and "Neu" in answer.text and "Your receipt" in answer.text
    policy = answer.headers.get_list("content-security-policy")
    assert len(policy) == 1 and "sandbox" in policy[0] and "frame-ancestors 'self'" in policy[0]
