"""Supervised fine-tuning of a causal language model on samples, by TRL's SFTTrainer, with adapters (LoRA, QLoRA) or in full.

    result = train(samples, Settings(model="papermill_runs/demo/data/tiny_model"), "papermill_runs/demo/data/training")
    model, tokenizer = load_model(result.model)

A training that is killed goes on from its last whole checkpoint, with the same weights, optimiser, order of rows and random
numbers, and ends with the same curve as one that nobody disturbed. One that is finished is not done again.

Several GPUs, or several processes on one CPU, share each step's rows through accelerate:

    torchrun --nproc_per_node 8 -m ultralink_nb.finetuning papermill_runs/demo/data/training

where the folder holds what `write_plan` wrote: settings.yaml and the rows.
"""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from ultralink_nb import held_out as measuring
from ultralink_nb import sft, tables
from ultralink_nb.local_files import fingerprint
from ultralink_nb.models import BadModel, load_model, need_training_packages, quiet
from ultralink_nb.records import SAMPLES, atomic_path, read_table, write_frame, write_table
from ultralink_nb.tiny_model import parameters_of
from ultralink_nb.training_data import EncodedRows, encode_rows, set_template
from ultralink_nb.training_settings import BadTraining, Settings

__all__ = ["BadModel", "BadTraining", "Settings", "TrainingResult", "launch", "load_model", "train", "write_plan"]

LOG = pa.schema([("step", pa.int64()), ("loss", pa.float64()), ("learning_rate", pa.float64()), ("tokens", pa.int64()),
                 ("seconds", pa.float64())])
CURVE = pa.schema([("step", pa.int64()), ("language", pa.string()), ("kind", pa.string()), ("rows", pa.int64()),
                   ("tokens", pa.int64()), ("loss", pa.float64())])
PLAN = {"rows": "rows.parquet", "held_out": "held_out_rows.parquet"}


