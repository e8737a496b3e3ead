"""OCPP 2.1 at the level of 2.0.1: the same messages with 2.1's own schemas; of what only 2.1 has,
NotifySettlement alone is read.

Its tokens may be 255 characters long and of any type; what it lets a station leave out, or say in more words, is read
as leniently as in 2.0.1. SEND and CALLRESULTERROR (OCPP-J 2.1) are read by `codec` and answered by nobody.
"""

from typing import Any

from app.access.verdict import IdTokenValue
from ocpp_gateway import terminal_reports, v201
from ocpp_gateway.v201 import GATHERED, authorize_answer, boot_answer, boot_trigger, outcome

SUBPROTOCOL = "ocpp2.1"
MAX_TOKEN = 255
HANDLERS = {**v201.HANDLERS, **terminal_reports.HANDLERS}


def token_asked(payload: dict[str, Any]) -> IdTokenValue:
    return v201.token_asked(payload, longest=MAX_TOKEN)


__all__ = [
    "GATHERED", "HANDLERS", "SUBPROTOCOL", "authorize_answer", "boot_answer", "boot_trigger", "outcome", "token_asked",
]  # fmt: skip
