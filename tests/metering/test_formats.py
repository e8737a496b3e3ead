"""Signed readings: the files of others, every format and curve signed afresh, and what a flipped byte does."""

import base64
import json
import os
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cryptography.hazmat.primitives.asymmetric import utils
from hypothesis import given, settings
from hypothesis import strategies as st

from app.metering.transparency import write_values
from app.metering.verification import charge_of, verify, worst
from tests.conftest import ROOT
from tests.metering.meters import ALGORITHMS, Meter, Pair, crc, reading

VECTORS = Path(os.environ.get("LIVERY_VECTORS", ROOT.parent / "shared" / "vectors")) / "signed_meter"
FILES = sorted(path for path in VECTORS.rglob("*") if path.suffix in (".xml", ".pcdf"))
# Wh between the signed begin and end; None: the file holds one reading, or no register of imported energy.
ENERGY = {
    "ev-charging-ocmf.xml": "150", "Ocmf_Example_OBIS_98.8.0_2.8.0.xml": None, "brainpoolP256r1.xml": "0",
    "edl-40-01.xml": None, "isa-edl-40p-ok.xml": "22329.4", "test_mennekes_full.xml": "141.9",
    "test_ocmf_ebee_01.xml": "0", "test_ocmf_keba_kcp30.xml": "0.1", "test_ocmf_keba_kcp30_fail.xml": None,
    "valid.pcdf": "3276",
}  # fmt: skip
DAY = 1_777_600_000


@pytest.fixture(scope="module")
def _vectors() -> None:
    if not FILES:
        pytest.skip(f"no test data of others at {VECTORS}")


@pytest.mark.parametrize("name", sorted(ENERGY))
def test_a_file_of_others_gets_the_verdict_its_name_says(name: str, _vectors: None):
    (path,) = [one for one in FILES if one.name == name]
    checked = verify(path.read_bytes().decode("utf-8-sig"))
    assert worst(checked).verdict == ("invalid" if name.endswith("_fail.xml") else "valid"), checked
    assert charge_of(checked).energy_wh == (None if ENERGY[name] is None else Decimal(ENERGY[name] or 0))


def test_every_file_of_others_is_tried(_vectors: None):
    assert {path.name for path in FILES} == set(ENERGY)


def begin_and_end(meter: Meter, begin: str = "100.0", end: str = "112.345") -> list[str]:
    return [
        meter.ocmf({"value": begin}),
        meter.ocmf({"value": end, "kind": "E", "at": "2026-05-01T11:00:00,000+0200 S"}),
    ]


def of(*records: str, key: str = ""):
    return [one for record in records for one in verify(record, public_key=key)]


@pytest.mark.parametrize("curve", sorted(ALGORITHMS))
def test_ocmf_signed_on_every_named_curve_verifies_and_gives_its_energy(curve: str):
    meter = Meter(Pair(curve))
    checked = of(*begin_and_end(meter), key=meter.key)
    assert [one.verdict for one in checked] == ["valid", "valid"]
    assert charge_of(checked).energy_wh == Decimal("12345")
    other = Meter(Pair(curve))
    assert [one.verdict for one in of(*begin_and_end(meter), key=other.key)] == ["invalid", "invalid"]


@pytest.mark.parametrize("curve", sorted(ALGORITHMS))
def test_a_key_is_read_however_it_is_written(curve: str):
    meter = Meter(Pair(curve))
    (record, _), der, point = begin_and_end(meter), meter.pair.public_der, meter.pair.point
    envelope = base64.b64encode(f"oca:base16:asn1:{der.hex()}".encode()).decode()
    spaced = " ".join(der.hex().upper()[n : n + 4] for n in range(0, len(der.hex()), 4))
    for said in (der.hex(), spaced, base64.b64encode(der).decode(), point.hex(), point[1:].hex(), envelope,
                 base64.b64encode(der.hex().encode()).decode(),
                 f"oca:base64:asn1:{base64.b64encode(der).decode()}"):  # fmt: skip
        assert worst(of(record, key=said)).verdict == "valid", said


def test_a_bare_point_that_begins_like_der_is_a_point():
    """One in 256 does."""
    while True:
        meter = Meter()
        if meter.pair.point[1] == 0x30:
            break
    record, _ = begin_and_end(meter)
    assert worst(of(record, key=meter.pair.point[1:].hex())).verdict == "valid"


