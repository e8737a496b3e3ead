"""How a simulated station answers: tables of `action -> f(asked, answering) -> answer`, payloads as on the wire."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ocpp.messages import validate_payload

Payload = dict[str, Any]
Answer = Callable[[Payload], Payload]


def stamp(at: datetime | None = None) -> str:
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def moment(text: Any) -> datetime | None:
    """What a CSMS writes; None where it wrote none."""
    return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(UTC) if text else None


class Answering:
    """Mixed into the package's client. What stands in a table is answered from it, held to the package's schemas."""

    station: Any
    _ocpp_version: str
    _send: Callable[[str], Any]

    async def _handle_call(self, msg: Any) -> None:
        table: Mapping[str, Answer] = self.station.answers
        if msg.action not in table:
            await super()._handle_call(msg)  # type: ignore[misc]
            return
        await validate_payload(msg, self._ocpp_version)
        result = msg.create_call_result(table[msg.action](msg.payload))
        await validate_payload(result, self._ocpp_version)
        await self._send(result.to_json())
        await asyncio.sleep(0)  # what it does about it comes after its answer
