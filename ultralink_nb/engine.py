"""Where the heavy steps run: in this process, or as Ray tasks over a cluster that the user has.

    engine = open_engine("ray", "auto")
    vectors = embed(texts, encoder, ".cache", engine=engine)

An engine calls a function for each block and gives the results back in the order of the blocks. With Ray a function runs on
whatever node is free; what it needs travels with it through Ray's object store, so that nodes need no file system in common,
only the same versions of Python, Ray and this package. Nodes compute and ask; the caches and the ledger are written by the one
process that started, as results come in, and a bounded number of blocks is on its way at once. Ray runs a block again if its
node dies (Moritz et al. 2018, Section 4.2.3: lineage), and starts a model's actor again on another one.
"""

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

from ultralink_nb.completions import ChatModel, ChatRequest, Completion
from ultralink_nb.errors import KitError
from ultralink_nb.parameters import BadParameter

RETRIES = 10  # times that a block is run again whose node died
Result = TypeVar("Result")


class Engine(Protocol):
    """Calls a function for many blocks; `far` says whether elsewhere."""

    far: bool

    def share(self, value: Any) -> Any:
        """What stands for a value in the blocks: with Ray a reference to its one copy in the object store."""

    def map(self, function: Callable[..., Result], blocks: Iterable[tuple], gpu: bool = False) -> Iterator[Result]:
        """`function(*block)` for each block, in their order; blocks are read as they are needed. gpu: on one, where there is."""


class LocalEngine:
    """The plain loop, in this process."""

    far = False

    def share(self, value: Any) -> Any:
        return value

    def map(self, function: Callable[..., Result], blocks: Iterable[tuple], gpu: bool = False) -> Iterator[Result]:
        return itertools.starmap(function, blocks)


class RayEngine:
    """Ray tasks over a cluster.

    address: of the cluster, `host:6379` or `ray://host:10001`; empty: the one that `RAY_ADDRESS` names or that runs on this
    machine, else one of this machine alone, for as long as the process lives. Raises `BadParameter` where Ray is not installed
    or the cluster is not reached.
    """

    far = True

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports home otherwise
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what later versions do; silences the notice of it
        try:
            import ray
        except ImportError:
            raise BadParameter("engine: ray needs pip install 'ultralink-nb[ray]'") from None
        self._ray = ray
        if not ray.is_initialized():
            try:
                ray.init(address or None, log_to_driver=False, logging_level="error", include_dashboard=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                said = (str(error).splitlines() or [""])[0][:200]
                raise BadParameter(f"parameter ray_address: no Ray cluster was reached at {address or 'its place'} ({said}); "
                                   "start one with ray start --head, or leave it empty") from None

    def share(self, value: Any) -> Any:
        return self._ray.put(value)

    def map(self, function: Callable[..., Result], blocks: Iterable[tuple], gpu: bool = False) -> Iterator[Result]:
        number = 1 if gpu and self._ray.cluster_resources().get("GPU") else 0
        remote = self._ray.remote(max_retries=RETRIES, scheduling_strategy="SPREAD", num_gpus=number,
                                  max_calls=0)(function)  # a process that has loaded a model stays
        source, running = iter(blocks), deque()
        try:
            while True:
                window = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))  # nodes come and go
                running.extend(remote.remote(*block) for block in islice(source, max(0, window - len(running))))
                if not running:
                    return
                reference = running.popleft()
                try:
                    result = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                del reference  # its copy in the object store may go
                yield result
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def chat_model(self, open_one: Callable[[int], ChatModel], gpu: bool = False) -> "RayModel":
        """A chat model that is asked from the nodes; open_one: opens it on a node, told how many there are.

        gpu: one on each GPU of the cluster, where it has some; else one on each node. Raises what opening it raises there.
        """
        gpus = int(self._ray.cluster_resources().get("GPU", 0)) if gpu else 0
        count = gpus or sum(node["Alive"] for node in self._ray.nodes())
        return RayModel(self._ray, open_one, count, 1 if gpus else 0)


class _Asking:
    """The actor on a node: one model, opened there; what it is asked may overlap."""

    def __init__(self, open_one: Callable[[int], ChatModel], count: int) -> None:
        self.model, self.error = None, None
        try:
            self.model = open_one(count)
        except KitError as error:  # told when asked for the name, since an actor that does not start says less
            self.error = error

    async def opened(self) -> str:
        if self.error:
            raise self.error
        return self.model.name

    async def complete(self, request: ChatRequest) -> Completion:
        return await self.model.complete(request)


class RayModel:
    """A chat model whose requests go out from the nodes of a cluster, to one that has few in flight.

    Put the ledger around it (`LedgeredModel`): only the process that started writes it. What was in flight on a node that dies
    is asked again elsewhere. A key for a server is read from the environment of each node and never sent there.
    """

    def __init__(self, ray: Any, open_one: Callable[[int], ChatModel], count: int, gpus: int) -> None:
        self._ray = ray
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, max_concurrency=1000, num_cpus=0, num_gpus=gpus,
                           scheduling_strategy="SPREAD")(_Asking)
        self._actors = [actor.remote(open_one, count) for _ in range(count)]
        self._in_flight = [0] * count
        try:
            self.name = ray.get(self._actors[0].opened.remote())
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    async def complete(self, request: ChatRequest) -> Completion:
        number = min(range(len(self._actors)), key=self._in_flight.__getitem__)
        self._in_flight[number] += 1
        try:
            return await asyncio.wrap_future(self._actors[number].complete.remote(request).future())
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        finally:
            self._in_flight[number] -= 1


def open_engine(engine: str = "local", ray_address: str | None = None) -> Engine:
    """The engine that a notebook's parameters name: `local` or `ray`, see `RayEngine`."""
    return RayEngine(ray_address) if engine == "ray" else LocalEngine()
