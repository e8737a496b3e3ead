"""What the gateway counts (prometheus), and how busy it is just now."""

import time
from collections import Counter as Counter_
from uuid import UUID

from prometheus_client import Counter, Gauge, Histogram

MOST_TENANTS = 20

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
_PLAIN = {
    "livery_ocpp_messages_total": "messages", "livery_ocpp_batch_messages_sum": "batched",
    "livery_ocpp_batch_messages_count": "batches", "livery_ocpp_pending_messages": "pending",
    "livery_ocpp_parked_total": "parked",
}  # fmt: skip


class Pace:
    """How busy this process is: what moved since the last look. The console shows it; Prometheus has the counters."""

    def __init__(self) -> None:
        self.by_tenant = Counter_[UUID]()
        self._before, self._at = self._read(), time.monotonic()

    def take(self) -> tuple[dict[str, float], dict[UUID, float]]:
        """Figures since the last call, and messages a second of each tenant."""
        now, at = self._read(), time.monotonic()
        seconds = max(at - self._at, 0.001)
        moved = {name: now[name] - self._before.get(name, 0.0) for name in now}
        tenants = {tenant: count / seconds for tenant, count in self.by_tenant.most_common(MOST_TENANTS)}
        self.by_tenant.clear()
        self._before, self._at = now, at
        figures = {
            "messages_per_s": moved["messages"] / seconds,
            "ack_p50_ms": _quantile(moved, 0.5), "ack_p99_ms": _quantile(moved, 0.99),
            "batch": moved["batched"] / moved["batches"] if moved["batches"] else 0.0,
            "pending": now["pending"], "parked": now["parked"], "turned_away": moved["storm"],
        }  # fmt: skip
        return figures, tenants

    def _read(self) -> dict[str, float]:
        read: dict[str, float] = {**dict.fromkeys(_PLAIN.values(), 0.0), "storm": 0.0}
        for metric in (MESSAGES, ACK_S, BATCH, PENDING, PARKED, REFUSED):
            for sample in (sample for family in metric.collect() for sample in family.samples):
                name = _PLAIN.get(sample.name)
                if name is not None:
                    read[name] += sample.value
                elif sample.name == "livery_ocpp_ack_seconds_bucket":
                    bound = f"ack:{sample.labels['le']}"
                    read[bound] = read.get(bound, 0.0) + sample.value
                elif sample.name == "livery_ocpp_refused_total" and sample.labels["reason"] == "storm":
                    read["storm"] += sample.value
        return read


def _quantile(moved: dict[str, float], share: float) -> float:
    """The upper bound of the bucket in which it lies, in milliseconds; 0 where nothing was answered."""
    buckets = sorted((float(name[4:]), count) for name, count in moved.items() if name.startswith("ack:"))
    total = buckets[-1][1] if buckets else 0.0
    finite = [bound for bound, count in buckets if total and count >= share * total]
    return min(finite[0], buckets[-2][0]) * 1000 if finite else 0.0


PACE = Pace()
