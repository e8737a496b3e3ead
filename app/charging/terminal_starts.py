"""A session that a station begins by the card at its terminal (docs/decisions/0037): the `DirectPayment` token is the
reference of the card payment that pays for it, whether or not anything was told of that yet."""

from sqlalchemy import select

from app.billing import payments, terminals
from app.billing.models import Payment
from app.brands import faces
from app.charging.models import ChargingSession, PriceSnapshot
from app.kernel import queue
from app.kernel.errors import Refused
from tenants.scope import Scope

TYPE = "DirectPayment"


async def present(scope: Scope, session: ChargingSession, token: str) -> None:
    """Twice is once. A terminal that presents one token for all its cards leaves open which payment it was: then EVSE
    and time decide, or staff (`terminal_sessions`)."""
    is_terminals = session.id_token_status == "Accepted" and session.id_token_id is None
    if not is_terminals or await payments.find_payment(scope, "charging_session", session.id) is not None:
        return
    terminal, currency = (
        await terminals.find_serving(scope, session.station_id),
        await currency_of(scope, session),
    )
    if terminal is None or currency is None:
        return
    try:
        async with scope.db.begin_nested():
            payment = await terminals.open_payment(
                scope, "charging_session", session.id, terminal, token, currency=currency,
                language=await faces.get_language(scope),
            )  # fmt: skip
    except Refused:
        return
    await cap(scope, session, payment)


async def cap(scope: Scope, session: ChargingSession, payment: Payment) -> None:
    """It stops before it costs more than the card holds, or has paid."""
    most = await payments.most_minor(scope, [payment])
    if session.status == "ACTIVE" and most:
        session.cost_cap_minor = most
        await scope.db.flush()
        await queue.enqueue(scope, "charging.watch_cap", session_id=str(session.id), lock=f"cap:{session.id}")


async def currency_of(scope: Scope, session: ChargingSession) -> str | None:
    """Of its frozen prices."""
    query = select(PriceSnapshot.currency).where(PriceSnapshot.session_id == session.id)
    return (await scope.db.execute(query)).scalar_one_or_none()
