"""The release: one folder with the dataset in three layouts, its card, its attribution and its checksums.

What is notable: the folder appears whole or not at all. It is written beside its place and moved there when it is complete; a
folder that is no release of the kit, or that holds anything of somebody else's, is never replaced. The same input gives the same
bytes, so two releases can be compared by their checksums.

Layouts: `data/` (Parquet, a configuration of `datasets.load_dataset` for each kind), `messages/` (chat messages, JSON lines) and
`ultralink/`, the layout that UltraLink was released in: {"id": "zh_chat_specific_12", "data": [question, answer, question, …]}.
That one has no place for system messages: they are left out there and kept in the other two.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from ultralink_nb import records
from ultralink_nb.card import dataset_card, in_order
from ultralink_nb.layouts import to_messages
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens

MARKER, CHECKSUMS = "release.json", "checksums.txt"
MADE_BY = "ultralink-nb"


class NotARelease(ValueError):
    """A folder that the kit will not replace, because it did not write it or not all of it."""


@dataclass(frozen=True)
class Material:
    """What a release is made of: samples kept, rows of the dropped table, the samples dropped, and documents by id."""

    kept: list[dict]
    dropped: list[dict] = field(default_factory=list)
    dropped_samples: list[dict] = field(default_factory=list)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """A release that was written. files: rows {file, bytes, sha256}. unpaired: ids that UltraLink's layout cannot hold."""

    folder: Path
    files: list[dict]
    unpaired: list[str]


def read_material(data: str | Path, languages: Sequence[str] = ()) -> Material:
    """What notebook 05 left in a run's data folder, and the documents of notebook 01 where there are any.

    Raises FileNotFoundError where kept or dropped is missing and ValueError where kept + dropped is not the input of 05.
    """
    data = Path(data)
    for name in ("kept.parquet", "dropped.parquet"):
        if not (data / name).is_file():
            raise FileNotFoundError(f"{data / name} does not exist: run notebook 05 (pruning) first")
    kept = records.read_samples(data / "kept.parquet", languages)
    if not kept:
        raise ValueError(f"{data / 'kept.parquet'} has no rows: there is nothing to release")
    dropped = records.read_table(data / "dropped.parquet", records.DROPPED)
    dropped_samples = []
    if (data / "samples.parquet").is_file():
        samples = {row["id"]: row for row in records.read_table(data / "samples.parquet", records.SAMPLES)}
        ids = [row["id"] for row in kept] + [row["id"] for row in dropped]
        if len(ids) != len(samples) or set(ids) != set(samples):
            raise ValueError(f"kept ({len(kept):,}) and dropped ({len(dropped):,}) in {data} are not together the "
                             f"{len(samples):,} rows of samples.parquet: run notebook 05 again")
        dropped_samples = [samples[row["id"]] for row in dropped]
    path = data / "documents.parquet"
    documents = {row["id"]: row for row in records.read_table(path, records.DOCUMENTS)} if path.is_file() else {}
    return Material(kept, dropped, dropped_samples, documents)


def statistics(samples: Sequence[Mapping[str, Any]], tokenizer: str = DEFAULT_TOKENIZER) -> list[dict]:
    """The columns of the paper's statistics table, for all samples (at least one), by language and by kind.

    Rows {part, name, dialogues, turns, question, answer, turn}. part: `all`, `language` or `kind`. turns: messages of the user.
    question, answer: mean tokens of a message of the user and of the assistant; answer is None where nothing is answered. turn:
    all these tokens over the turns, which is question + answer where every question has its answer. Rounded to 2 decimals.
    """
    spoken = [(sample["language"], sample["kind"], message["role"], message["content"])
              for sample in samples for message in sample["messages"] if message["role"] != "system"]
    tokens: list[int] = []
    with tqdm(total=len(spoken), desc="counting tokens", unit="messages", disable=None) as progress:
        for start in range(0, len(spoken), 2000):
            piece = [text for *_, text in spoken[start : start + 2000]]
            tokens += count_tokens(piece, tokenizer)
            progress.update(len(piece))
    messages = pd.DataFrame([row[:3] for row in spoken], columns=["language", "kind", "role"]).assign(tokens=tokens)
    dialogues = pd.DataFrame([(sample["language"], sample["kind"]) for sample in samples], columns=["language", "kind"])
    rows = [_statistics_row("all", "all", len(dialogues), messages)]
    for part in ("language", "kind"):
        rows += [_statistics_row(part, name, int((dialogues[part] == name).sum()), messages[messages[part] == name])
                 for name in in_order(dialogues[part])]
    return rows


