"""What a station's meter signed, from its frame to the bill: over real sockets, in both versions."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest

from app.charging import jobs, settlement, signed
from app.charging import service as charging
from app.charging.models import CDR, ChargingSession
from app.kernel.errors import Invalid, Refused
from app.kernel.events import Event
from app.metering import keys, service
from app.metering.models import MeterKey, SignedCharge
from app.metering.verification import verify
from app.stations.models import StationAlert
from app.tariffs import service as tariffs
from tests.gateway.street import Box, Link, Street
from tests.metering.meters import Meter, Pair

pytestmark = pytest.mark.anyio


@pytest.fixture
async def policy(street: Street) -> AsyncIterator[None]:
    async with street.scope() as scope:
        await service.set_countries(scope, ["DEU"])
    yield
    async with street.scope() as scope:
        await service.set_countries(scope, [])


class Visit:
    """An hour at EVSE 1 of a box, ended just now; its meter counts from `begin` kWh."""

    def __init__(self, box: Box, meter: Meter, begin: str = "100.0", end: str = "112.3456") -> None:
        self.box, self.meter, self.begin, self.end = box, meter, begin, end
        self.at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)

    def stamp(self, minutes: int) -> str:
        return (self.at + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def record(self, kind: str, value: str, minutes: int, **changes: Any) -> str:
        at = (self.at + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S,000+0000 S")
        return self.meter.ocmf({"value": value, "kind": kind, "at": at} | changes)

    def sample(
        self, kind: str, value: str, minutes: int, *, told: str | None = None, **changes: Any
    ) -> dict[str, Any]:
        context = "Transaction.Begin" if kind == "B" else "Transaction.End"
        value = told or self.record(kind, value, minutes, **changes)
        return {
            "timestamp": self.stamp(minutes),
            "sampledValue": [{"value": value, "format": "SignedData", "context": context}],
        }

    async def charge16(self, link: Link, *, begin: str | None = None, **changes: Any) -> ChargingSession:
        """As stations of 1.6 do it: both signed readings in the stop."""
        wh = int(Decimal(self.begin) * 1000), int(Decimal(self.end) * 1000)
        started = await link.tell("StartTransaction", {
            "connectorId": 1, "idTag": self.box.card, "meterStart": wh[0], "timestamp": self.stamp(0),
        })  # fmt: skip
        number = started["transactionId"]
        data = [self.sample("B", self.begin, 0, told=begin), self.sample("E", self.end, 59, **changes)]
        await link.tell("StopTransaction", {
            "transactionId": number, "meterStop": wh[1], "timestamp": self.stamp(59), "transactionData": data,
        })  # fmt: skip
        (session,) = await self.box.rows(ChargingSession, ChargingSession.ocpp_transaction_id == str(number))
        return session


async def charge_of(street: Street, session: ChargingSession) -> SignedCharge | None:
    async with street.scope() as scope:
        return await signed.find(scope, session.id)


async def bill(street: Street, session: ChargingSession) -> CDR | None:
    async with street.scope() as scope:
        await settlement.settle(scope, session.id)
    async with street.scope() as scope:
        return await settlement.find_cdr(scope, session.id)


async def test_a_session_billed_on_verified_energy_costs_price_times_that_energy(
    street: Street, box: Box, policy: None
):
    """The plain register said 12,345 Wh too; what is billed is what was signed, in whole watt hours."""
    meter = Meter()
    energy = {"type": "ENERGY", "price": "0.50", "vat": "19", "step_size": 1}
    price = {"currency": "EUR", "elements": [{"price_components": [energy]}]}
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
        await tariffs.create_tariff(scope, price, {"evse_id": box.evse_ids[0]})
    visit = Visit(box, meter)
    session = await visit.charge16(await box.online())
    charge = await charge_of(street, session)
    assert charge is not None and (charge.verdict, charge.energy_wh) == ("valid", Decimal("12345.6"))
    assert (session.energy_wh, session.review) == (12_345, None)
    cdr = await bill(street, session)
    assert cdr is not None and cdr.energy_wh == 12_345
    (line,) = [one for one in cdr.price["lines"] if one["component"] == "ENERGY"]
    assert Decimal(line["volume"]) == Decimal("12.345")
    assert cdr.excl_vat_minor == 617  # 12.345 kWh at 0.50 are 6.1725
    assert cdr.incl_vat_minor == 734  # and 19 % on top of 6.17 makes 7.3423


async def test_what_was_signed_decides_where_the_plain_register_says_otherwise(
    street: Street, box: Box, policy: None
):
    meter = Meter()
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
    session = await Visit(box, meter, end="110.0").charge16(await box.online(), RV="109.0")
    assert (session.meter_stop_wh, session.energy_wh, session.review) == (110_000, 9_000, None)


async def test_a_forged_end_is_not_billed_and_waits_for_staff_with_its_reason(
    street: Street, box: Box, policy: None
):
    meter, forger = Meter(), Meter()
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
    visit = Visit(box, meter)
    forger.page = meter.page + 1
    end = forger.ocmf({"value": "999.0", "kind": "E"})
    session = await visit.charge16(await box.online(), told=end)
    assert session.review == "unverified"
    charge = await charge_of(street, session)
    assert charge is not None and charge.verdict == "invalid" and charge.energy_wh is None
    assert await bill(street, session) is None
    async with street.scope() as scope:
        await charging.decide_review(scope, session.id, "release", "Read at the site.", energy_wh=12_000)
    cdr = await bill(street, session)
    assert cdr is not None and cdr.energy_wh == 12_000


async def test_without_signed_readings_nothing_is_billed_where_the_policy_holds_and_all_where_it_does_not(
    street: Street, box: Box
):
    link = await box.online()

    async def charge(minutes: int) -> ChargingSession:
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        started = await link.tell("StartTransaction", {
            "connectorId": 1, "idTag": box.card, "meterStart": 1000, "timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        })  # fmt: skip
        stop = (at + timedelta(minutes=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"transactionId": started["transactionId"], "meterStop": 5000, "timestamp": stop}
        await link.tell("StopTransaction", told)
        wanted = ChargingSession.ocpp_transaction_id == str(started["transactionId"])
        (session,) = await box.rows(ChargingSession, wanted)
        return session

    free = await charge(120)
    assert (free.review, free.energy_wh) == (None, 4_000)
    assert await charge_of(street, free) is None
    async with street.scope() as scope:
        await service.set_countries(scope, ["DEU"])
    held = await charge(60)
    async with street.scope() as scope:
        await service.set_countries(scope, [])
    assert held.review == "unverified"
    charge_ = await charge_of(street, held)
    assert charge_ is not None and charge_.reason == "The meter signed nothing."


async def test_the_first_key_a_station_tells_is_trusted_and_another_one_waits_for_staff(
    street: Street, box: Box
):
    """2.0.1: the key travels inside each SignedMeterValue."""
    first, second = Meter(), Meter()
    link = await box.online("ocpp2.0.1")

    async def charge(meter: Meter, name: str, hours: int) -> SignedCharge:
        at = datetime.now(UTC) - timedelta(hours=hours)
        for number, (kind, event, value) in enumerate((("B", "Started", "5.0"), ("E", "Ended", "7.5"))):
            when = at + timedelta(minutes=30 * number)
            record = meter.ocmf(
                {"value": value, "kind": kind, "at": when.strftime("%Y-%m-%dT%H:%M:%S,000+0000 S")}
            )
            told = {
                "signedMeterData": base64.b64encode(record.encode()).decode(), "signingMethod": "",
                "encodingMethod": "OCMF",
                "publicKey": base64.b64encode(f"oca:base16:asn1:{meter.key}".encode()).decode(),
            }  # fmt: skip
            context = "Transaction.Begin" if kind == "B" else "Transaction.End"
            sampled = {"value": float(value) * 1000, "context": context, "signedMeterValue": told}
            payload: dict[str, Any] = {
                "eventType": event, "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"), "seqNo": number,
                "triggerReason": "Authorized" if number == 0 else "EVDeparted",
                "transactionInfo": {"transactionId": name}, "evse": {"id": 1, "connectorId": 1},
                "meterValue": [{"timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"), "sampledValue": [sampled]}],
            }  # fmt: skip
            if number == 0:
                payload["idToken"] = {"idToken": box.card, "type": "ISO14443"}
            await link.tell("TransactionEvent", payload)
        (session,) = await box.rows(ChargingSession, ChargingSession.ocpp_transaction_id == name)
        found = await charge_of(street, session)
        assert found is not None
        return found

    own = await charge(first, f"own-{box.identity}", 5)
    assert (own.verdict, own.energy_wh) == ("valid", Decimal(2500))
    (key,) = await box.rows(MeterKey)
    assert (key.status, key.meter, key.is_compared) == ("trusted", f"{first.serial} G-1", False)
    other = await charge(second, f"other-{box.identity}", 3)
    assert other.verdict == "no_key" and "not trusted" in other.reason and other.energy_wh is None
    assert [row.kind for row in await box.rows(StationAlert)] == ["meter_key"]
    (waiting,) = await box.rows(MeterKey, MeterKey.status == "waiting")
    async with street.scope() as scope:
        await keys.decide_key(scope, waiting.id, "trust")
    assert (await charge(second, f"again-{box.identity}", 2)).verdict == "valid"
    statuses = {row.public_key.hex(): row.status for row in await box.rows(MeterKey)}
    assert statuses == {first.key: "replaced", second.key: "trusted"}
    late = await charge(first, f"late-{box.identity}", 1)
    assert late.verdict == "no_key" and "not trusted" in late.reason


async def test_a_record_counts_for_one_session_and_is_refused_with_another(
    street: Street, box: Box, policy: None
):
    meter = Meter()
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
    link, visit = await box.online(), Visit(box, meter)
    begin, end = visit.record("B", "100.0", 0), visit.record("E", "112.3456", 59)
    first = await visit.charge16(link, begin=begin, told=end)
    assert (first.review, first.energy_wh) == (None, 12_345)
    again = Visit(box, meter, "200.0", "201.0")
    again.at += timedelta(minutes=1)
    second = await again.charge16(link, begin=begin, told=end)
    charge = await charge_of(street, second)
    assert second.review == "unverified" and charge is not None and "another session" in charge.reason
    async with street.scope() as scope:  # weighed again it is the same
        await charging.verify_again(scope, second.id)
    assert (await charge_of(street, first)).verdict == "valid"  # type: ignore[union-attr]


async def test_a_key_speaks_for_the_meter_that_it_signed_for_first(street: Street, box: Box):
    meter = Meter()
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
    link = await box.online()
    assert (await charge_of(street, await Visit(box, meter).charge16(link))).verdict == "valid"  # type: ignore[union-attr]
    meter.serial = "ANOTHER"
    visit = Visit(box, meter, "200.0", "201.0")
    visit.at += timedelta(minutes=1)
    charge = await charge_of(street, await visit.charge16(link))
    assert charge is not None and charge.verdict == "invalid" and "belongs to meter" in charge.reason


async def test_the_file_for_transparency_software_holds_what_was_signed_byte_for_byte(
    street: Street, box: Box
):
    meter = Meter(Pair("brainpoolP256r1"))
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
    session = await Visit(box, meter).charge16(await box.online())
    charge = await charge_of(street, session)
    assert charge is not None and charge.verdict == "valid"
    async with street.scope() as scope:
        content = await signed.file_of(scope, session)
    checked = verify(content.decode())
    assert [one.verdict for one in checked] == ["valid", "valid"]
    texts = [one.text for one in ElementTree.fromstring(content).iter("signedData")]  # noqa: S314
    assert texts == [one["data"] for one in charge.records]


async def test_signed_readings_outlive_the_raw_ones(street: Street, box: Box):
    """The charge keeps them itself: days of raw values are dropped."""
    meter = Meter()
    session = await Visit(box, meter).charge16(await box.online())
    charge = await charge_of(street, session)
    assert charge is not None and charge.verdict == "no_key" and len(charge.records) == 2
    assert all(one["data"].startswith("OCMF|") for one in charge.records)


async def test_a_key_that_is_none_and_a_country_that_is_none_are_refused_by_their_field(
    street: Street, box: Box
):
    async with street.scope() as scope:
        for said in ("", "zz", "00" * 10):
            with pytest.raises(Invalid) as refused:
                await keys.add_key(scope, box.station_id, 1, said)
            assert [fault.field for fault in refused.value.faults] == ["public_key"]
        with pytest.raises(Invalid) as refused:
            await service.set_countries(scope, ["Germany"])
        assert [fault.field for fault in refused.value.faults] == ["countries"]


async def test_a_session_that_waits_for_its_key_is_billed_once_staff_trust_it(
    street: Street, box: Box, policy: None
):
    """The event that the key is trusted starts the job of the worker, which is called here."""
    old, new = Meter(), Meter()
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, old.key)
        waiting = await keys.note_key(scope, box.station_id, 1, new.key)
    session = await Visit(box, new).charge16(await box.online())
    assert session.review == "unverified" and waiting is not None
    async with street.scope() as scope:
        await keys.decide_key(scope, waiting.id, "trust")
    (event,) = await street.rows(Event, Event.kind == "MeterKeyTrusted", Event.source_id == waiting.id)
    await jobs.meter_key_trusted(street.yard.database, street.nordlicht.tenant_id, str(event.id))
    async with street.scope() as scope:
        again = await charging.get_session(scope, session.id)
        assert (again.review, again.energy_wh) == (None, 12_345)
        with pytest.raises(Refused) as refused:
            await charging.verify_again(scope, session.id)
        assert refused.value.code == "not_unverified"


async def test_keys_and_readings_that_come_by_data_transfer_count_too(street: Street, box: Box, policy: None):
    """has.to.be's setMeterConfiguration, and a record told after the stop."""
    meter = Meter()
    link = await box.online()
    meters = json.dumps({"meters": [{"connectorId": 1, "type": "SIGNATURE", "publicKey": meter.key}]})
    told = {"vendorId": "generalConfiguration", "messageId": "setMeterConfiguration", "data": meters}
    assert await link.tell("DataTransfer", told) == {"status": "Accepted"}
    (key,) = await box.rows(MeterKey)
    assert key.status == "trusted"
    visit = Visit(box, meter)
    begin, end = visit.record("B", "100.0", 0), visit.record("E", "104.0", 59)
    started = await link.tell("StartTransaction", {
        "connectorId": 1, "idTag": box.card, "meterStart": 100_000, "timestamp": visit.stamp(0),
    })  # fmt: skip
    number = started["transactionId"]
    assert await link.tell("DataTransfer", {"vendorId": "com.example", "data": begin}) == {
        "status": "Accepted"
    }
    await link.tell("StopTransaction", {
        "transactionId": number, "meterStop": 104_000, "timestamp": visit.stamp(59),
    })  # fmt: skip
    (session,) = await box.rows(ChargingSession, ChargingSession.ocpp_transaction_id == str(number))
    assert session.review == "unverified"
    late = json.dumps({"transactionId": number, "signedData": end})
    assert await link.tell("DataTransfer", {"vendorId": "com.example", "data": late}) == {
        "status": "Accepted"
    }
    (session,) = await box.rows(ChargingSession, ChargingSession.ocpp_transaction_id == str(number))
    assert (session.review, session.energy_wh) == (None, 4_000)


