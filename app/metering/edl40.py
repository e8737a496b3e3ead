"""EDL40 in SML, ISA-EDL-40P, and MENNEKES' XML over the same signed block (pure).

A signature covers not the file but 320 bytes that are put together from its fields, numbers with their low byte first
(eHZ SML Kundenidentifikation; the layouts of SAFE's transparency software, format.sml). What is not among them is not
signed, and not read.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from xml.etree import ElementTree

from app.metering import sml
from app.metering.records import MOST_WH, Kind, Record, SignedReading, Unreadable, text_of
from app.metering.signatures import read_bytes

BLOCK = 320
WATT_HOURS = 30  # DLMS unit
CONTRACT = bytes.fromhex("8182815401ff")
SIGNED_TOTAL, TOTAL, START_TOTAL = (
    bytes.fromhex(one) for one in ("0100011100ff", "0100010800ff", "010001080080")
)
PAGE, SECOND_INDEX = bytes.fromhex("8180817101ff"), bytes.fromhex("810060080001")
ISA_PAGE, ISA_STATION = bytes.fromhex("8180c7f040ff"), bytes.fromhex("8180816101ff")


def read_edl40(content: bytes) -> Record:
    """One reading (EDL40), or begin and end in one (ISA-EDL-40P). Errors: `Unreadable`."""
    told = sml.read_list(content)
    return _isa(told) if START_TOTAL in told.entries else _single(told)


def _single(told: sml.ListResponse) -> Record:
    entry = told.entries.get(SIGNED_TOTAL) or _get(told, TOTAL)
    contract = _get(told, CONTRACT)
    who = contract.value or b""
    match _get(told, SECOND_INDEX).value:
        case [1, [1, int(second_index)]]:
            pass
        case _:
            raise Unreadable("The SML file has no second index.")
    return _record(
        "edl40", told.server_id, told.signature, entry.name, _number(entry.value), entry.scaler, entry.unit,
        sml.time_of(entry.at), _number(entry.status), second_index, _number(_get(told, PAGE).value),
        contract=who if isinstance(who, bytes) else b"", contract_at=sml.time_of(contract.at), log=told.signature[48:],
    )  # fmt: skip


def _record(
    format_name: str, server_id: bytes, signature: bytes, register: bytes, value: int, scaler: int, unit: int | None,
    at: tuple[int, int], status: int, second_index: int, page: int, *, contract: bytes, contract_at: tuple[int, int],
    log: bytes, embedded_key: str = "", label: Kind | None = None,
) -> Record:  # fmt: skip
    if len(server_id) != 10 or len(signature[:48]) != 48 or len(log) != 2 or len(contract) > 128:
        raise Unreadable("A field of the signed reading has the wrong length.")
    if unit != WATT_HOURS:
        raise Unreadable("The signed reading is not in watt hours.")
    block = (
        server_id + _unsigned(sum(at)) + bytes([status & 0xFF]) + _unsigned(second_index) + _unsigned(page)
        + register + bytes([unit]) + _signed(scaler, 1) + _signed(value, 8) + log + contract.ljust(128, b"\0")
        + _unsigned(sum(contract_at))
    ).ljust(BLOCK, b"\0")  # fmt: skip
    reading = SignedReading(_obis(register), _energy(value, scaler), _clock(at))
    return Record(
        format=format_name, signed=block, signature=signature[:48], is_raw_signature=True, curve="secp192r1",
        hash_name="SHA256", meter=server_id.hex().upper(), identity=text_of(contract), pages=("", page),
        readings=[reading], embedded_key=embedded_key, label=label,
        frozen=(("calibration log", log.hex()), ("time of the contract", str(sum(contract_at)))),
    )  # fmt: skip


def _isa(told: sml.ListResponse) -> Record:
    now, start, page = _get(told, TOTAL), _get(told, START_TOTAL), _number(_get(told, ISA_PAGE).value)
    contract, station = _get(told, CONTRACT).value or b"", _get(told, ISA_STATION).value
    log, signature = told.signature[-2:], told.signature[:-2]
    sizes = (
        len(told.server_id),
        len(station or b""),
        len(told.list_name),
        len(now.signature or b""),
        len(signature),
    )
    if sizes != (10, 20, 6, 66, 64) or len(contract) > 128:
        raise Unreadable("A field of the signed reading has the wrong length.")
    if (now.unit, start.unit) != (WATT_HOURS, WATT_HOURS):
        raise Unreadable("The signed reading is not in watt hours.")
    block = (
        told.server_id + _isa_reading(now, with_time=True) + log + (now.signature or b"")
        + contract.ljust(128, b"\0") + _unsigned(sum(sml.time_of(start.at))) + (station or b"")
        + _isa_reading(start, with_time=False) + told.list_name + _unsigned(page)
    ).ljust(BLOCK, b"\0")  # fmt: skip
    return Record(
        format="isa_edl_40_p", signed=block, signature=signature, is_raw_signature=True, curve="secp256r1",
        hash_name="SHA256", meter=told.server_id.hex().upper(), identity=text_of(contract), pages=("", page),
        readings=[_isa_value(start, "begin"), _isa_value(now, "end")],
        frozen=(("calibration log", log.hex()), ("station", (station or b"").hex())),
    )  # fmt: skip


def _isa_reading(entry: sml.ListEntry, *, with_time: bool) -> bytes:
    at = _unsigned(sum(sml.time_of(entry.at))) if with_time else b""
    status, value = _number(entry.status) & 0xFF, _number(entry.value)
    return (
        at + bytes([status]) + entry.name + bytes([WATT_HOURS]) + _signed(entry.scaler, 1) + _signed(value, 8)
    )


def _isa_value(entry: sml.ListEntry, kind: Kind) -> SignedReading:
    energy, at = _energy(_number(entry.value), entry.scaler), _clock(sml.time_of(entry.at))
    return SignedReading(_obis(TOTAL), energy, at, kind)


def _get(told: sml.ListResponse, name: bytes) -> sml.ListEntry:
    entry = told.entries.get(name)
    if entry is None:
        raise Unreadable(f"The SML file lacks the value {_obis(name)}.")
    return entry


def _number(told: object) -> int:
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    raise Unreadable("A value in the signed reading is no number.")


def _unsigned(value: int, length: int = 4) -> bytes:
    return _little(value, length, signed=False)


def _signed(value: int, length: int) -> bytes:
    return _little(value, length, signed=True)


def _little(value: int, length: int, *, signed: bool) -> bytes:
    """Each field has a sign or has none: else two numbers would make the same signed bytes."""
    try:
        return value.to_bytes(length, "little", signed=signed)
    except OverflowError:
        raise Unreadable("A number in the signed reading is out of its range.") from None


def _energy(value: int, scaler: int) -> Decimal:
    energy = Decimal(value).scaleb(scaler)
    if abs(energy) >= MOST_WH or scaler < -9:
        raise Unreadable("The signed reading is larger than any meter's register.")
    return energy


def _clock(at: tuple[int, int]) -> datetime:
    """What is signed are the seconds of the meter's own clock, not where in the world it hangs."""
    return datetime.fromtimestamp(sum(at), UTC)