def test_a_key_of_another_curve_is_refused_and_one_that_is_none_too():
    meter = Meter()
    record, _ = begin_and_end(meter)
    for key in (Meter(Pair("secp256k1")).key, "00" * 64, "04" + "11" * 64, "no key at all", "3059"):
        assert worst(of(record, key=key)).verdict == "invalid", key


def test_other_formats_signed_afresh_verify_and_give_their_energy():
    alfen, pcdf, edl, isa = (
        Meter(Pair(curve)) for curve in ("secp192r1", "secp256r1", "secp192r1", "secp256r1")
    )
    told = [
        (alfen, [alfen.alfen("0", 1000, DAY), alfen.alfen("1", 4250, DAY + 60)], "3250"),
        (pcdf, [pcdf.pcdf("0012.345")], "12345"),
        (edl, [edl.edl40(10_000, DAY), edl.edl40(25_005, DAY + 60)], "1500.5"),
        (isa, [isa.isa(10_000, 25_005, DAY, DAY + 60)], "1500.5"),
    ]
    for meter, records, energy in told:
        checked = of(*records, key=meter.key)
        assert {one.verdict for one in checked} == {"valid"}, checked
        assert charge_of(checked).energy_wh == Decimal(energy)
        assert {one.verdict for one in of(*records, key=Meter(Pair(meter.pair.curve)).key)} == {"invalid"}


def test_without_a_key_there_is_no_verdict_and_one_that_came_with_the_data_is_named_so():
    record, _ = begin_and_end(Meter())
    assert worst(of(record)).verdict == "no_key"
    (own,) = verify(Meter().pcdf("0001.000"))
    assert own.verdict == "valid" and own.is_own_key
    meter = Meter()
    (known,) = verify(meter.pcdf("0001.000"), public_key=meter.key)
    assert known.verdict == "valid" and not known.is_own_key


def test_formats_and_algorithms_that_nobody_knows_are_unsupported():
    record, _ = begin_and_end(Meter())
    for data, name in ((record, "xyz"), ("hello", ""), (record.replace("ECDSA-secp256r1", "RSA-4096"), ""),
                       (record.replace("-SHA256", "-MD5"), "")):  # fmt: skip
        assert worst(verify(data, format_name=name, public_key=Meter().key)).verdict == "unsupported", data


def test_a_signed_meter_value_of_ocpp_is_opened():
    meter = Meter()
    record, _ = begin_and_end(meter)
    for data in (base64.b64encode(record.encode()).decode(), record):
        told = json.dumps({
            "signedMeterData": data, "signingMethod": "", "encodingMethod": "OCMF",
            "publicKey": base64.b64encode(f"oca:base16:asn1:{meter.key}".encode()).decode(),
        })  # fmt: skip
        (checked,) = verify(told)
        assert checked.verdict == "valid" and checked.is_own_key
    edl = Meter(Pair("secp192r1"))
    octets = base64.b64encode(bytes.fromhex(edl.edl40(5, DAY))).decode()
    told = json.dumps(
        {"signedMeterData": octets, "encodingMethod": "EDL", "signingMethod": "", "publicKey": ""}
    )
    assert worst(verify(told, public_key=edl.key)).verdict == "valid"


# -- a byte that was changed ------------------------------------------------------------------------------------------

ONE = {
    "ocmf": (meter := Meter(), begin_and_end(meter)[0]),
    "pcdf": (meter := Meter(), meter.pcdf("0012.345")),
    "alfen": (meter := Meter(Pair("secp192r1")), meter.alfen("0", 1000, DAY)),
    "edl40": (meter := Meter(Pair("secp192r1")), meter.edl40(10_000, DAY)),
    "isa": (meter := Meter(), meter.isa(10_000, 25_005, DAY, DAY + 60)),
} | {f"ocmf {curve}": (meter := Meter(Pair(curve)), begin_and_end(meter)[0]) for curve in sorted(ALGORITHMS)}


