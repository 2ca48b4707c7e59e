"""What a row of each published layout says: messages, and what the sample's schema has no name for.

Every reader takes a row and returns dialogues, each a list of messages with its `extra`; only a tree holds more than one. What
cannot be told from the messages again (the turns as they were, where neighbours of one role became one message; GSM8K's answer
with the calculator's notes; the tests of a HumanEval task) is kept in `extra`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ROLES = {
    "system": "system", "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant",
}
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # GSM8K's annotations, <<48/2=24>>: for a calculator, not for a reader

Row = Mapping[str, Any]
Dialogue = tuple[list[dict], dict]  # messages, extra


class Refused(Exception):
    """(gate, reason) of a row that does not fit its layout."""


@dataclass(frozen=True)
class Layout:
    """A published layout. columns: those that tell it. read: a row's dialogues. kind: of its samples unless a row states one."""

    columns: tuple[str, ...]
    read: Callable[[Row, bool], list[Dialogue]]
    kind: str


def check_turns(messages: list[dict]) -> None:
    """Raises `Refused` unless the dialogue is a system message or none, then user and assistant in turn, none empty."""
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if any(not message["content"].strip() for message in messages):
        raise Refused("empty", "the question or the answer has no text")
    if not spoken or spoken[0] != "user":
        raise Refused("roles", f"the dialogue begins with {spoken[0] if spoken else 'nothing'}, not with the user")
    if "system" in spoken:
        raise Refused("roles", "a system message stands in the middle of the dialogue")
    if spoken[-1] != "assistant":
        raise Refused("no_answer", "the last message of the user has no answer")


