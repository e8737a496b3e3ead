"""Whoever dies, whenever: a guest pays once or not at all, and is told so."""

from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from app.asgi import FrontDoor
from app.billing import payments
from app.billing.stripe_connect import StripeConnect
from app.charging import driver
from app.charging.models import SessionEvent
from app.kernel.settings import load_settings
from app.notifications import jobs as notifications
from app.tariffs import service as tariffs
from tenants.redis import Redis
from tests.billing.conftest import ASKS, GOOD, Jobs
from tests.charging.crashes import (
    DELIVERIES,
    PRICES,
    Delivery,
    Fate,
    MortalDatabase,
    MortalWire,
    Town,
    tariff_of,
)
from tests.conftest import DatabaseUrls, Proof, settings_environment
from tests.web import CLI, found_brand

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(5400)]
PAIRS = 60


@pytest.fixture
async def town(
    database_urls: DatabaseUrls, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Town]:
    fate, mails = Fate(), []
    settings = load_settings(
        settings_environment(database_urls, redis_url) | {"SMTP_URL": "smtp://mail.example"}
    )
    redis = Redis(redis_url)
    database = MortalDatabase(settings, redis, fate)
    wire = MortalWire(database, fate)
    provider = StripeConnect(database.settings, wire=wire)
    monkeypatch.setattr(payments, "provider_of", lambda _settings: provider)

    async def deliver(_smtp_url: str, message: object) -> tuple[str, None]:
        fate.step("mail not handed over")
        mails.append(message["Message-ID"])  # type: ignore[index]
        fate.step("mail handed over")
        return "sent", None

    monkeypatch.setattr(notifications, "_deliver", deliver)
    monkeypatch.setattr(driver, "OTHER_TAP_TAKES_S", 0)  # the other tap is dead
    tenant_id = await found_brand(database, "alpha")
    await payments.open_account(database, tenant_id)
    async with database.scope(tenant_id, CLI) as scope:
        account = await payments.find_account(scope)
        assert account is not None
        account.fee_percent, account.fee_fixed_minor = payments.Decimal("5"), 10
        tariff = await tariffs.create_tariff(scope, tariff_of(PRICES[0]), {"default": True})
    wire.tenants[account.account_ref] = tenant_id
    jobs = Jobs(database, database_urls)
    door = FrontDoor(database.settings, database=database, redis=redis)
    yield Town(database, tenant_id, door, jobs, fate, mails, wire, tariff.id)
    jobs.connection.close()
    await database.close()
    await redis.close()


async def test_a_guest_pays_once_or_not_at_all_whichever_step_somebody_dies_at(
    town: Town, proof: Proof, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step of web and worker x every delivery of the provider's news, then pairs of deaths."""
    matrix: dict[str, dict[str, str]] = defaultdict(dict)
    wrong: list[str] = []
    counts, cells = {}, 0
    for delivery in DELIVERIES:
        calm, _ = await _outcome(town, delivery)
        assert not calm, calm
        counts[delivery.name] = len(town.fate.steps)
        for step in sorted(proof.random(f"crashes {delivery.name}").sample(
            range(counts[delivery.name]), proof.share(counts[delivery.name], 20)
        )):  # fmt: skip
            faults, killed = await _outcome(town, delivery, step)
            cells += 1
            name = killed[0] if killed else "(the visit was over before)"
            matrix[name][delivery.name] = "ok" if not faults else "WRONG"
            wrong += [f"{name} x {delivery.name}: {fault}" for fault in faults]
    pairs = proof.share(PAIRS, 20)
    chosen = proof.random("crashes in pairs")
    for _ in range(pairs):
        delivery = chosen.choice(DELIVERIES)
        faults, killed = await _outcome(town, delivery, *chosen.sample(range(counts[delivery.name]), 2))
        wrong += [f"{' + '.join(killed)} x {delivery.name}: {fault}" for fault in faults]
    with capsys.disabled():
        print(_drawn(matrix))
    proof.write("crashes", {
        "steps": counts, "cells": cells, "pairs_of_deaths": pairs, "wrong": len(wrong),
        "sessions": town.visits, "matrix": matrix if proof.full else len(matrix),
    })  # fmt: skip
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("number", [GOOD, ASKS])
async def test_a_saved_card_pays_once_whichever_step_somebody_dies_at(
    town: Town, proof: Proof, number: str
) -> None:
    """The same of a driver who is away: the hold is asked off session, and where the bank wants to see them, they come
    back by the mail's link. Each step once, under a delivery of its own."""
    calm, _ = await _outcome(town, DELIVERIES[1], number=number)
    assert not calm, calm
    steps, wrong, chosen = (
        len(town.fate.steps),
        list[str](),
        proof.random(f"crashes of a saved card {number}"),
    )
    for step in sorted(chosen.sample(range(steps), proof.share(steps, 30))):
        delivery = DELIVERIES[step % len(DELIVERIES)]
        faults, killed = await _outcome(town, delivery, step, number=number)
        wrong += [f"{' + '.join(killed)} x {delivery.name}: {fault}" for fault in faults]
    proof.write(f"crashes_saved_card_{number}", {"steps": steps, "wrong": len(wrong)})
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("number", [GOOD, "4000000000010017"])
async def test_a_session_over_several_legs_is_paid_once_whichever_step_somebody_dies_at(
    town: Town, proof: Proof, number: str
) -> None:
    """Of which one runs out and is taken on the way; with the second card a hold is raised, and then refused to be."""
    async with town.scope() as scope:
        own = await payments.get_own_account(scope)
        own.hold_ac_minor, own.max_legs = 400, 6
    calm, _ = await _outcome(town, DELIVERIES[1], number=number, is_long=True)
    assert not calm, calm
    assert any("increment" in step for step in town.fate.steps) == (number != GOOD)
    async with town.scope() as scope:
        legs = (
            (await scope.db.execute(payments.select(payments.Payment).order_by(payments.Payment.leg)))
            .scalars()
            .all()
        )
        kinds = (await scope.db.execute(payments.select(SessionEvent.kind))).scalars().all()
    assert legs[0].captured_minor < sum(leg.captured_minor for leg in legs) and "leg_taken" in kinds
    steps, wrong, chosen = len(town.fate.steps), list[str](), proof.random(f"crashes of legs {number}")
    for step in sorted(chosen.sample(range(steps), proof.share(steps, 30))):
        delivery = DELIVERIES[step % len(DELIVERIES)]
        faults, killed = await _outcome(town, delivery, step, number=number, is_long=True)
        wrong += [f"{' + '.join(killed)} x {delivery.name}: {fault}" for fault in faults]
    proof.write(f"crashes_of_legs_{number}", {"steps": steps, "wrong": len(wrong)})
    assert not wrong, "\n".join(wrong[:20])


async def _outcome(
    town: Town, delivery: Delivery, *kills: int, number: str = "", is_long: bool = False
) -> tuple[list[str], list[str]]:
    visit = await town.visit(delivery, *kills, number=number, is_long=is_long)
    try:
        await visit.go()
    except AssertionError as error:
        return [str(error)], list(town.fate.killed)
    return await visit.faults(), list(town.fate.killed)


def _drawn(matrix: dict[str, dict[str, str]]) -> str:
    width = max(map(len, matrix), default=0) + 2
    names = [delivery.name for delivery in DELIVERIES]
    lines = [" " * width + "".join(f"{name:>10}" for name in names)]
    lines += [
        f"{step:{width}}" + "".join(f"{row.get(name, '·'):>10}" for name in names)
        for step, row in matrix.items()
    ]
    return "\n" + "\n".join(lines)
