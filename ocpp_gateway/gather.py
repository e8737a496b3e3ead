"""Many askers, one call: what is asked while a call is under way goes with the next one. No timer.

So a lone question costs no waiting, and a fleet's questions share their commits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError

MOST = 500

Q = TypeVar("Q")
A = TypeVar("A")


class Gather(Generic[Q, A]):
    """`call` answers each question in its place. What it raises, its askers get; where one question may be to blame
    for it (the server took offence at a value), the others are asked again without it.

    `of` is whom a question is about: a second one about the same goes with the next call.
    """

    def __init__(
        self, call: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], of: Callable[[Q], Hashable] | None = None
    ) -> None:
        self._call, self._of = call, of
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """An asker that is canceled asks nothing; where it is being answered already, it waits for that to be done."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        entry = (question, future)
        self._waiting.append(entry)
        if self._asking is None:
            self._asking = loop.create_task(self._ask())
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                await asyncio.wait([future])
                future.exception()  # it is nobody's any more
            raise

    async def _ask(self) -> None:
        try:
            while self._waiting:
                await self._answer(self._take())
        finally:
            self._asking = None

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        if self._of is None:
            taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            return taken
        seen: dict[Hashable, tuple[Q, asyncio.Future[A]]] = {}
        later: list[tuple[Q, asyncio.Future[A]]] = []
        for entry in self._waiting:
            about = self._of(entry[0])
            if about in seen or len(seen) == MOST:
                later.append(entry)
            else:
                seen[about] = entry
        self._waiting = later
        return list(seen.values())

    async def _answer(self, asked: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._call([question for question, _ in asked])
            for (_, future), answer in zip(asked, answers, strict=True):
                future.set_result(answer)
        except Exception as error:
            left = [(question, future) for question, future in asked if not future.done()]
            if len(left) > 1 and isinstance(error, DBAPIError) and not isinstance(error, OperationalError):
                half = len(left) // 2
                await self._answer(left[:half])
                await self._answer(left[half:])
                return
            for _, future in left:
                future.set_exception(error)
