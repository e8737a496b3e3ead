"""Limits over time as a drawing of steps: where its lines and ticks lie, and the same in words (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

LEFT, RIGHT, TOP, BOTTOM = 56, 712, 12, 188
StepList = Sequence[tuple[int, float | None]]


@dataclass(frozen=True, slots=True)
class Line:
    """`paths` are the points of polylines: a gap where there is no limit breaks the line."""

    name: str
    tone: str
    paths: list[str]


@dataclass(frozen=True, slots=True)
class Chart:
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    words: str
    unit: str

    @property
    def has_lines(self) -> bool:
        return any(line.paths for line in self.lines)


def draw(
    series: Sequence[tuple[str, str, StepList]],
    *,
    since: datetime,
    duration_s: int,
    unit: str,
    time_zone: str,
) -> Chart:
    """`series`: name, tone (a class of the stylesheet), steps of (second, limit or None) in W or A."""
    scale = 1000 if unit == "W" else 1
    values = [value / scale for _name, _tone, steps in series for _start, value in steps if value is not None]
    top = _nice(max(values, default=1))
    lines = [Line(name, tone, _paths(steps, duration_s, scale, top)) for name, tone, steps in series]
    zone = ZoneInfo(time_zone)
    quarters = [duration_s * part // 4 for part in range(5)]
    x_ticks = [
        (_x(second, duration_s), f"{(since + timedelta(seconds=second)).astimezone(zone):%H:%M}")
        for second in quarters
    ]
    y_ticks = [(_y(top * part / 4, top), f"{top * part / 4:g}") for part in range(5)]
    words = " ".join(f"{name}: {in_words(steps, since, unit, time_zone)}." for name, _tone, steps in series)
    return Chart(lines, x_ticks, y_ticks, words, "kW" if unit == "W" else "A")


def _paths(steps: StepList, duration_s: int, scale: int, top: float) -> list[str]:
    paths: list[list[str]] = [[]]
    for number, (start, value) in enumerate(steps):
        end = steps[number + 1][0] if number + 1 < len(steps) else duration_s
        if value is None:
            paths.append([])
            continue
        y = _y(value / scale, top)
        paths[-1] += [f"{_x(start, duration_s)},{y}", f"{_x(min(end, duration_s), duration_s)},{y}"]
    return [" ".join(path) for path in paths if path]


def _x(second: int, duration_s: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * min(second, duration_s) / max(duration_s, 1), 1)


def _y(value: float, top: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * value / top, 1)


def _nice(most: float) -> float:
    """A round number above, so that a line never lies on the edge."""
    for factor in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 100):
        if most * 1.05 <= factor:
            return factor
    return round(most * 1.2, -1)


def in_words(steps: StepList, since: datetime, unit: str, time_zone: str, most: int = 12) -> str:
    """`11 kW, from 22:00 4 kW, from 06:00 no limit`."""
    zone, parts = ZoneInfo(time_zone), []
    for start, value in list(steps)[:most]:
        amount = "no limit" if value is None else (f"{value / 1000:g} kW" if unit == "W" else f"{value:g} A")
        at = (since + timedelta(seconds=start)).astimezone(zone)
        parts.append(amount if start == 0 else f"from {at:%H:%M} {amount}")
    return ", ".join(parts) + (" …" if len(steps) > most else "") if parts else "no limit"
