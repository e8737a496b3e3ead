"""Templates: one environment for all surfaces. A tenant's text is always a value, never a template.

`environment({"stations": Path(…/templates)})` finds `stations/list.html` in the slice's folder, `layouts/…` and
`components/…` here. A page:

    {% extends "layouts/staff.html" %}
    {% import "components/ui.html" as ui %}
    {% block content %}
      {% call ui.page_header("Stations", "12 in 3 sites") %}{{ ui.link_button("New", "/stations/new") }}{% endcall %}
      {% call ui.table("Stations", ["Name", "State", ("Power", "num")]) %}
        {% for row in rows %}<tr><td data-label="Name">{{ row.name }}</td>…</tr>{% endfor %}
      {% endcall %}
    {% endblock %}
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import jinja2
from babel.dates import format_date, format_datetime, format_timedelta
from babel.numbers import format_currency, format_decimal
from markupsafe import Markup, escape

from app.kernel.ids import public_id
from app.kernel.money import to_decimal
from themes.language import _, current, gettext, ngettext
from themes.letters import shown

ROOT = Path(__file__).parent
DIST = ROOT / "static" / "dist"


def environment(folders: Mapping[str, Path]) -> jinja2.Environment:
    loaders: dict[str, jinja2.BaseLoader] = {
        "layouts": jinja2.FileSystemLoader(ROOT / "layouts"),
        "components": jinja2.FileSystemLoader(ROOT / "components"),
    }
    loaders |= {name: jinja2.FileSystemLoader(folder) for name, folder in folders.items()}
    made = jinja2.Environment(
        loader=jinja2.PrefixLoader(loaders), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, auto_reload=False, extensions=["jinja2.ext.i18n"], finalize=_shown,
    )  # fmt: skip
    made.policies["ext.i18n.trimmed"] = True
    made.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    made.globals |= {"asset": asset, "icon": icon, "labels": {}}
    made.filters |= {
        "epoch": epoch, "moment": moment, "zipped": zipped, "public": public, "money": money, "kwh": kwh, "kw": kw,
        "duration": duration, "local": local, "ago": ago, "number": number, "volume": volume,
        "price": price, "day": day, "zone_hint": zone_hint,
    }  # fmt: skip
    return made


def labels_of(html: str, names: Iterable[str]) -> dict[str, str]:
    """What a page calls the fields of these names, as far as they are on it and in its order; "" where it has no word
    for one."""
    found, places = {}, {name: html.find(f'id="{name}"') for name in map(str, map(escape, names))}
    for name in sorted((name for name in places if places[name] >= 0), key=places.__getitem__):
        words = re.search(
            rf'<label for="{re.escape(name)}"[^>]*>(.*?)</label>', html, re.DOTALL
        ) or re.search(
            rf'<fieldset[^>]* id="{re.escape(name)}"[^>]*>\s*<legend[^>]*>(.*?)</legend>', html, re.DOTALL
        )
        found[unescape(name)] = Markup(words[1]).striptags() if words else ""  # noqa: S704 - our own page
    return found


def _shown(value: Any) -> Any:
    """Nothing that somebody wrote turns the text around it, whenever it was stored and whoever sent it."""
    if not isinstance(value, str):
        return value
    return Markup(shown(value)) if isinstance(value, Markup) else shown(value)  # noqa: S704 - it was markup before


@lru_cache(maxsize=1)
def _manifest() -> dict[str, str]:
    path = DIST / "manifest.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def asset(name: str) -> str:
    """The address of a built file, named by its content. KeyError when the front end was not built."""
    return f"/static/{_manifest()[name]}"


def built_text(name: str) -> str:
    """A built file's own text."""
    return (DIST / _manifest()[name]).read_text()


def icon(name: str, label: str | None = None) -> Markup:
    """One of the sprite's icons; hidden from screen readers unless it carries a label."""
    hidden = (
        Markup('aria-hidden="true"') if label is None else Markup('role="img" aria-label="{}"').format(label)
    )
    return Markup('<svg class="icon" {} focusable="false"><use href="{}#{}"></use></svg>').format(
        hidden, asset("sprite.svg"), name
    )


