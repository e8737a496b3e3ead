"""From the readings that a meter signed to the energy that may be billed; and where nothing else may be."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.kernel import audit
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound
from app.metering import keys, transparency
from app.metering.models import MeteringPolicy, MeterKey, SignedCharge, SignedRecord
from app.metering.records import Record, Unreadable, Unsupported
from app.metering.verification import (
    MAX_RECORDS,
    Checked,
    charge_of,
    check,
    read_record,
    signed_meter_value,
    verify,
    worst,
)
from tenants.scope import Scope

MAX_DATA = 1_000_000
# Where billing by the kWh needs a signed, calibrated meter today: Germany (MessEG § 33, PTB-A 50.7), Austria
# (MEG, since 2023). Other countries may be chosen all the same.
SUGGESTED = ("DEU", "AUT")


@dataclass(frozen=True, slots=True)
class Told:
    """One signed reading as it came: the text untouched, OCPP's reading context, and when it was sampled."""

    data: str
    context: str
    at: datetime


# --- one charge --------------------------------------------------------------------------------------------------


async def check_charge(
    scope: Scope, source_type: str, source_id: UUID, station_id: UUID, evse_no: int, told: Sequence[Told]
) -> SignedCharge:
    """The verdict on all that the meter signed of a charge, kept with it. Told again, it is judged anew. `evse_no` is 0
    where the station has not said.

    Only a trusted key of this EVSE counts: one that came with the data is noted, and trusted only if it is the first.
    """
    read = []
    for one in told[:MAX_RECORDS]:
        await asyncio.sleep(0)  # reading and checking take a millisecond, and others wait for this loop
        read.append(_read(one))
    noted = await _note_keys(scope, station_id, evse_no, read)
    trusted = await keys.find_trusted(scope, station_id, evse_no)
    whole = []
    for one in read:
        await asyncio.sleep(0)
        whole.append(one if isinstance(one, Checked) else _check(one, trusted, noted.get(one.key)))
    if trusted is not None and not trusted.meter:  # a key speaks for the meter that it signs for first
        trusted.meter = next((one.record.meter[:200] for one in whole if one.record and one.is_valid), "")
    whole = [_of_that_meter(one, trusted) for one in whole]
    whole = await _once(scope, source_type, source_id, whole)
    records = [_as_json(one, checked) for one, checked in zip(told, whole, strict=False)]
    decisive = worst(whole) if whole else Checked("no_key", "The meter signed nothing.")
    charge = charge_of(whole)
    row = await find_charge(scope, source_type, source_id)
    if row is None:
        row = SignedCharge(source_type=source_type, source_id=source_id)
        scope.db.add(row)
    row.verdict = decisive.verdict
    row.reason, row.energy_wh, row.records, row.checked_at = (
        charge.reason,
        charge.energy_wh,
        records,
        scope.now,
    )
    row.begin_wh, row.begin_at = (charge.begin.energy_wh, charge.begin.at) if charge.begin else (None, None)
    row.end_wh, row.end_at = (charge.end.energy_wh, charge.end.at) if charge.end else (None, None)
    await scope.db.flush()
    return row


