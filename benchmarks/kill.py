"""Generation killed with SIGKILL at random instants, again and again: what was paid, what was lost, what was asked twice.

    python benchmarks/kill.py [--requests 2000] [--kills 20] [--seed 1] [--concurrency 16] [--delay 0.03]

A script builds dialogues of about `--requests` requests, asked of a real HTTP server. It is killed `--kills` times, each time
at a random share of the work and up to 50 ms later, started again each time, and at last left to end. Then the server's own
log and the ledger are compared:

- every planned request (those of an undisturbed run) has exactly one completion in the ledger, and nothing else has;
- a request that the server received twice was in flight at a kill: received, and not in the ledger when the process was dead;
- what was in the ledger after a kill is never asked again;
- the samples are those of the undisturbed run.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.chat_server import ChatServer  # noqa: E402
from ultralink_nb.chat import ChatRequest, open_chat_model  # noqa: E402
from ultralink_nb.dialogues import generate_dialogues, read_passages  # noqa: E402
from ultralink_nb.ledger import open_ledger, request_key  # noqa: E402
from ultralink_nb.prompts import load_prompts  # noqa: E402
from ultralink_nb.records import SAMPLES, read_table  # noqa: E402

SCRIPT = textwrap.dedent("""
    import asyncio, sys
    from ultralink_nb.chat import open_chat_model
    from ultralink_nb.dialogues import generate_dialogues, read_passages
    from ultralink_nb.ledger import open_ledger
    from ultralink_nb.records import SAMPLES, write_table

    passages, url, cache, out, concurrency = sys.argv[1:]
    ledger = open_ledger(cache)
    model = open_chat_model("loopback", base_url=url, ledger=ledger, concurrency=int(concurrency))
    samples, _ = asyncio.run(generate_dialogues(
        read_passages(passages), model, seed=1, languages=["en"], concurrency=int(concurrency), dataset="passages.jsonl"
    ))
    write_table(out, samples, SAMPLES)
    ledger.close()
