"""The card of a trained model: what it was made of, how, and what it says about itself that can be checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ultralink_nb import held_out
from ultralink_nb.card import in_order, markdown_table
from ultralink_nb.finetuning import TrainingResult
from ultralink_nb.records import atomic_path
from ultralink_nb.tables import in_run_order

_HOW = {
    "lora": "LoRA adapters beside every linear layer; the base model's weights are unchanged and needed to use them.",
    "qlora": "LoRA adapters over a base model of 4 bits (QLoRA); the base model is needed to use them.",
    "full": "All weights were trained.",
}


def model_card(result: TrainingResult, name: str, license: str | None = None, data: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card as Markdown with metadata. data: rows {dataset, license, samples}, as `card.sources` counts them."""
    told, settings = result.manifest, result.manifest["settings"]
    languages = in_order(code for row in told["data"] for code in row if code != "source")
    front = {
        **({} if Path(settings["model"]).is_dir() else {"base_model": settings["model"]}),
        "library_name": "transformers" if settings["training_method"] == "full" else "peft", "pipeline_tag": "text-generation",
        "language": languages, "license": license or "other", **({} if license else {"license_name": "not-stated"}),
        "tags": ["supervised-fine-tuning", "multilingual", "ultralink"],
    }
    numbers = [{"setting": key, "value": "" if value is None else str(value)} for key, value in settings.items()]
    measured = result.held_out
    losses = in_run_order(held_out.by(measured, "language")).reset_index().to_dict("records") if len(measured) else []
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---",
        f"# {name}",
        f"`{settings['model']}`, fine-tuned on multilingual dialogues with the UltraLink notebook kit. "
        + _HOW[settings["training_method"]],
        f"{told['trained']:,} of {told['parameters']:,} parameters were trained in {told['steps']:,} steps over "
        f"{told['learnt']['rows']:,} dialogues ({told['learnt']['tokens']:,} tokens, {told['learnt']['tokens learnt']:,} of them "
        f"learnt), in {told['seconds']:,.0f} seconds on {told['processes']} × {told['device']}.",
        "## Data", *([markdown_table(list(data))] if data else []),
        *(["Dialogues by source and language:", markdown_table(told["data"])] if told["data"] else []),
        "## Held-out loss", *(["Nats per token of the answers, on contents that were not trained on, before and after.",
                               markdown_table(losses)] if losses else ["Not measured."]),
        "## Settings", f"Chat template: {told['chat_template']}. " + ", ".join(f"{key} {value}" for key, value in
                                                                          told["versions"].items()) + ".",
        markdown_table(numbers),
        "## Licence and limits",
        f"Licence of this model: {license or 'not stated'}. The terms of the base model and of the data above apply as well; "
        "neither was checked by the kit. What the model answers was not checked for truth or harm: evaluate it first.",
    ]
    return "\n\n".join(parts) + "\n"


def write_card(result: TrainingResult, name: str, license: str | None = None, data: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write the card into the model's folder as README.md and return its path."""
    path = result.model / "README.md"
    with atomic_path(path) as temporary:
        temporary.write_text(model_card(result, name, license, data), encoding="utf-8")
    return path