def money(amount_minor: int | None, currency: str | None) -> str:
    if amount_minor is None or not currency:
        return "–"
    return format_currency(
        to_decimal(amount_minor, currency), currency, locale=current(), decimal_quantization=False
    )


def number(value: Any, pattern: str | None = None) -> str:
    return "–" if value is None else format_decimal(value, format=pattern, locale=current())


def kwh(wh: int | None) -> str:
    return "–" if wh is None else f"{format_decimal(wh / 1000, format='#,##0.00', locale=current())} kWh"


def kw(watts: int | None) -> str:
    return "–" if watts is None else f"{format_decimal(watts / 1000, format='#,##0.0', locale=current())} kW"


def duration(seconds: float | timedelta | None) -> str:
    """`1 h 05 min`, `12 min`, `40 s`."""
    if seconds is None:
        return "–"
    whole = int(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    hours, rest = divmod(max(whole, 0), 3600)
    if hours:
        return f"{hours} h {rest // 60:02d} min"
    return f"{rest // 60} min" if rest >= 60 else f"{rest} s"


def local(at: datetime | None, time_zone: str, pattern: str = "d MMM y, HH:mm") -> str:
    """Patterns are written as English has them; a German day is followed by a point (`26. November 2026`)."""
    if at is None:
        return "–"
    if current() == "de":
        pattern = pattern.replace("d MMM", "d. MMM")
    return format_datetime(at, pattern, tzinfo=ZoneInfo(time_zone), locale=current())


def day(on: date) -> str:
    """`26 November 2026`, `26. November 2026`; of a moment, in its own time zone."""
    return format_date(on, "long", locale=_DAYS_OF.get(current(), current()))


def zone_name(at: datetime) -> str:
    """`CET`, `MEZ`, `UTC-1`: what the clock that a moment is told by is called then, in short."""
    name = format_datetime(at, "z", tzinfo=at.tzinfo, locale=_DAYS_OF.get(current(), current()))
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", name)
    if offset is None:
        return name
    hours, minutes = int(offset[2]), int(offset[3])
    if not hours and not minutes:
        return "UTC"
    return f"UTC{offset[1]}{hours}" + (f":{minutes:02d}" if minutes else "")


def zone_hint(at: datetime, time_zone: str, home: str) -> str:
    """` UTC-1` after a time that is told by another clock than the page's own; empty where both agree."""
    there = at.astimezone(ZoneInfo(time_zone))
    is_same = there.utcoffset() == at.astimezone(ZoneInfo(home)).utcoffset()
    return "" if is_same else f" {zone_name(there)}"


_DAYS_OF = {"en": "en_GB"}  # days before months, as everywhere on our pages


def ago(at: datetime | None, now: datetime) -> str:
    if at is None:
        return _("never")
    if abs((now - at).total_seconds()) < 10:
        return _("just now")
    return format_timedelta(at - now, add_direction=True, threshold=1.2, locale=current())


def epoch(seconds: int, time_zone: str) -> str:
    return datetime.fromtimestamp(seconds, ZoneInfo(time_zone)).strftime("%H:%M:%S")


def moment(text: str) -> datetime:
    """A time as JSON carries it."""
    return datetime.fromisoformat(text)


def volume(line: Mapping[str, Any]) -> str:
    """How much of it was billed: `27.176 kWh`, and time as people say it."""
    if line["unit"] == "h":
        return duration(round(Decimal(line["volume"]) * 3600))
    if not line["unit"]:
        return "–"
    return f"{format_decimal(Decimal(line['volume']), format='#,##0.###', locale=current())} {line['unit']}"


def price(amount: Any, currency: str = "") -> str:
    """A price per unit: two decimals at least (with `currency` what that has), six at most."""
    if not currency:
        return format_decimal(Decimal(amount), format="#,##0.00######", locale=current())
    rounded = round(Decimal(amount), 6).normalize()
    return format_currency(rounded, currency, locale=current(), decimal_quantization=False)


def zipped(values: Iterable[str]) -> list[tuple[str, str]]:
    """For a select whose words are its values."""
    return [(value, value) for value in values]


def public(value: UUID, kind: str) -> str:
    return public_id(kind, value)
