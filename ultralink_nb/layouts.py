"""English SFT data in the layouts it is published in, read as samples and written back.

| layout | columns | where it comes from |
|---|---|---|
| `sharegpt` | conversations of from and value | ShareGPT, MOSS |
| `messages` | messages of role and content | chat APIs |
| `oasst` | message_tree_id, prompt: a tree of messages | OpenAssistant |
| `ultrachat` | data: texts of user and assistant in turn | UltraChat, UltraLink |
| `alpaca` | instruction, input, output | Alpaca, CodeAlpaca |
| `magicoder` | problem, solution | Magicoder OSS-Instruct |
| `magicoder_evol` | instruction, response | Magicoder Evol-Instruct |
| `metamath` | query, response, original_question, type | MetaMath |
| `gsm8k` | question, answer | GSM8K |
| `humaneval` | task_id, prompt, entry_point, canonical_solution, test | HumanEval |

A row that does not fit becomes a rejected row that says where it stands and why; it is never skipped in silence, and a good row
is never repaired by guessing. Rows that `to_sharegpt` and `to_messages` wrote are read back as the samples they were.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ultralink_nb.code_spans import unfenced_code
from ultralink_nb.corpus_rows import HUB, HubName
from ultralink_nb.languages import get_language
from ultralink_nb.layout_rows import LAYOUTS, SHAREGPT_ROLES, Refused, check_turns
from ultralink_nb.records import SAMPLE_SUFFIXES, BadRecord, find_files, parse_sample, read_rows, rejected
from ultralink_nb.workspace import AUTHORS, SAMPLE

STAGE = "import"
EMBEDDED = str(SAMPLE / "sft" / "*_*.json*")  # the embedded English sample: chat, math and code
SUFFIXES = (*SAMPLE_SUFFIXES, ".json.gz", ".json.bz2")
LOOKED_AT = 20  # rows of a file that tell its layout, and whether an Alpaca file is about code
OWN = ("id", "language", "kind", "source", "generator", "extra")  # columns of the kit's own exports beside the dialogue
_OWN_LAYOUTS = ("sharegpt", "messages")


class _Origin(NamedTuple):
    """Where rows come from: a file or a name on the hub, what their ids begin with, their layout and kind."""

    source: Path | HubName
    stem: str
    layout: str
    kind: str

    @property
    def ours(self) -> bool:
        return isinstance(self.source, Path) and SAMPLE in self.source.parents

    @property
    def dataset(self) -> str:
        if isinstance(self.source, HubName):
            return self.source.removeprefix(HUB)
        return f"UltraLink kit sample, {self.source.name}" if self.ours else self.source.name


def source_rows(source: str | Path) -> Iterator[tuple[str, dict]]:
    """Rows of a file or of a `HubName` (its split `train`, else its first one), each with its place; `BadRecord` as they do."""
    if not str(source).startswith(HUB):
        yield from read_rows(source)
        return
    from datasets import load_dataset

    name, number = HubName(source), 0
    try:
        splits = load_dataset(name.dataset, name.config, streaming=True)
        for number, row in enumerate(splits["train"] if "train" in splits else next(iter(splits.values())), 1):
            yield f"{name}, row {number}", dict(row)
    except Exception as error:  # whatever the network, the hub or a file there raises: the reader's place in it must be told
        raise BadRecord(f"{name}, after row {number:,}: {type(error).__name__}: {error}: look at the name and the network, or "
                        "fetch the data set and name its files") from error


def detect_layout(file: str | Path) -> str:
    """The layout of a file by the columns of its first rows; `BadRecord` names the columns where none fits."""
    return _detected(file, [row for _, row in islice(source_rows(file), LOOKED_AT)])


def _detected(file: str | Path, rows: list[dict]) -> str:
    for row in rows:
        for name, layout in LAYOUTS.items():
            if all(column in row for column in layout.columns):
                return name
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        raise BadRecord(f"{file}: there is no row in it")
    known = "; ".join(f"{name}: {', '.join(layout.columns)}" for name, layout in LAYOUTS.items())
    raise BadRecord(f"{file}: its columns {', '.join(columns)} fit no layout ({known}); rename them first")


def _kind_of(layout: str, rows: list[dict]) -> str:
    """The layout's kind; an Alpaca file is about code where a quarter of the outputs looked at hold some, else it is chat."""
    if layout != "alpaca":
        return LAYOUTS[layout].kind
    outputs = [str(row.get("output")) for row in rows]
    hold_code = sum("```" in output or bool(unfenced_code(output)) for output in outputs)
    return "code" if 4 * hold_code >= len(outputs) else "chat_agnostic"


def _sources(path: str | Path) -> Iterator[tuple[Path | HubName, str]]:
    """Each file that a parameter names, or its name on the hub, with what the ids of its rows begin with."""
    if str(path).startswith(HUB):
        name = HubName(path)
        if not (name.dataset and name.config):
            raise BadRecord(f"{path}: a name on the hub ends in a configuration, as {HUB}openai/gsm8k/main does")
        yield name, f"{Path(name.dataset).name}-{name.config}"
        return
    stems: dict[str, Path] = {}
    for file in find_files(path, SUFFIXES):
        suffix = max((suffix for suffix in SUFFIXES if file.name.endswith(suffix)), key=len, default=file.suffix)
        stem = file.name.removesuffix(suffix)
        if stem in stems:
            raise BadRecord(f"{file} and {stems[stem]} give their rows the same ids ({stem}-0 …): rename one of them")
        stems[stem] = file
        yield file, stem


