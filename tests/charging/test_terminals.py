"""Card terminals of others: what they tell is taken once, in any order, finds its session, and is in the books."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.access.verdict import IdTokenValue
from app.billing import paper, payments, terminals
from app.billing.models import Payment, PaymentTerminal
from app.charging import paid, service, settlement, terminal_sessions
from app.charging.models import ChargingSession, SessionEvent
from app.charging.reports import TransactionReport
from app.kernel.clock import utcnow
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import public_id
from tenants.scope import Actor
from tests.billing import invariants
from tests.billing.conftest import jobs, shop
from tests.charging.test_account import Yard, yard
from tests.surfaces.conftest import house
from tests.web import CLI, House

__all__ = ["house", "jobs", "shop", "yard"]
pytestmark = pytest.mark.anyio

FIELDS = {
    "name": "Gate",
    "vendor": "Payter",
    "serial": "P66-1",
    "acquirer": "Worldline",
    "contract_no": "4711",
}
CONTRACT = "Worldline 4711"


@dataclass
class Gate:
    """A terminal built into the yard's one station, where 10 kWh cost 5.00 and VAT comes on top: 5.95."""

    yard: Yard
    terminal: PaymentTerminal
    number: int = 0

    async def tell(self, kind: str, amount: str, at: datetime, /, **more: str) -> tuple[str, bool]:
        """(its state, is it new), as the REST call takes it."""
        self.number += 1
        data = {"terminal": "P66-1", "record_id": f"r{self.number}", "transaction_id": "psp-1", "kind": kind,
                "amount": amount, "at": at.isoformat(), "card": "Visa •••• 4242"} | more  # fmt: skip
        async with self.yard.shop.scope() as scope:
            row, is_new = await terminal_sessions.take(scope, await terminal_sessions.read_told(scope, data))
            state = "waiting" if row.is_waiting else "dismissed" if row.dismissed_at else "matched"
        await self.yard.shop.jobs.run()
        return state, is_new

    async def begin(self, at: datetime, token: IdTokenValue | None = None) -> tuple[UUID, str]:
        """(session, the station's transaction), begun by that token or by nobody."""
        shop, self.number = self.yard.shop, self.number + 1
        async with shop.database.scope(shop.tenant_id, Actor.station(self.yard.station_id), now=at) as scope:
            verdict = await service.report_transaction(scope, self.yard.station_id, TransactionReport(
                kind="Started", at=at, received_at=at, natural_key=f"t{self.number}", evse_no=1, connector_no=1,
                id_token=token, meter_start_wh=Decimal(0),
            ))  # fmt: skip
            of_it = ChargingSession.ocpp_transaction_id == verdict.ocpp_transaction_id
            session_id = (await scope.db.execute(select(ChargingSession.id).where(of_it))).scalar_one()
        await shop.jobs.run()
        return session_id, verdict.ocpp_transaction_id

    async def end(self, session_id: UUID, transaction: str, at: datetime, kwh: int = 10) -> None:
        shop = self.yard.shop
        async with shop.database.scope(shop.tenant_id, Actor.station(self.yard.station_id), now=at) as scope:
            await service.report_transaction(scope, self.yard.station_id, TransactionReport(
                kind="Ended", at=at, received_at=at, natural_key=f"e{session_id}", ocpp_transaction_id=transaction,
                meter_stop_wh=Decimal(kwh * 1000),
            ))  # fmt: skip
        async with shop.database.scope(shop.tenant_id, CLI, now=at) as scope:
            await settlement.settle(scope, session_id)
        await shop.jobs.run()

    async def charge(self, at: datetime, token: IdTokenValue | None = None) -> UUID:
        session_id, transaction = await self.begin(at, token)
        await self.end(session_id, transaction, at + timedelta(hours=1))
        return session_id

    async def payment(self, session_id: UUID) -> Payment:
        async with self.yard.shop.scope() as scope:
            payment = await payments.find_payment(scope, "charging_session", session_id)
            assert payment is not None
            return payment

    async def papers(self, session_id: UUID) -> list[dict[str, Any]]:
        async with self.yard.shop.scope() as scope:
            rows = await settlement.list_papers(scope, session_id)
            return [(await paper.find_paper(scope, row.id)).content("Europe/Berlin") for row in rows]

    async def faults(self) -> list[str]:
        shop = self.yard.shop
        return await invariants.money_faults(shop.database, shop.tenant_id, now=utcnow())


