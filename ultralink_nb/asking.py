"""Asking a chat model for many things at once: bounded memory, results in order, and no thousand failures for one cause."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

from tqdm.auto import tqdm

from ultralink_nb.completions import ChatError

Item = TypeVar("Item")
Result = TypeVar("Result")


async def ask_all(
    items: Iterable[Item], ask: Callable[[Item], Awaitable[Result]], *, concurrency: int = 8, total: int | None = None,
    description: str = "", give_up_after: int = 20,
) -> AsyncIterator[tuple[Item, Result | ChatError]]:
    """(item, what `ask` made of it, or the `ChatError` it raised) for each item, in the order of the items.

    At most `concurrency` items are being asked about at once, and one more for every eight: while their answers are checked and
    written to disk, the endpoint does not wait (the model bounds what is in flight there). items may be a generator. When the
    first `give_up_after` items all fail for the same cause (a wrong key, no server), the error is raised instead of repeated for
    the rest.
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
    failed, causes, all_failed = 0, set(), True
    try:
        with tqdm(total=total, desc=description, disable=None, leave=False) as progress:
            while running:
                item, task = running.popleft()
                outcome = await task
                running.extend((new, asyncio.ensure_future(one(new))) for new in islice(source, window - len(running)))
                progress.update()
                all_failed = all_failed and isinstance(outcome, ChatError)
                if all_failed:
                    failed += 1
                    causes.add(outcome.cause)
                    if failed >= give_up_after and len(causes) == 1:
                        raise ChatError(f"the first {failed} requests all failed: {outcome}", outcome.cause)
                yield item, outcome
    finally:
        for _, task in running:
            task.cancel()
