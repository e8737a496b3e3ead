"""May this token charge? The three answers, and the token as a station or a person presents it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

AuthorizationStatus = Literal[
    "Accepted", "Blocked", "ConcurrentTx", "Expired", "Invalid", "NoCredit",
    "NotAllowedTypeEVSE", "NotAtThisLocation", "NotAtThisTime", "Unknown",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class IdTokenValue:
    """OCPP 2.0.1 IdTokenType. `type` None means "any type": a 1.6 idTag carries none (ocpp.md section 1)."""

    value: str
    type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    id_token_id: UUID | None
    driver_id: UUID | None = None
    driver_group_id: UUID | None = None
    group_value: str | None = None
    expires_at: datetime | None = None
    status: Literal["Accepted"] = "Accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """`reason` is a stable code (blocked, expired, unknown, not_at_this_location, …), `message` a sentence."""

    status: AuthorizationStatus
    reason: str
    message: str
    id_token_id: UUID | None = None
    group_value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOutside:
    """Somebody else must be asked (a roaming partner, OCSP): no transaction may be open while that happens."""

    party: str
    question: dict[str, str]


Verdict = Accepted | Refused | AskOutside
