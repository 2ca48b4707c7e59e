"""The main job, end to end: what `make run` does, on the embedded sample, in a folder of its own."""

import json
from pathlib import Path

import nbformat
import pyarrow.parquet as pq
import pytest

from tests.conftest import command
from ultralink_nb import records

SIX = ["01_knowledge_grounding", "02_dialogue_generation", "03_language_agnostic_data", "04_redundancy_analysis", "05_pruning",
       "06_dataset_release"]


def test_six_notebooks_are_ok_in_the_manifest(demo):
    manifest = json.loads((demo / "papermill_runs/demo/manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "ok"
    assert [entry["notebook"] for entry in manifest["notebooks"]][:6] == [f"{name}.ipynb" for name in SIX]
    assert {entry["status"] for entry in manifest["notebooks"]} == {"ok"}
    for entry in manifest["notebooks"]:
        assert entry["seconds"] > 0 and 50 < entry["peak_memory_mib"] < 3072 and entry["parameters"]["run_dir"]
    assert {"python", "torch", "faiss", "papermill"} <= set(manifest["versions"])


def test_every_figure_is_there_as_png_and_svg(demo):
    figures = demo / "figures" / "demo"
    png, svg = ({path.stem for path in figures.glob(f"*.{suffix}")} for suffix in ("png", "svg"))
    assert png == svg and len(png) >= 12
    for number in ("01", "02", "03", "04", "05", "06"):
        assert any(name.startswith(number) for name in png), f"notebook {number} left no figure"


def test_no_notebook_shows_a_warning_or_an_error(demo):
    for path in (demo / "papermill_runs/demo").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                assert output.output_type != "error", f"{path.name}: {output.evalue}"
                said = output.get("text", "") if output.get("name") == "stderr" else ""
                assert "warning" not in said.lower(), f"{path.name}: {said}"


def table(demo, name, schema):
    return records.read_table(demo / "papermill_runs/demo/data" / name, schema)


def test_the_tables_keep_their_promises(demo):
    documents, passages = table(demo, "documents.parquet", records.DOCUMENTS), table(demo, "passages.parquet", records.PASSAGES)
    assert {row["language"] for row in documents} == {"en", "zh", "ru", "fr", "es"}
    assert {row["document_id"] for row in passages} <= {row["id"] for row in documents}
    samples = table(demo, "samples.parquet", records.SAMPLES)
    assert {row["kind"] for row in samples} == {"chat_specific", "chat_agnostic", "math", "code"}
    kept, dropped = table(demo, "kept.parquet", records.SAMPLES), table(demo, "dropped.parquet", records.DROPPED)
    ids = [row["id"] for row in samples]
    assert sorted([row["id"] for row in kept] + [row["id"] for row in dropped]) == sorted(ids)
    kept_ids = {row["id"] for row in kept}
    assert all(row["kept_by"] in kept_ids for row in dropped)
    specific = {row["id"] for row in samples if row["kind"] == "chat_specific"}
    assert specific <= kept_ids
    groups = table(demo, "groups.parquet", records.GROUPS)
    assert sorted(row["id"] for row in groups) == sorted(ids)


def test_translations_are_found_again_as_the_same_content(demo):
    """The truth is in the ids: a translated sample names its parent. The analysis does not look at it."""
    samples = {row["id"]: row for row in table(demo, "samples.parquet", records.SAMPLES)}
    content = {row_id: row["source"]["parent_id"] or row_id for row_id, row in samples.items()}
    dropped = table(demo, "dropped.parquet", records.DROPPED)
    right = sum(content[row["id"]] == content[row["kept_by"]] for row in dropped)
    repeated = len(content) - len(set(content.values()))
    assert repeated > 100
    assert right / len(dropped) > 0.97, "of what is dropped, nearly all must repeat what is kept"
    assert right / repeated > 0.9, "of what is repeated, most must be dropped"


def test_every_recorded_answer_is_labelled_as_recorded(demo):
    for row in table(demo, "samples_02.parquet", records.SAMPLES):
        assert row["generator"]["model"] == "replay (written by the kit's authors)"


@pytest.mark.parametrize(("name", "gates"), [
    ("rejected_01.parquet", {"redirect", "disambiguation", "list_page", "too_short", "language", "namespace"}),
    ("rejected_03.parquet", {"numbers", "code"}),
])
def test_what_must_be_refused_is_refused_with_a_reason(demo, name, gates):
    rows = table(demo, name, records.REJECTED)
    assert gates <= {row["gate"] for row in rows}
    assert all(row["reason"] and json.loads(row["record"]) is not None for row in rows)


def test_the_planted_faults_are_caught(demo):
    """Three translations per language were damaged on purpose; all must be refused and almost nothing else."""
    planted = set()
    for code in ("zh", "ru", "fr", "es"):
        path = Path(records.__file__).parent / "sample" / "sft" / "translations" / f"{code}.jsonl"
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        planted |= {(code, row["id"]) for row in rows if "planted_fault" in row}
    assert len(planted) == 12
    samples = table(demo, "samples_03.parquet", records.SAMPLES)
    passed = {(row["language"], row["source"]["parent_id"]) for row in samples}
    assert not planted & passed
    assert len([1 for code, _ in passed if code != "en"]) >= 4 * 41 - 12 - 4


def test_the_release_opens_with_datasets(demo):
    from datasets import load_dataset

    release = demo / "papermill_runs/demo/release"
    dataset = load_dataset(str(release), split="train", cache_dir=str(demo / "cache"))
    assert dataset.num_rows == pq.read_metadata(demo / "papermill_runs/demo/data/kept.parquet").num_rows
    assert "not a model" in (release / "README.md").read_text(encoding="utf-8")


def test_the_report_shows_every_notebook(demo):
    page = (demo / "papermill_runs/demo/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64") >= 12
    assert all(f'id="{name}.ipynb"' in page for name in SIX)


def test_no_secret_is_written_anywhere(demo):
    for path in [*demo.glob("papermill_runs/**/*"), *demo.glob("figures/**/*"), *demo.glob(".cache/**/*")]:
        if path.is_file():
            assert b"planted-key-8f3a" not in path.read_bytes(), path


def test_the_same_run_again_does_nothing(demo):
    before = (demo / "papermill_runs/demo/data/kept.parquet").stat().st_mtime_ns
    result = command("ultralink_nb.cli", "run", "demo", cwd=demo, OPENAI_API_KEY="planted-key-8f3a")
    assert result.returncode == 0
    assert result.stdout.count("up to date, skipped") == len(SIX)
    assert (demo / "papermill_runs/demo/data/kept.parquet").stat().st_mtime_ns == before


def papermill(notebook, cwd, *options):
    return command("papermill", f"notebooks/{notebook}.ipynb", "out.ipynb", "--no-progress-bar", "-p", "run_dir",
                   "papermill_runs/wrong", *options, cwd=cwd)


@pytest.mark.parametrize(
    ("notebook", "options", "message"),
    [
        ("05_pruning", ["-p", "polcy", "paper"], "BadParameter: unknown parameter polcy; did you mean policy?"),
        ("05_pruning", ["-p", "seed", "1e6"], "BadParameter: parameter seed must be of type int, not float"),
        ("05_pruning", [], "does not exist: run the notebook that writes it first"),
        ("04_redundancy_analysis", ["-p", "samples_path", "broken.jsonl"], "broken.jsonl, line 7: not valid JSON"),
        ("04_redundancy_analysis", ["-y", "languages: [en, xx]"], "parameter languages: unknown language 'xx'"),
        ("01_knowledge_grounding", ["-p", "dump_path", "enwiki-cut.xml.bz2"], "enwiki-cut.xml.bz2"),
    ],
)
def test_wrong_input_under_plain_papermill_ends_in_one_clear_sentence(workspace, notebook, options, message):
    sample = Path(records.__file__).parent / "sample/wiki/enwiki-sample.xml.bz2"
    whole = sample.read_bytes()
    (workspace / "enwiki-cut.xml.bz2").write_bytes(whole[: len(whole) // 2])
    row = {"language": "en", "messages": [{"role": "user", "content": "?"}]}
    good = "".join(json.dumps({"id": str(number), **row}) + "\n" for number in range(6))
    (workspace / "broken.jsonl").write_text(good + '{"id": "7", "language"\n')
    result = papermill(notebook, workspace, *options)
    assert result.returncode != 0
    last = [line for line in result.stderr.strip().splitlines() if line.strip()][-1]
    assert message in last, result.stderr[-2000:]
