"""A sticker opens the right place, says what it costs, and runs nothing that anybody wrote."""

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from itertools import pairwise
from typing import Any

import pytest
import segno
import typst
from PIL import Image

from app.brands import faces
from app.brands import service as brands
from app.charging import stickers
from app.charging.stickers import FORMATS, Sticker, as_pdf, as_png, as_svg, sheets
from app.kernel.ids import public_id
from app.stations import service as stations
from app.tariffs import service as tariffs
from app.tariffs.explain import in_short
from app.tariffs.ocpi_tariff import read_tariff
from tests.billing.test_paper import NASTY
from tests.cast import PLATES
from tests.web import CLI, House, found_brand
from themes import fonts

SVG = "{http://www.w3.org/2000/svg}"


def sticker(**changes: object) -> Sticker:
    values = {
        "brand": "Nordlicht", "color": "#1f5fbf", "code": "ABC123", "url": "https://nordlicht.example/c/ABC123",
        "prices": ["€0.49/kWh incl. VAT"], "phone": "+49 40 1", "language": "en",
    } | changes  # fmt: skip
    return Sticker(**values)  # pyright: ignore[reportArgumentType]


def drawn(path: str, size: int) -> list[list[int]]:
    """The modules that segno's path (rows of horizontal strokes) makes black."""
    matrix = [[0] * size for _ in range(size)]
    x = y = 0.0
    for command, numbers in re.findall(r"([Mmh])([^Mmh]*)", path):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        if command == "M":
            x, y = values
        elif command == "m":
            x, y = x + values[0], y + values[1]
        else:
            for module in range(int(values[0])):
                matrix[int(y - stickers.QUIET)][int(x) + module - stickers.QUIET] = 1
            x += values[0]
    return matrix


def matrix_of(url: str) -> list[list[int]]:
    return [[int(bool(module)) for module in row] for row in segno.make(url, error="m").matrix]


def address_in(svg: str, known: Sequence[str]) -> str:
    """Which of the addresses the drawn code says; exactly one."""
    root = ET.fromstring(svg)
    code = root.find(f"{SVG}svg")
    assert code is not None
    size = int(code.attrib["viewBox"].split()[2]) - 2 * stickers.QUIET
    path = code.find(f"{SVG}path")
    assert path is not None
    (found,) = [url for url in known if matrix_of(url) == drawn(path.attrib["d"], size)]
    return found


def page_count(pdf: bytes) -> int:
    """From the page tree, which typst writes without compression."""
    return int(max(re.findall(rb"/Type\s*/Pages.*?/Count\s+(\d+)", pdf, re.S), key=int))


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_labels_lie_on_their_sheet_and_never_on_each_other(form: stickers.Format) -> None:
    (page,) = sheets([sticker()] * form.count, form)["pages"]
    boxes = [(one["x"], one["y"], one["x"] + form.width, one["y"] + form.height) for one in page]
    assert len(set(boxes)) == form.count
    for left, top, right, bottom in boxes:
        assert (
            left >= 0 and top >= 0 and right <= form.page_width + 0.01 and bottom <= form.page_height + 0.01
        )
    for one in boxes:
        for other in boxes:
            apart = (
                one[2] <= other[0]
                or other[2] <= one[0]
                or one[3] <= other[1] + 0.01
                or other[3] <= one[1] + 0.01
            )
            assert one == other or apart


@pytest.mark.parametrize(
    ("name", "count", "first", "pages"),
    [("L7160", 21, 1, 1), ("L7160", 21, 2, 2), ("L7160", 1, 21, 1), ("L7160", 43, 21, 3), ("L7165", 8, 1, 1),
     ("L7165", 9, 8, 2), ("A6", 3, 1, 3)],
)  # fmt: skip
def test_a_sheet_that_was_begun_goes_on_at_its_first_free_label(
    name: str, count: int, first: int, pages: int
) -> None:
    form = FORMATS[name]
    content = sheets([sticker(code=f"C{number}") for number in range(count)], form, first)
    assert page_count(as_pdf(content)) == len(content["pages"]) == pages
    assert [one["code"] for page in content["pages"] for one in page] == [
        f"C{number}" for number in range(count)
    ]
    row, column = divmod(first - 1, form.columns)
    begin = content["pages"][0][0]
    assert begin["x"] == pytest.approx(form.left + column * (form.width + form.gap), abs=0.001)
    assert begin["y"] == pytest.approx(form.top + row * form.height, abs=0.001)