def _checked(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise Refused("layout", f"column {column} is {'missing' if value is None else f'a {type(value).__name__}, not a text'}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("layout", f"column {column} holds half of a character (a lone surrogate)") from None
    return value


def _text(row: Row, column: str) -> str:
    return _checked(row.get(column), column)


def _without(row: Row, *columns: str) -> dict:
    return {key: value for key, value in row.items() if key not in columns}


def _asked(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _joined(turns: list[tuple[str, str]]) -> list[dict]:
    """Messages of (role, text); neighbours of the same role are one message."""
    messages: list[dict] = []
    for role, content in turns:
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": role, "content": content})
    return messages


def _spoken(row: Row, column: str, names: Mapping[str, str]) -> list[Dialogue]:
    """The dialogue of a list of turns. names: how each role is called where a turn says nothing but that and its text."""
    turns = row.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Refused("layout", f"column {column} is not a list of objects")
    role_key, text_key = ("from", "value") if any("from" in turn for turn in turns) or column == "conversations" and not any(
        "role" in turn for turn in turns) else ("role", "content")
    spoken: list[tuple[str, str]] = []
    for turn in turns:
        role = ROLES.get(str(turn.get(role_key)).lower())
        if role is None:
            raise Refused("roles", f"column {column}: unknown {role_key} {turn.get(role_key)!r}")
        content = _text(turn, text_key)
        if not content.strip():
            raise Refused("empty", f"column {column}: a message of the {role} has no text")
        spoken.append((role, content))
    messages = _joined(spoken)
    extra = _without(row, column, "kind")
    if turns != [{role_key: names[message["role"]], text_key: message["content"]} for message in messages]:
        extra[column] = turns
    return [(messages, extra)]


def _sharegpt(row: Row, every_path: bool) -> list[Dialogue]:
    return _spoken(row, "conversations", SHAREGPT_ROLES)


def _messages(row: Row, every_path: bool) -> list[Dialogue]:
    return _spoken(row, "messages", {role: role for role in SHAREGPT_ROLES})


def _ultrachat(row: Row, every_path: bool) -> list[Dialogue]:
    turns = row.get("data")
    if not isinstance(turns, list):
        raise Refused("layout", "column data is not a list of texts")
    texts = [_checked(turn, f"data[{number}]") for number, turn in enumerate(turns)]
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return [(messages, _without(row, "data"))]


def _gsm8k(row: Row, every_path: bool) -> list[Dialogue]:
    question, answer = _text(row, "question"), _text(row, "answer")
    plain = _CALCULATOR.sub("", answer)
    return [(_asked(question, plain), _without(row, "question", *(["answer"] if plain == answer else [])))]


def _alpaca(row: Row, every_path: bool) -> list[Dialogue]:
    instruction, output = _text(row, "instruction"), _text(row, "output")
    given = row.get("input") or ""
    if not isinstance(given, str):
        raise Refused("layout", f"column input is a {type(given).__name__}, not a text")
    question = f"{instruction}\n\n{given}" if given.strip() else instruction
    return [(_asked(question, output), _without(row, "instruction", "output", *([] if given else ["input"])))]


def _pair(question: str, answer: str) -> Callable[[Row, bool], list[Dialogue]]:
    """A reader of rows that hold one question and one answer, as they are."""
    return lambda row, every_path: [(_asked(_text(row, question), _text(row, answer)), _without(row, question, answer))]


def _oasst(row: Row, every_path: bool) -> list[Dialogue]:
    """Paths from the prompt to an answer: the one that takes the best-ranked reply each time, or the one to each leaf.

    Rank 0 is the best, a reply without a rank comes after all that have one, of equals the first in the file counts. Deleted
    messages are passed over. A path that ends with the user is cut back to the answer before, and left out where another goes on.
    """
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise Refused("layout", "column prompt is not an object: the root of a tree of messages")
    kept: dict[tuple[str, ...], Dialogue] = {}
    for path in _paths(root, every_path):
        turns = [(ROLES.get(str(node.get("role")).lower(), "?"), _text(node, "text")) for node in path]
        if unknown := [node.get("role") for node, (role, _) in zip(path, turns, strict=True) if role == "?"]:
            raise Refused("roles", f"column prompt: unknown role {unknown[0]!r}")
        while turns and turns[-1][0] == "user":
            turns.pop()
        ids = tuple(str(node.get("message_id")) for node in path[: len(turns)])
        if turns:
            extra = {**_without(row, "prompt"), "path": list(ids), "lang": root.get("lang")}
            kept.setdefault(ids, (_joined(turns), extra))
    if not kept:
        raise Refused("no_answer", "no message of the tree answers its prompt")
    beginnings = {ids[:end] for ids in kept for end in range(1, len(ids))}
    return [dialogue for ids, dialogue in kept.items() if ids not in beginnings]


def _paths(root: Row, every_path: bool) -> Iterator[list[Row]]:
    waiting: list[list[Row]] = [[root]]
    while waiting:
        path = waiting.pop()
        replies = path[-1].get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            raise Refused("layout", "column prompt: replies are not a list of objects")
        living = [reply for reply in replies if not reply.get("deleted")]
        ranked = sorted(living, key=lambda reply: reply["rank"] if isinstance(reply.get("rank"), int) else float("inf"))
        if ranked:
            waiting += [[*path, reply] for reply in reversed(ranked if every_path else ranked[:1])]
        else:
            yield path


# In the order in which they are tried; the first whose columns a row has is its layout.
LAYOUTS: dict[str, Layout] = {
    "sharegpt": Layout(("conversations",), _sharegpt, "chat_agnostic"),
    "messages": Layout(("messages",), _messages, "chat_agnostic"),
    "oasst": Layout(("message_tree_id", "prompt"), _oasst, "chat_agnostic"),
    "ultrachat": Layout(("data",), _ultrachat, "chat_agnostic"),
    "humaneval": Layout(("task_id", "prompt", "canonical_solution"), _pair("prompt", "canonical_solution"), "code"),
    "alpaca": Layout(("instruction", "output"), _alpaca, "code"),
    "magicoder": Layout(("problem", "solution"), _pair("problem", "solution"), "code"),
    "magicoder_evol": Layout(("instruction", "response"), _pair("instruction", "response"), "code"),
    "metamath": Layout(("query", "response"), _pair("query", "response"), "math"),
    "gsm8k": Layout(("question", "answer"), _gsm8k, "math"),
}
