"""How much of an endpoint the kit uses: requests a second beside openai's clients, and memory while the requests mount up.

    pip install -e '.[bench]'
    python benchmarks/throughput.py                              # the table, about two minutes
    python benchmarks/throughput.py --memory 100000              # memory at 1,000, 10,000, … requests

The endpoint is a server on loopback in a process of its own; every measurement is a fresh process too. With the ledger on, an
answer counts when it is committed. `thread pool` is what the paper's scripts do: one synchronous client, one thread a request.
"""

import argparse
import asyncio
import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import psutil

SERVER = Path(__file__).with_name("answering_server.py")
PASSAGE = "The bridge at Selby was built by the carpenter John Selbyson and rests on five granite piers. " * 24


def messages(number: int) -> tuple[dict[str, str], ...]:
    return ({"role": "system", "content": PASSAGE}, {"role": "user", "content": f"Question {number}: who built it?"})


async def kit(url: str, requests: int, in_flight: int, folder: str | None, seen=lambda number: None) -> None:
    """The way notebook 02 asks: the model with the ledger, through `ask_all`."""
    from ultralink_nb.asking import ask_all
    from ultralink_nb.chat import ChatRequest, open_chat_model
    from ultralink_nb.ledger import open_ledger

    ledger = open_ledger(folder) if folder else None
    model = open_chat_model("answering", base_url=url, ledger=ledger, concurrency=in_flight, api_key_variable="NO_KEY")

    async def ask(number: int) -> int:
        return len((await model.complete(ChatRequest(messages(number), {"task": "answer", "subject": number}))).text)

    done = 0
    async for _, length in ask_all(range(requests), ask, concurrency=in_flight):
        assert length > 0
        done += 1
        seen(done)
    if ledger:
        assert ledger.summary()[0]["answered"] == requests
        ledger.close()


async def async_client(url: str, requests: int, in_flight: int) -> None:
    from openai import AsyncOpenAI

    numbers = iter(range(requests))

    async def ask_on() -> None:
        for number in numbers:
            answer = await client.chat.completions.create(model="answering", messages=messages(number), seed=1)
            assert answer.choices[0].message.content

    async with AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:
        await asyncio.gather(*(ask_on() for _ in range(in_flight)))


def thread_pool(url: str, requests: int, in_flight: int) -> None:
    from openai import OpenAI

    client = OpenAI(api_key="none", base_url=url, max_retries=0)

    def ask(number: int) -> str | None:
        answer = client.chat.completions.create(model="answering", messages=messages(number), seed=1)
        return answer.choices[0].message.content

    with ThreadPoolExecutor(in_flight) as pool:
        assert all(pool.map(ask, range(requests)))


async def sockets(url: str, requests: int, in_flight: int) -> None:
    """No client at all, bytes made beforehand: what the server can do."""
    port, numbers = int(url.split(":")[2].split("/")[0]), iter(range(requests))
    body = b"x" * 2500
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def ask_on() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in numbers:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(ask_on() for _ in range(in_flight)))


CLIENTS = {
    "the kit, ledger on": lambda url, n, k: _with_ledger(url, n, k),
    "the kit, no ledger": lambda url, n, k: asyncio.run(kit(url, n, k, None)),
    "async openai client": lambda url, n, k: asyncio.run(async_client(url, n, k)),
    "thread pool of openai clients": thread_pool,
    "bare sockets": lambda url, n, k: asyncio.run(sockets(url, n, k)),
}


def _with_ledger(url: str, requests: int, in_flight: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(kit(url, requests, in_flight, folder))


def measure(client: str, url: str, requests: int, in_flight: int) -> tuple[float, float, float]:
    """(requests a second, processor milliseconds a request, peak memory in MiB), after a first few that load and connect."""
    CLIENTS[client](url, 2 * in_flight, in_flight)
    started, worked = time.perf_counter(), time.process_time()
    CLIENTS[client](url, requests, in_flight)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    return requests / seconds, 1000 * worked / requests, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(url: str, requests: int, in_flight: int) -> list[tuple[int, float]]:
    """(requests answered, memory in MiB) at every power of ten from 1,000 on."""
    found: list[tuple[int, float]] = []
    process = psutil.Process()

    def seen(done: int) -> None:
        if done >= 1000 and (done == requests or str(done).strip("0") == "1"):
            found.append((done, process.memory_info().rss / 2**20))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(kit(url, requests, in_flight, folder, seen))
    return found


@contextmanager
def serving(delay: float):
    server = subprocess.Popen([sys.executable, SERVER, "--delay", str(delay)], stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def in_fresh_process(function, *arguments):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.2, help="seconds that the endpoint takes for an answer")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15.0, help="about how long each measurement takes at the ideal")
    parser.add_argument("--ceiling-requests", type=int, default=5000, help="requests where the endpoint answers at once")
    parser.add_argument("--memory", type=int, help="measure memory up to so many requests, and nothing else")
    options = parser.parse_args()
    if options.memory:
        with serving(0.0) as url:
            print(f"{'requests':>10}  memory, MiB")
            for done, mebibytes in in_fresh_process(memory, url, options.memory, options.in_flight):
                print(f"{done:>10,}  {mebibytes:.0f}")
        return
    print(f"{options.in_flight} requests in flight; processor times are the client's\n")
    print(f"{'endpoint answers after':<23} {'client':<30} {'requests/s':>10} {'of ideal':>9} {'ms CPU each':>12} {'peak MiB':>9}")
    clients = [client for client in CLIENTS if "openai" not in client or importlib.util.find_spec("openai")]
    if absent := sorted(set(CLIENTS) - set(clients)):
        print(f"absent: {', '.join(absent)}; pip install -e '.[bench]' brings them")
    for delay in (options.delay, 0.0):
        ideal = options.in_flight / delay if delay else None
        requests = int(options.seconds * ideal) if ideal else options.ceiling_requests
        with serving(delay) as url:
            for client in clients:
                rate, worked, peak = in_fresh_process(measure, client, url, requests, options.in_flight)
                share = f"{rate / ideal:.1%}" if ideal else ""
                print(f"{1000 * delay:>20g} ms {client:<30} {rate:>10,.0f} {share:>9} {worked:>12.2f} {peak:>9,.0f}", flush=True)


if __name__ == "__main__":
    main()
