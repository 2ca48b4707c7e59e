"""TRL's SFTTrainer as the kit uses it: quiet, with a curve that survives a kill, and checkpoints that are whole or not used.

Here are the parts that know TRL, PEFT and the Trainer of transformers; `finetuning.py` says what is trained on what.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ultralink_nb import held_out as measuring
from ultralink_nb.models import BadModel, load_model, pick_device
from ultralink_nb.training_data import Encoded, EncodedRows
from ultralink_nb.training_settings import Settings


def processes() -> tuple[int, int]:
    """(this process's number, how many there are) as torchrun or accelerate started them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def open_base(settings: Settings) -> tuple[Any, Any]:
    """(model, tokenizer) to train. LoRA on a GPU keeps the base in bfloat16, QLoRA in 4 bits; full training has float32 weights.

    Raises `BadModel` where QLoRA is asked and there is no GPU or no bitsandbytes.
    """
    import torch

    place, method = pick_device(settings.device), settings.training_method
    if method == "qlora":
        import importlib.util

        if place != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
            raise BadModel("training_method qlora needs a CUDA GPU and bitsandbytes (pip install bitsandbytes); here "
                           "set training_method to lora, which trains the same adapter over weights that are not quantised")
        import transformers

        bits = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                               bnb_4bit_compute_dtype=torch.bfloat16)
        return load_model(settings.model, place, torch.bfloat16, bits)
    dtype = torch.bfloat16 if place == "cuda" and method == "lora" else torch.float32
    return load_model(settings.model, "cpu", dtype)  # the Trainer moves it to the device of its process


def as_dataset(encoded: Sequence[Encoded]) -> Any:
    """Rows in tokens as a `datasets.Dataset` with columns input_ids and labels, which the trainer takes as they are."""
    import datasets

    kind = pa.list_(pa.int32())
    return datasets.Dataset(pa.table({"input_ids": pa.array([row.input_ids for row in encoded], kind),
                                      "labels": pa.array([row.labels for row in encoded], kind)}))


def config(settings: Settings, checkpoints: Path) -> Any:
    """The `SFTConfig` of some settings."""
    from trl import SFTConfig

    on_gpu = pick_device(settings.device) == "cuda"
    return SFTConfig(
        output_dir=str(checkpoints), per_device_train_batch_size=settings.rows_per_device,
        gradient_accumulation_steps=settings.accumulation(processes()[1]), learning_rate=settings.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=settings.warmup, weight_decay=settings.weight_decay, num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1, max_length=settings.max_row_tokens, packing=settings.packing,
        gradient_checkpointing=settings.gradient_checkpointing, bf16=on_gpu, use_cpu=not on_gpu,
        logging_strategy="steps", logging_steps=1, logging_nan_inf_filter=False, save_strategy="steps",
        save_steps=settings.save_every, save_total_limit=2, seed=settings.seed, data_seed=settings.seed, report_to="none",
        disable_tqdm=True, dataloader_pin_memory=on_gpu, log_level="error",
        ddp_backend="gloo" if processes()[1] > 1 and not on_gpu else None,
    )


def adapter(settings: Settings) -> Any:
    """The `LoraConfig` over every linear layer but the last one; None for full training."""
    from peft import LoraConfig

    if settings.training_method == "full":
        return None
    return LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout,
                      target_modules="all-linear", task_type="CAUSAL_LM")


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end: trainer_state.json is written last. Others are removed."""
    whole = []
    for place in sorted(folder.glob("checkpoint-*"), key=lambda place: int(place.name.split("-")[1])):
        try:
            json.loads((place / "trainer_state.json").read_text(encoding="utf-8"))
            whole.append(place)
        except (OSError, ValueError):
            shutil.rmtree(place, ignore_errors=True)
    return whole[-1] if whole else None


def watcher(rows: EncodedRows, every: int | None, say: Callable[[str], None]) -> Any:
    """A callback that notes seconds and held-out losses in the trainer's own history, which its checkpoints carry."""
    import transformers

    class Watcher(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.started, self.before, self.tokens, self.told = time.monotonic(), 0.0, 0, 0.0

        def on_train_begin(self, args, state, control, model=None, **_):
            before = [entry for entry in state.log_history if "seconds" in entry][-1:]
            self.started, self.before = time.monotonic(), sum(entry["seconds"] for entry in before)
            self.tokens = sum(entry["tokens"] for entry in before)  # TRL counts from zero when it resumes
            if state.global_step == 0:
                self.measure(state, model)

        def on_step_end(self, args, state, control, model=None, **_):
            if every and state.global_step % every == 0:
                self.measure(state, model)

        def on_log(self, args, state, control, logs=None, **_):
            entry = state.log_history[-1]
            if "loss" in entry:
                entry["tokens"] = self.tokens + int(entry["num_tokens"])
                entry["seconds"] = self.before + time.monotonic() - self.started
                if state.is_world_process_zero and (time.monotonic() - self.told > 10 or state.global_step == state.max_steps):
                    say(f"step {state.global_step:,} of {state.max_steps:,}: loss {entry['loss']:.3f}")
                    self.told = time.monotonic()

        def on_train_end(self, args, state, control, model=None, **_):
            if not any(entry["step"] == state.global_step for entry in state.log_history if "held_out" in entry):
                self.measure(state, model)

        def measure(self, state, model) -> None:
            if rows.encoded:
                table = measuring.losses(model, rows)
                state.log_history.append({"step": state.global_step, "held_out": table.to_dict("records")})

    return Watcher()


def fit(settings: Settings, model: Any, tokenizer: Any, rows: EncodedRows, held_out: EncodedRows, checkpoints: Path, resume: bool,
        say: Callable[[str], None]) -> Any:
    """Train, from the last whole checkpoint where `resume` and there is one; returns the `SFTTrainer`."""
    from trl import SFTTrainer

    trainer = SFTTrainer(
        model=model, args=config(settings, checkpoints), train_dataset=as_dataset(rows.encoded), processing_class=tokenizer,
        peft_config=adapter(settings), callbacks=[watcher(held_out, settings.evaluate_every, say)],
    )
    trainer.remove_callback(_printer())
    with trainer.accelerator.main_process_first():  # one process removes what is half written before another looks
        last = last_whole_checkpoint(checkpoints) if resume else None
    if last:
        if trainer.is_world_process_zero():
            say(f"going on after step {last.name.split('-')[1]}")
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return trainer


def _printer() -> Any:
    import transformers

    return transformers.PrinterCallback


def save(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Write the adapter or the whole model, and the tokenizer with its template, whole or not at all; no pickles among them."""
    part = folder.with_name(f".{folder.name}.part")
    if trainer.is_world_process_zero():
        shutil.rmtree(part, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(part))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(part)
        for pickle in part.glob("*.bin"):  # the arguments of the training: nobody should load a pickle to use a model
            pickle.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    trainer.accelerator.wait_for_everyone()