def signed_part(record: str) -> range:
    """What the signature covers, in the text as it stands. SML and base32 have checks of their own: all of it."""
    if record.startswith("OCMF|"):
        return range(5, record.rindex("|"))
    if record.startswith("128.8.0"):
        return range(record.index("(SG:"))
    if record.startswith("AP;"):
        return range(record.index(";", 7) + 1, len(record) - 1)
    return range(len(record))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ONE)), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_byte_flipped_anywhere_in_what_is_signed_is_never_valid(name: str, where: float, mask: int):
    meter, record = ONE[name]
    part = signed_part(record)
    if name in ("edl40", "isa"):
        content = bytearray.fromhex(record)
        content[int(where * len(content))] ^= mask
        changed = content.hex()
    else:
        octets = bytearray(record.encode())
        octets[part[int(where * len(part))]] ^= mask
        changed = octets.decode("latin-1")
    assert worst(verify(changed, public_key=meter.key)).verdict != "valid", changed


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=300) | st.binary(max_size=200).map(bytes.hex),
    st.sampled_from(["", "ocmf", "alfen", "pcdf", "sml"]),
)
def test_what_is_no_record_never_raises_and_is_never_valid(data: str, name: str):
    for text in (data, "OCMF|" + data, "1b1b1b1b01010101" + data, "<values>" + data, "{" + data):
        assert worst(verify(text, format_name=name, public_key=Meter.key.fget(KEPT))).verdict != "valid"  # type: ignore[union-attr]


KEPT = Meter()


def test_a_name_that_stands_twice_in_ocmf_is_refused():
    meter = Meter()
    signed = begin_and_end(meter)[0].split("|")[1][:-1] + ', "MS": "another"}'
    record = f"OCMF|{signed}|{json.dumps({'SD': meter.pair.der(signed.encode()).hex()})}"
    assert worst(of(record, key=meter.key)).verdict == "invalid"


def test_a_file_with_a_document_type_is_refused():
    data = (
        '<!DOCTYPE values [<!ENTITY a "aaaa">]><values><value><signedData>&a;</signedData></value></values>'
    )
    assert worst(verify(data)).verdict == "invalid"


# -- what may be billed -----------------------------------------------------------------------------------------------


def refusal(*records: str, meter: Meter) -> str:
    charge = charge_of(of(*records, key=meter.key))
    assert charge.energy_wh is None
    return charge.reason


def test_a_missing_page_between_begin_and_end_is_refused():
    meter = Meter()
    begin = meter.ocmf({"value": "1.0"})
    between = meter.ocmf({"value": "2.0", "kind": "C", "at": "2026-05-01T10:30:00,000+0200 S"})
    end = meter.ocmf({"value": "3.0", "kind": "E", "at": "2026-05-01T11:00:00,000+0200 S"})
    assert "missing" in refusal(begin, end, meter=meter)
    assert charge_of(of(end, begin, between, key=meter.key)).energy_wh == 2000
    assert charge_of(of(begin, begin, between, end, end, key=meter.key)).energy_wh == 2000, "told twice"


def test_another_meter_another_person_and_another_key_are_refused():
    meter = Meter()
    begin = meter.ocmf({"value": "1.0"})
    page, late = meter.page, {"value": "3.0", "kind": "E", "at": "2026-05-01T11:00:00,000+0200 S"}
    for changes, word in (
        ({"MS": "OTHER"}, "meter"), ({"ID": "04FFFFFFFF"}, "people"), ({"PG": f"F{page + 1}"}, "counter"),
        ({"PG": f"T{page}"}, "same page"), ({"IL": "MISMATCH"}, "Who charged"),
    ):  # fmt: skip
        meter.page = page
        assert word in refusal(begin, meter.ocmf(late, **changes), meter=meter)
    other = Meter(page=page)
    checked = [*of(begin, key=meter.key), *of(other.ocmf(late), key=other.key)]
    assert charge_of(checked).energy_wh is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ST": "M"}, "manipulation"), ({"ST": "S"}, "substitute"), ({"ST": None}, "works"), ({"EF": "E"}, "energy"),
        ({"EF": "t"}, "time"), ({"EF": "Et"}, "energy"), ({"kind": "X"}, "error during"),
        ({"value": "0.5"}, "backwards"), ({"RU": "mOhm"}, "unit"), ({"RI": "1-0:2.8.0"}, "imported"),
        ({"kind": "C"}, "no signed end"),
        ({"kind": "B"}, "more than one signed begin"), ({"at": "2026-05-01T09:00:00,000+0200 S"}, "before"),
    ],
)  # fmt: skip
def test_what_the_meter_itself_calls_wrong_is_not_billed(changes: dict[str, str], word: str):
    meter = Meter()
    begin = {"value": "1.0", "RI": changes["RI"]} if "RI" in changes else {"value": "1.0"}
    late = {"value": "3.0", "kind": "E", "at": "2026-05-01T11:00:00,000+0200 S"} | changes
    assert word in refusal(meter.ocmf(begin), meter.ocmf(late), meter=meter)


