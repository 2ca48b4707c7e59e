"""A model of `transformers` in this process: requests that come together are answered together, on the GPU where there is one.

    chat_model = "transformers:Qwen/Qwen3-1.7B"      # a hub name, or the folder of a saved model

Requests that arrive within a moment become batches of prompts of about the same length, padded on the left. Sampling is by
Gumbel noise (the highest of logit / temperature + noise is a draw from the softmax; Gumbel, 1954), from a generator that each
request seeds for itself, so that an answer depends on its request and not on its neighbours; only rounding, which differs with
the shape of a batch, may tip a near tie. Code that comes with a model is never run.
"""

import asyncio
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralink_nb.completions import ChatError, ChatRequest, Completion
from ultralink_nb.local_files import fingerprint

GATHER = 0.02  # seconds in which requests that come one after another still share a batch
BATCH_TOKENS = 32_768  # tokens of a batch, prompts and answers, padding included: what bounds the memory
PLAIN = {"system": "{}\n\n", "user": "User: {}\n", "assistant": "Assistant: {}\n"}  # where a model has no chat template
NEXT_TURN = "\nUser:"


@dataclass(eq=False)
class _Asked:
    """A request on its way: its prompt in tokens, how long its answer may become, and who waits for it."""

    request: ChatRequest
    prompt: list[int]
    limit: int
    answered: "asyncio.Future[Completion]"

    @property
    def size(self) -> int:
        return len(self.prompt) + self.limit


def batches(asked: Sequence[_Asked], most: int, tokens: int = BATCH_TOKENS) -> list[list[_Asked]]:
    """Requests in batches of similar length: at most `most` in each, and, padded, at most `tokens` unless it is one alone."""
    found: list[list[_Asked]] = []
    for one in sorted(asked, key=lambda one: (len(one.prompt), one.limit)):
        batch = found[-1] if found else []
        longest = len(one.prompt) + max([one.limit, *(other.limit for other in batch)])
        if batch and len(batch) < most and longest * (len(batch) + 1) <= tokens:
            batch.append(one)
        else:
            found.append([one])
    return found


