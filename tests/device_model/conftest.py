from tests.surfaces.conftest import house

__all__ = ["house"]
