"""Asking a chat model for many things at once: bounded memory, results in order, and no thousand failures for one cause."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

from tqdm.auto import tqdm

from ultralink_nb.completions import ChatError

# Causes that lie with the endpoint and not with what is asked: the next request will meet them too.
LASTING = frozenset(("connection", "timeout", "http_401", "http_402", "http_403", "http_404", "http_429", "http_502", "http_503"))

Item = TypeVar("Item")
Result = TypeVar("Result")


async def ask_all(
    items: Iterable[Item], ask: Callable[[Item], Awaitable[Result]], *, concurrency: int = 8, total: int | None = None,
    description: str = "", give_up_after: int = 20,
) -> AsyncIterator[tuple[Item, Result | ChatError]]:
    """(item, what `ask` made of it, or the `ChatError` it raised) for each item, in the order of the items.

    At most `concurrency` items are being asked about at once, and one more for every eight: while their answers are checked and
    written to disk, the endpoint does not wait (the model bounds what is in flight there). items may be a generator. When the
    first `give_up_after` items all fail for the same cause, or later as many in a row for one of the causes in `LASTING` (a
    server that is gone, a key that has expired), the error is raised instead of repeated for the rest.
    """
    source = iter(items)
    slots = asyncio.Semaphore(concurrency + concurrency // 8)
    window = 4 * concurrency  # items begun or finished ahead of the one that is waited for, so that a slow one stalls nobody

    async def one(item: Item) -> Result | ChatError:
        async with slots:
            try:
                return await ask(item)
            except ChatError as error:
                return error

    running = deque((item, asyncio.ensure_future(one(item))) for item in islice(source, window))
    failed, cause, answered = 0, "", False
    try:
        with tqdm(total=total, desc=description, disable=None, leave=False) as progress:
            while running:
                item, task = running.popleft()
                outcome = await task
                running.extend((new, asyncio.ensure_future(one(new))) for new in islice(source, window - len(running)))
                progress.update()
                if isinstance(outcome, ChatError):
                    failed, cause = failed + 1 if outcome.cause == cause else 1, outcome.cause
                    if failed >= give_up_after and (not answered or cause in LASTING):
                        which = f"{failed} requests in a row" if answered else f"the first {failed} requests all"
                        raise ChatError(f"{which} failed: {outcome}", cause)
                else:
                    failed, cause, answered = 0, "", True
                yield item, outcome
    finally:
        for _, task in running:
            task.cancel()
