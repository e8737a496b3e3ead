"""Which slices there are, and how surfaces and the worker gather what each brings: a file of a known name."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

SLICES = (
    "identity", "brands", "stations", "access", "device_model", "maintenance", "metering", "tariffs", "billing",
    "charging",
    "reporting",
    "notifications",
)  # fmt: skip
_APP = Path(__file__).parent.parent


def gather(part: str) -> list[ModuleType]:
    """`gather("portal")` -> every `app.<slice>.portal` there is, lowest slice first."""
    return [module for name in SLICES for module in find_module(f"app.{name}.{part}")]


def find_module(name: str) -> list[ModuleType]:
    """The module, or nothing where there is no such file."""
    package = name.rpartition(".")[0]
    if find_spec(package) is None or find_spec(name) is None:
        return []
    return [import_module(name)]


def template_folders() -> dict[str, Path]:
    """`stations/list.html` lies in `app/stations/templates/list.html`."""
    names = [*SLICES, "surfaces"]
    return {name: _APP / name / "templates" for name in names if (_APP / name / "templates").is_dir()}