""")


def write_passages(path: Path, count: int) -> None:
    """Passages of one paragraph each, every one about a bridge of its own."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            name = f"{'Orme Selby Tarn Hale Merrow Quill Harden Lowick'.split()[n % 8]}{'abcdefghij'[n // 8 % 10]}ton {n}"
            text = (f"The bridge at {name} was built in {1801 + n % 150} by the carpenter John Marden. It is {90 + n} metres "
                    f"long and rests on {3 + n % 7} granite piers. Until 1890 farmers of {name} paid a toll of two pence there. "
                    f"A storm broke its middle pier in {1930 + n % 40}, and the repair took {5 + n % 9} months. Every June the "
                    f"people of {name} walk across it with lanterns. Swifts nest below the deck, and lorries take the road to "
                    "Newhill.")
            file.write(json.dumps({"id": f"b{n}", "language": "en", "title": f"{name} Bridge", "text": text}) + "\n")


def key_of(body: dict) -> str:
    """The ledger's key of a request as the server received it."""
    return request_key("loopback", ChatRequest(
        tuple(body["messages"]), {}, body["temperature"], body["max_tokens"], body["seed"], load_prompts("en")["version"]
    ))


def received(server: ChatServer, start: int) -> list[str]:
    """The keys of what the server received from its request number `start` on."""
    return [key_of(body) for _, body in server.requests[start:]]


def recorded(cache: Path) -> list[str]:
    """The keys of the completions in a ledger, read without the kit."""
    if not (cache / "ledger.sqlite").is_file():
        return []
    with sqlite3.connect(cache / "ledger.sqlite") as db:
        if not db.execute("SELECT name FROM sqlite_master WHERE name = 'completions'").fetchone():
            return []
        return [key for (key,) in db.execute("SELECT key FROM completions WHERE status = 'done'")]


def kill_and_resume(folder: Path, requests: int, kills: int, seed: int = 1, concurrency: int = 16,
                    delay: float = 0.03) -> dict[str, Any]:
    """Kill a run of about `requests` requests `kills` times, resume it to its end, and compare; the counts by name."""
    rng = random.Random(seed)
    write_passages(folder / "passages.jsonl", max(2, requests * 2 // 13))
    passages, environment = read_passages(folder / "passages.jsonl"), {**os.environ, "OPENAI_API_KEY": "none"}
    with ChatServer() as server:
        model = open_chat_model("loopback", base_url=server.url, ledger=open_ledger(folder / "undisturbed"), concurrency=8)
        undisturbed, _ = asyncio.run(generate_dialogues(passages, model, seed=1, languages=["en"], dataset="passages.jsonl"))
        needed = Counter(key_of(body) for _, body in server.requests)

    cache, out, lives, in_flight = folder / "cache", folder / "samples_02.parquet", [], []
    instants = sorted(rng.randrange(len(needed)) for _ in range(kills))
    with ChatServer(delay=delay) as server:
        command = [sys.executable, "-c", SCRIPT, "passages.jsonl", server.url, "cache", str(out), str(concurrency)]
        for instant in [*instants, None]:
            before, known = len(server.requests), set(recorded(cache))
            process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
            if instant is None:
                _, errors = process.communicate(timeout=600)
            else:
                while process.poll() is None and len(server.requests) - before < max(1, instant - len(known)):
                    time.sleep(0.001)
                time.sleep(rng.random() * 0.05)
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                _, errors = process.communicate()
                time.sleep(0.1)  # the server's threads note what was on its way
            if process.returncode not in (0, -signal.SIGKILL):
                raise RuntimeError(f"the run failed: {errors}")
            asked = received(server, before)
            lives.append({"asked": asked, "again": sorted(set(asked) & known), "killed": process.returncode != 0})
            in_flight.append(set(asked) - set(recorded(cache)))
    times = Counter(key for life in lives for key in life["asked"])
    rows = Counter(recorded(cache))
    twice = {key: count for key, count in times.items() if count > 1}
    return {
        "planned": len(needed), "planned twice": sum(count > 1 for count in needed.values()),
        "kills": sum(life["killed"] for life in lives), "received": sum(times.values()), "completions": len(rows),
        "planned without a completion": len(set(needed) - set(rows)), "completions not planned": len(set(rows) - set(needed)),
        "more than one completion": sum(count > 1 for count in rows.values()),
        "received again": sum(count - 1 for count in twice.values()),
        "received again and not in flight at a kill": sum(
            count - 1 > sum(key in flight for flight in in_flight[:-1]) for key, count in twice.items()),
        "asked though recorded": sum(len(life["again"]) for life in lives),
        "twice within one life": sum(count > 1 for life in lives for count in Counter(life["asked"]).values()),
        "in flight at a kill, sum": sum(map(len, in_flight[:-1])), "in flight at a kill, most": max(map(len, in_flight)),
        "samples differ": int(read_table(out, SAMPLES) != undisturbed),
        "dialogues at once": concurrency + concurrency // 8,
    }


FAULTS = ("planned twice", "planned without a completion", "completions not planned", "more than one completion",
          "received again and not in flight at a kill", "asked though recorded", "twice within one life", "samples differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="about how many requests the run plans")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    parser.add_argument("--concurrency", type=int, default=16, help="requests in flight at the server")
    parser.add_argument("--delay", type=float, default=0.03, help="seconds that the server takes for an answer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        counts = kill_and_resume(Path(folder), given.requests, given.kills, given.seed, given.concurrency, given.delay)
        print(f"{time.monotonic() - started:.0f} s")
    for name, count in counts.items():
        print(f"{count:>7,}  {name}{' (must be 0)' if name in FAULTS else ''}")
    sys.exit(any(counts[name] for name in FAULTS))


if __name__ == "__main__":
    main()
