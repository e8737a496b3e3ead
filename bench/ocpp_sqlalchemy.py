"""Baseline: the `ocpp` package with a SQLAlchemy session and a commit per message: the obvious build.

argv: port, database URL. Its table stands alone: one tenant, no row-level security.
"""

import asyncio
import contextlib
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result
from ocpp.v16.enums import RegistrationStatus
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Session = async_sessionmaker(create_async_engine(sys.argv[2], pool_size=20, max_overflow=0, pool_timeout=120))


class Base(DeclarativeBase):
    pass


class Reading(Base):
    __tablename__ = "bench_reading"
    id: Mapped[int] = mapped_column(primary_key=True)
    station: Mapped[str]
    at: Mapped[str]
    measurand: Mapped[str]
    value: Mapped[str]


class Station(ChargePoint):
    @on("BootNotification")
    def boot(self, **_: Any) -> call_result.BootNotification:
        now = datetime.now(UTC).isoformat()
        return call_result.BootNotification(now, 300, RegistrationStatus.accepted)

    @on("StatusNotification")
    def status(self, **_: Any) -> call_result.StatusNotification:
        return call_result.StatusNotification()

    @on("MeterValues")
    async def metering(self, meter_value: list[Any], **_: Any) -> call_result.MeterValues:
        readings = [
            Reading(station=self.id, at=entry["timestamp"], measurand=one["measurand"], value=one["value"])
            for entry in meter_value for one in entry["sampled_value"]
        ]  # fmt: skip
        async with Session() as session, session.begin():
            session.add_all(readings)
        return call_result.MeterValues()


async def handle(socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        await Station("bench", socket).start()


async def main(port: int) -> None:
    logging.getLogger("ocpp").setLevel(logging.ERROR)
    async with serve(handle, "127.0.0.1", port, subprotocols=[Subprotocol("ocpp1.6")], compression=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main(int(sys.argv[1])))
