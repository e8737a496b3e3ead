"""Cases that Livery does not claim, each with the clause of its task that leaves it out and why it falls under it."""

from dataclasses import dataclass

LATER = (
    "ISO 15118, Plug and Charge, the 2.1 additions, campaigns and the retrofit proxy are a later issue: "
    "leave their seams."
)
NOT_N = "2.0.1 blocks A to L, N (without customer certificates), O and P, complete"


@dataclass(frozen=True, slots=True)
class Exclusion:
    version: str
    names: tuple[str, ...]
    clause: str
    reason: str


EXCLUSIONS = (
    Exclusion(
        "2.0.1", ("TC_C_50_CSMS", "TC_C_51_CSMS", "TC_C_52_CSMS"), LATER,
        "Contract certificates are Plug and Charge.",
    ),
    Exclusion(
        "2.0.1", ("TC_M_26_CSMS", "TC_M_28_CSMS"), LATER,
        "Contract certificates for cars are Plug and Charge.",
    ),
    Exclusion("2.0.1", ("TC_N_63_CSMS",), NOT_N, "It names the customer by their certificate."),
)  # fmt: skip
EXCLUDED = {(one.version, name): one for one in EXCLUSIONS for name in one.names}
