"""What a fine-tuning is asked to do, in one frozen record whose names are the parameters of notebook 07."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ultralink_nb.errors import KitError
from ultralink_nb.parameters import SIZES, size

METHODS = ("lora", "qlora", "full")
TEMPLATE_CHOICES = ("auto", "kit", "inst")
SCHEDULES = ("cosine", "linear", "constant")
# Where none is stated: what adapters and whole models are usually trained with, and what the tiny model learns fast with.
USUAL_RATE = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5, "tiny": 3e-3}


class BadTraining(KitError, ValueError):
    """Settings that contradict each other or the rows at hand."""


@dataclass(frozen=True)
class Settings:
    """A fine-tuning: model, method and every number that its outcome depends on.

    model: hub name or folder of a causal language model. training_method: `lora` trains two thin matrices B, A beside every
    linear layer, W + (lora_alpha / lora_rank) B A, and leaves W alone (Hu et al., 2021); `qlora` does so over weights of 4 bits
    (Dettmers et al., 2023; needs a GPU and bitsandbytes); `full` trains everything.
    rows_per_step: rows, packed ones where `packing`, between two updates of the weights, over all devices together;
    rows_per_device: of them at once on one device. warmup: share of the steps in which the learning rate climbs. epochs: passes
    over the rows; max_steps: stop earlier, after so many updates. max_row_tokens: rows are cut there, and packed up to there.
    evaluate_every: steps between measurements on held-out rows (None: only before and after); save_every: steps between
    checkpoints.
    """

    model: str
    training_method: Literal["lora", "qlora", "full"] = "lora"
    lora_rank: int = 16
    lora_alpha: float = 32
    lora_dropout: float = 0.0
    learning_rate: float = 2e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    rows_per_step: int = 16
    rows_per_device: int = 4
    epochs: float = 1.0
    max_steps: int | None = None
    max_row_tokens: int = 1024
    packing: bool = True
    answers_only: bool = True
    chat_template: Literal["auto", "kit", "inst"] = "auto"
    gradient_checkpointing: bool = False
    evaluate_every: int | None = None
    save_every: int = 100
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, choices in (("training_method", METHODS), ("schedule", SCHEDULES), ("chat_template", TEMPLATE_CHOICES)):
            if getattr(self, name) not in choices:
                raise BadTraining(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("lora_rank", "lora_alpha", "learning_rate", "rows_per_step", "rows_per_device", "epochs", "max_row_tokens",
                     "save_every"):
            if not getattr(self, name) > 0:
                raise BadTraining(f"{name} must be more than 0, not {getattr(self, name)!r}")
        for name in ("max_steps", "evaluate_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BadTraining(f"{name} must be at least 1, or empty, not {getattr(self, name)!r}")

    def accumulation(self, processes: int) -> int:
        """Batches that a process adds up for one update. Raises `BadTraining` where rows_per_step cannot be shared out evenly."""
        together = self.rows_per_device * processes
        if self.rows_per_step % together:
            raise BadTraining(f"rows_per_step ({self.rows_per_step}) must be a multiple of rows_per_device times processes "
                              f"({self.rows_per_device} x {processes} = {together}), so that every step has as many rows")
        return self.rows_per_step // together

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def chosen(cls, parameters: Mapping[str, Any], model: str, tiny: bool = False) -> "Settings":
        """The settings that a notebook's parameters ask for. model: what is trained; tiny: it knows nothing yet.

        training_method `auto` is `full` for the tiny model, since an adapter beside random weights has nothing to adapt, and
        `lora` for any other; an empty learning_rate is the usual one of the method, an empty size what `scale` says.
        """
        names = {field.name for field in fields(cls)}
        values = {name: size(name, value, parameters["scale"]) if name in SIZES else value
                  for name, value in parameters.items() if name in names}
        if values.get("training_method") == "auto":
            values["training_method"] = "full" if tiny else "lora"
        if values.get("learning_rate") is None:
            values["learning_rate"] = USUAL_RATE["tiny" if tiny else values.get("training_method", cls.training_method)]
        return cls(**{**values, "model": model})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """The settings among some values by name; `BadTraining` for a name that is none."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise BadTraining(f"{unknown[0]} is not a setting of a fine-tuning; there are "
                              f"{', '.join(field.name for field in fields(cls))}")
        return cls(**values)
