"""What the gateway counts (prometheus)."""

from prometheus_client import Counter, Gauge

MESSAGES = Counter(
    "livery_ocpp_messages_total", "OCPP messages by action and what became of them", ["action", "outcome"]
)
CONNECTIONS = Gauge("livery_ocpp_connections", "Stations connected to this process")
REFUSED = Counter("livery_ocpp_refused_total", "Handshakes refused, by reason", ["reason"])
