"""`python -m tests.conformance`: writes docs/ocpp-cases.md and says what is wrong with markers and lists."""

import sys

from tests.conformance.table import DOCUMENT, write

wrong = write()
print("\n".join([f"{DOCUMENT.name} is written", *wrong]))
sys.exit(1 if wrong else 0)