@pytest.fixture
async def gate(yard: Yard) -> Gate:
    async with yard.shop.scope() as scope:
        terminal = await terminals.register(
            scope, FIELDS, location_id=yard.location_id, station_id=yard.station_id
        )
    return Gate(yard, terminal)


PSP = IdTokenValue("psp-1", "DirectPayment")


async def test_a_session_begun_at_the_terminal_is_capped_by_its_card_papered_and_paid(gate: Gate) -> None:
    """Held, charged, settled, paid out: the books come to nothing at the terminal, the acquirer and the driver."""
    began = utcnow() - timedelta(hours=3)
    assert await gate.tell("authorized", "50.00", began) == ("waiting", True)
    session_id, transaction = await gate.begin(began, PSP)
    async with gate.yard.shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        assert (session.id_token_status, session.cost_cap_minor) == ("Accepted", 5000)
    await gate.end(session_id, transaction, began + timedelta(hours=1))
    owed = (await gate.yard.shop.balances())["driver_receivable"]
    assert owed > 0 and await gate.faults() == []
    amount = f"{owed / 100:.2f}"
    assert await gate.tell("settled", amount, began + timedelta(hours=1)) == ("matched", True)
    payment = await gate.payment(session_id)
    assert (payment.provider, payment.state, payment.captured_minor) == ("terminal", "captured", owed)
    (paper,) = await gate.papers(session_id)
    assert "paid at the card terminal, Visa •••• 4242" in paper["paid"]
    books = await gate.yard.shop.balances()
    assert books["terminal_clearing"] == owed
    assert not {"driver_receivable", "terminal_unmatched"} & set(books)
    async with gate.yard.shop.scope() as scope:
        paid = {"contract": CONTRACT, "currency": "EUR", "paid_on": f"{utcnow():%Y-%m-%d}"}
        with pytest.raises(Refused) as refused:
            await terminals.record_payout(scope, **paid, amount="99.00", fee="", reference="S1")
        assert refused.value.code == "payout_too_high"
        net = f"{(owed - 10) / 100:.2f}"
        await terminals.record_payout(scope, **paid, amount=net, fee="0.10", reference="S1")
    books = await gate.yard.shop.balances()
    assert (books["bank"], books["acquirer_fee"]) == (owed - 10, 10) and "terminal_clearing" not in books
    assert await gate.faults() == []


async def test_told_twice_is_once_told_otherwise_is_refused_and_any_order_comes_to_the_same(
    gate: Gate,
) -> None:
    began = utcnow() - timedelta(hours=3)
    settled = began + timedelta(hours=1)
    session_id, _transaction = await gate.begin(began, PSP)
    assert await gate.tell("reversed", "2.00", settled + timedelta(minutes=5), record_id="r") == (
        "matched", True,
    )  # fmt: skip
    assert "terminal_clearing" not in await gate.yard.shop.balances()  # of nothing that was taken yet
    assert await gate.tell("settled", "6.00", settled, record_id="s") == ("matched", True)
    assert await gate.tell("authorized", "50.00", began, record_id="a") == ("matched", True)
    assert await gate.tell("settled", "6.00", settled, record_id="s") == ("matched", False)
    # The acquirer's file tells the same settlement under a number of its own.
    assert await gate.tell("settled", "6.00", settled, record_id="file-1") == ("matched", False)
    payment = await gate.payment(session_id)
    assert (payment.hold_minor, payment.captured_minor, payment.refunded_minor) == (5000, 600, 200)
    assert (await gate.yard.shop.balances())["terminal_clearing"] == 400
    for code, kind, amount, more in (
        ("record_differs", "settled", "7.00", {"record_id": "s"}),
        ("already_settled", "settled", "7.00", {"record_id": "s2"}),
        ("reversed_too_high", "reversed", "4.01", {}),
        ("other_currency", "reversed", "1.00", {"currency": "CHF"}),
    ):
        with pytest.raises(Refused) as refused:
            await gate.tell(kind, amount, settled + timedelta(minutes=9), **more)
        assert refused.value.code == code
    for field, more in (("card", {"card": "4242 4242 4242 4242"}), ("approval_code", {"approval_code": "4" * 16}),
                        ("amount", {"amount": "1,0"}),
                        ("kind", {"kind": "lost"}), ("at", {"at": "2026-05-01"}), ("terminal", {"terminal": "X"}),
                        ("evse", {"evse": "9"})):  # fmt: skip
        with pytest.raises(Invalid) as invalid:
            await gate.tell("settled", "1.00", began, **{"transaction_id": "psp-2"} | more)
        assert [fault.field for fault in invalid.value.faults] == [field]


