"""The tree of errors. Each has a stable `code`; a surface turns it into its dialect (page, problem+json, CALLERROR).

What you may not know about is NotFound, never Forbidden.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One wrong field. `field` is a dotted path as the sender wrote it (`evses[0].evse_no`)."""

    field: str
    code: str
    message: str


class LiveryError(Exception):
    status = 500
    code = "internal"

    def __init__(
        self, code: str | None = None, message: str = "", *, faults: Iterable[FieldFault] = ()
    ) -> None:
        self.code = code or type(self).code
        self.message = message or self.code.replace("_", " ")
        self.faults = tuple(faults)
        super().__init__(self.message)


class Invalid(LiveryError):
    """The input is wrong; `faults` names each field."""

    status = 422
    code = "invalid"

    @classmethod
    def field(cls, field: str, code: str, message: str) -> "Invalid":
        return cls("invalid", message, faults=[FieldFault(field, code, message)])


class Refused(LiveryError):
    """The input is fine, the state of things forbids it (`no_tariff`, `station_offline`, `tenant_suspended`)."""

    status = 409
    code = "refused"


class Unauthenticated(LiveryError):
    status = 401
    code = "unauthenticated"


class Forbidden(LiveryError):
    status = 403
    code = "forbidden"


class NotFound(LiveryError):
    status = 404
    code = "not_found"

    def __init__(self, kind: str = "page") -> None:
        super().__init__("not_found", f"There is no such {kind.replace('_', ' ')}.")


class TooMany(LiveryError):
    status = 429
    code = "too_many_requests"

    def __init__(
        self, message: str = "Too many requests; try again later.", *, retry_after_s: int = 60,
        code: str = "too_many_requests",
    ) -> None:  # fmt: skip
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class ConfigurationFault(LiveryError):
    """Every fault of the configuration at once."""

    code = "configuration"

    def __init__(self, faults: Iterable[FieldFault]) -> None:
        faults = tuple(faults)
        super().__init__("configuration", "; ".join(f"{f.field}: {f.message}" for f in faults), faults=faults)