@dataclass(frozen=True)
class TrainingResult:
    """A finished training, as it lies in its folder.

    folder: holds model/, training.json, training_log.parquet, held_out_curve.parquet and held_out_loss.parquet.
    manifest: training.json; its `settings`, `data`, `steps`, `seconds`, `about` and versions.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def model(self) -> Path:
        """The folder of the adapter or the model with its tokenizer, for `load_model`."""
        return self.folder / "model"

    @property
    def log(self) -> pd.DataFrame:
        """step, loss (nats a token), learning_rate, tokens (so far), seconds (so far, of all sittings)."""
        return pd.read_parquet(self.folder / "training_log.parquet")

    @property
    def held_out(self) -> pd.DataFrame:
        """language, kind, rows, tokens, loss_before, loss_after (nats a token); empty without held-out rows."""
        return pd.read_parquet(self.folder / "held_out_loss.parquet")

    @property
    def curve(self) -> pd.DataFrame:
        """step, language, kind, rows, tokens, loss on the held-out rows at each measurement."""
        return pd.read_parquet(self.folder / "held_out_curve.parquet")


def train(
    rows: Sequence[Mapping[str, Any]], settings: Settings, out_dir: str | Path, resume: bool = True, *,
    held_out: Sequence[Mapping[str, Any]] = (), about: Mapping[str, Any] | None = None, say: Callable[[str], None] = print,
) -> TrainingResult:
    """Fine-tune `settings.model` on samples and write the outcome to `out_dir`.

    rows, held_out: samples in the shape of `records.SAMPLES`; the loss on the latter is measured before, after and on the way,
    never learnt from. resume: go on from a checkpoint of the same settings, rows and base model, and return at once what is
    finished already; False trains anew. about: anything to keep in the manifest, such as where the rows came from.
    Raises `BadTraining` or `BadModel` with one sentence before any work.
    """
    need_training_packages()
    out, (rank, world) = Path(out_dir), sft.processes()
    settings.accumulation(world)
    identity = _identity(rows, settings, held_out)
    if resume and (done := _finished(out, identity)):
        if rank == 0:
            say("this training is finished: its outcome is read from disk")
        return done
    checkpoints = out / "checkpoints" / identity
    if not resume and rank == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)
    with quiet():
        model, tokenizer = sft.open_base(settings)
        template = set_template(tokenizer, settings.chat_template)
        learnt, measured = (encode_rows(tokenizer, part, settings.max_row_tokens, settings.answers_only)
                            for part in (rows, held_out))
        if not learnt.encoded:
            raise BadTraining(f"none of the {len(rows):,} rows can be learnt from: each lacks an answer within max_row_tokens")
        checkpoints.mkdir(parents=True, exist_ok=True)
        trainer = sft.fit(settings, model, tokenizer, learnt, measured, checkpoints, resume, say)
        sft.save(trainer, tokenizer, out / "model")
    if rank == 0:
        _write(out, trainer, settings, identity, template, learnt, measured, world, about)
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return TrainingResult(out, _read_manifest(out))


def _identity(rows: Sequence[Mapping[str, Any]], settings: Settings, held_out: Sequence[Mapping[str, Any]]) -> str:
    """Sixteen hexadecimal digits of all that the outcome depends on; where checkpoints lie."""
    digest = sha256(json.dumps(settings.as_dict(), sort_keys=True).encode())
    for part in (rows, held_out):
        digest.update(b"\0rows")
        for row in part:
            digest.update(json.dumps([row["id"], row["language"], row["kind"], row["messages"]], ensure_ascii=False).encode())
    folder = Path(settings.model)
    if folder.is_dir():
        digest.update(fingerprint(file for file in folder.iterdir() if file.is_file()).encode())
    return digest.hexdigest()[:16]


def _read_manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "training.json").read_text(encoding="utf-8"))


def _finished(out: Path, identity: str) -> TrainingResult | None:
    try:
        manifest = _read_manifest(out)
    except (OSError, ValueError):
        return None
    same = manifest.get("identity") == identity and (out / "model").is_dir()
    return TrainingResult(out, manifest) if same else None


def _write(out: Path, trainer: Any, settings: Settings, identity: str, template: str, learnt: EncodedRows, measured: EncodedRows,
           world: int, about: Mapping[str, Any] | None) -> None:
    history = trainer.state.log_history
    steps = [{"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"],
              "tokens": entry["tokens"], "seconds": entry["seconds"]} for entry in history if "seconds" in entry]
    curve = [{"step": entry["step"], **row} for entry in history if "held_out" in entry for row in entry["held_out"]]
    write_table(out / "training_log.parquet", steps, LOG)
    write_table(out / "held_out_curve.parquet", curve, CURVE)
    write_frame(out / "held_out_loss.parquet", measuring.before_and_after(curve), measuring.HELD_OUT)
    source = [{"source": (sample.get("source") or {}).get("dataset") or "not stated", "language": sample["language"]}
              for sample in learnt.samples]
    manifest = {
        "identity": identity, "settings": settings.as_dict(), "chat_template": template, "steps": trainer.state.global_step,
        "seconds": round(steps[-1]["seconds"], 2) if steps else 0.0, "processes": world, "device": trainer.args.device.type,
        **parameters_of(trainer.model), "learnt": learnt.summary(), "packed_rows": len(trainer.train_dataset),
        "held_out": measured.summary(), "refused": tables.counts(learnt.refused, "gate").to_dict("records"),
        "data": tables.counts(source, "source", "language").reset_index().to_dict("records") if source else [],
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "peft", "transformers", "torch", "accelerate")},
        "about": dict(about or {}),
    }
    with atomic_path(out / "training.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_plan(folder: str | Path, rows: Sequence[Mapping[str, Any]], settings: Settings,
               held_out: Sequence[Mapping[str, Any]] = (), about: Mapping[str, Any] | None = None) -> Path:
    """Write what `python -m ultralink_nb.finetuning FOLDER` trains: settings.yaml and the rows. Returns the folder."""
    folder = Path(folder)
    write_table(folder / PLAN["rows"], rows, SAMPLES)
    write_table(folder / PLAN["held_out"], held_out, SAMPLES)
    with atomic_path(folder / "settings.yaml") as temporary:
        text = yaml.safe_dump({"settings": settings.as_dict(), "about": dict(about or {})}, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
    return folder


def run_plan(folder: str | Path) -> TrainingResult:
    """Train what `write_plan` wrote into a folder; the outcome goes there, too. Errors as in `train`."""
    folder = Path(folder)
    folder = folder.parent if folder.is_file() else folder
    try:
        plan = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
        settings, about = Settings.from_dict(plan["settings"]), plan.get("about")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BadTraining(f"{folder} holds no plan of a training ({error}): notebook 07 writes settings.yaml there") from None
    rows, held_out = (read_table(folder / name, SAMPLES) for name in PLAN.values())
    return train(rows, settings, folder, held_out=held_out, about=about)


def launch(folder: str | Path, processes: int, say: Callable[[str], None] = print) -> None:
    """Train a folder's plan in several processes of this machine, one for each GPU, through torchrun; `say` gets its steps.

    Raises `BadTraining` with the last lines of what they said where they fail; the same call resumes.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m",
               "ultralink_nb.finetuning", str(folder)]
    said: deque[str] = deque(maxlen=200)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            said.append(line.strip())
            if line.startswith(("step ", "going on ")):
                say(line.strip())
    if process.returncode:
        told = next((line for line in said if line.startswith("ultralink-nb:")), " | ".join(list(said)[-3:]))
        raise BadTraining(f"the training in {processes} processes failed: {told.removeprefix('ultralink-nb: ')}")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m ultralink_nb.finetuning FOLDER`; exit codes as in `ultralink-nb`: 0 done, 1 it failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1 or given[0].startswith("-"):
        print("usage: python -m ultralink_nb.finetuning FOLDER (with settings.yaml, as notebook 07 writes it)", file=sys.stderr)
        return 2
    try:
        result = run_plan(given[0])
    except (BadTraining, BadModel) as error:
        print(f"ultralink-nb: {error}", file=sys.stderr)
        return 1
    if sft.processes()[0] == 0:
        print(f"{result.manifest['steps']:,} steps; the model is in {result.model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
