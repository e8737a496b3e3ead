from tests.billing.conftest import jobs, shop

__all__ = ["jobs", "shop"]