def iter_sft(
    path: str | Path, layout: str = "auto", kind: str | None = None, limit: int | None = None,
    language: str = "en", license: str | None = None, paths: Literal["best", "all"] = "best",
) -> Iterator[tuple[Literal["sample", "rejected"], dict]]:
    """The samples and the rejected rows of `read_sft`, one after the other, in the memory of one row (of one .json file)."""
    get_language(language)
    if layout != "auto" and layout not in LAYOUTS:
        raise BadRecord(f"unknown layout {layout!r}: the kit reads {', '.join(LAYOUTS)}, or auto to look at the columns")
    for source, stem in list(_sources(path)):
        first = [row for _, row in islice(source_rows(source), LOOKED_AT)]
        name = _detected(source, first) if layout == "auto" else layout
        origin = _Origin(source, stem, name, kind or _kind_of(name, first))
        for number, (place, row) in enumerate(islice(source_rows(source), limit)):
            row_id = f"{stem}-{number}"
            try:
                if name in _OWN_LAYOUTS and all(column in row for column in OWN):
                    yield "sample", _read_back(row, place)
                    continue
                dialogues = LAYOUTS[name].read(row, paths == "all")
                for messages, _ in dialogues:
                    check_turns(messages)
                if name == "oasst" and dialogues[0][1]["lang"] not in (None, language):
                    raise Refused("language", f"the tree is in {dialogues[0][1]['lang']}, not in {language}")
            except Refused as refusal:
                gate, reason = refusal.args
                yield "rejected", rejected(row_id, language, STAGE, gate, f"{place} ({name}): {reason}", row)
                continue
            stated = row.get("kind") if not kind and name in _OWN_LAYOUTS else None
            told = {"dataset": origin.dataset, "parent_id": None, "document_id": None, "url": None, "license": license}
            for leaf, (messages, extra) in enumerate(dialogues):
                yield "sample", {
                    "id": f"{row_id}-{leaf}" if name == "oasst" and paths == "all" else row_id, "language": language,
                    "kind": stated if isinstance(stated, str) else origin.kind, "messages": messages,
                    "source": dict(told),
                    "generator": {"model": AUTHORS if origin.ours else None, "prompt_version": None, "seed": None},
                    "extra": json.dumps(extra, ensure_ascii=False, default=str) if extra else None,
                }


def read_sft(
    path: str | Path, layout: str = "auto", kind: str | None = None, limit: int | None = None,
    language: str = "en", license: str | None = None, paths: Literal["best", "all"] = "best",
) -> tuple[list[dict], list[dict]]:
    """(samples, rejected rows) of SFT data in its published layout.

    path: a file, a folder or a glob of JSONL, JSON or Parquet files (gz and bz2 too), or a data set on the hub by its name and
    configuration, `hub:openai/gsm8k/main`. layout: `auto` looks at the columns of each file's first rows. kind: the kind of all
    rows; None: by layout (a `kind` column of ShareGPT and messages rows is believed; Alpaca rows are code where the file's first
    rows hold code). limit: rows read per file. paths: of a tree, `best` takes the best-ranked reply at each turn, `all` the path
    to each leaf, as a sample each.
    A sample's id is `<file stem>-<row>`, rows counted from 0 (`-<path>` is added with `all`); columns the schema has no name for
    are kept in `extra`.

    Raises `BadRecord` for a file that cannot be parsed or whose layout is unknown, and where two files give the same ids.
    """
    found: dict[str, list[dict]] = {"sample": [], "rejected": []}
    for what, row in iter_sft(path, layout, kind, limit, language, license, paths):
        found[what].append(row)
    return found["sample"], found["rejected"]


def _read_back(row: Mapping[str, Any], place: str) -> dict:
    """The sample that `to_sharegpt` or `to_messages` wrote; raises `Refused` where somebody changed it into none."""
    turns = row["conversations"] if "conversations" in row else row["messages"]
    roles = {name: role for role, name in SHAREGPT_ROLES.items()}
    try:
        if "conversations" in row:
            turns = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in turns]
        return parse_sample({**{column: row[column] for column in OWN}, "messages": turns}, place).model_dump()
    except (BadRecord, KeyError, TypeError) as error:
        raise Refused("layout", f"not a sample of the kit any more: {error}") from None


def _beside(sample: Mapping[str, Any], whole: bool) -> dict:
    return {column: sample.get(column) for column in (OWN if whole else OWN[:3])}


def to_sharegpt(sample: Mapping[str, Any], whole: bool = True) -> dict:
    """A sample as a ShareGPT row. whole: with its source, generator and extra, so that it is read back as the same sample."""
    turns = [{"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]} for message in sample["messages"]]
    return {**_beside(sample, whole), "conversations": turns}


def to_messages(sample: Mapping[str, Any], whole: bool = True) -> dict:
    """A sample as a row of chat messages. whole: with its source, generator and extra, to be read back as the same sample."""
    messages = [{"role": message["role"], "content": message["content"]} for message in sample["messages"]]
    return {**_beside(sample, whole), "messages": messages}