class TransformersModel:
    """A causal language model by hub name or local folder.

    device: `auto` (the GPU where there is one), `cpu` or `cuda`. concurrency: requests in a batch, at most. On a GPU the weights
    keep their own type, on a CPU they are float32. Raises `ChatError` where the model cannot be loaded; a request whose prompt
    leaves no room in the model's context fails with the cause `too_long`.
    """

    deterministic = True  # at temperature 0 the same question gets the same answer

    def __init__(self, name: str, device: str = "auto", concurrency: int = 8):
        import torch
        import transformers

        try:
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name, padding_side="left", trust_remote_code=False)
            dtype = "auto" if device.startswith("cuda") else torch.float32
            model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=False)
            self._model = model.to(device).eval()
        except Exception as error:
            said = (str(error).splitlines() or [""])[0][:200]
            raise ChatError(
                f"transformers:{name} could not be loaded ({type(error).__name__}: {said}); give a folder with a saved model, or "
                "a hub name on a machine that reaches the hub", "no_model",
            ) from None
        folder = Path(name)
        weights = fingerprint(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else ""
        commit = str(getattr(self._model.config, "_commit_hash", None) or "hub")[:8]
        self.name = f"transformers:{folder.resolve().name}@{weights}" if weights else f"transformers:{name}@{commit}"
        self.concurrency = concurrency
        ends = self._model.generation_config.eos_token_id
        ends = self._tokenizer.eos_token_id if ends is None else ends
        self._ends = [ends] if isinstance(ends, int) else list(ends or [])
        self._pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else (self._ends or [0])[0]
        self._window = int(getattr(self._model.config, "max_position_embeddings", None) or 2**31)
        self._templated = bool(self._tokenizer.chat_template)
        if not self._templated:
            warnings.warn(f"{self.name} has no chat template: it is asked in plain text, User: and Assistant:", stacklevel=3)
        self._waiting: list[_Asked] = []
        self._answering: asyncio.Task[None] | None = None
        self._worker = ThreadPoolExecutor(1, "transformers")
        self._lock = threading.Lock()

    async def complete(self, request: ChatRequest) -> Completion:
        prompt = await asyncio.to_thread(self._prompt, request)
        room = self._window - len(prompt)
        if room < 1:
            raise ChatError(f"{self.name}: the prompt has {len(prompt)} tokens and the model's context {self._window}; lower "
                            "max_context_tokens", "too_long")
        asked = _Asked(request, prompt, min(request.max_tokens, room), asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer_all())
        return await asked.answered

    def _prompt(self, request: ChatRequest) -> list[int]:
        with self._lock:  # a tokenizer is not made for two threads
            if not self._templated:
                text = "".join(PLAIN[message["role"]].format(message["content"]) for message in request.messages)
                return self._tokenizer(text + "Assistant:")["input_ids"]
            messages = list(request.messages)
            for _ in range(2):
                try:
                    text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                    return self._tokenizer(text, add_special_tokens=False)["input_ids"]
                except Exception as error:  # whatever a template raises
                    if messages[0]["role"] != "system" or len(messages) < 2:
                        raise ChatError(f"{self.name}: its chat template refuses the request ({error})", "template") from None
                    system, first, *rest = messages  # some templates know no system message
                    messages = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
        raise AssertionError("the loop returns or raises")

    async def _answer_all(self) -> None:
        await asyncio.sleep(GATHER)
        loop = asyncio.get_running_loop()
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for batch in batches(waiting, self.concurrency):
                batch = [one for one in batch if not one.answered.done()]  # who was cancelled waits no more
                try:
                    answers: Sequence[Completion | Exception] = await loop.run_in_executor(self._worker, self._generate, batch)
                except Exception as error:
                    answers = [error] * len(batch)
                for one, answer in zip(batch, answers, strict=True):
                    if one.answered.done():
                        continue
                    if isinstance(answer, Exception):
                        one.answered.set_exception(answer)
                    else:
                        one.answered.set_result(answer)

    def _generate(self, batch: list[_Asked]) -> Sequence[Completion | Exception]:
        """The answers to a batch, in the worker's thread; a batch that the GPU cannot hold is halved."""
        import torch

        if not batch:
            return []
        started = time.monotonic()
        try:
            rows = self._rows(batch)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                return [ChatError(f"{self.name}: the GPU's memory does not hold {batch[0].size} tokens; lower "
                                  "max_context_tokens or max_answer_tokens", "out_of_memory")]
            half = len(batch) // 2
            return [*self._generate(batch[:half]), *self._generate(batch[half:])]
        except Exception as error:
            return [ChatError(f"{self.name} failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}", "generation")
                    ] * len(batch)
        return [self._completion(one, row, time.monotonic() - started) for one, row in zip(batch, rows, strict=True)]

    def _rows(self, batch: list[_Asked]) -> list[list[int]]:
        """The tokens written for each request, padding and all."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        width, device = max(len(one.prompt) for one in batch), self._model.device
        ids = torch.tensor([[self._pad] * (width - len(one.prompt)) + one.prompt for one in batch], device=device)
        mask = torch.tensor([[0] * (width - len(one.prompt)) + [1] * len(one.prompt) for one in batch], device=device)
        limits = torch.tensor([one.limit for one in batch], device=device)
        sampled = [(row, one.request.temperature, torch.Generator(device).manual_seed(one.request.seed))
                   for row, one in enumerate(batch) if one.request.temperature > 0]

        def draw(_: Any, scores: Any) -> Any:
            for row, temperature, generator in sampled:
                noise = torch.empty(scores.shape[1], dtype=torch.float32, device=device).exponential_(generator=generator)
                scores[row] = (scores[row].float() / temperature - noise.clamp_min(1e-30).log()).to(scores.dtype)
            return scores

        def full(written: Any, _: Any, **__: Any) -> Any:
            return written.shape[1] - width >= limits

        config = GenerationConfig(max_new_tokens=int(limits.max()), do_sample=False, use_cache=True, pad_token_id=self._pad,
                                  eos_token_id=self._ends or None)
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=LogitsProcessorList([draw]),
                stopping_criteria=StoppingCriteriaList([full]),
            )
        return written[:, width:].tolist()

    def _completion(self, one: _Asked, row: list[int], seconds: float) -> Completion | Exception:
        row = row[: one.limit]
        end = next((place for place, token in enumerate(row) if token in self._ends), None)
        stopped, count = end is not None, len(row) if end is None else end + 1
        with self._lock:
            text = self._tokenizer.decode(row[:end], skip_special_tokens=True)
        if not self._templated and NEXT_TURN in text:
            text, stopped = text[: text.index(NEXT_TURN)], True
        if not text.strip():
            return ChatError(f"{self.name} wrote nothing", "empty")
        return Completion(text, self.name, "stop" if stopped else "length", len(one.prompt), count, seconds, cached=False)
