"""A small language model, trained from scratch on some rows: held-out loss of each test row, and whether its answer is right.

A decoder of the Llama kind in plain transformers with a byte-pair vocabulary learnt on the full training part, the same for every
model of an experiment, so that losses can be compared. A row is its text, the token <answer> and one token for its target; the
loss is taken over all of it, as in language modelling. The answer is the target token that comes out most probable.

Two ways to give sets of different size an equal chance: `steps` trains every model for as many updates as the full set gets in
its epochs (equal compute: a pruned set is seen more often), `epochs` shows every row equally often (a pruned set is cheaper).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

PAD, BEGIN, ANSWER = "<pad>", "<begin>", "<answer>"


@dataclass(frozen=True)
class LmPlan:
    """Sizes of the model and of its training.

    width, layers, heads: of the decoder. vocabulary: tokens, answers included. max_tokens: longest text; the rest is cut off.
    batch: rows an update. epochs: passes over the full training part. match: steps or epochs, see above. rate: highest learning
    rate (AdamW, a tenth of the updates to climb, then a cosine to 0). device: cpu or cuda.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    vocabulary: int = 4096
    max_tokens: int = 128
    batch: int = 32
    epochs: float = 4
    match: str = "steps"
    rate: float = 1e-3
    device: str = "cpu"

    def updates(self, rows: int, full: int) -> int:
        """Updates of a model with so many of the full training part's rows."""
        return max(1, math.ceil(self.epochs * (full if self.match == "steps" else rows) / self.batch))


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens: tokens (n, t) int64, padded; length (n,), the added tokens included; answers (k,) token ids."""

    tokens: torch.Tensor
    length: torch.Tensor
    answers: torch.Tensor
    vocabulary: int


def encode(texts: Sequence[str], target: np.ndarray, targets: int, train: np.ndarray, plan: LmPlan) -> Encoded:
    """Texts (n,) with their targets (n,) as tokens; the vocabulary is learnt on the rows `train`."""
    answers = [f"<answer {number}>" for number in range(targets)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=plan.vocabulary, special_tokens=[PAD, BEGIN, ANSWER, *answers], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([texts[row] for row in train], trainer)
    begin, answer = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(ANSWER)
    ids = torch.tensor([tokenizer.token_to_id(name) for name in answers])
    rows = [[begin, *found.ids[: plan.max_tokens], answer, int(ids[code])]
            for found, code in zip(tokenizer.encode_batch(list(texts), add_special_tokens=False), target, strict=True)]
    length = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros((len(rows), int(length.max())), dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    return Encoded(tokens, length, ids, tokenizer.get_vocab_size())


@dataclass(frozen=True)
class Learnt:
    """Scores of the test rows, (m,) each: right (0 or 1) and loss (nats a token of the text); and what training took."""

    right: np.ndarray
    loss: np.ndarray
    updates: int
    tokens: int
    seconds: float
    peak_mib: float


def _logits(model: LlamaForCausalLM, data: Encoded, rows: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (b, t, v) and tokens (b, t) of some rows, cut to the longest of them."""
    tokens = data.tokens[rows, : int(data.length[rows].max())].to(device)
    mask = (torch.arange(tokens.shape[1])[None] < data.length[rows][:, None]).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        logits = model(input_ids=tokens, attention_mask=mask.long()).logits
    return logits.float(), tokens.masked_fill(~mask, -100)


def train_and_test(data: Encoded, train: np.ndarray, test: np.ndarray, full: int, plan: LmPlan, seed: int) -> Learnt:
    """Train a model on the rows `train` and score the rows `test`. full: rows of the full training part. Same seed, same model.

    Raises FloatingPointError if the loss is not finite: try a lower rate.
    """
    start, device = time.perf_counter(), plan.device
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=data.vocabulary, hidden_size=plan.width, intermediate_size=3 * plan.width, num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads, num_key_value_heads=plan.heads, max_position_embeddings=plan.max_tokens + 8,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )).to(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    updates = plan.updates(len(train), full)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.1, betas=(0.9, 0.95))
    climb = max(1, updates // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(
        (step + 1) / climb, 0.5 * (1 + math.cos(math.pi * max(0, step - climb) / max(1, updates - climb)))))
    order, seen = torch.Generator().manual_seed(seed), 0
    queue = torch.zeros(0, dtype=torch.long)
    for _ in range(updates):
        while len(queue) < plan.batch:
            queue = torch.cat([queue, torch.from_numpy(train)[torch.randperm(len(train), generator=order)]])
        rows, queue = queue[: plan.batch], queue[plan.batch :]
        logits, labels = _logits(model, data, rows, device)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite after {seen:,} tokens: try a lower rate than {plan.rate:g}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        seen += int(data.length[rows].sum())
    right, loss = _test(model, data, test, plan)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else float("nan")
    return Learnt(right, loss, updates, seen, time.perf_counter() - start, peak)


@torch.no_grad()
def _test(model: LlamaForCausalLM, data: Encoded, test: np.ndarray, plan: LmPlan) -> tuple[np.ndarray, np.ndarray]:
    model.eval()
    right, loss = np.zeros(len(test)), np.zeros(len(test))
    order = np.argsort(data.length.numpy()[test], kind="stable")
    for start in range(0, len(order), 4 * plan.batch):
        place = order[start : start + 4 * plan.batch]
        rows = torch.from_numpy(test[place])
        logits, labels = _logits(model, data, rows, plan.device)
        each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100,
                                                 reduction="none")
        last = (data.length[rows] - 2).to(plan.device)  # predicts the answer
        text = torch.arange(each.shape[1], device=plan.device)[None] < last[:, None]
        loss[place] = ((each * text).sum(dim=1) / text.sum(dim=1)).cpu().numpy()
        guess = logits[torch.arange(len(rows)), last][:, data.answers.to(plan.device)].argmax(dim=1).cpu()
        right[place] = (data.answers[guess] == data.tokens[rows, data.length[rows] - 1]).numpy()
    return right, loss
