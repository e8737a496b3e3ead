"""Public ids: a three-letter prefix and the uuid7 in Crockford's base32, so that they sort by time (`ses_01J…`)."""

from uuid import UUID

from app.kernel.errors import NotFound

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {letter: number for number, letter in enumerate(_ALPHABET)}
_LENGTH = 26

PREFIXES = {
    "tenant": "ten", "location": "loc", "charging_station": "sta", "evse": "evs", "connector": "con",
    "station_command": "cmd", "driver": "drv", "driver_group": "grp", "id_token": "tok", "tariff": "tar",
    "charging_session": "ses", "cdr": "cdr", "invoice": "inv", "api_key": "key", "staff_member": "stf",
    "event": "evt", "ocpp_message": "msg", "ledger_txn": "txn", "mail": "mai", "payment": "pay",
    "refund": "ref", "dispute": "dis",
    "domain": "dom", "parked_message": "prk", "station_alert": "alt", "station_quirk": "qrk",
    "configuration_template": "cft", "display_message": "dsp", "station_notice": "ntc", "station_report": "rpt",
    "station_variable": "var", "station_certificate": "crt", "security_event": "sec", "security_change": "sch",
    "firmware_update": "fwu", "firmware_publication": "fwp", "station_log": "log", "installed_certificate": "ins",
    "reservation": "rsv", "charging_profile": "prf", "meter_key": "mky",
    "saved_card": "crd", "payout": "pyo", "platform_invoice": "pfi", "site_host": "hst", "host_statement": "hsm",
    "recon_run": "rec", "recon_item": "rci", "voucher_batch": "vou", "voucher": "vcd",
    "payment_terminal": "trm", "terminal_record": "trr",
}  # fmt: skip


def public_id(kind: str, value: UUID) -> str:
    """`public_id("charging_station", uuid)` -> `sta_06…` (26 base32 digits)."""
    number, digits = value.int, []
    for _ in range(_LENGTH):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    return f"{PREFIXES[kind]}_{''.join(reversed(digits))}"


def parse_id(kind: str, text: str) -> UUID:
    """The reverse. Anything else, also an id of another kind, is NotFound: it names nothing here."""
    prefix, _, digits = text.partition("_")
    if prefix != PREFIXES[kind] or len(digits) != _LENGTH or not set(digits) <= _VALUE.keys():
        raise NotFound(kind)
    number = 0
    for digit in digits:
        number = number << 5 | _VALUE[digit]
    if number >> 128:
        raise NotFound(kind)
    return UUID(int=number)
