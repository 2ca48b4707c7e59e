"""How fast dumps of Wikipedia become clean text, and in how much memory, beside WikiExtractor, mwparserfromhell and gensim.

    python benchmarks/dump_speed.py DUMP [--peers-python PYTHON] [--processes 1 2] [--rounds 3] [--made 0.2 2 --scratch FOLDER]

DUMP is a MediaWiki XML, or a folder of which the largest is taken. PYTHON is an interpreter that has wikiextractor==3.1.0,
mwparserfromhell and gensim; a peer that it cannot import is reported as absent. Two tables are printed:

- cleaning alone: the wikitext of the articles, in one process, MB of UTF-8 a second of processor time; WikiExtractor both as its
  command cleans (templates looked up in the dump, which in a dump of articles has none) and without templates;
- from the dump to files: MB of XML a second by the clock; the processor time of all processes together, which other work on the
  machine disturbs less; the peak memory of all together (shared pages counted once) and of the largest. `ours` is
  `knowledge.ground`: besides cleaning it counts tokens, identifies languages, looks for near-duplicates and writes Parquet in
  parts from which it could resume, for which the peers have no counterpart. `ours, cleaning` stops after the cleaning and writes
  JSON lines as the peers do. WikiExtractor runs with `--no-templates`, the faster way, and besides the processes that clean has
  one that reads and one that writes. mwparserfromhell and gensim, which are libraries, get a plain reader and a pool of as many
  processes.

The methods take turns in each round, and the best round of each counts. `--made` makes dumps of that many GB by repeating the
pages of DUMP with new ids and titles, and measures ours and WikiExtractor on them, once.
"""

import argparse
import bz2
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

Cleaner = Callable[[str], str]
OWN = ("ours", "ours, cleaning")


def our_cleaner() -> Cleaner:
    from ultralink_nb.wikitext import clean

    return lambda text: clean(text, "en")


def wikiextractor(templates: bool = True) -> Cleaner:
    from wikiextractor.extract import Extractor

    return lambda text: "\n".join(Extractor(0, "", "", "", []).clean_text(text, expand_templates=templates))


def mwparserfromhell_strip() -> Cleaner:
    import mwparserfromhell

    return lambda text: mwparserfromhell.parse(text).strip_code()


def gensim_filter() -> Cleaner:
    from gensim.corpora.wikicorpus import filter_wiki

    return filter_wiki


CLEANERS: dict[str, Callable[[], Cleaner]] = {
    "ours": our_cleaner, "WikiExtractor": wikiextractor, "WikiExtractor, no templates": lambda: wikiextractor(False),
    "mwparserfromhell": mwparserfromhell_strip, "gensim": gensim_filter,
}
_clean: Cleaner  # of a process of the pool


def articles(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """The language of a dump, and title and wikitext of its pages that the kit takes for articles."""
    from ultralink_nb.dumps import language_of_dump, read_pages
    from ultralink_nb.gates import page_gate

    language = language_of_dump(path, "en")
    return language, [(page.title, page.text) for page in read_pages(path, language) if page_gate(page) is None]


def peer_cleaned(peer: str, texts: list[str], python: str) -> list[str] | None:
    """Texts as a peer cleans them, in another interpreter; None where that one does not have the peer."""
    done = _in(python, "clean", peer, texts)
    return done and done["texts"]


def _in(python: str, task: str, method: str, texts: list[str]) -> dict | None:
    command = [python, __file__, "--task", task, "--method", method]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, encoding="utf-8")
    if done.returncode and "ModuleNotFoundError" not in done.stderr:
        sys.stderr.write(done.stderr)
    return json.loads(done.stdout) if done.returncode == 0 else None


def do(task: str, method: str) -> dict:
    """Clean the texts that stdin holds: what came out, or the processor time that it took."""
    texts, clean = json.load(sys.stdin), CLEANERS[method]()
    clean(texts[0])  # what is imported or compiled at first use
    start = time.process_time()
    cleaned = [clean(text) for text in texts]
    return {"texts": cleaned} if task == "clean" else {"seconds": time.process_time() - start}


