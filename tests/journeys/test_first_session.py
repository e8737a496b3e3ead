"""A station of one brand, billed to the cent: commissioned over REST, real OCPP clients, two brands at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.kernel.ids import parse_id
from tests.foreign_stations import ForeignStation, Station16, Station201
from tests.journeys.house import LOCATION, TARIFF, Brand, House, wait_for

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


def minute(n: float) -> datetime:
    return START + timedelta(minutes=n)


def commission(
    house: House, brand: Brand, kind: type[ForeignStation], identity: str = "CP1"
) -> tuple[Any, ForeignStation]:
    """Location, station, tariff and card; everything an operator does before the first car."""
    location = brand.post("/locations", LOCATION)
    body = {
        "identity": identity, "location_id": location["id"], "security_profile": 1,
        "evses": [{"evse_no": 1, "connectors": [{"connector_no": 1, "standard": "IEC_62196_T2",
                   "power_type": "AC_3_PHASE", "max_voltage": 230, "max_amperage": 32}]}],
    }  # fmt: skip
    made = brand.post("/stations", body)
    return made, kind(made["ocpp_url"], made["password"], connect_to=("127.0.0.1", house.ocpp_port))


@pytest.fixture(scope="module")
def brands(house: House) -> tuple[Brand, Brand]:
    pair = house.brand("fjord"), house.brand("alpen")
    for brand in pair:
        brand.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
        brand.post(
            "/id-tokens", {"type": "ISO14443", "value": f"CARD{brand.slug.upper()}", "status": "accepted"}
        )
    return pair


async def charge_16(station: Station16, token: str) -> str:
    """90 minutes: 60 of charging to 11 kWh, then the car stands for 30."""
    await station.connect()
    assert (await station.boot()).status == "Accepted"
    await station.status(1, "Available")
    assert await station.authorize(token) == "Accepted"
    started = await station.start(1, token, 1_000, minute(0))
    assert started.id_tag_info["status"] == "Accepted"
    transaction = started.transaction_id
    for n in range(1, 7):
        await station.meter(1, transaction, 1_000 + n * 11_000 // 6, 11_000, minute(n * 10))
    await station.meter(1, transaction, 12_000, 0, minute(75))
    await station.stop(transaction, 12_000, minute(90))
    await station.status(1, "Available")
    return str(transaction)


async def charge_201(station: Station201, token: str) -> str:
    await station.connect()
    assert (await station.boot()).status == "Accepted"
    await station.status(1, "Available")
    assert await station.authorize(token) == "Accepted"
    transaction = f"tx-{station.identity}-1"
    answer = await station.event(
        "Started", transaction, 0, meter_wh=1_000, token=token, at=minute(0), trigger="CablePluggedIn"
    )
    assert answer.id_token_info["status"] == "Accepted"
    for n in range(1, 7):
        state = "Charging" if n < 6 else "SuspendedEV"
        reading = 1_000 + n * 11_000 // 6
        await station.event(
            "Updated", transaction, n, meter_wh=reading, power_w=11_000, at=minute(n * 10), state=state
        )
    await station.event(
        "Updated", transaction, 7, meter_wh=12_000, power_w=0, at=minute(75), state="SuspendedEV"
    )
    await station.event(
        "Ended", transaction, 8, meter_wh=12_000, at=minute(90), trigger="StopAuthorized", reason="Local"
    )
    return transaction


def cdr_of(brand: Brand, transaction: str) -> Any:
    """The CDR of a session, once the worker has settled it."""

    def look() -> Any:
        for session in brand.get("/charging-sessions")["data"]:
            if session["ocpp_transaction_id"] == transaction and session["status"] == "COMPLETED":
                return next((c for c in brand.get("/cdrs")["data"] if c["session_id"] == session["id"]), None)
        return None

    return wait_for(f"the CDR of {transaction}", look)


def expected_price(brand: Brand) -> Any:
    """The same engine by another door: an hour of charging with 11 kWh, half an hour of standing."""
    session = {"start": START.isoformat(), "time_zone": "Europe/Berlin", "charging_s": 3600, "parking_s": 1800,
               "energy_kwh": "11"}  # fmt: skip
    return brand.post("/price-previews", {"tariff": TARIFF, "session": session})


async def test_stations_of_two_brands_with_one_identity_charge_at_once_and_nothing_crosses(
    house: House, brands: tuple[Brand, Brand]
):
    fjord, alpen = brands
    _, box16 = commission(house, fjord, Station16)
    _, box201 = commission(house, alpen, Station201)
    assert isinstance(box16, Station16)
    assert isinstance(box201, Station201)
    first, second = await asyncio.gather(charge_16(box16, "CARDFJORD"), charge_201(box201, "CARDALPEN"))
    for brand, transaction in ((fjord, first), (alpen, second)):
        await asyncio.to_thread(check_books, brand, transaction)
    theirs = {str(cdr["id"]) for cdr in alpen.get("/cdrs")["data"]}
    assert not theirs & {str(cdr["id"]) for cdr in fjord.get("/cdrs")["data"]}
    assert await box16.authorize("CARDALPEN") == "Invalid"
    for path in (f"/cdrs/{next(iter(theirs))}", f"/stations/{alpen.get('/stations')['data'][0]['id']}"):
        assert fjord.client.get(path).status_code == 404
    await box16.close()
    await box201.close()


def check_books(brand: Brand, transaction: str) -> None:
    """CDR = invoice = price engine to the cent, and the ledger sums to zero."""
    cdr, wanted = cdr_of(brand, transaction), expected_price(brand)
    assert cdr["total_energy"] == 11.0
    assert cdr["total_cost"] == wanted["total_cost"]
    # 0.50 + 11 * 0.45 + 1 h * 0.60 + 0.5 h * 3.00 = 7.55 net, 19 % on top
    assert cdr["total_cost"] == {"excl_vat": "7.55", "incl_vat": "8.98"}
    invoices = [
        i for i in brand.get("/invoices")["data"] if i["gross"] == {"amount": "8.98", "currency": "EUR"}
    ]
    assert len(invoices) == 1
    assert invoices[0]["number"]
    detail = brand.get(f"/invoices/{invoices[0]['id']}")
    assert sum(Decimal(line["gross"]["amount"]) for line in detail["lines"]) == Decimal("8.98")
    entries = brand.get("/ledger/entries")["data"]
    assert sum(Decimal(entry["amount"]["amount"]) for entry in entries) == 0
    receivable = [e for e in entries if e["account"] == "driver_receivable"]
    assert [e["amount"]["amount"] for e in receivable] == ["8.98"]


async def test_a_queue_sent_twice_after_a_cut_counts_once(house: House, brands: tuple[Brand, Brand]):
    fjord, _ = brands
    _, box = commission(house, fjord, Station16, "CUT-1")
    assert isinstance(box, Station16)
    await box.connect()
    await box.boot()
    started = await box.start(1, "CARDFJORD", 500, minute(0))
    transaction = started.transaction_id
    await box.meter(1, transaction, 2_000, 9_000, minute(10), message_id="m-1")
    await box.cut()
    for attempt in range(2):
        await box.connect()
        await box.boot()
        for n in range(1, 6):
            await box.meter(1, transaction, 500 + n * 1_500, 9_000, minute(n * 10), message_id=f"m-{n}")
        stopped = await box.stop(transaction, 8_500, minute(55))
        assert stopped is not None
        if attempt == 0:
            await box.cut()
    await box.close()
    cdr = await asyncio.to_thread(cdr_of, fjord, str(transaction))
    assert cdr["total_energy"] == 8.0
    session = fjord.get(f"/charging-sessions/{cdr['session_id']}")
    assert session["energy_wh"] == 8_000
    with house.sql() as sql:
        query = "select count(*), count(distinct (sampled_at, measurand)) from livery.meter_value where session_id = %s"
        total, distinct = sql.execute(
            query, [parse_id("charging_session", cdr["session_id"])]
        ).fetchone() or (0, 0)
    assert total == distinct == 10
    assert len([c for c in fjord.get("/cdrs")["data"] if c["session_id"] == cdr["session_id"]]) == 1
