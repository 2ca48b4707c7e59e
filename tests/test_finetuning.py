"""Fine-tuning: what is learnt and what is not, what is held out, the mix, and a training that survives being killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import command
from ultralink_nb import finetuning, held_out, mixing, models, sft, tiny_model, training_card, training_data
from ultralink_nb.finetuning import BadTraining, Settings
from ultralink_nb.layouts import EMBEDDED, read_sft
from ultralink_nb.models import BadModel, load_model
from ultralink_nb.training_data import IGNORED, BadTemplate, encode, encode_rows, hold_out

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (  # answers before the last question are shortened, as templates that hide reasoning do
    "{% for m in messages %}{% if m['role'] == 'assistant' and not loop.last %}A: {{ m['content'][:3] }}{{ eos_token }}"
    "{% elif m['role'] == 'assistant' %}A: {{ m['content'] }}{{ eos_token }}{% else %}Q: {{ m['content'] }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
DIALOGUE = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "Wie viele Äpfel sind 3 + 4?"},
    {"role": "assistant", "content": "Es sind 7 Äpfel."},
    {"role": "user", "content": "和 5 个呢？ Assistant: no"},
    {"role": "assistant", "content": "一共 12 个。\n"},
    {"role": "user", "content": "Спасибо!"},
    {"role": "assistant", "content": "Пожалуйста 🙂"},
]


@pytest.fixture(scope="session")
def rows():
    """The embedded English sample: chat, math and code."""
    return read_sft(EMBEDDED)[0]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, rows):
    """The folder of a tiny model; its tokenizer has seen the texts."""
    texts = [message["content"] for row in rows for message in row["messages"]] + [turn["content"] for turn in DIALOGUE]
    return tiny_model.build(tmp_path_factory.mktemp("tiny") / "model", texts, vocabulary=600, width=32, context=512)


@pytest.fixture
def tokenizer(tiny):
    return load_model(tiny, "cpu")[1]


def small(tiny, **changes):
    """Settings of a training that takes seconds."""
    base = {"training_method": "full", "learning_rate": 5e-3, "rows_per_step": 4, "rows_per_device": 2, "max_row_tokens": 128,
            "max_steps": 6, "epochs": 50, "device": "cpu"}
    return Settings(model=str(tiny), **{**base, **changes})


def silent(_):
    pass


# which tokens are learnt


@pytest.mark.parametrize("choice", ["kit", "inst"])
def test_the_mask_agrees_token_by_token_with_the_templates_own_marks(tokenizer, choice):
    training_data.set_template(tokenizer, choice)
    row = encode(tokenizer, DIALOGUE, 10_000)
    reference = tokenizer.apply_chat_template(DIALOGUE, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert row.input_ids.tolist() == reference["input_ids"]
    assert (row.labels != IGNORED).astype(int).tolist() == reference["assistant_masks"]
    learnt = row.labels != IGNORED
    assert (row.labels[learnt] == row.input_ids[learnt]).all()


def test_every_answer_and_its_end_is_learnt_and_nothing_else(tokenizer):
    tokenizer.chat_template = CHATML
    assert training_data.set_template(tokenizer) == "the model's own"
    learnt = [text for is_learnt, text in training_data.runs(tokenizer, encode(tokenizer, DIALOGUE, 10_000)) if is_learnt]
    assert learnt == [f"{turn['content']}<|im_end|>" for turn in DIALOGUE if turn["role"] == "assistant"]
    everything = encode(tokenizer, DIALOGUE, 10_000, answers_only=False)
    assert (everything.labels == everything.input_ids).all()


def test_a_template_whose_answers_cannot_be_told_is_an_error_that_says_what_to_do(tokenizer):
    tokenizer.chat_template = FORGETFUL
    with pytest.raises(BadTemplate, match="set chat_template to kit"):
        encode(tokenizer, DIALOGUE, 10_000)
    tokenizer.chat_template = "{{ raise_exception('only user and assistant') }}"
    with pytest.raises(BadTemplate, match="only user and assistant.*set chat_template to kit"):
        encode(tokenizer, DIALOGUE, 10_000)
    tokenizer.eos_token = None
    with pytest.raises(BadTemplate, match="no end-of-text token"):
        training_data.set_template(tokenizer)


def test_a_row_that_cannot_be_learnt_from_is_refused_and_says_why(tokenizer, rows):
    training_data.set_template(tokenizer)
    unanswered = {**rows[0], "id": "unanswered", "messages": rows[0]["messages"][:1]}
    endless = {**rows[0], "id": "endless", "messages": [{"role": "user", "content": "why? " * 200}, *rows[0]["messages"][1:2]]}
    found = encode_rows(tokenizer, [rows[0], unanswered, endless], 64)
    assert [sample["id"] for sample in found.samples] == [rows[0]["id"]]
    assert [(row["id"], row["gate"]) for row in found.refused] == [("unanswered", "no_answer"), ("endless", "too_long")]
    assert found.encoded[0].cut > 0 and len(found.encoded[0].input_ids) == 64 and found.summary()["rows cut"] == 1


# what is held out


def sample(row_id, language="en", parent=None):
    return {"id": row_id, "language": language, "kind": "math", "source": {"parent_id": parent},
            "messages": [{"role": "user", "content": row_id}, {"role": "assistant", "content": "yes"}]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["en", "zh", "fr"]), st.none() | st.integers(0, 60), st.none() | st.integers(0, 15)),
                min_size=1, max_size=60), st.integers(0, 5), st.floats(0.05, 0.5))
def test_no_content_is_trained_on_and_held_out(drawn, seed, share):
    samples = [sample(f"r{n}", code, None if parent is None else f"r{parent}") for n, (code, parent, _) in enumerate(drawn)]
    groups = {f"r{n}": group for n, (_, _, group) in enumerate(drawn) if group is not None}
    train, held = hold_out(samples, share, seed, groups)
    assert sorted(row["id"] for row in [*train, *held]) == sorted(row["id"] for row in samples)
    sides = [{row["id"] for row in part} for part in (train, held)]
    for n, (_, parent, group) in enumerate(drawn):
        for m, (_, other_parent, other_group) in enumerate(drawn):
            if parent == m or (parent is not None and parent == other_parent) or (group is not None and group == other_group):
                assert any({f"r{n}", f"r{m}"} <= side for side in sides), "a row and its translation on two sides"
    again = [{row["id"] for row in part} for part in hold_out(samples[::-1], share, seed, groups)]
    assert again == sides, "the order of rows must not matter"


def test_each_language_gives_its_share():
    samples = [sample(f"{code}{n}", code, f"en{n}" if code != "en" and n < 20 else None) for code in ("en", "zh", "ru")
               for n in range(40)]
    train, held = hold_out(samples, 0.1, 1)
    counts = pd.Series([row["language"] for row in held]).value_counts()
    assert set(counts.index) == {"en", "zh", "ru"} and counts.between(4, 9).all()
    assert hold_out(samples, 0.1, 2)[1] != held and hold_out(samples, 0.0, 1)[1] == []


# the mix


@pytest.fixture
def sets(tmp_path):
    """Four sets in the layouts of those that UltraLink-LM added."""
    written = {
        "ultrachat.jsonl": [{"id": n, "data": [f"question {n}", f"answer {n}"]} for n in range(50)],
        "evol.jsonl": [{"instruction": f"write {n}", "response": f"def f{n}(): pass"} for n in range(20)],
        "metamath.jsonl": [{"query": f"{n} + 1?", "response": str(n + 1), "type": "GSM"} for n in range(30)],
        "sharegpt.jsonl": [{"id": str(n), "conversations": [
            {"from": "human", "value": "Tell me about the history of the sea." if n % 2 else "Расскажи мне об истории моря."},
            {"from": "gpt", "value": ("The sea is old and wide. " if n % 2 else "Море старое и широкое. ") * (n + 1)}]}
            for n in range(20)],
    }
    for name, lines in written.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def test_counts_shares_and_filters_give_what_they_say(sets):
    release = [sample(f"r{n}") for n in range(60)]
    mix = {str(sets / "ultrachat.jsonl"): 10, str(sets / "evol.jsonl"): "all", str(sets / "metamath.jsonl"): 0.1,
           str(sets / "sharegpt.jsonl"): {"rows": "all", "min_characters": 200, "only_language": True}}
    rows, table = mixing.mix_rows(release, mix, seed=3)
    table = table.set_index("part")
    assert table["taken"].tolist()[:3] == [60, 10, 20] and rows[:60] == release
    long_english = [row for row in rows if row["id"].startswith("sharegpt")]
    assert all(sum(len(turn["content"]) for turn in row["messages"]) >= 200 for row in long_english)
    assert all("sea" in row["messages"][0]["content"] for row in long_english)
    given = table.loc[str(sets / "sharegpt.jsonl")]
    assert given["of another length"] > 0 and given["in another language"] > 0
    assert given["taken"] + given["of another length"] + given["in another language"] == given["read"] == 20
    share = table.loc[str(sets / "metamath.jsonl")]
    assert share["taken"] == round(0.1 * (len(rows) - share["taken"]) / 0.9) and abs(share["share"] - 0.1) < 0.01
    assert len({row["id"] for row in rows}) == len(rows)
    again, _ = mixing.mix_rows(release, dict(reversed(mix.items())), seed=3)
    assert {row["id"] for row in again} == {row["id"] for row in rows}
    other, _ = mixing.mix_rows(release, mix, seed=4)
    assert {row["id"] for row in other} != {row["id"] for row in rows}


def test_a_row_is_not_added_twice_and_ids_stay_apart(sets):
    path = str(sets / "evol.jsonl")
    release, _ = read_sft(path)
    rows, table = mixing.mix_rows(release[:5], {path: "all"}, seed=1)
    assert len(rows) == 20 and table["in the mix already"].tolist() == [0, 5]
    rows, _ = mixing.mix_rows([{**row, "messages": DIALOGUE} for row in release], {path: 4}, seed=1)
    assert len({row["id"] for row in rows}) == 24


@pytest.mark.parametrize(("mix", "message"), [
    ({"a": 0}, "rows is a whole number, a share between 0 and 1, or all"), ({"a": 2.5}, "rows is a whole number"),
    ({"a": True}, "rows is a whole number"), ({"a": "some"}, "rows is a whole number"), ({"a": {"row": 3}}, "unknown row"),
    ({"a": 0.5, "b": 0.5}, "add up to 1, which leaves nothing for the release"), ({"a": {"layout": "csv"}}, "unknown layout"),
    ({"a": {"min_characters": "4k"}}, "whole number of characters"),
])
def test_a_mix_that_cannot_be_is_one_sentence(mix, message):
    with pytest.raises(mixing.BadMix, match=message):
        mixing.read_mix(mix)


# training


def test_the_tiny_model_knows_nothing_and_is_built_once(tiny, rows):
    model, tokenizer = load_model(tiny, "cpu")
    training_data.set_template(tokenizer)
    loss = held_out.by(held_out.losses(model, encode_rows(tokenizer, rows, 128)))["loss"].item()
    assert abs(loss - np.log(len(tokenizer))) < 0.1
    assert tokenizer.decode(tokenizer("naïve 汉字 ёлка 🙂")["input_ids"]) == "naïve 汉字 ёлка 🙂"
    texts = [message["content"] for row in rows for message in row["messages"]] + [turn["content"] for turn in DIALOGUE]
    stamp = (tiny / "model.safetensors").stat().st_mtime_ns
    assert tiny_model.build(tiny, texts, vocabulary=600, width=32, context=512) == tiny
    assert (tiny / "model.safetensors").stat().st_mtime_ns == stamp


def test_held_out_loss_is_that_of_each_row_alone_whatever_the_batch(tiny, rows):
    import torch

    model, tokenizer = load_model(tiny, "cpu")
    training_data.set_template(tokenizer)
    encoded = encode_rows(tokenizer, rows[:12], 200).encoded
    together = held_out.row_losses(model, encoded, batch_tokens=1_000)
    for row, total in zip(encoded, together, strict=True):
        ids, labels = (torch.from_numpy(part.astype(np.int64))[None] for part in (row.input_ids, row.labels))
        with torch.inference_mode():
            mean = model(input_ids=ids, labels=labels).loss.item()
        assert total == pytest.approx(mean * row.learnt, rel=1e-5)


def test_packed_dialogues_do_not_see_each_other(tiny, rows, tmp_path):
    import torch
    from trl import SFTTrainer

    chosen = small(tiny, rows_per_device=4, max_row_tokens=200)
    with models.quiet():
        model, tokenizer = sft.open_base(chosen)
        training_data.set_template(tokenizer)
        encoded = encode_rows(tokenizer, rows, 96).encoded[:12]
        trainer = SFTTrainer(model=model, args=sft.config(chosen, tmp_path), train_dataset=sft.as_dataset(encoded),
                             processing_class=tokenizer)
        batch = next(iter(trainer.get_train_dataloader()))
        model.eval()
        with torch.inference_mode():
            packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
            starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
            assert len(starts) == 8, "four rows of two dialogues each"
            for start, end in zip(starts, [*starts[1:], len(packed)], strict=True):
                alone = model(input_ids=batch["input_ids"][:, start:end]).logits[0]
                assert torch.allclose(alone, packed[start:end], atol=1e-5)
    assert len(trainer.train_dataset) == len(encoded) // 2
    kept = sum((np.array(labels) != IGNORED).sum() for labels in trainer.train_dataset["labels"])
    assert kept == sum((row.labels != IGNORED).sum() for row in encoded), "packing must not touch the labels"


@pytest.fixture(scope="session")
def adapter(tiny, rows, tmp_path_factory):
    """A finished LoRA training with held-out rows."""
    folder = tmp_path_factory.mktemp("lora") / "training"
    about = {"mix": [{"part": "release", "taken": len(rows)}]}
    chosen = small(tiny, training_method="lora", lora_rank=4, learning_rate=2e-2, evaluate_every=3)
    return finetuning.train(rows[6:], chosen, folder, held_out=rows[:6], about=about, say=silent)


def test_an_adapter_learns_and_leaves_the_base_model_alone(adapter, tiny, rows):
    from safetensors.torch import load_file

    names = {file.name for file in adapter.model.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))], "no pickle"
    assert all("lora_" in key for key in load_file(adapter.model / "adapter_model.safetensors"))
    assert adapter.manifest["trained"] < adapter.manifest["parameters"]
    assert (adapter.held_out["loss_after"] < adapter.held_out["loss_before"]).all()
    model, tokenizer = load_model(adapter.model, "cpu")
    assert tokenizer.chat_template == training_data.KIT_TEMPLATE
    measured = held_out.losses(model, encode_rows(tokenizer, rows[:6], 128)).set_index(["language", "kind"])
    told = adapter.held_out.set_index(["language", "kind"])
    assert measured["loss"].to_dict() == pytest.approx(told["loss_after"].to_dict(), rel=1e-5)
    assert measured["tokens"].to_dict() == told["tokens"].to_dict()


def test_the_outcome_is_written_as_it_is_promised(adapter, rows):
    log = adapter.log
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert log["seconds"].is_monotonic_increasing and (log["tokens"].diff()[1:] > 0).all()
    assert sorted(adapter.curve["step"].unique()) == [0, 3, 6]
    assert list(adapter.held_out.columns) == held_out.HELD_OUT.names
    learnt = adapter.manifest["learnt"]
    assert learnt["rows"] + learnt["rows refused"] == len(rows) - 6
    assert adapter.manifest["refused"] == [{"gate": "too_long", "rows": learnt["rows refused"]}]
    assert sum(row["en"] for row in adapter.manifest["data"]) == learnt["rows"]
    assert adapter.manifest["about"]["mix"][0]["taken"] == len(rows)
    assert not list((adapter.folder / "checkpoints").glob("*")), "checkpoints of a finished training take space"
    card = training_card.write_card(adapter, "a test", None, [{"dataset": "x", "license": "MIT", "samples": 3}]).read_text()
    assert "not stated" in card and "| x | MIT | 3 |" in card and "LoRA adapters" in card and "## Held-out loss" in card


def test_a_finished_training_is_read_from_disk_unless_something_changed(adapter, tiny, rows, tmp_path):
    said = []
    chosen = Settings.from_dict(adapter.manifest["settings"])
    again = finetuning.train(rows[6:], chosen, adapter.folder, held_out=rows[:6], say=said.append)
    assert said == ["this training is finished: its outcome is read from disk"] and again.log.equals(adapter.log)
    changed = [{**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": "changed"}]} for row in rows[6:]]
    assert finetuning._identity(changed, chosen, rows[:6]) != adapter.manifest["identity"]
    assert finetuning._identity(rows[6:], small(tiny), rows[:6]) != adapter.manifest["identity"]


def run_plan(folder):
    return subprocess.Popen([sys.executable, "-m", "ultralink_nb.finetuning", str(folder)], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})


def test_a_training_killed_in_the_middle_ends_with_the_curve_of_an_undisturbed_one(tiny, rows, tmp_path):
    from safetensors.torch import load_file

    chosen = small(tiny, training_method="lora", lora_dropout=0.2, max_steps=40, save_every=5, evaluate_every=20)
    folder = finetuning.write_plan(tmp_path / "killed", rows[6:], chosen, rows[:6])
    process = run_plan(folder)
    until = time.monotonic() + 240
    while not list(folder.glob("checkpoints/*/checkpoint-1[05]/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (folder / "training.json").exists()
    checkpoints = next(folder.glob("checkpoints/*"))
    half = checkpoints / "checkpoint-35"  # as if killed while it was written
    shutil.copytree(sorted(checkpoints.glob("checkpoint-*"))[0], half)
    (half / "trainer_state.json").write_text('{"global_step": 5')

    output = run_plan(folder).communicate(timeout=300)[0]
    assert "going on after step 1" in output, output
    resumed = finetuning.TrainingResult(folder, finetuning._read_manifest(folder))
    whole = finetuning.train(rows[6:], chosen, tmp_path / "whole", held_out=rows[:6], say=silent)
    assert resumed.log["step"].tolist() == list(range(1, 41))
    for column in ("loss", "learning_rate", "tokens"):
        assert np.allclose(resumed.log[column], whole.log[column], rtol=0, atol=1e-6), column
    assert np.allclose(resumed.curve["loss"], whole.curve["loss"], rtol=0, atol=1e-6)
    ours, theirs = (load_file(one.model / "adapter_model.safetensors") for one in (resumed, whole))
    assert max((ours[key] - theirs[key]).abs().max().item() for key in ours) < 1e-6
    assert whole.log["loss"].iloc[-5:].mean() < whole.log["loss"].iloc[:5].mean() - 0.05, "a flat curve would agree, too"


def test_two_processes_share_each_step_and_learn_the_same(tiny, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chosen = small(tiny, max_steps=8, packing=False)
    folder = finetuning.write_plan(tmp_path / "two", rows[6:], chosen, rows[:6])
    said = []
    finetuning.launch(folder, 2, said.append)
    assert said[-1].startswith("step 8 of 8: loss")
    two = finetuning.TrainingResult(folder, finetuning._read_manifest(folder))
    one = finetuning.train(rows[6:], chosen, tmp_path / "one", held_out=rows[:6], say=silent)
    assert two.manifest["processes"] == 2 and one.manifest["processes"] == 1
    assert np.allclose(two.log["loss"], one.log["loss"], atol=1e-4)
    assert np.allclose(two.held_out["loss_after"], one.held_out["loss_after"], atol=1e-4)
    assert (two.held_out["loss_after"] < two.held_out["loss_before"]).all()


# what is wrong is said in one sentence, before any work


def test_wrong_settings_and_missing_packages(tiny, rows, tmp_path, monkeypatch):
    with pytest.raises(BadTraining, match="rows_per_step .3. must be a multiple of rows_per_device times processes .2 x 1 = 2."):
        finetuning.train(rows, small(tiny, rows_per_step=3), tmp_path / "out", say=silent)
    with pytest.raises(BadTraining, match="training_method must be one of lora, qlora, full"):
        small(tiny, training_method="half")
    with pytest.raises(BadTraining, match="is not a setting"):
        Settings.from_dict({"model": "x", "batch": 3})
    with pytest.raises(BadTraining, match="none of the 1 rows"):
        finetuning.train([{**rows[0], "messages": rows[0]["messages"][:1]}], small(tiny), tmp_path / "out", say=silent)
    with pytest.raises(BadModel, match="qlora needs a CUDA GPU and bitsandbytes .* lora"):
        finetuning.train(rows, small(tiny, training_method="qlora"), tmp_path / "out", say=silent)
    with pytest.raises(BadModel, match="could not be opened.*safetensors"):
        load_model(tmp_path / "nowhere", "cpu")
    shutil.copytree(tiny, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(BadModel, match="safetensors"):
        load_model(tmp_path / "pickled", "cpu")
    finetuning.write_plan(tmp_path / "plan", rows[:2], small(tmp_path / "nowhere"))
    with pytest.raises(BadTraining, match="failed: the model .*nowhere could not be opened"):
        finetuning.launch(tmp_path / "plan", 1)
    assert finetuning.main([str(tmp_path)]) == 1 and finetuning.main([]) == 2
    from importlib import util

    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(BadModel, match=r"fine-tuning needs trl and peft and accelerate: pip install -e '.\[train\]'"):
        finetuning.train(rows, small(tiny), tmp_path / "out")


def test_what_the_parameters_leave_open_is_settled_by_the_method():
    stated = {"scale": "demo", "training_method": "auto", "learning_rate": None, "max_steps": None, "max_row_tokens": 99,
              "seed": 5, "evaluate_every": None, "languages": ["en"]}
    tiny = Settings.chosen(stated, "folder", tiny=True)
    assert (tiny.training_method, tiny.learning_rate, tiny.max_steps, tiny.max_row_tokens, tiny.seed) == ("full", 3e-3, 40, 99, 5)
    other = Settings.chosen({**stated, "scale": "full", "learning_rate": 1e-5}, "org/model")
    assert (other.training_method, other.learning_rate, other.max_steps) == ("lora", 1e-5, None)


def test_notebook_07_trains_measures_and_says_nothing_superfluous(demo, workspace):
    """Executed once, on the finished demo's release."""
    run = workspace / "papermill_runs" / "demo"
    for name in ("data/groups.parquet", "release"):
        source = demo / "papermill_runs" / "demo" / name
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, run / name)
    done = command("papermill", "notebooks/07_fine_tuning.ipynb", str(run / "07_fine_tuning.ipynb"), "-p", "max_steps", "20",
                   "--no-progress-bar", cwd=workspace)
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.read(run / "07_fine_tuning.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not [output for output in outputs if output.output_type == "error"]
    folder = run / "data" / "training"
    result = finetuning.TrainingResult(folder, json.loads((folder / "training.json").read_text()))
    assert set(result.held_out["language"]) == {"en", "zh", "ru", "fr", "es"}
    assert (held_out.by(result.held_out, "language").eval("loss_before - loss_after") > 0.3).all()
    assert result.manifest["about"]["mix"][0]["part"] == "release"
    for name in ("07_loss", "07_before_after", "07_lengths"):
        assert (workspace / "figures" / "demo" / f"{name}.png").stat().st_size > 10_000
    model, tokenizer = load_model(result.model, "cpu")
    assert tokenizer.chat_template and model.config.vocab_size == len(tokenizer)


