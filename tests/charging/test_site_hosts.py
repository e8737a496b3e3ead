"""Site hosts: a month's share by the contract of the day, each booking on one statement, corrections on the next."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from sqlalchemy import select

from app.billing import ledger
from app.billing import service as billing
from app.charging import settlement, site_hosts
from app.charging.models import CDR, HostContract, HostStatement
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from app.stations.models import Location
from tests.billing.conftest import jobs, shop
from tests.charging.test_cap import Visit, visit
from tests.surfaces.conftest import house
from tests.web import CLI, House

__all__ = ["house", "jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio
HOST = {
    "name": "Marktkauf Nord", "address": "Marktplatz 1", "postal_code": "24937", "city": "Flensburg", "country": "DE",
    "vat_id": "DE129273398", "self_billing_since": "2026-01-01", "language": "en",
}  # fmt: skip
TERMS = {"valid_from": "2026-01-01", "percent": "10", "per_kwh": "0.03", "per_session": "0.25"}


def month_later(months: int) -> datetime:
    at = datetime.now(UTC)
    for _ in range(months):
        at = at.replace(day=1, hour=12) + timedelta(days=32)
    return at.replace(day=2)


async def agree(visit: Visit, host: dict[str, str] | None = None, **terms: str) -> None:
    async with visit.shop.scope() as scope:
        made = await site_hosts.save_host(scope, host or HOST)
        location = (await scope.db.execute(select(Location.id))).scalar_one()
        await site_hosts.add_contract(scope, made.id, location, TERMS | terms)


async def write(visit: Visit, months: int) -> list[HostStatement]:
    database, tenant_id = visit.shop.database, visit.shop.tenant_id
    async with database.scope(tenant_id, CLI, now=month_later(months)) as scope:
        await site_hosts.write_statements(scope)
    async with visit.shop.scope() as scope:
        rows = [row for row, _host in await site_hosts.list_statements(scope)]
        return [await site_hosts.get_statement(scope, row.id) for row in reversed(rows)]


async def hosts_books(visit: Visit) -> dict[str, int]:
    wanted = ("site_host_expense", "site_host_payable", "vat_receivable")
    return {code: minor for code, minor in (await visit.shop.balances()).items() if code in wanted}


async def test_a_month_leaves_the_host_all_three_parts_once_and_its_correction_comes_with_the_next(
    visit: Visit,
) -> None:
    await agree(visit)
    await visit.end(60, 10)  # 10 kWh, 5.00 net
    assert await write(visit, 0) == []  # the month is not over
    await write(visit, 1)
    (row,) = await write(visit, 1)
    assert (row.sessions_count, row.energy_wh, row.revenue_minor) == (1, 10_000, 500)
    assert (row.net_minor, row.vat_minor, row.gross_minor) == (50 + 30 + 25, 20, 125)
    assert row.is_self_billing and row.content["seller_name"] == "Marktkauf Nord"
    assert row.content["name"] == "Self-billed invoice" and row.content["lines"][0]["net"] == "€1.05"
    assert await hosts_books(visit) == {
        "site_host_expense": 105,
        "vat_receivable": 20,
        "site_host_payable": -125,
    }
    database, tenant_id = visit.shop.database, visit.shop.tenant_id
    async with database.scope(tenant_id, CLI, now=month_later(1)) as scope:
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        await settlement.credit(scope, cdr.id, "the meter was wrong", energy_wh=6_000)
    await write(visit, 2)
    first, second = await write(visit, 2)
    assert first.net_minor == 105
    assert (second.sessions_count, second.energy_wh, second.revenue_minor) == (0, -4_000, -200)
    assert (second.net_minor, second.gross_minor) == (-32, -38)
    assert "correction" in second.content["lines"][0]["what"]
    assert second.number != first.number
    async with visit.shop.scope() as scope:
        assert await billing.unbalanced_postings(scope) == []
        with pytest.raises(Refused) as closed:
            await agree(visit, HOST | {"name": "Another"}, percent="20")
    assert closed.value.code == "host_month_closed"


async def test_staff_agree_see_print_and_book_the_payment(visit: Visit, house: House) -> None:
    owner = await house.staff("alpha", visit.shop.tenant_id)
    plain = HOST | {"vat_id": "", "self_billing_since": ""}
    await owner.open("/site-hosts")
    assert (await owner.post("/site-hosts", HOST | {"vat_id": ""})).status_code == 422
    made = await owner.post("/site-hosts", plain)
    path = made.headers["location"]
    shown = (await owner.open(path)).text
    place = shown.partition('<option value="loc_')[2].partition('"')[0]
    terms = TERMS | {"location_id": f"loc_{place}"}
    for wrong in ({"percent": "101"}, {"valid_from": "0001-01-01"}, {"valid_from": "9999-12-31"}):
        assert (await owner.post(f"{path}/contracts", terms | wrong)).status_code == 422
    assert (await owner.post(f"{path}/contracts", terms)).status_code == 303
    await visit.end(60, 10)
    (row,) = await write(visit, 1)
    assert (row.net_minor, row.vat_minor, row.is_self_billing) == (105, 0, False)
    listed = (await owner.open("/site-hosts")).text
    statement = "/host-statements/" + listed.partition('href="/host-statements/')[2].partition('"')[0]
    assert "is no invoice and shows no VAT" in (await owner.open(statement)).text
    assert (await owner.get(f"{statement}/pdf")).content.startswith(b"%PDF")
    assert "To be paid" in listed
    await owner.post(path, plain | {"name": "Another name"})  # its books are by its id
    assert (await owner.post(f"{statement}/payments", {"paid_on": str(date.today())})).status_code == 303
    await owner.post(f"{statement}/payments", {"paid_on": str(date.today())})
    assert "was paid already" in (await owner.open(statement)).text
    books = await visit.shop.balances()
    assert "site_host_payable" not in books and books["bank"] == -105
    async with visit.shop.scope() as scope:
        (host,) = await site_hosts.list_hosts(scope)
        sums = await ledger.sums(scope, "site_host_payable", [public_id("site_host", host.id)])
    assert host.name == "Another name" and list(sums.values()) == [0]


async def test_a_session_is_shared_by_the_contract_of_its_day(visit: Visit) -> None:
    today = datetime.now(UTC).date()
    await agree(visit, percent="50", per_kwh="", per_session="")
    await agree(visit, HOST | {"name": "The next"}, valid_from=str(today - timedelta(days=2)), percent="1", per_kwh="",
                per_session="")  # fmt: skip
    await agree(visit, HOST | {"name": "Not yet"}, valid_from=str(today + timedelta(days=1)))
    await visit.end(60, 10)
    (row,) = await write(visit, 1)
    assert (row.content["seller_name"], row.net_minor) == ("The next", 5)


@pytest.mark.parametrize(
    ("percent", "per_kwh", "per_session", "currency", "share"),
    [("12.5", "0", "0", "EUR", Fraction("62.5")), ("0", "0.0333", "0", "EUR", Fraction("33.3")),
     ("0", "0", "1", "JPY", Fraction(2)), ("0", "0.5", "0.1", "JPY", Fraction("5.2")),
     ("0", "0", "0", "EUR", Fraction(0))],
)  # fmt: skip
def test_a_share_is_exact_until_the_month_is_summed(
    percent: str, per_kwh: str, per_session: str, currency: str, share: Fraction
) -> None:
    contract = HostContract(
        percent=Decimal(percent), per_kwh=Decimal(per_kwh), per_session=Decimal(per_session)
    )
    found = site_hosts.share_of(contract, currency, revenue_minor=500, energy_wh=10_000, sessions=2)
    assert found == share
