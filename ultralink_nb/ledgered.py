"""A chat model and the ledger: what a model answers is on disk before anybody sees it, and nothing is asked twice."""

import asyncio
from dataclasses import replace

from ultralink_nb.completions import ChatError, ChatModel, ChatRequest, Completion
from ultralink_nb.ledger import Ledger, request_key


class LedgeredModel:
    """A model whose every answer is in the ledger before it is returned, and which never asks twice for the same.

    Equal requests in flight at once, here or in another process, are asked once. Asking goes on when a caller is cancelled:
    the answer is paid for. Raises `LedgerError` where an answer cannot be kept.
    """

    def __init__(self, model: ChatModel, ledger: Ledger):
        self.model, self.ledger, self.name = model, ledger, model.name
        self._in_flight: dict[str, asyncio.Task[Completion]] = {}

    async def complete(self, request: ChatRequest) -> Completion:
        key = request_key(self.name, request)
        task = self._in_flight.get(key)
        if task is not None:
            return replace(await asyncio.shield(task), cached=True)
        found = self.ledger.find(key)
        if found is not None:
            return Completion(**found, cached=True)
        task = self._in_flight[key] = asyncio.create_task(self._ask(key, request))
        task.add_done_callback(lambda done: self._settle(key, done))
        return await asyncio.shield(task)

    def _settle(self, key: str, task: asyncio.Task[Completion]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # marks it as seen where every caller is gone

    async def _ask(self, key: str, request: ChatRequest) -> Completion:
        async with self.ledger.claimed(key):
            found = self.ledger.find(key)  # another process may have asked meanwhile
            if found is not None:
                return Completion(**found, cached=True)
            try:
                completion = await self.model.complete(request)
            except ChatError as error:
                await self.ledger.record_async(key, self.name, request, error)
                raise
            await self.ledger.record_async(key, self.name, request, completion)
            return completion
