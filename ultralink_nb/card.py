"""The dataset card of a release: what a stranger must know before use, each number counted from the rows themselves.

The front matter is what the Hugging Face hub and `datasets.load_dataset` read: languages, licence, size and one configuration for
each kind beside `default`, which is everything.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment

from ultralink_nb.chat import ReplayModel
from ultralink_nb.languages import LANGUAGES

Rows = Sequence[Mapping[str, Any]]

KINDS = ("chat_specific", "chat_agnostic", "math", "code")

# Rows of the paper's statistics table as it prints them: dialogues, turns, mean tokens of a question, an answer and a turn.
PUBLISHED: list[dict] = [
    dict(zip(("part", "name", "dialogues", "turns", "question", "answer", "turn"), ("published", *row), strict=True))
    for row in (
        ("Okapi", 207_000, 207_000, 28.64, 95.72, 124.36),
        ("Guanaco", 1_173_000, 1_173_000, 77.58, 83.31, 160.89),
        ("Multialpaca", 132_000, 132_000, 39.86, 83.71, 123.57),
        ("Phoenix SFT data", 464_000, 893_000, 165.27, 200.07, 365.34),
        ("UltraLink", 1_032_000, 1_623_000, 87.86, 290.35, 378.21),
    )
]
# Dialogues of each kind in the released UltraLink, in the paper's rounding.
PUBLISHED_KINDS = {"chat_specific": 147_000, "chat_agnostic": 112_000, "math": 523_000, "code": 250_000}

# What licences of the Creative Commons family ask, by the part of their name that says so.
LICENSE_TERMS = {
    "BY": "name the authors and the source of each text (`attribution.jsonl` does so for documents) and say what was changed",
    "SA": "pass on what you make of it under the same licence",
    "NC": "do not use it commercially",
    "ND": "do not pass on changed versions, which dialogues and translations are",
}

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))


def in_order(values: Iterable[str]) -> list[str]:
    """Languages or kinds, each once, as every table lists them: those the kit knows in its own order, then the rest by name."""
    known = [*KINDS, *LANGUAGES]
    return sorted(set(values), key=lambda value: (known.index(value) if value in known else len(known), value))


def counts_by_part(samples: Rows) -> list[dict]:
    """Samples by kind and language: a row {kind, <language>: n …, all: n} for each kind, and one for all kinds together."""
    counted = Counter((sample["kind"], sample["language"]) for sample in samples)
    kinds, languages = in_order(kind for kind, _ in counted), in_order(language for _, language in counted)
    rows = [{"kind": kind, **{code: counted[kind, code] for code in languages}} for kind in kinds]
    if len(kinds) > 1:
        rows.append({"kind": "all", **{code: sum(row[code] for row in rows) for code in languages}})
    return [{**row, "all": sum(row[code] for code in languages)} for row in rows]


def sources(samples: Rows) -> list[dict]:
    """Where the samples come from: rows {dataset, license, samples}, most first; what is not stated is said to be so."""
    counted = Counter((sample["source"]["dataset"] or "not stated", sample["source"]["license"] or "not stated")
                      for sample in samples)
    rows = [{"dataset": dataset, "license": license, "samples": n} for (dataset, license), n in counted.items()]
    return sorted(rows, key=lambda row: (-row["samples"], row["dataset"], row["license"]))


def origins(samples: Rows) -> list[dict]:
    """How the samples came about: rows {origin, written by, samples}, most first, from `source` and `generator` of each."""

    def origin(sample: Mapping[str, Any]) -> str:
        if sample["source"]["parent_id"]:
            return "translated from another sample"
        return "dialogue about a document" if sample["source"]["document_id"] else "taken over from its source"

    counted = Counter((origin(sample), sample["generator"]["model"] or "not stated") for sample in samples)
    rows = [{"origin": how, "written by": model, "samples": n} for (how, model), n in counted.items()]
    return sorted(rows, key=lambda row: (-row["samples"], row["origin"], row["written by"]))


def pruning_rows(kept: Rows, dropped_samples: Rows) -> list[dict]:
    """Kept and dropped samples by kind: rows {kind, kept, dropped, kept share}, the share between 0 and 1."""
    stay, gone = Counter(sample["kind"] for sample in kept), Counter(sample["kind"] for sample in dropped_samples)
    return [{"kind": kind, "kept": stay[kind], "dropped": gone[kind], "kept share": stay[kind] / (stay[kind] + gone[kind])}
            for kind in in_order([*stay, *gone])]


_STEPS = {
    "dialogue about a document": "**Knowledge grounding.** Dialogues were held about passages of documents, each in the language "
    "of its document (Section 3.1 of the paper).",
    "translated from another sample": "**Translation.** Samples were translated into other languages. The kit translates only "
    "what was sifted of content bound to one language or culture, and verifies each translation against its original "
    "(Section 3.2).",
    "taken over from its source": "**Existing data.** Samples were taken over from the sources named below.",
}


def front_matter(name: str, license: str, samples: Rows) -> dict[str, Any]:
    """The card's metadata: one configuration for each kind, and `default`, which is all of them."""
    known = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license) and not license.lower().startswith("licenseref")
    kinds = in_order(sample["kind"] for sample in samples)
    paths = {"default": "data/*/*.parquet", **{kind: f"data/{kind}/*.parquet" for kind in kinds}}
    return {
        "pretty_name": name,
        "language": in_order(sample["language"] for sample in samples),
        "license": license.lower() if known else "other",
        **({} if known else {"license_name": license}),
        "task_categories": ["text-generation"],
        "size_categories": [next((label for limit, label in _SIZES if len(samples) < limit), "n>1B")],
        "tags": ["supervised-fine-tuning", "multilingual", "ultralink"],
        "configs": [{"config_name": config, "data_files": [{"split": "train", "path": path}]} for config, path in paths.items()],
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def markdown_table(rows: Rows) -> str:
    """Rows as a Markdown table, numbers to the right; a bar or a tag in a cell stays text."""
    columns = list(rows[0])
    rule = ["---:" if all(isinstance(row[c], (int, float, type(None))) for row in rows) else "---" for c in columns]
    lines = [columns, rule, *([_cell(row[column]) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_CARD = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False).from_string("""\
---
{{ front_matter }}---

# {{ name }}

A multilingual dataset for supervised fine-tuning: {{ "{:,}".format(total) }} samples in {{ languages }}, made with the
UltraLink notebook kit, which follows the method of the UltraLink paper (Wang et al., ACL 2024). It is not the dataset that the
paper released.
{% if replayed %}

> **Not a model's output.** {{ "{:,}".format(replayed) }} of the samples are replayed recordings: the kit's authors wrote their
> texts to show how the kit works. They are not a model's output and not meant for training.
{% endif %}

{{ counts }}

## Load it

```python
from datasets import load_dataset

everything = load_dataset("path/to/this/folder", split="train")
{{ variable }} = load_dataset("path/to/this/folder", "{{ first_kind }}", split="train")
```

| folder | layout of a row |
|---|---|
| `data/<kind>/<language>.parquet` | id, language, kind, messages, source, generator, extra: what `load_dataset` reads |
| `messages/<language>_<kind>.jsonl` | `{"id", "language", "kind", "messages": [{"role", "content"}, …]}` |
| `ultralink/<language>_<kind>.jsonl` | UltraLink's own: `{"id": "zh_chat_specific_12", "data": [question, answer, …]}` |

The number in an UltraLink id is the position of the same sample in the file of that name in `messages/`, counted from 0. The
layout has no place for system messages, so they are left out of it. A sample may be a question alone.
{% if unpaired %}
Of {{ "{:,}".format(unpaired) }} samples the questions and answers do not alternate; UltraLink's layout cannot hold them, and
`ultralink/left_out.jsonl` names them.
{% endif %}

## How it was made

{% for step in steps %}
- {{ step }}
{% endfor %}
- **Redundancy.** Samples that say the same in several languages were looked for by embeddings, and pruned (Section 3.2).

{{ origins }}

"Not stated" means that a sample was taken over as it was and does not say who or what wrote it.

## Pruning

{% if dropped %}
{{ "{:,}".format(total) }} samples were kept and {{ "{:,}".format(dropped) }} dropped by policy {{ policies }}.
{% if unrepresented %}
{{ "{:,}".format(unrepresented) }} of the dropped samples have no kept sample that stands for them.
{% else %}
For each dropped sample there is a kept one that was judged to say the same.
{% endif %}
{% else %}
Nothing was dropped: all {{ "{:,}".format(total) }} samples were kept.
{% endif %}
{% if pruning %}

{{ pruning }}
{% endif %}

## Statistics

Mean tokens by the tokenizer `{{ tokenizer }}`. A turn is a question with its answer; system messages are not counted.

{{ statistics }}

The published datasets, as the paper's statistics table prints them (dialogues and turns rounded to thousands). The paper's token
counts need not come from the same tokenizer: compare orders of magnitude.

{{ published }}

## Sources and licences

{{ sources }}

{% if license == "unknown" %}No licence is stated for the release as a whole
{%- else %}The release as a whole is under **{{ license }}**{% endif %}, which is for those who release it to answer for: the kit
copies the licences of the sources and does not judge whether they go together. "Not stated" means unknown, not free.
{% if terms %}

Among the licences above are terms that bind you:

{% for term in terms %}
- {{ term }}
{% endfor %}
{% endif %}
{% if documents %}

`attribution.jsonl` lists the {{ "{:,}".format(documents) }} documents that samples draw on, each with title, address, revision
and licence where they are known, and the ids of its samples.
{% endif %}

## Limits

- Answers may be wrong, out of date or one-sided, and so may the documents that they draw on; the kit's checks do not know what
  is true.
- What counts as the same content is decided by a threshold on an estimated probability: some repetitions may remain, and some
  samples that said something of their own may have been dropped.
- The kit does not search for personal data or offensive language.
- Averages of tokens are not comparable between languages: a tokenizer needs more tokens for the same text in some than in others.

## Citation

The method is that of the paper; please cite it:

```bibtex
@inproceedings{wang-etal-2024-ultralink,
  title     = {{ "{" }}{UltraLink}: An Open-Source Knowledge-Enhanced Multilingual Supervised Fine-tuning Dataset},
  author    = {Wang, Haoyu and Wang, Shuo and Yan, Yukun and Wang, Xujia and Yang, Zhiyu and Xu, Yuzhuang and Liu, Zhenghao and
               Yang, Liner and Ding, Ning and Han, Xu and Liu, Zhiyuan and Sun, Maosong},
  booktitle = {Proceedings of the 62nd Annual Meeting of the Association for Computational Linguistics (Volume 1: Long Papers)},
  year      = {2024},
  pages     = {11929--11942},
  note      = {arXiv:2402.04588}
}
```
""")


def dataset_card(name: str, license: str, kept: Rows, dropped: Rows, dropped_samples: Rows, statistics: Rows, tokenizer: str,
                 documents: int = 0, unpaired: int = 0) -> str:
    """The card as Markdown with YAML front matter; the same input gives the same text.

    kept: the samples of the release, at least one. dropped: rows of the dropped table. dropped_samples: their samples, as far as
    they are known. statistics: rows in the shape of `PUBLISHED`. documents: rows in `attribution.jsonl`. unpaired: samples that
    UltraLink's layout cannot hold.
    """
    licenses = {row["license"] for row in sources(kept)} - {"not stated"}
    parts = {part for text in licenses if text.upper().startswith("CC") for part in re.split(r"[^A-Z]+", text.upper())}
    kinds = in_order(sample["kind"] for sample in kept)
    codes = in_order(sample["language"] for sample in kept)
    came_about = origins(kept)
    return _CARD.render(
        front_matter=yaml.safe_dump(front_matter(name, license, kept), sort_keys=False, allow_unicode=True, width=120),
        name=name, license=license, total=len(kept), tokenizer=tokenizer, documents=documents, unpaired=unpaired,
        languages=", ".join(LANGUAGES[code].name for code in codes), counts=markdown_table(counts_by_part(kept)),
        replayed=sum(sample["generator"]["model"] == ReplayModel.label for sample in kept),
        first_kind=kinds[0], variable=kinds[0] if kinds[0].isidentifier() else "part", origins=markdown_table(came_about),
        steps=[text for how, text in _STEPS.items() if any(row["origin"] == how for row in came_about)],
        dropped=len(dropped), policies=", ".join(sorted({f"`{row['policy']}`" for row in dropped})),
        unrepresented=sum(row["kept_by"] is None for row in dropped),
        pruning=markdown_table(pruning_rows(kept, dropped_samples)) if dropped and len(dropped_samples) == len(dropped) else "",
        statistics=markdown_table(statistics),
        published=markdown_table([{name: row[name] for name in row if name != "part"} for row in PUBLISHED]),
        sources=markdown_table(sources(kept)), terms=[text for part, text in LICENSE_TERMS.items() if part in parts],
    )