@pytest.mark.parametrize(
    "text", [NASTY, '#import "@preview/x:1.0.0": *', "\u202eevil\u2066", "x" * 3000, "", "<&>\"'"]
)
def test_any_text_is_set_as_text(text: str) -> None:
    one = sticker(brand=text, phone=text, prices=[text] * 6)
    for form in FORMATS.values():
        assert page_count(as_pdf(sheets([one], form))) == 1
    root = ET.fromstring(as_svg(one))
    said = [line.text or "" for line in root.iter(f"{SVG}text")]
    assert said[0] == stickers.clean(text, 40)
    assert not set("".join(said)) & set("\u202e\u2066")


PRICES = [
    "€0.39 to €0.49/kWh incl. VAT", "up to €0.10/min while charging", "€1.00 per session",
    "up to €0.10/min after charging", "at least €5.95 per session", "at most €59.50 per session",
    "from 1 Jan 2027: €0.60/kWh", "from 1 Jan 2027: €2.00 per session",
]  # fmt: skip


def lines_on(content: dict[str, Any]) -> list[float]:
    """Where the lines of a sheet stand, in mm from its top; each has been drawn."""
    drawing = typst.compile(
        stickers._SHEET,
        format="svg",
        font_paths=fonts.for_typst(),
        sys_inputs={"content": json.dumps(content)},  # pyright: ignore[reportPrivateUsage]
    )
    found: set[float] = set()

    def walk(node: ET.Element, y: float) -> None:
        numbers = [float(one) for one in re.findall(r"-?[\d.]+", node.attrib.get("transform", ""))]
        y += numbers[-1] if numbers else 0
        if node.find(f"{SVG}use") is not None:
            found.add(round(y * 25.4 / 72, 2))
        for child in node:
            walk(child, y)

    assert isinstance(drawing, bytes)
    walk(ET.fromstring(drawing), 0)
    return sorted(found)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("count", [0, 1, 4, 5, 8])
def test_no_price_is_lost_and_none_is_printed_over(form: stickers.Format, count: int) -> None:
    content = sheets([sticker(prices=PRICES[:count])], form)
    [[label]] = content["pages"]
    if count <= form.most_prices:
        assert label["prices"] == PRICES[:count]
    else:
        assert label["prices"] == [*PRICES[: form.most_prices - 1], "More prices: see the page"]
    lines = lines_on(content)
    others = 5 if form.width < form.height else 4  # brand, invitation, code, phone; on A6 the address too
    assert len(lines) == len(label["prices"]) + others
    assert form.top < lines[0] and lines[-1] < form.top + form.height - 1
    assert min(later - line for line, later in pairwise(lines)) > 1.9, "below the letters of the one above"


@pytest.mark.parametrize("count", [0, 1, 4, 7, 8])
def test_a_sticker_for_the_print_shop_has_all_of_them_too(count: int) -> None:
    root = ET.fromstring(as_svg(sticker(prices=PRICES[:count])))
    said = [
        (line.text, float(line.attrib["y"]), float(line.attrib["font-size"]))
        for line in root.iter(f"{SVG}text")
    ]
    texts = [text for text, _y, _size in said]
    assert texts[4:-1] == PRICES[:count] if count < 8 else texts[-2] == "More prices: see the page"
    assert all(later[1] - one[1] > later[2] * 0.75 for one, later in pairwise(said)) and said[-1][1] < 148 - 3
    code = root.find(f"{SVG}svg")
    assert code is not None
    assert float(code.attrib["y"]) + float(code.attrib["height"]) < said[2][1] - said[2][2] * 0.7
    assert float(code.attrib["width"]) > 50


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_whose_name_our_face_cannot_write_is_named_by_the_address(form: stickers.Format) -> None:
    names = ["Łódź Żółć", "ΩΜΕΓΑ", "Заряд Їжак", "שמש", "北京充電", "Nord⚡東"]
    pages = sheets([sticker(brand=name) for name in names], form)["pages"]
    assert [one["brand"] for page in pages for one in page] == [*names[:4], *["nordlicht.example"] * 2]