def _statistics_row(part: str, name: str, dialogues: int, messages: pd.DataFrame) -> dict:
    questions, answers = (messages.loc[messages["role"] == role, "tokens"] for role in ("user", "assistant"))
    return {"part": part, "name": name, "dialogues": dialogues, "turns": len(questions),
            "question": round(float(questions.mean()), 2), "answer": round(float(answers.mean()), 2) if len(answers) else None,
            "turn": round(float(messages["tokens"].sum() / len(questions)), 2)}


def ultralink_row(sample: Mapping[str, Any], number: int) -> dict | None:
    """A sample in UltraLink's layout, its id `<language>_<kind>_<number>`; system messages are left out.

    None where questions and answers do not alternate, beginning with a question: the layout cannot say who speaks.
    """
    spoken = [message for message in sample["messages"] if message["role"] != "system"]
    if any(message["role"] != ("user", "assistant")[position % 2] for position, message in enumerate(spoken)):
        return None
    return {"id": f"{sample['language']}_{sample['kind']}_{number}", "data": [message["content"] for message in spoken]}


def attribution(samples: Iterable[Mapping[str, Any]], documents: Mapping[str, Mapping[str, Any]]) -> list[dict]:
    """The documents that samples draw on, sorted: {document_id, language, title, url, revision, license, dataset, samples}.

    documents: rows of `DOCUMENTS` by id, believed where id and url agree with the sample's; else what the sample itself says is
    given and the rest is None. `samples` are ids. Samples that name neither a document nor an address have no row.
    """
    found: dict[tuple, dict] = {}
    for sample in samples:
        source = sample["source"]
        if not (source["document_id"] or source["url"]):
            continue
        document = documents.get(source["document_id"] or "", {})
        if document.get("url") != source["url"]:
            document = {}
        key = tuple(source[name] or "" for name in ("dataset", "document_id", "url"))
        row = found.setdefault(key, {
            "document_id": source["document_id"], "language": document.get("language") or sample["language"],
            "title": document.get("title") or _title(sample), "url": source["url"], "revision": document.get("revision"),
            "license": source["license"], "dataset": source["dataset"], "samples": [],
        })
        row["samples"].append(sample["id"])
    return [found[key] for key in sorted(found)]


def _title(sample: Mapping[str, Any]) -> str | None:
    try:
        extra = json.loads(sample["extra"] or "{}")
    except json.JSONDecodeError:  # a column of the user's own that is named extra
        return None
    title = extra.get("title") if isinstance(extra, dict) else None
    return title if isinstance(title, str) else None