async def test_what_no_session_is_certain_for_waits_until_staff_match_or_dismiss_it(gate: Gate) -> None:
    """Without a token: the one session at that EVSE about that time, else nobody's. A settled one gets a paper that
    says how it was paid."""
    began = utcnow() - timedelta(hours=5)
    session_id, transaction = await gate.begin(began)
    at = began + timedelta(minutes=2)
    assert await gate.tell("authorized", "50.00", at, evse="1") == ("matched", True)
    assert (await gate.payment(session_id)).hold_minor == 5000
    # The same place, when somebody pays already.
    assert await gate.tell("settled", "3.00", at, evse="1", transaction_id="psp-2") == ("waiting", True)
    await gate.end(session_id, transaction, began + timedelta(hours=1))
    later = await gate.charge(began + timedelta(hours=2))
    settled = began + timedelta(hours=3)
    assert await gate.tell("settled", "5.00", settled, evse="1", transaction_id="psp-3") == ("waiting", True)
    assert await gate.tell("settled", "5.00", settled, currency="CHF", transaction_id="psp-4", evse="1") == (
        "waiting", True,
    )  # fmt: skip
    assert await gate.faults() == []
    async with gate.yard.shop.scope() as scope:
        swiss, third, second = await terminals.list_records(scope, is_waiting=True)
        assert await terminals.count_waiting(scope) == 3
        assert [one.session.id for one in await terminal_sessions.list_candidates(scope, third)] == [later]
        for row, session in ((second, session_id), (swiss, later)):
            with pytest.raises(Refused) as refused:
                await terminal_sessions.match(scope, row.id, session)
            assert refused.value.code == ("session_paid" if row is second else "other_currency")
        await terminals.dismiss(scope, second.id, "A test by the fitter")
        await terminal_sessions.match(scope, third.id, later)
    await gate.yard.shop.jobs.run()
    payment, papers = await gate.payment(later), await gate.papers(later)
    assert payment.captured_minor == 500 and "paid at the card terminal" in papers[-1]["paid"]
    books = await gate.yard.shop.balances()
    assert books["other_income"] == -300 and await gate.faults() == []
    # What comes later of a transaction goes the way of the others, also where a station presents it after all.
    await gate.charge(utcnow() - timedelta(minutes=90), IdTokenValue("psp-2", "DirectPayment"))
    assert await gate.faults() == []
    assert await gate.tell("reversed", "3.00", utcnow(), transaction_id="psp-2") == ("dismissed", True)
    assert "other_income" not in await gate.yard.shop.balances()


