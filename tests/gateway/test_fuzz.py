"""Nearly-OCPP by the hundred thousand, as far as reading goes: a message, or broken with a reason, never a crash."""

import json
import time
from uuid import UUID

import pytest

from ocpp_gateway import codec, hot
from tests.conftest import Proof
from tests.gateway.mutations import Mutator

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]
PURE = 1_000_000
TENANT = UUID(int=1)


def test_no_frame_breaks_the_reading(proof: Proof):
    """Whatever it is, it is a message, or broken with a reason; the fast reading takes it or leaves it."""
    count, began = proof.share(PURE), time.monotonic()
    mutators = [Mutator(version, proof.random(f"pure {version}")) for version in ("ocpp1.6", "ocpp2.0.1")]
    kinds: dict[str, int] = {}
    for number in range(count):
        mutator = mutators[number % 2]
        raw = mutator.frame()
        frame = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        message = codec.decode(frame)
        fast = hot.read(mutator.version, TENANT, "s", frame, 1_795_654_883_010_323)
        # Depth is held by the JSON reader there: what stands deep in a field nobody reads is only kept as text.
        is_deep = isinstance(message, codec.Broken) and message.reason == "nested too deeply"
        assert fast is None or isinstance(message, codec.Call) or is_deep
        kind = "hot" if fast else type(message).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
        if isinstance(message, codec.Call):
            json.dumps(message.payload)
    assert {"Call", "Broken", "hot"} <= set(kinds)
    proof.write("fuzz-pure", {"frames": count, "seconds": round(time.monotonic() - began, 1), "kinds": kinds})