def test_nothing_that_is_imported_is_run() -> None:
    """The positive control: as code it would stop typst."""
    with pytest.raises(typst.TypstError):
        typst.compile(b'#import "/etc/passwd": *')
    assert as_pdf(sheets([sticker(brand='#import "/etc/passwd": *')], FORMATS["A6"]))


def test_the_printed_code_says_the_address() -> None:
    """Read off the printed sheet, module by module."""
    one = sticker()
    matrix, form, ppi = matrix_of(one.url), FORMATS["L7165"], 300
    image = Image.open(io.BytesIO(as_png(sheets([one], form, 4), ppi=ppi))).convert("1")

    def is_dark(x: float, y: float) -> bool:
        return image.getpixel((int(x), int(y))) == 0

    lies = sheets([one], form, 4)["pages"][0][0]
    pixels = ppi / 25.4
    left, top = lies["x"] * pixels, lies["y"] * pixels
    dark = [
        (x, y)
        for x in range(int(left), int(left + form.width / 2 * pixels))
        for y in range(int(top), int(top + form.height * pixels))
        if is_dark(x, y)
    ]
    x0, y0 = min(x for x, _ in dark), min(y for _, y in dark)
    module = (max(x for x, _ in dark) + 1 - x0) / len(matrix)
    numbers = range(len(matrix))
    read = [
        [int(is_dark(x0 + (c + 0.5) * module, y0 + (r + 0.5) * module)) for c in numbers] for r in numbers
    ]
    assert read == matrix
    assert module / pixels > 0.5, "a phone reads half a millimetre"


def test_prices_are_short_in_the_brands_language() -> None:
    def element(kind: str, price: str, **restrictions: object) -> dict[str, object]:
        return {
            "price_components": [{"type": kind, "price": price, "step_size": 1}],
            "restrictions": restrictions,
        }

    tariff = {"currency": "EUR", "elements": [
        element("PARKING_TIME", "6", min_duration=3600), element("PARKING_TIME", "0"), element("FLAT", "1"),
        element("ENERGY", "0.495", start_time="08:00", end_time="20:00"), element("ENERGY", "0.39"),
        element("TIME", "0"), element("TIME", "9", reservation="RESERVATION"),
    ]}  # fmt: skip
    assert in_short(read_tariff(tariff), "en") == [
        "€0.39 to €0.495/kWh plus VAT", "€1.00 per session", "up to €0.10/min after charging",
    ]  # fmt: skip
    assert in_short(read_tariff(tariff | {"tax_included": "YES"}), "de")[0].replace("\xa0", " ") == (
        "0,39 bis 0,495 €/kWh inkl. MwSt."
    )
    free = {"currency": "EUR", "elements": [element("ENERGY", "0")]}
    assert in_short(read_tariff(free), "de") == ["Kostenlos"]
    assert in_short(read_tariff({"currency": "JPY", "elements": [element("ENERGY", "60.5")]}), "en") == [
        "¥60.5/kWh plus VAT"
    ]


# --- in the portal -----------------------------------------------------------------------------------------------


async def furnish(house: House, slug: str = "nordlicht") -> tuple[object, list[str], list[str]]:
    """Two sites, two stations of two EVSEs; ids of the first site's EVSEs and all codes."""
    tenant_id = await found_brand(house.database, slug, f"owner@{slug}.example")
    codes, ids = [], []
    async with house.database.scope(tenant_id, CLI) as scope:
        await brands.update_profile(scope, {"support_phone": "+49 40 <1>", "language": "de"})
        for number in (1, 2):
            site = await stations.create_location(
                scope, name=f"Site {number}", address="A", city="B", postal_code="1", country="DEU",
                time_zone="Europe/Berlin",
            )  # fmt: skip
            made = await stations.create_station(
                scope, identity=f"CP{number}", location_id=site.id,
                evses=[{"evse_no": no, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]} for no in (1, 2)],
            )  # fmt: skip
            for evse in (await stations.get_station(scope, made.station.id)).evses:
                codes.append(evse.code)
                ids.append(public_id("evse", evse.id))
        component = {"type": "ENERGY", "price": "0.5", "vat": "19", "step_size": 1}
        element = {"price_components": [component]}
        await tariffs.create_tariff(
            scope, {"currency": "EUR", "elements": [element], "name": "T"}, {"default": True}
        )
        await stations.retire_station(scope, made.station.id)
    return tenant_id, ids, codes