async def test_too_little_stays_owed_until_written_off_and_too_much_until_it_is_given_back(
    gate: Gate, house: House
) -> None:
    began = utcnow() - timedelta(hours=3)
    session_id = await gate.charge(began, PSP)
    owed = (await gate.yard.shop.balances())["driver_receivable"]
    await gate.tell("settled", f"{(owed - 40) / 100:.2f}", began + timedelta(hours=1))
    payment = await gate.payment(session_id)
    async with gate.yard.shop.scope() as scope:
        assert [(one.id, minor) for one, minor in await payments.list_short(scope)] == [(payment.id, 40)]
        assert await payments.write_off_short(scope, payment.id, "The tariff on the terminal was old") == 40
        with pytest.raises(Refused, match="lacks"):
            await payments.write_off_short(scope, payment.id, "again")
        assert await payments.list_short(scope) == []
    assert await gate.faults() == []
    other = await gate.charge(began + timedelta(hours=1, minutes=30), IdTokenValue("psp-9", "DirectPayment"))
    more = f"{(owed + 100) / 100:.2f}"
    settled = began + timedelta(hours=2, minutes=30)
    await gate.tell("settled", more, settled, transaction_id="psp-9")
    payment = await gate.payment(other)
    async with gate.yard.shop.scope() as scope:
        assert (await payments.find_back(scope, payment)).refused_minor == 100
        with pytest.raises(Refused) as refused:
            await payments.refund_again(scope, payment.id)
        assert refused.value.code == "at_the_terminal"
    staff = await house.staff("alpha", gate.yard.shop.tenant_id)
    shown = (await staff.open(f"/payments/{public_id('payment', payment.id)}")).text
    assert "What the acquirer gives back" in shown and "Try again" not in shown
    assert await gate.faults() == []
    # Staff credit all of it; the acquirer gives back 1.00, and the rest is sent by transfer.
    async with gate.yard.shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The cable was broken")
    await gate.tell("reversed", "1.00", settled + timedelta(minutes=5), transaction_id="psp-9")
    payment = await gate.payment(other)
    async with gate.yard.shop.scope() as scope:
        assert (await payments.find_back(scope, payment)).refused_minor == owed
        await payments.record_repayment(scope, payment.id, "Transfer 1")
    payment = await gate.payment(other)
    async with gate.yard.shop.scope() as scope:
        assert (await payments.find_back(scope, payment)).refused_minor == 0
    books = await gate.yard.shop.balances()
    assert "driver_receivable" not in books and await gate.faults() == []


async def test_a_file_is_taken_whole_or_not_at_all_and_says_what_is_wrong_with_which_line(gate: Gate) -> None:
    began = utcnow() - timedelta(days=20)
    head = ",".join(terminal_sessions.COLUMNS)
    good = [f"P66-1,f{no},psp-{no},settled,12.50,EUR,{began.isoformat()},*1234,77,1," for no in (1, 2)]

    async def take(*lines: str) -> tuple[int, int, list[tuple[int, str]]]:
        async with gate.yard.shop.scope() as scope:
            raw = "\ufeff" + "\n".join([head, *lines]) + "\n"
            new, known, faults = await terminal_sessions.import_file(scope, raw.encode())
            return new, known, [(one.line, one.message) for one in faults]

    _new, _known, faults = await take(
        good[0], good[0].replace("f1", "f3").replace("12.50", "12.60"), good[1].replace("12.50", "12.505")
    )
    assert faults == [
        (3, "Transaction psp-1 is settled already."),
        (4, "amount is no such: an amount is written 12.34."),
    ]
    assert await gate.yard.shop.balances() == {}
    assert await take(*good) == (2, 0, []) and await take(*good) == (0, 2, [])
    async with gate.yard.shop.scope() as scope:
        for raw in (b"\xff\xfe", b"", b"a,b\n1,2\n"):
            with pytest.raises(Invalid):
                await terminal_sessions.import_file(scope, raw)
        (clearing,) = await terminals.list_clearing(scope)
    assert (clearing.contract, clearing.owed_minor, clearing.stale_minor) == (CONTRACT, 2500, 0)
    after = utcnow() + terminals.PAID_WITHIN + timedelta(days=1)
    async with gate.yard.shop.database.scope(gate.yard.shop.tenant_id, CLI, now=after) as scope:
        (clearing,) = await terminals.list_clearing(scope)
    assert clearing.stale_minor == 2500


