"""What stands on a charger: whose it is, the code a phone scans, the same code to type, the price, whom to call.

A sheet of labels is set by typst from plain data (as `app/billing/paper.py` does it), a single sticker is an SVG for a
print shop. Lengths are mm. Nothing that a person wrote is ever part of a program or of markup.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import segno
import typst
from markupsafe import escape

from themes import fonts
from themes.letters import shown
from themes.theme import readable_on

MAX_STICKERS = 500
MOST_PRICES = 7  # on A6
QUIET = 4  # modules of white around a code (ISO/IEC 18004)
WORDS = {
    "en": {"scan": "Scan to charge", "help": "Help", "more": "More prices: see the page"},
    "de": {"scan": "Scannen und laden", "help": "Hilfe", "more": "Weitere Preise: siehe Seite"},
}
# What turns the direction of the text around it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A sheet of labels, as its maker measures it. `gap` lies between columns; rows touch each other."""

    name: str
    columns: int
    rows: int
    width: float
    height: float
    left: float
    top: float
    most_prices: int  # lines that can be read beside a code that can be scanned
    gap: float = 0
    page_width: float = 210
    page_height: float = 297

    @property
    def count(self) -> int:
        return self.columns * self.rows


FORMATS = {
    "L7160": Format(name="Avery L7160, 21 on A4 (63.5 × 38.1 mm)", columns=3, rows=7, width=63.5, height=38.1,
                    left=7.21, top=15.15, gap=2.54, most_prices=4),
    "L7165": Format(name="Avery L7165, 8 on A4 (99.1 × 67.7 mm)", columns=2, rows=4, width=99.1, height=67.7,
                    left=4.65, top=13.1, gap=2.5, most_prices=5),
    "A6": Format(name="One on A6 (105 × 148 mm)", columns=1, rows=1, width=105, height=148, left=0, top=0,
                 page_width=105, page_height=148, most_prices=MOST_PRICES),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticker:
    """Texts as they are shown; `prices` most important first."""

    brand: str
    color: str
    code: str
    url: str
    prices: Sequence[str]
    phone: str
    language: str

    def content(self, most_prices: int) -> dict[str, Any]:
        """With no more price lines than that: what does not fit is on the page, and the last line says so."""
        words, prices = WORDS[self.language], [clean(price, 60) for price in self.prices]
        if len(prices) > most_prices:
            prices = [*prices[: most_prices - 1], words["more"]]
        return {
            "brand": clean(self.brand, 40), "color": self.color, "on_color": readable_on(self.color), "code": self.code,
            "qr": qr_svg(self.url), "prices": prices, "scan": words["scan"],
            "phone": f"{words['help']}: {phone}" if (phone := clean(self.phone, 40)) else "",
            "host": self.url.partition("://")[2],
        }  # fmt: skip


def clean(text: str, longest: int) -> str:
    """On one line, in its own direction, and short enough for a label."""
    line = " ".join(shown(text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def qr_svg(url: str) -> str:
    return segno.make(url, error="m").svg_inline(border=QUIET, omitsize=True)


def sheets(stickers: Sequence[Sticker], form: Format, first: int = 1) -> dict[str, Any]:
    """What typst is told: per page what lies where. `first` is the first free label of the first sheet, from 1."""
    pages: list[list[dict[str, Any]]] = []
    for place, sticker in enumerate(stickers, first - 1):
        on_page = place % form.count
        if not pages or on_page == 0:
            pages.append([])
        row, column = divmod(on_page, form.columns)
        x, y = form.left + column * (form.width + form.gap), form.top + row * form.height
        content = sticker.content(form.most_prices)
        if not fonts.covers(content["brand"]):  # then whose it is says the address
            content["brand"] = content["host"].partition("/")[0]
        pages[-1].append({"x": round(x, 3), "y": round(y, 3), **content})
    size = {
        "width": form.width,
        "height": form.height,
        "page_width": form.page_width,
        "page_height": form.page_height,
    }
    language = stickers[0].language if stickers else "en"
    title = " ".join((WORDS[language]["scan"], "·", clean(stickers[0].brand, 40))) if stickers else ""
    return {"format": size, "pages": pages, "language": language, "title": title, "font": fonts.FAMILY}


# All words come in as data; `s.…` are strings and typst shows a string as it is.
_SHEET = b"""
#let it = json(bytes(sys.inputs.content))
#let w = it.format.width * 1mm
#let h = it.format.height * 1mm
#set document(title: it.title)
#set page(width: it.format.page_width * 1mm, height: it.format.page_height * 1mm, margin: 0mm)
#set text(lang: it.language, font: it.font, stretch: 90%)
#set par(leading: 0.3em, spacing: 0pt)
#let line-of(width, size, body, ..style) = context {
  let wide = measure(text(size: size, ..style, body)).width
  text(size: if wide > width { size * (width / wide) } else { size }, ..style, body)
}
#let band(s, width, size) = block(width: width, fill: rgb(s.color), inset: (x: size * 0.4, y: size * 0.35),
  radius: size * 0.2, line-of(width - size * 0.8, size, s.brand, weight: "bold", fill: rgb(s.on_color)))
#let prices(s, width, size) = context {
  let wide = calc.max(width, ..s.prices.map(price => measure(text(size: size, price)).width))
  let one = size * (width / wide)
  stack(spacing: one * 0.35, ..s.prices.map(price => text(size: one, price)))
}
#let lying(s) = {
  let pad = h * 0.06
  let code = calc.min(h - 2 * pad, w * 0.5)
  let gap = w * 0.025
  let width = w - 2 * pad - code - gap
  let u = h / 38.1
  block(width: w, height: h, inset: pad, clip: true, grid(columns: (code, width), column-gutter: gap, rows: h - 2 * pad,
    align(horizon, image(bytes(s.qr), format: "svg", width: code)),
    align(horizon, stack(spacing: 1.5 * u,
      band(s, width, 3.4 * u), line-of(width, 2.8 * u, s.scan), line-of(width, 6 * u, s.code, weight: "bold"),
      prices(s, width, 2.5 * u),
      ..if s.phone != "" { (line-of(width, 2.5 * u, s.phone),) } else { () }))))
}
#let standing(s) = {
  let pad = 8mm
  let width = w - 2 * pad
  let above = stack(spacing: 3mm, align(left, band(s, width, 8mm)), line-of(width, 7mm, s.scan, weight: "bold"))
  let below = stack(spacing: 3mm, line-of(width, 13mm, s.code, weight: "bold"),
    line-of(width, 3mm, s.host, fill: luma(80)),
    prices(s, width, 4mm), ..if s.phone != "" { (line-of(width, 4mm, s.phone),) } else { () })
  block(width: w, height: h, inset: pad, clip: true, align(center, context {
    let taken = measure(above).height + measure(below).height + 6mm
    let size = calc.min(width, h * 0.52, h - 2 * pad - taken) // the code takes what the words leave
    stack(spacing: 3mm, above, image(bytes(s.qr), format: "svg", width: size), below)
  }))
}
#let page-of(stickers) = for s in stickers {
  place(top + left, dx: s.x * 1mm, dy: s.y * 1mm, if w > h { lying(s) } else { standing(s) })
}
#it.pages.map(page-of).join(pagebreak())
"""


def as_pdf(content: dict[str, Any]) -> bytes:
    """Up to a second of processor time for 500: call it in a thread, and in no transaction."""
    return typst.compile(_SHEET, font_paths=fonts.for_typst(), sys_inputs={"content": json.dumps(content)})


def as_png(content: dict[str, Any], ppi: int = 96) -> bytes:
    """The first page. As `as_pdf`."""
    first = content | {"pages": content["pages"][:1]}
    inputs = {"content": json.dumps(first)}
    return typst.compile(_SHEET, format="png", ppi=ppi, font_paths=fonts.for_typst(), sys_inputs=inputs)  # pyright: ignore[reportReturnType]


# --- one, for a print shop ---------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _QR, _LINE = 105, 148, 74, 4.8


def as_svg(sticker: Sticker) -> str:
    """A6, scalable. A line that may be too long is squeezed to the width: which font there will be nobody knows."""
    it = sticker.content(MOST_PRICES)
    path, view = re.search(r' d="([^"]+)"', it["qr"]), re.search(r'viewBox="([^"]+)"', it["qr"])
    assert path is not None and view is not None
    small = [*it["prices"], *([it["phone"]] if it["phone"] else [])]
    top = 144.9 - _LINE * max(len(small) - 1, 3)  # the code takes what the lines leave
    size = min(_QR, top - 56.5)
    lines = [
        _line(it["brand"], 12, 19, 9, anchor="start", weight="bold", fill=it["on_color"], width=81),
        _line(it["scan"], 52.5, 34, 7.5, weight="bold"),
        _line(it["code"], 52.5, top - 11.5, 12, weight="bold"),
        _line(it["host"], 52.5, top - 6.5, 3.2, fill="#505050"),
    ]
    lines += [_line(text, 52.5, round(top + _LINE * number, 3), 4) for number, text in enumerate(small)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}mm" height="{_HEIGHT}mm"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="Inter, Helvetica, Arial, sans-serif">'
        f"<title>{escape(it['brand'])} {escape(it['code'])}</title>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
        f'<rect x="8" y="8" width="89" height="16" rx="2" fill="{escape(it["color"])}"/>'
        f'<svg x="{(_WIDTH - size) / 2:g}" y="36" width="{size:g}" height="{size:g}" viewBox="{view[1]}">'
        f'<path stroke="#000" d="{path[1]}"/></svg>{"".join(lines)}</svg>'
    )


def _line(
    text: str, x: float, y: float, size: float, *, anchor: str = "middle", weight: str = "normal",
    fill: str = "#000", width: float = 89,
) -> str:  # fmt: skip
    is_long = len(text) * size * 0.58 > width
    squeezed = f' textLength="{width:g}" lengthAdjust="spacingAndGlyphs"' if is_long else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" font-weight="{weight}"'
        f' fill="{escape(fill)}"{squeezed}>{escape(text)}</text>'
    )
