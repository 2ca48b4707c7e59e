"""Kill the reading of a dump at random instants, go on, and compare with a run that nobody killed.

    python benchmarks/kill_grounding.py DUMP [--kills 10] [--workers 2] [--seed 1] [--scratch FOLDER]

Each kill is a SIGKILL to the whole process group, at a random instant of the next two shares of the work, a share being what one
of so many equal runs would do; the last run is left alone.
Prints for each run how long it lived and how many parts were done, and whether the tables are the same, byte for byte.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

WORK = """
import sys
from ultralink_nb import knowledge
from ultralink_nb.gates import Gates
if __name__ == "__main__":
    dump, out, cache, workers = sys.argv[1:]
    knowledge.ground(dump, ["en"], out, Gates(100, 100_000), cache_dir=cache, workers=int(workers))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dump", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        script = folder / "work.py"
        script.write_text(WORK, "utf-8")

        def begin(run: str) -> subprocess.Popen:
            command = [sys.executable, script, options.dump, folder / run, folder / f"{run}-cache", str(options.workers)]
            return subprocess.Popen(list(map(str, command)), start_new_session=True, stderr=subprocess.DEVNULL)

        def parts(run: str) -> int:
            return len(list((folder / f"{run}-cache").rglob("[0-9]*[0-9].parquet")))

        started, first = time.monotonic(), 0.0
        process = begin("whole")
        while process.poll() is None:
            first = first or (time.monotonic() - started if parts("whole") else 0)
            time.sleep(0.1)
        assert process.returncode == 0, "the run that nobody kills failed"
        whole, total = time.monotonic() - started, parts("whole")
        print(f"whole: {whole:.1f} s, {total} parts, the first after {first:.1f} s")
        draw = random.Random(options.seed)
        for number in range(1, options.kills + 1):
            process = begin("killed")
            lived = 0.8 * first + draw.uniform(0, 2 * (whole - first) / options.kills)
            time.sleep(lived)
            ended = process.poll() is not None
            if not ended:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            print(f"kill {number}: after {lived:.1f} s{', it had ended' if ended else ''}; {parts('killed')} of {total} parts")
        started = time.monotonic()
        assert begin("killed").wait() == 0, "the last run failed"
        print(f"last run: {time.monotonic() - started:.1f} s")
        same = True
        for table in ("documents.parquet", "rejected_01.parquet"):
            digests = {sha256((folder / run / table).read_bytes()).hexdigest()[:16] for run in ("whole", "killed")}
            same = same and len(digests) == 1
            print(f"{table}: {'identical' if len(digests) == 1 else 'DIFFERENT'} ({' '.join(sorted(digests))})")
    sys.exit(not same)


if __name__ == "__main__":
    main()
