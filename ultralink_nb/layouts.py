"""English SFT data in the layouts it is published in, read as samples and written back.

Four layouts: `sharegpt` (conversations of from and value: ShareGPT, MOSS), `gsm8k` (question, answer), `alpaca` (instruction,
input, output: Alpaca, CodeAlpaca) and `messages` (role and content, as chat APIs have it). A row that does not fit becomes a
rejected row that says where it stands and why; it is never skipped in silence, and a good row is never repaired by guessing.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ultralink_nb.languages import get_language
from ultralink_nb.records import SAMPLE_SUFFIXES, BadRecord, find_files, read_rows, rejected
from ultralink_nb.workspace import AUTHORS, SAMPLE

STAGE = "import"
EMBEDDED = str(SAMPLE / "sft" / "*_*.json*")  # the embedded English sample: chat, math and code
KINDS = {"sharegpt": "chat_agnostic", "messages": "chat_agnostic", "gsm8k": "math", "alpaca": "code"}
ROLES = {
    "system": "system", "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant",
}
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # GSM8K's annotations, <<48/2=24>>: for a calculator, not for a reader


class _Refused(Exception):
    """(gate, reason) of a row that does not fit its layout."""


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise _Refused("layout", f"column {column} is {'missing' if value is None else f'a {type(value).__name__}, not a text'}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Refused("layout", f"column {column} holds half of a character (a lone surrogate)") from None
    return value


def _spoken(row: Mapping[str, Any], column: str, role_key: str, text_key: str) -> list[dict]:
    """Messages of a list of turns; neighbours of the same role are one message."""
    turns = row.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise _Refused("layout", f"column {column} is not a list of objects")
    messages: list[dict] = []
    for turn in turns:
        role = ROLES.get(str(turn.get(role_key)).lower())
        if role is None:
            raise _Refused("roles", f"column {column}: unknown {role_key} {turn.get(role_key)!r}")
        content = _text(turn, text_key)
        if not content.strip():
            raise _Refused("empty", f"column {column}: a message of the {role} has no text")
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": role, "content": content})
    return messages


def _sharegpt(row: Mapping[str, Any]) -> tuple[list[dict], dict]:
    extra = {key: value for key, value in row.items() if key not in ("conversations", "kind")}
    return _spoken(row, "conversations", "from", "value"), extra


def _messages(row: Mapping[str, Any]) -> tuple[list[dict], dict]:
    extra = {key: value for key, value in row.items() if key not in ("messages", "kind")}
    return _spoken(row, "messages", "role", "content"), extra


def _gsm8k(row: Mapping[str, Any]) -> tuple[list[dict], dict]:
    question, answer = _text(row, "question"), _text(row, "answer")
    extra = {key: value for key, value in row.items() if key not in ("question", "answer")}
    plain = _CALCULATOR.sub("", answer)
    if plain != answer:
        extra["answer"] = answer
    return [{"role": "user", "content": question}, {"role": "assistant", "content": plain}], extra


def _alpaca(row: Mapping[str, Any]) -> tuple[list[dict], dict]:
    instruction, output = _text(row, "instruction"), _text(row, "output")
    given = row.get("input") or ""
    if not isinstance(given, str):
        raise _Refused("layout", f"column input is a {type(given).__name__}, not a text")
    extra = {key: value for key, value in row.items() if key not in ("instruction", "output") and (key != "input" or given)}
    question = f"{instruction}\n\n{given}" if given.strip() else instruction
    return [{"role": "user", "content": question}, {"role": "assistant", "content": output}], extra


# Columns that tell a layout, in the order in which they are tried.
LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], tuple[list[dict], dict]]]] = {
    "sharegpt": (("conversations",), _sharegpt),
    "messages": (("messages",), _messages),
    "alpaca": (("instruction", "output"), _alpaca),
    "gsm8k": (("question", "answer"), _gsm8k),
}


def detect_layout(file: str | Path) -> str:
    """The layout of a file by the columns of its first rows; `BadRecord` names the columns where none fits."""
    columns: list[str] = []
    for _, row in islice(read_rows(file), 20):
        for name, (wanted, _) in LAYOUTS.items():
            if all(column in row for column in wanted):
                return name
        columns += [column for column in row if column not in columns]
    if not columns:
        raise BadRecord(f"{file}: there is no row in it")
    known = "; ".join(f"{name}: {', '.join(wanted)}" for name, (wanted, _) in LAYOUTS.items())
    raise BadRecord(
        f"{file}: its columns {', '.join(columns)} fit no layout ({known}); rename them first"
    )


def _check_turns(messages: list[dict]) -> None:
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if any(not message["content"].strip() for message in messages):
        raise _Refused("empty", "the question or the answer has no text")
    if not spoken or spoken[0] != "user":
        raise _Refused("roles", f"the dialogue begins with {spoken[0] if spoken else 'nothing'}, not with the user")
    if "system" in spoken:
        raise _Refused("roles", "a system message stands in the middle of the dialogue")
    if spoken[-1] != "assistant":
        raise _Refused("no_answer", "the last message of the user has no answer")


def _stem(file: Path) -> str:
    suffix = max((suffix for suffix in SAMPLE_SUFFIXES if file.name.endswith(suffix)), key=len, default=file.suffix)
    return file.name.removesuffix(suffix)


def read_sft(
    path: str | Path, layout: str = "auto", kind: str | None = None, limit: int | None = None,
    language: str = "en", license: str | None = None,
) -> tuple[list[dict], list[dict]]:
    """(samples, rejected rows) of SFT data in its published layout.

    path: a file, a folder or a glob of JSONL, JSON or Parquet files. layout: `auto` looks at each file's columns. kind: the
    kind of all rows; None: by layout (a `kind` column of ShareGPT and messages rows is believed). limit: rows read per file.
    A sample's id is `<file stem>-<row>`, rows counted from 0; columns the schema has no name for are kept in `extra`.

    Raises `BadRecord` for a file that cannot be parsed or whose layout is unknown, and where two files give the same ids.
    """
    get_language(language)
    samples: list[dict] = []
    refused: list[dict] = []
    stems: dict[str, Path] = {}
    for file in find_files(path, SAMPLE_SUFFIXES):
        stem = _stem(file)
        if stem in stems:
            raise BadRecord(f"{file} and {stems[stem]} give their rows the same ids ({stem}-0 …): rename one of them")
        stems[stem] = file
        name = detect_layout(file) if layout == "auto" else layout
        ours = SAMPLE in file.parents
        dataset = f"UltraLink kit sample, {file.name}" if ours else file.name
        for row_id, place, row in _numbered(file, stem, limit):
            try:
                messages, extra = LAYOUTS[name][1](row)
                _check_turns(messages)
            except _Refused as refusal:
                gate, reason = refusal.args
                refused.append(rejected(row_id, language, STAGE, gate, f"{place} ({name}): {reason}", row))
                continue
            stated = row.get("kind") if name in ("sharegpt", "messages") else None
            samples.append({
                "id": row_id, "language": language, "kind": kind or (stated if isinstance(stated, str) else KINDS[name]),
                "messages": messages,
                "source": {"dataset": dataset, "parent_id": None, "document_id": None, "url": None, "license": license},
                "generator": {"model": AUTHORS if ours else None, "prompt_version": None, "seed": None},
                "extra": json.dumps(extra, ensure_ascii=False, default=str) if extra else None,
            })
    return samples, refused


def _numbered(file: Path, stem: str, limit: int | None) -> Iterator[tuple[str, str, dict]]:
    for number, (place, row) in enumerate(islice(read_rows(file), limit)):
        yield f"{stem}-{number}", place, row


def to_sharegpt(sample: Mapping[str, Any]) -> dict:
    """A sample as a ShareGPT row; read back as `sharegpt` it has the same messages and kind."""
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": names[message["role"]], "value": message["content"]} for message in sample["messages"]]
    return {"id": sample["id"], "language": sample["language"], "kind": sample["kind"], "conversations": turns}


def to_messages(sample: Mapping[str, Any]) -> dict:
    """A sample as a row of chat messages; read back as `messages` it has the same messages and kind."""
    messages = [{"role": message["role"], "content": message["content"]} for message in sample["messages"]]
    return {"id": sample["id"], "language": sample["language"], "kind": sample["kind"], "messages": messages}
