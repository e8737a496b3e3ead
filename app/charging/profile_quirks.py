"""How charging profiles are given to stations whose firmware differs: a table that staff see, not an `if` (pure).

The first row that fits a station counts; the last fits all. Sources are public reports of what each model does.
"""

import re
from dataclasses import dataclass

from app.charging.profiles import Unit


@dataclass(frozen=True, slots=True)
class Handling:
    """`unit`: the only one it takes, where it says nothing itself (ChargingScheduleAllowedChargingRateUnit, RateUnit).

    `max_as_default`: a refused ChargePointMaxProfile is tried again as TxDefaultProfile of the whole station.
    `start_bare`: a remote start with a profile is refused, so that the profile follows once the transaction runs.
    """

    vendor: str
    model: str
    version: str
    unit: Unit | None
    max_as_default: bool
    start_bare: bool
    why: str

    def fits(self, vendor: str, model: str, version: str) -> bool:
        return all(
            re.search(pattern, text, re.IGNORECASE)
            for pattern, text in ((self.vendor, vendor), (self.model, model), (self.version, version))
        )


HANDLINGS = (
    Handling("go-?e", "", r"1\.6", "A", True, True,
             "A remote start with a profile is refused (goecharger/go-eCharger-API-v2#243), limits are in A (#105)."),
    Handling("", "", r"1\.6", None, True, False,
             "Stations refuse ChargePointMaxProfile and take TxDefaultProfile instead (lbbrhzn/ocpp#221, #877)."),
    Handling("", "", "", None, False, False, "As OCPP 2.0.1 says it."),
)  # fmt: skip


def handling(vendor: str | None, model: str | None, ocpp_version: str) -> Handling:
    return next(one for one in HANDLINGS if one.fits(vendor or "", model or "", ocpp_version))