def by_file(samples: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Samples by (kind, language), in their order. Raises ValueError for a kind that cannot name a file and a configuration."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for sample in samples:
        found.setdefault((sample["kind"], sample["language"]), []).append(sample)
    kinds = in_order(kind for kind, _ in found)
    for kind in kinds:
        if not re.fullmatch(r"\w[\w.-]{0,99}", kind) or kind.startswith("__") or kind == "default":
            raise ValueError(f"kind {kind!r} cannot name a file and a configuration of the release: name kinds by letters, "
                             "digits, _ and -, and none of them default")
    if len({kind.casefold() for kind in kinds}) < len(kinds):
        raise ValueError(f"kinds that differ only in case would share a file on some systems: rename one of {', '.join(kinds)}")
    languages = in_order(language for _, language in found)
    return {(kind, language): found[kind, language] for kind in kinds for language in languages if (kind, language) in found}


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _files(folder: Path) -> dict[str, Path]:
    """Everything in a folder that is not itself a folder, by its relative path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_release(folder: str | Path) -> list[str]:
    """What in a release does not agree with its checksums, as `changed`, `missing` or `not of the release`; empty if it is whole.

    Raises NotARelease if the folder is not one that the kit wrote.
    """
    folder = Path(folder)
    try:
        made_by = json.loads((folder / MARKER).read_text(encoding="utf-8")).get("made_by")
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, AttributeError):
        made_by, lines = None, []
    if made_by != MADE_BY:
        raise NotARelease(f"{folder} is not a release of this kit")
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    present = _files(folder)
    problems = [f"missing: {name}" for name in listed if name not in present]
    for name, path in present.items():
        if name in listed and (not path.is_file() or _sha256(path) != listed[name]):
            problems.append(f"changed: {name}")
        elif name not in listed and name != CHECKSUMS:
            problems.append(f"not of the release: {name}")
    return problems


def _refuse_foreign(folder: Path) -> None:
    """Raises NotARelease unless nothing that somebody else made would be lost by replacing the folder."""
    if folder.is_dir() and not any(folder.iterdir()) or not folder.exists():
        return
    try:
        lost = [problem for problem in check_release(folder) if not problem.startswith("missing")]
    except NotARelease as error:
        raise NotARelease(f"{error} and is left alone: name another release_dir, or move it away") from None
    if lost:
        raise NotARelease(f"{folder} is an older release, but not only ({lost[0]}), and is left alone: move that away, or name "
                          "another release_dir")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place on success and vanishes on an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    new, old = (folder.with_name(f".{folder.name}.{mark}.{suffix}") for suffix in ("part", "old"))
    new.mkdir()
    try:
        yield new
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_release(folder: str | Path, material: Material, rows: Sequence[Mapping[str, Any]], *, name: str, license: str,
                  tokenizer: str = DEFAULT_TOKENIZER) -> Release:
    """Write the release folder and return what is in it.

    rows: `statistics` of the kept samples, counted with `tokenizer`. name, license (an SPDX identifier): of the release.
    An older release in that place is replaced when the new one is complete. Raises NotARelease where anything else would be
    lost, and ValueError for a kind that cannot name a file.
    """
    folder = Path(folder)
    parts = by_file(material.kept)
    _refuse_foreign(folder)
    unpaired: list[str] = []
    with _replacing(folder.resolve()) as new:
        for (kind, language), samples in tqdm(parts.items(), desc="writing", unit="files", disable=None):
            records.write_table(new / "data" / kind / f"{language}.parquet", samples, records.SAMPLES)
            _write_lines(new / "messages" / f"{language}_{kind}.jsonl", (to_messages(sample, whole=False) for sample in samples))
            paired = [ultralink_row(sample, number) for number, sample in enumerate(samples)]
            _write_lines(new / "ultralink" / f"{language}_{kind}.jsonl", (row for row in paired if row))
            unpaired += [sample["id"] for sample, row in zip(samples, paired, strict=True) if row is None]
        if unpaired:
            reason = "questions and answers do not alternate"
            _write_lines(new / "ultralink" / "left_out.jsonl", ({"id": row, "reason": reason} for row in unpaired))
        documents = attribution(material.kept, material.documents)
        if documents:
            _write_lines(new / "attribution.jsonl", documents)
        card = dataset_card(name, license, material.kept, material.dropped, material.dropped_samples, rows, tokenizer,
                            len(documents), len(unpaired))
        (new / "README.md").write_text(card, encoding="utf-8", newline="\n")
        about = {"made_by": MADE_BY, "name": name, "license": license, "samples": len(material.kept),
                 "dropped": len(material.dropped), "documents": len(documents), "left_out_of_ultralink_layout": len(unpaired)}
        (new / MARKER).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        files = [{"file": path, "bytes": where.stat().st_size, "sha256": _sha256(where)} for path, where in _files(new).items()]
        lines = "".join(f"{row['sha256']}  {row['file']}\n" for row in files)
        (new / CHECKSUMS).write_text(lines, encoding="utf-8", newline="\n")
    return Release(folder, files, unpaired)
