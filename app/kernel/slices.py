"""Which slices there are, and how surfaces and the worker gather what each brings: a file of a known name."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

SLICES = (
    "identity", "brands", "stations", "access", "tariffs", "billing", "charging", "notifications",
)  # fmt: skip
_APP = Path(__file__).parent.parent


def gather(part: str) -> list[ModuleType]:
    """`gather("portal")` -> every `app.<slice>.portal` there is, lowest slice first."""
    names = [f"app.{name}.{part}" for name in SLICES]
    return [import_module(name) for name in names if find_spec(name) is not None]


def template_folders() -> dict[str, Path]:
    """`stations/list.html` lies in `app/stations/templates/list.html`."""
    names = [*SLICES, "surfaces"]
    return {name: _APP / name / "templates" for name in names if (_APP / name / "templates").is_dir()}