@pytest.mark.anyio
async def test_staff_print_the_stickers_of_a_site_and_each_opens_its_place(house: House) -> None:
    tenant_id, ids, codes = await furnish(house)
    owner = await house.staff("nordlicht", tenant_id, "owner@nordlicht.example")  # pyright: ignore[reportArgumentType]
    shown = await owner.get("/stickers?format=L7160&start=21")
    assert shown.status_code == 200 and "2 labels on 2 sheets" in shown.text
    assert codes[0] in shown.text and codes[2] not in shown.text, "a retired station needs no sticker"

    preview = unescape(re.search(r'<img class="sheet" src="([^"]+)"', shown.text)[1])
    picture = await owner.get(preview)
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    link = unescape(re.search(r'href="(/stickers\.pdf[^"]*)"', shown.text)[1])
    pdf = await owner.get(link)
    assert pdf.headers["content-type"] == "application/pdf" and page_count(pdf.content) == 2

    origin = f"http://{house.settings.host_of('driver', 'nordlicht')}{house.settings.web_origin_port}"
    for evse_id, code in zip(ids[:2], codes[:2], strict=True):
        answer = await owner.get(f"/stickers/{evse_id}.svg")
        assert answer.headers["content-type"].startswith("image/svg+xml")
        assert address_in(answer.text, [f"{origin}/c/{one}" for one in codes]) == f"{origin}/c/{code}"
        texts = [line.text for line in ET.fromstring(answer.text).iter(f"{SVG}text")]
        assert {"Nordlicht", "Scannen und laden", code, "Hilfe: +49 40 <1>"} <= set(texts)
        assert any("0,595" in (text or "") and "inkl. MwSt." in (text or "") for text in texts)
        place = await house.driver("nordlicht").get(f"/c/{code}")
        assert place.status_code == 200
    for path in (
        f"/stickers/{ids[2]}.svg",
        f"/stickers/{ids[0]}.png",
        "/stickers/evs_x.svg",
        f"/stickers/{ids[0]}",
    ):
        assert (await owner.get(path)).status_code == 404, path


@pytest.mark.anyio
async def test_a_brand_for_germans_only_prints_german_stickers_whatever_its_settings_say(
    house: House,
) -> None:
    tenant_id, ids, _codes = await furnish(house)
    async with house.database.scope(tenant_id, CLI) as scope:  # pyright: ignore[reportArgumentType]
        await brands.update_profile(scope, {"language": "en"})
        look = (await faces.get_editing(scope)).look
        await faces.save_draft(scope, replace(look, languages=("de",)))
        await faces.publish_draft(scope)
    owner = await house.staff("nordlicht", tenant_id, "owner@nordlicht.example")  # pyright: ignore[reportArgumentType]
    texts = [
        line.text
        for line in ET.fromstring((await owner.get(f"/stickers/{ids[0]}.svg")).text).iter(f"{SVG}text")
    ]
    assert "Scannen und laden" in texts and any("inkl. MwSt." in (text or "") for text in texts)


@pytest.mark.anyio
async def test_where_there_is_nothing_to_print_the_page_says_so(house: House) -> None:
    tenant_id = await found_brand(house.database)
    owner = await house.staff("nordlicht", tenant_id)
    assert "No chargers here yet" in (await owner.get("/stickers?format=none&start=99")).text
    assert (await owner.get("/stickers.pdf")).status_code == 404
    assert (await owner.get("/stickers?location=loc_x")).status_code == 404