def pages(dump: Path) -> Iterator[str]:
    """The wikitext of the articles of a dump, read plainly, for the peers that bring no reader."""
    with (bz2.open if dump.suffix == ".bz2" else open)(dump, "rb") as file:
        events = ElementTree.iterparse(file, ("start", "end"))
        root = next(events)[1]
        text, article = "", False
        for event, element in events:
            name = element.tag.rpartition("}")[2]
            if event == "start":
                continue
            if name == "ns":
                article = element.text == "0"
            elif name == "text":
                text = element.text or ""
            elif name == "page":
                if article and not text.lstrip().lower().startswith("#redirect"):
                    yield text
                root.clear()


def _open_pool(method: str) -> None:
    global _clean
    _clean = CLEANERS[method]()


def _cleaned(text: str) -> str:
    return _clean(text)


def _cleaned_part(part_and_site) -> list[str]:
    from ultralink_nb.dumps import Page, pages_of
    from ultralink_nb.gates import page_gate
    from ultralink_nb.wikitext import clean

    found = (page for page in pages_of(*part_and_site) if isinstance(page, Page) and page_gate(page) is None)
    return [json.dumps({"title": page.title, "text": clean(page.text, page.site.language)}) for page in found]


def convert(method: str, dump: Path, out: Path, processes: int) -> None:
    """From a dump to files with a pool of processes, for the methods that have no command."""
    if method == "ours":
        from ultralink_nb.dumps import language_of_dump
        from ultralink_nb.knowledge import ground

        language = language_of_dump(dump, "en")
        ground([dump], [language], out, source_language=language, cache_dir=out / "cache", workers=processes)
        return
    cleaner = method.partition(",")[0]
    with open(out / "text.jsonl", "w", encoding="utf-8") as file, multiprocessing.Pool(processes, _open_pool, [cleaner]) as pool:
        if method in OWN:
            from ultralink_nb.dumps import cut, language_of_dump, read_site

            site = read_site(dump, language_of_dump(dump, "en"))
            for lines in pool.imap(_cleaned_part, ((part, site) for part in cut(dump))):
                file.writelines(line + "\n" for line in lines)
        else:
            for text in pool.imap(_cleaned, pages(dump), chunksize=8):
                file.write(json.dumps({"text": text}) + "\n")


def timed(method: str, dump: Path, processes: int, python: str, scratch: Path, cap: float) -> dict | None:
    """Seconds, those of the processors, and peak memory in MiB of all processes and of the largest; None for no result."""
    import psutil

    with tempfile.TemporaryDirectory(dir=scratch) as out:
        if method == "WikiExtractor":
            options = ["-o", out, "--json", "--processes", str(processes), "--no-templates", "-q"]
            arguments = ["-m", "wikiextractor.WikiExtractor", str(dump), *options]
        else:
            options = ["--method", method, "--processes", str(processes), "--scratch", out]
            arguments = [__file__, str(dump), "--task", "convert", *options]
        start, used, together, largest = time.perf_counter(), _used(), 0, 0
        with tempfile.TemporaryFile("w+") as said:
            process = psutil.Popen([sys.executable if method in OWN else python, *arguments], stdout=said, stderr=said)
            while process.poll() is None:
                held = []
                try:
                    for one in (process, *process.children(recursive=True)):
                        held.append((one.memory_full_info().pss, one.memory_info().rss))
                except psutil.Error:
                    pass
                together = max(together, sum(pss for pss, _ in held))
                largest = max([largest, *(rss for _, rss in held)])
                if time.perf_counter() - start > cap:
                    for one in (*process.children(recursive=True), process):
                        one.kill()
                time.sleep(0.1)
            seconds = time.perf_counter() - start
            written = sum(file.stat().st_size for file in Path(out).rglob("*") if file.is_file())
            if process.returncode or not written:
                said.seek(0)
                print(f"{method}: exit code {process.returncode}, {written:,} bytes after {seconds:.0f} s", said.read()[-300:])
                return None
    return {"seconds": seconds, "used": _used() - used, "together": together / 2**20, "largest": largest / 2**20}


def _used() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def size(dump: Path) -> int:
    """Bytes of XML in a dump."""
    with (bz2.open if dump.suffix == ".bz2" else open)(dump, "rb") as file:
        return sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))