async def test_data_transfers_that_hold_neither_are_told_so(street: Street, box: Box):
    link = await box.online()
    for data in ("hello", "{", '{"a": 1}', "[" * 900, "OCMF", json.dumps({"signedData": ""})):
        assert await link.tell("DataTransfer", {"vendorId": "x", "data": data}) == {
            "status": "UnknownVendorId"
        }
    told = {
        "vendorId": "generalConfiguration",
        "messageId": "setMeterConfiguration",
        "data": '{"meters": [{}]}',
    }
    assert await link.tell("DataTransfer", told) == {"status": "Rejected"}
    nobody = {"vendorId": "x", "data": Meter().ocmf({"value": "1.0"})}
    assert await link.tell("DataTransfer", nobody) == {"status": "Rejected"}, "no session to which it belongs"
    assert await link.is_alive()


async def test_a_key_for_an_evse_that_nobody_looked_at_waits_where_staff_compared_another(
    street: Street, box: Box, policy: None
):
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, Meter().key)
        first = await keys.note_key(scope, box.station_id, 2, Meter().key)
    assert first is not None and first.status == "waiting"
    link = await box.online()
    meters = json.dumps({"meters": [{"connectorId": 77, "publicKey": Meter().key}]})
    told = {"vendorId": "generalConfiguration", "messageId": "setMeterConfiguration", "data": meters}
    assert await link.tell("DataTransfer", told) == {"status": "Rejected"}, "no such EVSE"


