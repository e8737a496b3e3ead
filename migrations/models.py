"""Every slice's tables, gathered: what Alembic compares a database with."""

from app.access import models as access
from app.billing import models as billing
from app.brands import models as brands
from app.charging import models as charging
from app.device_model import models as device_model
from app.identity import models as identity
from app.kernel import audit, events, idempotency
from app.maintenance import models as maintenance
from app.metering import models as metering
from app.notifications import models as notifications
from app.stations import models as stations
from app.tariffs import models as tariffs
from tenants.models import Base

__all__ = [
    "Base", "access", "audit", "billing", "brands", "charging", "device_model", "events", "idempotency", "identity",
    "maintenance", "metering", "notifications", "stations", "tariffs",
]  # fmt: skip