def test_both_readings_in_one_record_and_what_later_ones_leave_out():
    meter = Meter()
    end = reading("7.5", "E", "2026-05-01T11:00:00,000+0200 S", RI=None, RU=None, ST=None, EF=None, RT=None)
    record = meter.ocmf(RD=[reading("5.0"), end])
    assert charge_of(of(record, key=meter.key)).energy_wh == 2500


def test_an_end_alone_a_begin_alone_and_nothing_at_all_are_not_billed():
    meter = Meter()
    begin, end = begin_and_end(meter)
    assert "no signed end" in refusal(begin, meter=meter)
    assert "no signed begin" in refusal(end, meter=meter)
    assert charge_of([]).energy_wh is None


def test_a_pcdf_line_that_may_not_be_billed_and_an_alfen_status_are_refused():
    pcdf = Meter()
    assert "may not be billed" in refusal(pcdf.pcdf("0001.000", billable="0"), meter=pcdf)
    assert "not over" in refusal(pcdf.pcdf("0001.000", over="0"), meter=pcdf)
    alfen = Meter(Pair("secp192r1"))
    begin = alfen.alfen("0", 1000, DAY)
    for bit in (1, 2, 16, 26, 30, 31):
        assert "report" in (
            said := refusal(begin, alfen.alfen("1", 2000, DAY + 60, status=1 << bit), meter=alfen)
        ) or ("does not fit" in said)
        alfen.page -= 1
    synchronised = alfen.alfen("1", 2000, DAY + 60, status=1 << 8)
    assert charge_of(of(begin, synchronised, key=alfen.key)).energy_wh == 1000
    alfen.page -= 1
    assert "session" in refusal(begin, alfen.alfen("1", 2000, DAY + 60, session=8), meter=alfen)


def test_a_calibration_log_that_grew_between_begin_and_end_is_refused():
    edl = Meter(Pair("secp192r1"))
    begin = edl.edl40(1000, DAY)
    assert "calibration log" in refusal(begin, edl.edl40(2000, DAY + 60, log=b"\x00\x02"), meter=edl)


def test_alfens_label_outside_the_signature_cannot_turn_begin_and_end():
    alfen = Meter(Pair("secp192r1"))
    begin, end = alfen.alfen("1", 1000, DAY), alfen.alfen("0", 4000, DAY + 60)
    assert charge_of(of(begin, end, key=alfen.key)).energy_wh is None


# -- the file for transparency software -------------------------------------------------------------------------------


def test_every_format_verifies_again_from_the_file_that_drivers_get():
    alfen, pcdf, edl, isa, ocmf = (
        Meter(Pair(one)) for one in ("secp192r1", "secp256r1", "secp192r1", "secp256r1", "secp192k1")
    )
    told = [
        (alfen, alfen.alfen("0", 1000, DAY)), (pcdf, "\x02" + pcdf.pcdf("0012.345") + "\x03"),
        (edl, edl.edl40(10_000, DAY)), (isa, isa.isa(10_000, 25_005, DAY, DAY + 60)), (ocmf, begin_and_end(ocmf)[0]),
    ]  # fmt: skip
    values = []
    for meter, data in told:
        record = verify(data, public_key=meter.key)[0].record
        assert record is not None
        values.append((data, record.format, meter.key, "Transaction.Begin"))
    checked = verify(write_values(values, "77").decode())
    assert [one.verdict for one in checked] == ["valid"] * 5, checked
    assert all(one.record is not None and one.record.label == "begin" for one in checked)


@given(
    st.text(
        alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])
        | st.sampled_from("\r\n\t<>&\"'"),
        min_size=1,
    )
)
def test_what_was_signed_comes_back_from_the_file_as_it_was(text: str):
    data = f"x{text}x"
    (value,) = ElementTree.fromstring(write_values([(data, "ocmf", "", text)], "id")).iter("signedData")  # noqa: S314
    assert value.text == data.replace("\ufffe", "").replace("\uffff", "")