async def test_a_token_of_a_terminal_is_accepted_only_where_one_stands(yard: Yard) -> None:
    gate = Gate(yard, PaymentTerminal())
    session_id, transaction = await gate.begin(utcnow() - timedelta(hours=1), PSP)
    async with yard.shop.scope() as scope:
        assert (await service.get_session(scope, session_id)).id_token_status == "Invalid"
        row = await terminals.register(scope, FIELDS, location_id=yard.location_id, station_id=None)
        with pytest.raises(Refused, match="registered already"):
            await terminals.register(scope, FIELDS, location_id=yard.location_id, station_id=None)
        assert await terminals.find_serving(scope, yard.station_id) is not None
        await terminals.retire(scope, row.id)
        assert await terminals.find_serving(scope, yard.station_id) is None
        with pytest.raises(Invalid) as invalid:
            await terminals.register(scope, {}, location_id=None, station_id=None)
    assert len(invalid.value.faults) == 6 and public_id("payment_terminal", row.id).startswith("trm_")
    assert transaction


async def test_staff_register_take_in_match_and_book_by_pages_and_a_vendor_tells_by_its_own_key(
    gate: Gate, house: House
) -> None:
    tenant_id, began = gate.yard.shop.tenant_id, utcnow() - timedelta(hours=3)
    api = await house.api("alpha", tenant_id, "terminal_records.manage")
    body = {"terminal": "P66-1", "record_id": "v1", "transaction_id": "psp-1", "kind": "settled",
            "amount": {"amount": "5.95", "currency": "EUR"}, "at": began.isoformat(), "card": "Visa 4242"}  # fmt: skip
    told = await api.send("POST", "/api/v1/terminal-records", json=body)
    again = await api.send("POST", "/api/v1/terminal-records", json=body)
    assert (told.status_code, again.status_code, told.json()) == (201, 200, again.json())
    assert told.json()["state"] == "unmatched" and told.json()["amount"] == {
        "amount": "5.95",
        "currency": "EUR",
    }
    other = await api.send("POST", "/api/v1/terminal-records", json=body | {"amount": "6.00"})
    assert (other.status_code, other.json()["code"]) == (409, "record_differs")
    assert (await api.send("GET", "/api/v1/terminal-records")).status_code == 403

    staff = await house.staff("alpha", tenant_id)
    assert "Gate" in (await staff.open("/terminals")).text
    location = public_id("location", gate.yard.location_id)
    form = FIELDS | {"name": "Kiosk", "serial": "P66-2", "location_id": location}
    wrong = await staff.post("/terminals", form | {"location_id": "", "vendor": ""})
    assert wrong.status_code == 422 and wrong.text.count('class="fault"') == 2
    assert (await staff.post("/terminals", form)).status_code == 303
    head = ",".join(terminal_sessions.COLUMNS)
    line = f"P66-2,f1,psp-7,settled,3.00,,{began.isoformat()},*1234,,,"
    send = {"files": {"file": ("r.csv", f"{head}\n{line}\nP99,f2\n".encode())}}
    wrong = await staff.post("/terminal-records", {}, **send)
    assert wrong.status_code == 422 and "nothing was taken" in wrong.text and "serial number" in wrong.text
    assert "psp-7" not in (await staff.open("/terminal-records")).text
    send = {"files": {"file": ("r.csv", f"{head}\n{line}\n".encode())}}
    assert (await staff.post("/terminal-records", {}, **send)).status_code == 303
    session_id = await gate.charge(began)
    path = f"/terminal-records/{told.json()['id']}"
    shown = public_id("charging_session", session_id)
    assert shown in (await staff.open(path)).text
    assert (await staff.post(f"{path}/dismissals", {"note": ""})).status_code == 422
    assert (await staff.post(f"{path}/matches", {"session_id": "x"})).status_code == 422
    assert (await staff.post(f"{path}/matches", {"session_id": shown})).status_code == 303
    assert (await gate.payment(session_id)).captured_minor == 595
    assert "Visa 4242" in (await staff.open(path)).text
    owed = {"contract": f"{CONTRACT}|EUR", "amount": "8.90", "fee": "0.05", "paid_on": f"{utcnow():%Y-%m-%d}"}
    assert (await staff.post("/terminals/payouts", owed | {"reference": ""})).status_code == 422
    assert (await staff.post("/terminals/payouts", owed | {"reference": "S1"})).status_code == 303
    again = await staff.post("/terminals/payouts", owed | {"reference": "S1"})
    assert again.status_code == 409
    assert "terminal_clearing" not in await gate.yard.shop.balances()


