"""ARC, HellaSwag and MMLU in their multilingual forms, asked and scored by lm-evaluation-harness.

These are questions with fixed choices: the harness compares how probable a model finds each of them, which needs the model
itself and not only its answers. Its task data come from the hub; where the machine does not reach it, a folder of task files
(YAML, the harness's own format) with local data does as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultralink_nb.chat import TRANSFORMERS
from ultralink_nb.evaluation import EvaluationError
from ultralink_nb.intervals import wilson

# The harness has no Chinese HellaSwag; English is the original of each.
TASKS = {
    "ARC": {"en": "arc_challenge", **{code: f"arc_{code}" for code in ("zh", "ru", "fr", "es", "de")}},
    "HellaSwag": {"en": "hellaswag", **{code: f"hellaswag_{code}" for code in ("ru", "fr", "es", "de")}},
    "MMLU": {code: f"m_mmlu_{code}" for code in ("en", "zh", "ru", "fr", "es", "de")},
}


def run_harness(model: str, tasks: dict[tuple[str, str], str], *, shots: int | None = None, limit: int | None = None,
                task_folder: str | Path | None = None, device: str = "auto", seed: int = 1, batch_size: int = 8) -> list[dict]:
    """Rows of `evaluation.SCORES` for tasks of the harness, by (benchmark, language).

    model: `transformers:<name or folder>`. shots: exemplars, None as the task says. limit: questions of a task. task_folder: task
    files of your own, used instead of the harness's; a file there may run code of its own (`!function`), so take it from somebody
    you trust. The score is `acc_norm` where the task has it, else `acc`. Raises `EvaluationError` where the harness is not
    installed, does not know a task, or cannot get its data.
    """
    if not model.startswith(TRANSFORMERS):
        raise EvaluationError(f"the harness needs a model's probabilities: name it {TRANSFORMERS}<name or folder>, not {model}")
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise EvaluationError("lm-evaluation-harness is not installed: pip install -e '.[evaluation]'") from None
    import torch

    manager = TaskManager(include_path=str(task_folder) if task_folder else None, include_defaults=task_folder is None)
    unknown = sorted(set(tasks.values()) - set(manager.all_tasks))
    if unknown:
        raise EvaluationError(f"the harness has no task {', '.join(unknown)}" + (f" in {task_folder}" if task_folder else ""))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments: dict[str, Any] = {"pretrained": model.removeprefix(TRANSFORMERS), "trust_remote_code": False}
    try:
        found = simple_evaluate(
            model="hf", model_args=arguments, tasks=_unique(list(tasks.values())), num_fewshot=shots, limit=limit, device=device,
            batch_size=batch_size, task_manager=manager, bootstrap_iters=0, log_samples=False, random_seed=seed,
            numpy_random_seed=seed, torch_random_seed=seed, fewshot_random_seed=seed)
    except Exception as error:  # the harness passes on whatever the hub, a file or a task's own code raises
        raise EvaluationError(
            f"the harness could not run {', '.join(tasks.values())} ({type(error).__name__}: {str(error)[:200]}): its data must "
            "be reached on the hub, or lie in a folder that a task file in harness_tasks names") from error
    rows = []
    for (benchmark, language), task in tasks.items():
        result, count = found["results"][task], found["n-samples"][task]["effective"]
        metric = next((name for name in ("acc_norm", "acc", "exact_match") if f"{name},none" in result), None)
        if metric is None:
            raise EvaluationError(f"task {task} has none of the metrics acc_norm, acc and exact_match")
        share = float(result[f"{metric},none"])
        low, high = wilson(share * count, count)
        rows.append({"benchmark": benchmark, "metric": metric, "language": language, "model": model, "score": 100 * share,
                     "low": 100 * low, "high": 100 * high, "questions": count})
    return rows


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
