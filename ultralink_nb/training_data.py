"""Dialogues as a language model is trained on them: rendered, cut into tokens, with labels on the answers alone.

A **chat template** turns messages into one text with marks for who speaks; the **labels** say which of its tokens the loss is
taken over. -100 is the label of a token that is read but not learnt (PyTorch's `ignore_index`): every user turn, every system
message and the marks before an answer. An answer's tokens, the mark of its end included, keep their labels, in every turn.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ultralink_nb.chance import place_in_draw
from ultralink_nb.errors import KitError
from ultralink_nb.records import rejected

IGNORED = -100  # the label of a token that is not learnt
STAGE = "training"

# For base models that bring no template: plain words that any tokenizer has, and the model's own marks of beginning and end.
# `transformers:` chat models without a template are asked in the same words (see transformers_model.py).
KIT_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}\n"
    "{% else %}Assistant:{% generation %} {{ message['content'] }}{{ eos_token }}{% endgeneration %}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

# Llama 2's, the form that UltraLink-LM's model card asks it in; its base model brings none.
INST_TEMPLATE = (
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{% set lead = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set lead = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ bos_token or '' }}[INST] {{ lead if loop.first else '' }}{{ message['content'] }} [/INST]"
    "{% else %}{% generation %} {{ message['content'] }} {{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
TEMPLATES = {"kit": KIT_TEMPLATE, "inst": INST_TEMPLATE}


class BadTemplate(KitError, ValueError):
    """A chat template or tokenizer by which the answers of a dialogue cannot be told from the rest."""


@dataclass(frozen=True)
class Encoded:
    """A dialogue in tokens. labels: `IGNORED` where nothing is learnt. cut: tokens beyond the longest row, left away."""

    input_ids: np.ndarray  # (n,) int32
    labels: np.ndarray  # (n,) int32
    cut: int = 0

    @property
    def learnt(self) -> int:
        return int((self.labels[1:] != IGNORED).sum())  # nothing predicts a row's first token


@dataclass
class EncodedRows:
    """Rows that can be trained on, in tokens, beside their samples; the others as rejected rows (`records.REJECTED`)."""

    samples: list[Mapping[str, Any]] = field(default_factory=list)
    encoded: list[Encoded] = field(default_factory=list)
    refused: list[dict] = field(default_factory=list)

    def summary(self) -> dict[str, int]:
        """Rows, tokens, tokens that are learnt, rows cut at the longest row's length, rows refused."""
        return {
            "rows": len(self.encoded), "tokens": sum(len(row.input_ids) for row in self.encoded),
            "tokens learnt": sum(row.learnt for row in self.encoded), "rows cut": sum(row.cut > 0 for row in self.encoded),
            "rows refused": len(self.refused),
        }


