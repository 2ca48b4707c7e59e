"""A language model so small that a laptop trains it in seconds, built on the spot and saved in the hub's layout.

It takes the place of a real base model where there is none: `finetuning.load_model` opens its folder like any other. It knows
nothing before it is trained, so that what it learns is all from the rows at hand. Never a model to use.
"""

import json
import shutil
import uuid
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from ultralink_nb.models import quiet

BEGIN, END, PAD = "<s>", "</s>", "<pad>"
FORM = 1  # counts up when what is built changes, so that an older folder is built again


def train_tokenizer(texts: Iterable[str], vocabulary: int = 1024) -> Any:
    """A byte-level BPE tokenizer learnt from texts: every text in every script can be written, none is unknown.

    vocabulary: tokens, at least 256 bytes and the three marks of beginning, end and padding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, BEGIN, END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD)


def build(
    folder: str | Path, texts: Iterable[str], seed: int = 1, vocabulary: int = 1024, width: int = 64, layers: int = 2,
    context: int = 1024,
) -> Path:
    """A small Llama with random weights and a tokenizer learnt from `texts`, saved to `folder`; returns the folder.

    width: of the hidden states, a multiple of 16. context: longest row, tokens. A folder that holds a model already is left as
    it is only if it was built by the same numbers from the same texts.
    """
    import torch
    import transformers

    texts, folder = list(texts), Path(folder)
    recipe = {"form": FORM, "seed": seed, "vocabulary": vocabulary, "width": width, "layers": layers, "context": context,
              "texts": sha256("\0".join(texts).encode()).hexdigest()}
    told = folder / "tiny_model.json"
    if told.is_file() and json.loads(told.read_text(encoding="utf-8")) == recipe:
        return folder
    tokenizer = train_tokenizer(texts, vocabulary)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 16, num_key_value_heads=width // 16, max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir(parents=True)
    try:
        with quiet():
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
        (part / told.name).write_text(json.dumps(recipe) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def parameters_of(model: Any) -> dict[str, int]:
    """How many numbers a model has, and how many of them are trained."""
    numbers = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"parameters": sum(count for count, _ in numbers), "trained": sum(count for count, trained in numbers if trained)}
