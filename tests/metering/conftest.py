from tests.gateway.street import box, street
from tests.surfaces.conftest import house

__all__ = ["box", "house", "street"]
