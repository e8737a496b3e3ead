"""Many askers, one call: what is asked while a call is under way goes with the next one. No timer.

So a lone question costs no waiting, and a fleet's questions share their commits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError

MOST = 500

Q = TypeVar("Q")
A = TypeVar("A")


class Gather(Generic[Q, A]):
    """`call` answers each question in its place. What it raises, its askers get; where one question may be to blame
    for it (the server took offence at a value), the others are asked again without it."""

    def __init__(self, call: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._call = call
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, future))
        if self._asking is None:
            self._asking = loop.create_task(self._ask())
        return await future

    async def _ask(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            await self._answer(taken)
        self._asking = None

    async def _answer(self, asked: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._call([question for question, _ in asked])
        except Exception as error:
            if len(asked) > 1 and isinstance(error, DBAPIError) and not isinstance(error, OperationalError):
                half = len(asked) // 2
                await self._answer(asked[:half])
                return await self._answer(asked[half:])
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return None
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        return None
