"""Asking a model the questions of a benchmark, and its scores beside the published ones.

Every benchmark goes the same way: prompts, answers (all through the ledger), a score from 0 to 1 for each answer, and one row a
language with an interval. What scores an answer is `mgsm.py`, `humaneval.py` and `judging.py`; `harness.py` has those that
lm-evaluation-harness asks and scores itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from ultralink_nb.asking import ask_all
from ultralink_nb.completions import ChatError, ChatModel, ChatRequest
from ultralink_nb.corpus_rows import HUB
from ultralink_nb.errors import KitError
from ultralink_nb.intervals import bootstrap, wilson
from ultralink_nb.languages import LANGUAGES, language_of_file
from ultralink_nb.records import BadRecord, find_files, read_rows
from ultralink_nb.workspace import SAMPLE

EMBEDDED = SAMPLE / "evaluation"
PUBLISHED = Path(__file__).parent / "published.yaml"
SUFFIXES = (".jsonl", ".json", ".parquet", ".tsv", ".jsonl.gz", ".jsonl.bz2")

ANSWERS = pa.schema([(name, pa.string()) for name in ("benchmark", "id", "language", "model", "answer", "reason")]
                    + [("sample", pa.int64()), ("score", pa.float32())])
SCORES = pa.schema([(name, pa.string()) for name in ("benchmark", "metric", "language", "model")]
                   + [(name, pa.float32()) for name in ("score", "low", "high")] + [("questions", pa.int64())])


class EvaluationError(KitError):
    """An evaluation that cannot be made as asked; the message says what to change."""


class Prompt(NamedTuple):
    """A question as a model is asked it. messages: role and content of each."""

    id: str
    language: str
    messages: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Answer:
    """What a model answered. sample: 0 to n - 1, where a question is asked n times. error: why there is no answer, else empty."""

    id: str
    language: str
    sample: int
    text: str
    error: str = ""


async def answer_all(model: ChatModel, benchmark: str, prompts: Sequence[Prompt], *, samples: int = 1, temperature: float = 0.0,
                     max_tokens: int = 512, seed: int = 1, concurrency: int = 8) -> list[Answer]:
    """The model's answers, those of one question in a row. A request that fails for good is an empty answer with its reason.

    samples: times each question is asked, with seeds `seed`, `seed` + 1, …; more than one needs a temperature above 0, since all
    answers would be the same. Raises `EvaluationError` for that, and `ChatError` where every request fails.
    """
    if samples > 1 and temperature == 0:
        raise EvaluationError("several samples of an answer at temperature 0 are one sample: set evaluation_temperature to 0.8, "
                              "or code_samples to 1")

    async def ask(item: tuple[Prompt, int]) -> str:
        prompt, sample = item
        about = {"task": f"evaluate {benchmark}", "subject": prompt.id, "language": prompt.language, "turn": sample}
        request = ChatRequest(prompt.messages, about, temperature, max_tokens, seed + sample)
        return (await model.complete(request)).text

    items = [(prompt, sample) for prompt in prompts for sample in range(samples)]
    return [
        Answer(prompt.id, prompt.language, sample, "", str(text)) if isinstance(text, ChatError)
        else Answer(prompt.id, prompt.language, sample, text)
        async for (prompt, sample), text in ask_all(items, ask, concurrency=concurrency, total=len(items), description=benchmark)
    ]


def question_rows(path: str | Path, languages: Sequence[str], split: str = "test") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(place, language, row) of the questions in these languages: a file, a folder, a glob, or `hub:<name>` with a configuration
    for each language, of which this split is read.

    A row's language is its column `language`, else the file's name tells (`mgsm_zh.tsv`). A TSV has two columns and no header,
    as MGSM is published: question and answer. Raises `BadRecord` where the language is not told or the hub not reached.
    """
    if str(path).startswith(HUB):
        yield from _hub_rows(str(path).removeprefix(HUB), languages, split)
        return
    for file in find_files(path, SUFFIXES):
        told = language_of_file(file)
        rows: Iterable[tuple[str, dict]] = _tsv_rows(file) if file.suffix == ".tsv" else read_rows(file)
        for place, row in rows:
            language = row.get("language") or told
            if language not in LANGUAGES:
                raise BadRecord(f"{place}: its language is not told; add a column language, or name the file after it, as in "
                                "mgsm_zh.tsv")
            if language in languages:
                yield place, language, row


