"""A tenant that takes cards in the sandbox, with every call on the wire held against Stripe's own definitions."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from app.billing import payments, sandbox
from app.billing.models import Payment, PaymentOp
from app.billing.stripe_connect import StripeConnect
from app.kernel import queue
from app.kernel.clock import uuid7
from app.worker import Gathered
from tenants.database import Database
from tenants.scope import Actor
from tests.billing.stripe_contract import ContractWire
from tests.conftest import DatabaseUrls
from tests.web import CLI, found_brand

GOOD, DECLINED, ASKS = "4242424242424242", "4000000000000002", "4000002760003184"


class Jobs:
    """Runs what is queued, in order and in this process, until nothing is due: a worker that a test can kill.

    `ahead` is how far its clock is ahead of ours.
    """

    ahead = timedelta()

    def __init__(self, database: Database, urls: DatabaseUrls) -> None:
        self.database = database
        self.gathered = Gathered()
        self.connection = psycopg.connect(urls.superuser.replace("+psycopg", ""), autocommit=True)
        self.connection.execute("set search_path = procrastinate, public")
        self.failures: list[str] = []

    async def run(self, *, rounds: int = 20) -> None:
        """A job that raises stays queued, as a worker's would; `rounds` bounds how often it is tried."""
        for _ in range(rounds):
            rows = self.connection.execute(
                "select id, task_name, args from procrastinate.procrastinate_jobs where status = 'todo'"
                " and (scheduled_at is null or scheduled_at <= now() + %s) order by id",
                [self.ahead],
            ).fetchall()
            if not rows:
                return
            for job_id, name, args in rows:
                try:
                    await self._run(name, dict(args))
                except Exception as error:
                    self.failures.append(f"{name}: {type(error).__name__}")
                else:
                    self.connection.execute(
                        "delete from procrastinate.procrastinate_jobs where id = %s", [job_id]
                    )

    async def _run(self, name: str, ids: dict[str, Any]) -> None:
        tenant_id = UUID(ids.pop("tenant"))
        if name == "events.fan_out":
            for event_id in ids["event_ids"]:
                await self._fan_out(tenant_id, event_id)
        elif name in self.gathered.jobs:
            await self.gathered.jobs[name](self.database, tenant_id, **ids)

    async def _fan_out(self, tenant_id: UUID, event_id: str) -> None:
        async with self.database.scope(tenant_id, Actor.job("events.fan_out")) as scope:
            query = text("select kind from livery.event where id = :id")
            kind = (await scope.db.execute(query, {"id": event_id})).scalar_one()
            for name in self.gathered.listeners.get(kind, []):
                await queue.enqueue(scope, name, event_id=event_id)


@dataclass
class Shop:
    database: Database
    tenant_id: UUID
    wire: ContractWire
    jobs: Jobs
    source_id: UUID = field(default_factory=uuid7)

    def scope(self) -> Any:
        return self.database.scope(self.tenant_id, CLI)

    async def hold(self, minor: int = 3000) -> Payment:
        """As far as the hosted page."""
        self.source_id = uuid7()
        async with self.scope() as scope:
            payment, op = await payments.open_payment(
                scope, source_type="test", source_id=self.source_id, hold_minor=minor, currency="EUR", title="Charging",
                success_url="http://a.localhost/s", cancel_url="http://a.localhost/c", email="", language="en",
            )  # fmt: skip
        await payments.run_op(self.database, self.tenant_id, op.id)
        return await self.read(payment.id)

    async def pay(self, payment: Payment, card: str = GOOD) -> dict[str, Any]:
        return await sandbox.pay_checkout(
            self.database, payment.account_ref, payment.checkout_ref or "", card, "driver@a.example"
        )

    async def look(self, payment: Payment) -> Payment:
        await payments.observe(self.database, self.tenant_id, payment.id)
        return await self.read(payment.id)

    async def read(self, payment_id: UUID) -> Payment:
        async with self.scope() as scope:
            return await payments.get_payment(scope, payment_id)

    async def charge(self, gross_minor: int) -> None:
        """The invoice is issued, and what it comes to is taken."""
        async with self.scope() as scope:
            await payments.ledger.post(scope, "invoice_issued", "test", self.source_id, scope.now, [
                payments.Posting("driver_receivable", gross_minor, "EUR"),
                payments.Posting("revenue", -gross_minor, "EUR"),
            ])  # fmt: skip
            await payments.capture(scope, "test", self.source_id, gross_minor)

    async def release(self, reason: str = "given_up") -> None:
        async with self.scope() as scope:
            await payments.release(scope, "test", self.source_id, reason)

    async def ops(self, payment: Payment) -> list[tuple[str, str]]:
        async with self.scope() as scope:
            rows = await scope.db.execute(
                payments.select(PaymentOp).where(PaymentOp.payment_id == payment.id).order_by(PaymentOp.id)
            )
            return [(op.kind, op.state) for op in rows.scalars()]

    async def balances(self) -> dict[str, int]:
        """What is not zero in the books."""
        query = text("""
            select a.code, sum(e.amount_minor)::bigint as total from livery.ledger_entry e
              join livery.ledger_account a on a.tenant_id = e.tenant_id and a.id = e.account_id
             group by a.code having sum(e.amount_minor) <> 0""")
        async with self.scope() as scope:
            return {row.code: row.total for row in await scope.db.execute(query)}

    async def captures(self, payment: Payment) -> list[int]:
        """What the provider really took: one balance transaction for each capture."""
        async with self.database.sandbox() as db:
            rows = await db.execute(
                text("select body from sandbox.object where kind = 'balance_transaction' and account = :account"
                     " and body->>'source' in (select id from sandbox.object where kind = 'charge'"
                     " and body->>'payment_intent' = :intent)"),
                {"account": payment.account_ref, "intent": payment.provider_ref},
            )  # fmt: skip
            return [row.body["amount"] for row in rows]

    async def tell(self, *, copies: int = 1, reverse: bool = False) -> list[bool]:
        """The provider's news reach us: so many times, in this order."""
        taken = []
        waiting = await sandbox.take_deliveries(self.database)
        for _ in range(copies):
            for delivery_id, event in reversed(waiting) if reverse else waiting:
                taken.append(await self.news(event))
                await sandbox.delivered(self.database, delivery_id)
        return taken

    async def news(self, event: dict[str, Any], *, ahead_s: int = 0, secret: str = "") -> bool:
        body = json.dumps(event).encode()
        now = payments_now()
        stamp = int(now.timestamp()) + ahead_s
        signature = sandbox.sign(body, secret or sandbox.webhook_secret(self.database.settings), stamp)
        return await payments.take_news(self.database, body, signature, now)


def payments_now() -> Any:
    from app.kernel.clock import utcnow

    return utcnow()


@pytest.fixture
def jobs(database: Database, database_urls: DatabaseUrls) -> Iterator[Jobs]:
    made = Jobs(database, database_urls)
    yield made
    made.connection.close()


@pytest.fixture
async def shop(database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    wire = ContractWire(database)
    provider = StripeConnect(database.settings, wire=wire)
    monkeypatch.setattr(payments, "provider_of", lambda _settings: provider)
    tenant_id = await found_brand(database, "alpha")
    await payments.open_account(database, tenant_id)
    async with database.scope(tenant_id, CLI) as scope:
        account = await payments.find_account(scope)
        assert account is not None
        account.fee_percent, account.fee_fixed_minor = payments.Decimal("5"), 10
    yield Shop(database, tenant_id, wire, jobs)