def _obis(name: bytes) -> str:
    return "{}-{}:{}.{}.{}*{}".format(*name) if len(name) == 6 else name.hex()


# --- MENNEKES ----------------------------------------------------------------------------------------------------

_MENNEKES = "{http://www.mennekes.de/Mennekes.EdlVerification.xsd}"


def is_mennekes(root: ElementTree.Element) -> bool:
    return root.tag == f"{_MENNEKES}Billing"


def read_mennekes(root: ElementTree.Element) -> Iterator[Record]:
    """Begin and end of each charging process of a bill. Errors: `Unreadable`."""
    for process in root.iter(f"{_MENNEKES}ChargingProcess"):
        for name, label in (("MeasurementStart", "begin"), ("MeasurementEnd", "end")):
            measurement = process.find(f"{_MENNEKES}{name}")
            if measurement is None:
                raise Unreadable(f"A charging process has no {name}.")
            yield _measurement(process, measurement, "begin" if label == "begin" else "end")


def _measurement(process: ElementTree.Element, told: ElementTree.Element, label: Kind) -> Record:
    signature = read_bytes(_said(told, "Signature"), "signature")
    log = signature[48:] or (_integer(told, "EventCounter") & 0xFFFF).to_bytes(2, "big")
    own = told.find(f"{_MENNEKES}TimestampCustomerIdent")
    contract_at = _moment(_said(told if own is not None else process, "TimestampCustomerIdent"))
    return _record(
        "mennekes", read_bytes(_said(process, "ServerId"), "meter"), signature, SIGNED_TOTAL,
        _integer(told, "Value"), _integer(told, "Scaler"), WATT_HOURS, _moment(_said(told, "Timestamp")),
        _integer(told, "MeterStatus"), _integer(told, "SecondIndex"), _integer(told, "Pagination"),
        contract=read_bytes(_said(process, "CustomerIdent"), "customer"), contract_at=contract_at, log=log,
        embedded_key=_said(process, "PublicKey"), label=label,
    )  # fmt: skip


def _said(parent: ElementTree.Element, name: str) -> str:
    text = (parent.findtext(f"{_MENNEKES}{name}") or "").strip()
    if not text:
        raise Unreadable(f"A charging process lacks {name}.")
    return text


def _integer(parent: ElementTree.Element, name: str) -> int:
    try:
        return int(_said(parent, name)[:20])
    except ValueError:
        raise Unreadable(f"{name} is no number.") from None


def _moment(said: str) -> tuple[int, int]:
    """As `sml.time_of`: what is signed are the seconds of the meter's own clock."""
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise Unreadable("A time in the bill cannot be read.") from None
    offset = at.utcoffset()
    if offset is None:
        raise Unreadable("A time in the bill has no offset.")
    return int(at.timestamp()), int(offset.total_seconds())