def test_the_second_signature_that_ecdsa_allows_makes_no_second_record():
    """(r, n - s) fits as well as (r, s), and needs no key."""
    meter = Meter()
    begin, end = begin_and_end(meter)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    head, signed, told = end.split("|")
    signature = json.loads(told)
    r, s = utils.decode_dss_signature(bytes.fromhex(signature["SD"]))
    signature["SD"] = utils.encode_dss_signature(r, order - s).hex()
    twin = f"{head}|{signed}|{json.dumps(signature)}"
    checked = of(begin, end, twin, key=meter.key)
    assert [one.verdict for one in checked] == ["valid"] * 3
    assert charge_of(checked).energy_wh == Decimal("12345")


# -- what a hostile station may send ----------------------------------------------------------------------------------


def ocmf_of(meter: Meter, signed: str) -> str:
    return f"OCMF|{signed}|{json.dumps({'SD': meter.pair.der(signed.encode()).hex()})}"


def test_signed_nonsense_is_invalid_and_raises_nothing():
    """All of it is signed, and by the right key: the reader must not stumble over it."""
    meter = Meter()
    good = json.dumps({"PG": "T1", "MS": "M", "RD": [reading("1.0")]})
    pcdf = Meter()
    line = pcdf.pcdf("0001.000").split("(SG:")[0]
    line = line.replace(f"(CSC:{pcdf.page})", f"(CSC:{'9' * 5000})")
    told = [
        *(ocmf_of(meter, good.replace('"1.0"', value)) for value in (
            "1e1000000", "1e1000000000000000000", "1e-999999", "NaN", "Infinity", "-1e400", "true", "null", "[]", '"x"',
            "9" * 5000, "10000000000000",
        )),
        *(ocmf_of(meter, good.replace('"M"', value)) for value in (
            '"\\u0000"', '"\\ud800"', "5", "{}", "null", f'"{"M" * 600}"',
        )),
        ocmf_of(meter, good.replace("2026-05-01T10:00:00", "0001-01-01T00:00:00")),
        ocmf_of(meter, good.replace("2026-05-01T10:00:00", "2026-13-01T00:00:00")),
        ocmf_of(meter, good.replace('"T1"', '"T' + "9" * 400 + '"')),
        ocmf_of(meter, json.dumps({"PG": "T1", "MS": "M", "RD": [reading("1.0")] * 501})),
        f"{line}(SG:{pcdf.pair.der(line.encode()).hex()})",
        '{"a":' + "[" * 100_000, "OCMF|" + "[" * 100_000, "{" + '"signedMeterData": 5}',
        "OCMF|" + "x" * 20_000,
    ]  # fmt: skip
    for data in told:
        checked = worst(verify(data, public_key=meter.key))
        assert checked.verdict in ("invalid", "unsupported"), data[:200]


def test_a_number_of_a_signed_block_is_read_with_one_sign_only():
    """-1 and 255 make the same byte: the second spelling of a scaler is refused, though the signature fits."""
    edl = Meter(Pair("secp192r1"))
    content = bytes.fromhex(edl.edl40(10_000, DAY))
    assert content.count(b"\x62\x1e\x52\xff") == 1
    changed = content.replace(b"\x62\x1e\x52\xff", b"\x62\x1e\x62\xff")
    assert worst(of(resealed(changed).hex(), key=edl.key)).verdict == "invalid"
    assert worst(of(resealed(content).hex(), key=edl.key)).verdict == "valid"
    negative = content.replace(
        b"\x65" + (99).to_bytes(4, "big"), b"\x55" + (99 - 2**31).to_bytes(4, "big", signed=True)
    )
    assert worst(of(resealed(negative).hex(), key=edl.key)).verdict == "invalid"


def resealed(content: bytes) -> bytes:
    """With checksums that fit: of the message with the values, and of the file."""
    at = content.index(b"\x72\x65\x00\x00\x07\x01")
    begin = content.rindex(b"\x76\x02", 0, at)
    end = content.index(b"\x76\x02", at)
    message = content[begin : end - 4]
    content = content[:begin] + message + b"\x63" + crc(message).to_bytes(2, "little") + b"\0" + content[end:]
    return content[:-2] + crc(content[:-2]).to_bytes(2, "little")