async def find_charge(scope: Scope, source_type: str, source_id: UUID) -> SignedCharge | None:
    query = select(SignedCharge).where(
        SignedCharge.source_type == source_type, SignedCharge.source_id == source_id
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


async def get_charge(scope: Scope, source_type: str, source_id: UUID) -> SignedCharge:
    row = await find_charge(scope, source_type, source_id)
    if row is None:
        raise NotFound("signed_charge")
    return row


@dataclass(frozen=True, slots=True)
class _Read:
    """A record, and the key that came with it: an offer."""

    record: Record
    key: str


def _read(told: Told) -> _Read | Checked:
    try:
        enclosed = signed_meter_value(told.data)
        label = transparency.LABELS.get(told.context.lower())
        record = read_record(replace(enclosed, label=label))
    except Unsupported as problem:
        return Checked("unsupported", str(problem))
    except Unreadable as problem:
        return Checked("invalid", str(problem))
    return _Read(record, enclosed.public_key or record.embedded_key)


async def _note_keys(
    scope: Scope, station_id: UUID, evse_no: int, read: Sequence[_Read | Checked]
) -> dict[str, MeterKey | None]:
    """Each key once; none where nobody knows whose meter it is."""
    offered = {one.key: one.record.curve for one in read if isinstance(one, _Read) and one.key}
    if not evse_no:
        return {}
    return {
        said: await keys.note_key(scope, station_id, evse_no, said, curve) for said, curve in offered.items()
    }


def _check(read: _Read, trusted: MeterKey | None, noted: MeterKey | None) -> Checked:
    if trusted is None:
        return replace(check(read.record), verdict="no_key", reason="No key of this meter is trusted.")
    checked = check(read.record, trusted.public_key.hex())
    is_other = noted is not None and noted.public_key != trusted.public_key and not checked.is_valid
    if noted is not None and is_other and check(read.record, noted.public_key.hex()).is_valid:
        reason = f"Signed with the key {keys.fingerprint(noted.public_key)}, which is not trusted."
        return replace(checked, verdict="no_key", reason=reason)
    return checked


def _of_that_meter(checked: Checked, key: MeterKey | None) -> Checked:
    if (
        key is None
        or checked.record is None
        or not checked.is_valid
        or key.meter == checked.record.meter[:200]
    ):
        return checked
    reason = f"The key belongs to meter {key.meter}, and this is meter {checked.record.meter[:200]}."
    return replace(checked, verdict="invalid", reason=reason)


async def _once(
    scope: Scope, source_type: str, source_id: UUID, whole: Sequence[Checked]
) -> Sequence[Checked]:
    """A record that stands for another charge already is a replay: its page of the meter is spent. Whoever has one
    signature of ECDSA has a second, so that only what was signed, and by whom, tells a record."""
    digests = [_digest(one) for one in whole]
    rows = [
        {"id": uuid7(), "digest": digest, "source_type": source_type, "source_id": source_id}
        for digest in dict.fromkeys(digests) if digest
    ]  # fmt: skip
    if not rows:
        return whole
    await scope.db.execute(insert(SignedRecord).values(rows).on_conflict_do_nothing())
    query = select(SignedRecord.digest, SignedRecord.source_type, SignedRecord.source_id).where(
        SignedRecord.digest.in_([row["digest"] for row in rows])
    )
    found = (await scope.db.execute(query)).all()
    own = {row.digest for row in found if (row.source_type, row.source_id) == (source_type, source_id)}
    reason = "This record was told with another session before."
    return [
        replace(one, verdict="invalid", reason=reason) if digest and digest not in own else one
        for one, digest in zip(whole, digests, strict=True)
    ]


def _digest(checked: Checked) -> bytes | None:
    if checked.record is None or checked.public_key is None or not checked.is_valid:
        return None
    return hashlib.sha256(checked.public_key + checked.record.signed).digest()


def _as_json(told: Told, checked: Checked) -> dict[str, Any]:
    record = checked.record
    return {
        "data": told.data, "context": told.context, "at": told.at.isoformat(), "verdict": checked.verdict,
        "reason": checked.reason, "format": record.format if record else "", "meter": record.meter if record else "",
        "page": record.pages[1] if record and record.pages else None,
        "public_key": checked.public_key.hex() if checked.public_key else "",
    }  # fmt: skip


def transparency_file(charge: SignedCharge, transaction: str) -> bytes:
    """For the transparency software of SAFE e.V.: what the meter signed, unchanged, and the key it was checked with."""
    values = []
    for one in charge.records:
        try:
            data = signed_meter_value(one["data"]).data
        except Unreadable:
            data = one["data"]
        values.append((data, one["format"], one["public_key"], one["context"]))
    return transparency.write_values(values, transaction)


# --- anybody's data ----------------------------------------------------------------------------------------------


def look_at(
    data: object, format_name: object = None, public_key: object = None
) -> tuple[Checked, list[Checked]]:
    """The deciding verdict and that on each record. Errors: `required`, `text`, `too_long`."""
    texts: dict[str, str] = {}
    for name, value in (("data", data), ("format", format_name), ("public_key", public_key)):
        if not isinstance(value, str | None):
            raise Invalid.field(name, "text", f"{name} is a text.")
        texts[name] = value or ""
        if len(texts[name]) > MAX_DATA:
            raise Invalid.field(name, "too_long", f"{name} is longer than {MAX_DATA} characters.")
    if not texts["data"].strip():
        raise Invalid.field("data", "required", "data is what the meter signed.")
    checked = verify(texts["data"], format_name=texts["format"], public_key=texts["public_key"])
    return worst(checked), checked


# --- where only signed energy is billed --------------------------------------------------------------------------


async def countries_of(scope: Scope) -> list[str]:
    """ISO 3166-1 alpha-3, as locations have them."""
    row = (await scope.db.execute(select(MeteringPolicy))).scalar_one_or_none()
    return list(row.countries) if row else []


async def set_countries(scope: Scope, countries: Sequence[str]) -> None:
    """Errors: `country`."""
    wanted = sorted({one.strip().upper() for one in countries if one.strip()})
    for one in wanted:
        if len(one) != 3 or not one.isascii() or not one.isalpha():
            raise Invalid.field("countries", "country", "Countries are three letters, like DEU.")
    row = (await scope.db.execute(select(MeteringPolicy).with_for_update())).scalar_one_or_none()
    if row is None:
        row = MeteringPolicy(countries=[])
        scope.db.add(row)
    before, row.countries = list(row.countries), wanted
    await scope.db.flush()
    await audit.record(
        scope, "metering_policy.changed", "metering_policy", row.id, {"was": before, "is": wanted}
    )