def set_template(tokenizer: Any, choice: str = "auto") -> str:
    """Give a tokenizer the template of the training and return which it is.

    choice: `auto` (the model's own, the kit's where it has none), `kit` or `inst` (Llama 2's). Raises `BadTemplate` for a
    tokenizer that knows no end-of-text token: a model could not learn to stop.
    """
    if tokenizer.eos_token is None:
        raise BadTemplate("the tokenizer has no end-of-text token (eos_token), so a model could not learn to end an answer: "
                          "set it in the folder's tokenizer_config.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if choice == "auto" and tokenizer.chat_template:
        return "the model's own"
    tokenizer.chat_template = TEMPLATES.get(choice, KIT_TEMPLATE)
    return "Llama 2's" if choice == "inst" else "the kit's"


def answer_spans(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """(text, spans): the rendered dialogue, and where in it each answer stands, in characters, its end-of-turn mark included.

    An answer begins where the text of everything before it, rendered so that the model's turn is next, ends. Raises
    `BadTemplate` if the template does not render a dialogue's beginning as the beginning of the dialogue.
    """
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        text = tokenizer.apply_chat_template(plain, tokenize=False)
        spans = []
        for place, message in enumerate(plain):
            if message["role"] == "assistant":
                before = tokenizer.apply_chat_template(plain[:place], tokenize=False, add_generation_prompt=True)
                upto = tokenizer.apply_chat_template(plain[: place + 1], tokenize=False)
                if not (upto.startswith(before) and text.startswith(upto)):
                    raise BadTemplate("the model's chat template renders earlier turns otherwise once a later one follows, so "
                                      "that the answers cannot be told apart: set chat_template to kit")
                spans.append((len(before), max(len(before), len(upto.rstrip()))))
    except BadTemplate:
        raise
    except Exception as error:  # whatever a template raises, for instance about roles
        raise BadTemplate(f"the model's chat template refuses a dialogue ({error}): set chat_template to kit") from None
    return text, spans


def encode(tokenizer: Any, messages: Sequence[Mapping[str, str]], max_tokens: int, answers_only: bool = True) -> Encoded:
    """A dialogue in tokens, cut after `max_tokens`, with labels on the answers (or on every token). Errors as `answer_spans`."""
    text, spans = answer_spans(tokenizer, messages)
    if not tokenizer.is_fast:
        raise BadTemplate("the tokenizer is a slow one, which does not tell where in the text a token stands: use a model with a "
                          "tokenizer.json")
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, span = np.array(tokens["input_ids"], np.int32), 0
    labels = np.full(len(ids), IGNORED, np.int32)
    for place, (start, end) in enumerate(tokens["offset_mapping"]):
        while span < len(spans) and start >= spans[span][1]:
            span += 1
        inside = span < len(spans) and end > spans[span][0]  # also of a token that reaches over an answer's beginning
        if inside or not answers_only:
            labels[place] = ids[place]
    return Encoded(ids[:max_tokens], labels[:max_tokens], max(0, len(ids) - max_tokens))


def runs(tokenizer: Any, row: Encoded) -> list[tuple[bool, str]]:
    """(learnt, text) of the stretches of a row in tokens that are learnt or not, in order: what a person checks a mask by."""
    learnt = row.labels != IGNORED
    bounds = [0, *(np.flatnonzero(learnt[1:] != learnt[:-1]) + 1).tolist(), len(learnt)]
    return [(bool(learnt[start]), tokenizer.decode(row.input_ids[start:end])) for start, end in
            zip(bounds, bounds[1:], strict=False) if end > start]


def encode_rows(tokenizer: Any, samples: Sequence[Mapping[str, Any]], max_tokens: int, answers_only: bool = True) -> EncodedRows:
    """Samples in tokens. A row without an answer, or with none within `max_tokens`, is refused and says so."""
    found = EncodedRows()
    for sample in samples:
        roles = [message["role"] for message in sample["messages"]]
        gate, reason, row = "no_answer", "the sample has no answer to learn", None
        if "assistant" in roles:
            row = encode(tokenizer, sample["messages"], max_tokens, answers_only)
            gate, reason = "too_long", f"no answer begins within {max_tokens} tokens"
        if row is not None and row.learnt:
            found.samples.append(sample)
            found.encoded.append(row)
        else:
            found.refused.append(rejected(sample["id"], sample["language"], STAGE, gate, reason, sample))
    return found


def contents(samples: Sequence[Mapping[str, Any]], groups: Mapping[str, int] | None = None) -> np.ndarray:
    """(n,) the content that each row belongs to: rows of one group, a translation and its original, and translations of one
    original share it, however many steps lie between.

    groups: id to group (`groups.parquet`), for the ids that have one.
    """
    first: dict[tuple[str, str], int] = {}
    left, right = [], []
    for row, sample in enumerate(samples):
        keys = [("id", sample["id"])]
        if parent := (sample.get("source") or {}).get("parent_id"):
            keys.append(("id", parent))
        if groups and sample["id"] in groups:
            keys.append(("group", str(groups[sample["id"]])))
        for key in keys:
            left.append(first.setdefault(key, row))
            right.append(row)
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(samples), len(samples)))
    return connected_components(graph, directed=False)[1]


def hold_out(
    samples: Sequence[Mapping[str, Any]], share: float, seed: int, groups: Mapping[str, int] | None = None
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """(train, held out): whole contents are held out, so that no held-out row is a translation of a row that is trained on.

    share: of each language's rows, about; a language with five rows or more gives one at least, one with fewer gives none of its
    own accord. Contents are drawn in an order that depends on ids and seed alone, and taken while a language of theirs is short.
    """
    content = contents(samples, groups)
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, one in enumerate(content.tolist()):
        rows_of[one].append(row)
    counts: dict[str, int] = defaultdict(int)
    for sample in samples:
        counts[sample["language"]] += 1
    wanted = {code: max(round(share * count), int(share > 0 and count >= 5)) for code, count in counts.items()}
    held: set[int] = set()
    order = sorted(rows_of.values(), key=lambda rows: place_in_draw(min(samples[row]["id"] for row in rows), seed))
    for rows in order:
        if any(wanted[samples[row]["language"]] > 0 for row in rows):
            held.update(rows)
            for row in rows:
                wanted[samples[row]["language"]] -= 1
    return ([sample for row, sample in enumerate(samples) if row not in held],
            [sample for row, sample in enumerate(samples) if row in held])