def made(dump: Path, gigabytes: float, out: Path) -> Path:
    """A dump of about this size: the pages of another one again and again, each with an id and a title of its own."""
    with (bz2.open if dump.suffix == ".bz2" else open)(dump, "rb") as file:
        head, *pieces = file.read().split(b"<page>")
    pieces = [piece.partition(b"</page>")[0] for piece in pieces]
    number, written = 0, len(head)
    with open(out, "wb") as file:
        file.write(head)
        while written < gigabytes * 1e9:
            for piece in pieces:
                number += 1
                piece = re.sub(rb"<id>\d+</id>", b"<id>%d</id>" % number, piece, count=1)
                piece = piece.replace(b"</title>", b" (%d)</title>" % number, 1)
                written += file.write(b"<page>" + piece + b"</page>\n")
        file.write(b"</mediawiki>\n")
    return out


def compare(dump: Path, methods: list[str], processes: list[int], rounds: int, options: argparse.Namespace) -> None:
    """Print the table of what takes how long from a dump to files."""
    megabytes = size(dump) / 1e6
    print(f"\nfrom the dump to files: {dump.name}, {megabytes:,.1f} MB of XML, best of {rounds}")
    print(f"{'':28}{'processes':>10}{'seconds':>9}{'MB/s':>8}{'× WikiExtractor':>17}{'CPU s':>8}{'MiB':>8}{'MiB, largest':>14}")
    for count in processes:
        runs: dict[str, list[dict]] = {method: [] for method in methods}
        for _ in range(rounds):
            for method in [one for one, found in runs.items() if found is not None]:
                run = timed(method, dump, count, options.peers_python, options.scratch, options.cap)
                runs[method] = None if run is None else [*runs[method], run]
        best = {method: min(found, key=lambda run: run["seconds"]) for method, found in runs.items() if found}
        for method in methods:
            if method not in best:
                print(f"{method:28}{count:>10}   no result")
                continue
            run, peer = best[method], best.get("WikiExtractor")
            ratio = f"{peer['seconds'] / run['seconds']:.2f}" if peer else ""
            together, largest = (max(one[which] for one in runs[method]) for which in ("together", "largest"))
            print(f"{method:28}{count:>10}{run['seconds']:>9.1f}{megabytes / run['seconds']:>8.1f}{ratio:>17}{run['used']:>8.1f}"
                  f"{together:>8.0f}{largest:>14.0f}", flush=True)


def compare_cleaning(texts: list[str], rounds: int, python: str) -> None:
    """Print the table of cleaning alone."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"cleaning alone: {len(texts)} articles, {megabytes:.1f} MB of wikitext, one process, best of {rounds}")
    seconds: dict[str, list[float]] = {method: [] for method in CLEANERS}
    for _ in range(rounds):
        for method, found in seconds.items():
            if done := _in(sys.executable if method in OWN else python, "time", method, texts):
                found.append(done["seconds"])
    for method, found in seconds.items():
        peer = seconds["WikiExtractor"]
        ratio = f"{min(peer) / min(found):>8.2f} × WikiExtractor" if found and peer else ""
        print(f"{method:28}" + (f"{megabytes / min(found):>8.2f} MB/s{ratio}" if found else "  no result"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump", type=Path, nargs="?", default=Path("."))
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3, help="0: only the made dumps")
    parser.add_argument("--made", type=float, nargs="*", default=[], metavar="GB")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--cap", type=float, default=1800, help="seconds after which a run is ended")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task == "convert":
        return convert(options.method, options.dump, options.scratch, options.processes[0])
    if options.task:
        return json.dump(do(options.task, options.method), sys.stdout)
    dump = options.dump
    if dump.is_dir():
        dump = max((file for file in dump.iterdir() if ".xml" in file.name), key=os.path.getsize)
    print(f"ours with Python {sys.version.split()[0]}, {os.cpu_count()} processors")
    if options.rounds:
        compare_cleaning([text for _, text in articles(dump)[1]], options.rounds, options.peers_python)
        peers = [one for one in CLEANERS if one not in ("ours", "WikiExtractor, no templates")]
        compare(dump, [*OWN, *peers], options.processes, options.rounds, options)
    for gigabytes in options.made:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            large = made(dump, gigabytes, Path(folder) / "enwiki-made.xml")
            compare(large, [*OWN, "WikiExtractor"], options.processes, 1, options)


if __name__ == "__main__":
    main()