async def test_signed_energy_that_no_connector_gives_waits_for_staff(street: Street, box: Box, policy: None):
    meter = Meter()
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
    session = await Visit(box, meter, end="110.0").charge16(await box.online(), RV="900.0")
    assert (session.review, session.energy_wh) == ("implausible", 10_000)
    async with street.scope() as scope:
        with pytest.raises(Invalid) as refused:
            await charging.decide_review(scope, session.id, "release", "Without a figure.")
        assert [fault.code for fault in refused.value.faults] == ["energy_required"]


async def test_whoever_releases_what_is_not_verified_says_how_much(street: Street, box: Box, policy: None):
    session = await Visit(box, Meter()).charge16(await box.online())
    assert session.review == "unverified"
    async with street.scope() as scope:
        with pytest.raises(Invalid) as refused:
            await charging.decide_review(scope, session.id, "release", "Believed.")
        assert [fault.code for fault in refused.value.faults] == ["energy_required"]


async def test_many_signed_readings_between_begin_and_end_cut_neither_off(
    street: Street, box: Box, policy: None
):
    meter = Meter()
    async with street.scope() as scope:
        await keys.add_key(scope, box.station_id, 1, meter.key)
    link, visit = await box.online(), Visit(box, meter, end="104.0")
    started = await link.tell("StartTransaction", {
        "connectorId": 1, "idTag": box.card, "meterStart": 100_000, "timestamp": visit.stamp(0),
    })  # fmt: skip
    number = started["transactionId"]
    told = [visit.sample("B", "100.0", 0)]
    for n in range(1, 220):
        value = meter.ocmf({
            "value": f"{100 + n / 100:.2f}", "kind": "C",
            "at": (visit.at + timedelta(seconds=10 * n)).strftime("%Y-%m-%dT%H:%M:%S,000+0000 S"),
        })  # fmt: skip
        told.append({
            "timestamp": (visit.at + timedelta(seconds=10 * n)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "sampledValue": [{"value": value, "format": "SignedData", "context": "Sample.Periodic"}],
        })  # fmt: skip
    told.append(visit.sample("E", "104.0", 59))
    for at in range(0, len(told), 50):
        part = {"connectorId": 1, "transactionId": number, "meterValue": told[at : at + 50]}
        await link.tell("MeterValues", part)
    await link.tell("StopTransaction", {
        "transactionId": number, "meterStop": 104_000, "timestamp": visit.stamp(59),
    })  # fmt: skip
    (session,) = await box.rows(ChargingSession, ChargingSession.ocpp_transaction_id == str(number))
    charge = await charge_of(street, session)
    assert charge is not None and (charge.verdict, charge.energy_wh, len(charge.records)) == (
        "valid",
        4000,
        221,
    )