async def test_a_terminal_that_takes_the_money_first_caps_its_session_by_that_and_stops_no_car(
    gate: Gate,
) -> None:
    began = utcnow() - timedelta(minutes=2)
    session_id, _transaction = await gate.begin(began, PSP)
    assert await gate.tell("settled", "20.00", began) == ("matched", True)
    shop = gate.yard.shop
    async with shop.scope() as scope:
        assert (await service.get_session(scope, session_id)).cost_cap_minor == 2000
        await paid.watch_cap(scope, session_id, comes_back=False)
    async with shop.scope() as scope:
        told = select(SessionEvent.kind).where(SessionEvent.session_id == session_id)
        assert not {"hold_gone", "cap_reached"} & set((await scope.db.execute(told)).scalars())


async def test_one_token_for_all_cards_is_given_up_for_the_payment_that_was_told(gate: Gate) -> None:
    """The terminal presents a token of its own; its acquirer tells the payment under another number."""
    began = utcnow() - timedelta(hours=3)
    session_id, transaction = await gate.begin(began, IdTokenValue("TERMINAL", "DirectPayment"))
    at = began + timedelta(minutes=1)
    assert await gate.tell("authorized", "50.00", at, evse="1", transaction_id="psp-77") == ("matched", True)
    payment = await gate.payment(session_id)
    assert (payment.provider_ref, payment.state, payment.hold_minor) == ("psp-77", "authorized", 5000)
    await gate.end(session_id, transaction, began + timedelta(hours=1))
    assert await gate.faults() == []


async def test_a_part_let_go_before_its_hold_is_told_leaves_the_hold_standing(gate: Gate) -> None:
    began = utcnow() - timedelta(hours=3)
    session_id, _transaction = await gate.begin(began, PSP)
    assert await gate.tell("reversed", "20.00", began + timedelta(minutes=1), record_id="r") == (
        "matched",
        True,
    )
    assert (await gate.payment(session_id)).state == "created"
    assert await gate.tell("authorized", "50.00", began, record_id="a") == ("matched", True)
    payment = await gate.payment(session_id)
    assert (payment.state, payment.hold_minor) == ("authorized", 5000)


async def test_an_acquirer_collects_what_was_given_back_after_it_had_paid_out(gate: Gate) -> None:
    began = utcnow() - timedelta(hours=3)
    await gate.tell("settled", "6.00", began, record_id="s")
    book = {
        "contract": CONTRACT, "currency": "EUR", "fee": "", "paid_on": f"{utcnow():%Y-%m-%d}",
    }  # fmt: skip
    shop = gate.yard.shop
    async with shop.scope() as scope:
        await terminals.record_payout(scope, **book, amount="6.00", reference="S1")
    await gate.tell("reversed", "4.00", began + timedelta(minutes=9), record_id="r")
    assert (await shop.balances())["terminal_clearing"] == -400
    for amount in ("1.00", "-4.01"):
        with pytest.raises(Refused, match="is owed €4"):
            async with shop.scope() as scope:
                await terminals.record_payout(scope, **book, amount=amount, reference="S2")
    async with shop.scope() as scope:
        await terminals.record_payout(scope, **book | {"fee": "0.10"}, amount="-4.10", reference="S2")
    books = await shop.balances()
    assert (books["bank"], books["acquirer_fee"]) == (190, 10) and "terminal_clearing" not in books


async def test_a_station_tells_its_settlement_again_at_another_time_and_it_is_the_same(gate: Gate) -> None:
    began = utcnow() - timedelta(hours=3)
    session_id, _transaction = await gate.begin(began, PSP)
    for minutes in (60, 61):
        async with gate.yard.shop.scope() as scope:
            assert await terminal_sessions.settlement_reported(
                scope, gate.yard.station_id, status="Settled", psp_ref=PSP.value, transaction_id="",
                amount=Decimal("6.00"), at=began + timedelta(minutes=minutes),
            )  # fmt: skip
    assert (await gate.payment(session_id)).captured_minor == 600
