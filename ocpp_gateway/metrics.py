"""What the gateway counts (prometheus)."""

from prometheus_client import Counter, Gauge, Histogram

MESSAGES = Counter(
    "livery_ocpp_messages_total", "OCPP messages by action and what became of them", ["action", "outcome"]
)
CONNECTIONS = Gauge("livery_ocpp_connections", "Stations connected to this process")
REFUSED = Counter("livery_ocpp_refused_total", "Handshakes refused, by reason", ["reason"])
ACK_S = Histogram(
    "livery_ocpp_ack_seconds", "From a CALL's arrival to its answer", ["path"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)  # fmt: skip
BATCH = Histogram(
    "livery_ocpp_batch_messages",
    "Messages per commit of the batched ingest",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
)
FLUSH_S = Histogram("livery_ocpp_flush_seconds", "One commit of the batched ingest")
PENDING = Gauge("livery_ocpp_pending_messages", "Hot messages waiting for a commit")
PARKED = Counter(
    "livery_ocpp_parked_total", "Messages that were kept for staff because no verb could handle them"
)
STORMS = Counter("livery_ocpp_accepts_delayed_total", "Handshakes that storm control made wait")
