"""Baseline: websockets answers each frame with itself. The floor: no OCPP, no database."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def main(port: int) -> None:
    async with serve(
        echo, "127.0.0.1", port, subprotocols=[Subprotocol("ocpp1.6")], compression=None, max_size=65536,
        ping_interval=None, backlog=4096,
    ):  # fmt: skip
        await asyncio.get_running_loop().create_future()


asyncio.run(main(int(sys.argv[1])))
