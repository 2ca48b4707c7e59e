"""Work shared out among processes, its results in the order of the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from ultralink_nb.errors import KitError

Item, Result = TypeVar("Item"), TypeVar("Result")


class WorkerDied(KitError):
    """A process that did part of the work was ended from outside, most often for want of memory."""


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = 0) -> Iterator[Result]:
    """`map` by several processes: the results in order, with at most `ahead` items (twice the workers if 0) taken beyond them.

    function: one of a module, since processes are started afresh: a forked child of a process with threads may hang.
    workers: 1 or less does the work here. Raises what `function` raises, and `WorkerDied`.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    ahead = ahead or 2 * workers
    waiting: deque[Future] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise WorkerDied(
            "a process was ended from outside, most often for want of memory: set workers lower and run again; what is done "
            "is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
