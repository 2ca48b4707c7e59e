"""Causal language models, opened by a name on the hub or a folder: whole models, and adapters with their base.

Only safetensors are read, and code that comes with a model is never run.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultralink_nb.errors import KitError

INSTALL = "pip install -e '.[train]'"

TALKATIVE = ("transformers", "trl", "peft", "accelerate", "datasets", "torch.distributed")


class BadModel(KitError, ValueError):
    """A model that cannot be opened, or that the machine at hand cannot train in the way that was asked."""


def pick_device(device: str = "auto") -> str:
    """`cpu` or `cuda`: what `auto` stands for here. Raises `BadModel` where `cuda` is asked and there is no GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BadModel("device is cuda, but there is no GPU that torch can use: set device to auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def load_model(name_or_folder: str | Path, device: str = "auto", dtype: Any = None, quantization: Any = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a hub name or a local folder, ready to read and to generate.

    A folder with an adapter (`adapter_config.json`) is opened together with the base model that it names. device: `auto`, `cpu`
    or `cuda`. dtype: None takes float32 on a CPU and the weights' own type on a GPU. quantization: a `BitsAndBytesConfig`.
    Raises `BadModel` with one sentence where there is no such model, no safetensors, or PEFT is missing.
    """
    import torch
    import transformers

    place = pick_device(device)
    dtype = dtype or (torch.float32 if place == "cpu" else "auto")
    folder = Path(name_or_folder)
    adapter = folder / "adapter_config.json"
    with quiet():
        try:
            told = json.loads(adapter.read_text(encoding="utf-8")) if adapter.is_file() else {}
            base = told.get("base_model_name_or_path", name_or_folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=False)
            where = {"quantization_config": quantization, "device_map": {"": torch.cuda.current_device()}} if quantization else {}
            model = transformers.AutoModelForCausalLM.from_pretrained(
                base, dtype=dtype, trust_remote_code=False, use_safetensors=True, **where)
        except Exception as error:  # whatever the hub, the disk or a broken file raises
            said = " ".join(str(error).split())[:200]
            raise BadModel(f"the model {name_or_folder} could not be opened ({type(error).__name__}: {said}); name a folder that "
                           "holds a saved model as safetensors, or a hub name on a machine that reaches the hub") from None
        if adapter.is_file():
            if not (folder / "adapter_model.safetensors").is_file():
                raise BadModel(f"{folder} holds no adapter_model.safetensors: save the adapter as safetensors")
            model = _peft().PeftModel.from_pretrained(model, folder)
    return (model if quantization else model.to(place)).eval(), tokenizer


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise BadModel(f"adapters need PEFT: {INSTALL}") from None
    return peft


def need_training_packages() -> None:
    """Raises `BadModel` where TRL, PEFT or accelerate is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("trl", "peft", "accelerate") if find_spec(name) is None]
    if missing:
        raise BadModel(f"fine-tuning needs {' and '.join(missing)}: {INSTALL}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Only errors of the training libraries are shown; their levels and progress bars are as before afterwards."""
    import datasets
    import transformers

    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels, bars = [logger.level for logger in loggers], datasets.are_progress_bars_disabled()
    shown = transformers.utils.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
        if shown:
            transformers.utils.logging.enable_progress_bar()