def _tsv_rows(file: Path) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = line.split("\t")
        if line.strip():
            if len(cells) != 2:
                raise BadRecord(f"{file}, line {number}: {len(cells)} columns, not the two of question and answer")
            yield f"{file}, line {number}", {"question": cells[0], "answer": cells[1]}


def _hub_rows(name: str, languages: Sequence[str], split: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    from datasets import load_dataset

    for language in languages:
        try:
            for number, row in enumerate(load_dataset(name, language, split=split), 1):
                yield f"{HUB}{name}/{language}, row {number}", language, dict(row)
        except Exception as error:  # whatever the network, the hub or a file there raises
            raise BadRecord(f"{HUB}{name}/{language}: {type(error).__name__}: {str(error)[:160]}: look at the name and the "
                            "network, or fetch the data set and name its files") from error


def score_rows(benchmark: str, metric: str, model: str, scored: Iterable[tuple[str, str, float]], seed: int = 1) -> list[dict]:
    """Rows of `SCORES` in percent from (language, question's id, score 0 to 1); several scores of a question are averaged first,
    since they say less than as many questions would.

    Intervals are at 95 %: Wilson's where every question is right or wrong, else a bootstrap over the questions.
    """
    table = pd.DataFrame(list(scored), columns=["language", "id", "score"])
    rows = []
    for language, part in table.groupby("language", sort=False):
        values = part.groupby("id")["score"].mean().to_numpy()
        whole = np.isin(values, (0, 1)).all()
        low, high = wilson(values.sum(), len(values)) if whole else bootstrap(values, seed)
        rows.append({"benchmark": benchmark, "metric": metric, "language": language, "model": model,
                     "score": 100 * values.mean(), "low": 100 * low, "high": 100 * high, "questions": len(values)})
    return rows


@cache
def _published() -> Mapping[str, Any]:
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))


def published(benchmark: str) -> pd.DataFrame:
    """What others reported on a benchmark, as `SCORES` has it, from `published.yaml`, which names the source; may be empty.

    Intervals, where the number of questions is known, are Wilson's for it and not the authors'.
    """
    entry = _published()["benchmarks"].get(benchmark, {})
    rows = []
    for model, values in entry.get("models", {}).items():
        for language, score in zip(_published()["languages"], values, strict=True):
            count = entry.get("questions")
            low, high = wilson(score / 100 * count, count) if count else (np.nan, np.nan)
            rows.append({"benchmark": benchmark, "metric": entry["metric"], "language": language, "model": model, "score": score,
                         "low": 100 * low, "high": 100 * high, "questions": count})
    return pd.DataFrame(rows, columns=SCORES.names)


def published_source() -> str:
    return _published()["source"]


def beside_published(scores: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Models x languages as the paper prints them, with the interval in brackets and the mean over languages last.

    scores: rows of `SCORES`; those of the benchmark are used. Published rows in languages that were not asked are left out.
    """
    ours = scores[scores["benchmark"] == benchmark]
    codes = [code for code in LANGUAGES if code in set(ours["language"])]
    theirs = published(benchmark)
    theirs = theirs[theirs["language"].isin(codes)]
    ours = ours.assign(model=ours["model"] + " (" + ours["metric"] + ")")
    both = pd.concat([part for part in (theirs, ours) if len(part)], ignore_index=True)
    cell = [f"{row.score:.1f}" + ("" if np.isnan(row.low) else f" [{row.low:.1f}, {row.high:.1f}]") for row in both.itertuples()]
    table = both.assign(cell=cell).pivot(index="model", columns="language", values="cell")
    table = table.reindex(index=both["model"].unique(), columns=codes)
    table["mean"] = both.groupby("model")["score"].mean().map("{:.1f}".format)
    return table.rename_axis(columns=None)
