"""Runs written by hand for tests: a manifest, executed notebooks and tables, without executing anything."""

import base64
import io
import json
from pathlib import Path

import nbformat
from PIL import Image, ImageDraw

from ultralink_nb import records


def png(width=400, height=300):
    """A picture as figures are: few colours, in RGBA, and lines."""
    image = Image.new("RGBA", (width, height), (255, 255, 255, 255))
    draw = ImageDraw.Draw(image)
    for place in range(0, width, 7):
        draw.line((place, 0, width - place, height), fill=(0, place % 256, 178, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(folder: Path, name: str, parameters: str, outputs=(), heading="## What was `found`") -> None:
    """An executed notebook with a parameters cell and one cell that shows `outputs`."""
    cells = [nbformat.v4.new_markdown_cell(f"# {name}\n\nWhat it is."), nbformat.v4.new_code_cell(parameters, execution_count=1),
             nbformat.v4.new_markdown_cell(heading), nbformat.v4.new_code_cell("secret_code()", outputs=list(outputs))]
    cells[1].metadata["tags"] = ["parameters"]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")


def sample(row_id: str, language: str, truth: str) -> dict:
    return records.parse_sample({"id": row_id, "language": language, "kind": "math", "topic": truth,
                                 "messages": [{"role": "user", "content": f"What is {truth}?"}]}).model_dump()


def run(folder: Path, status="ok", profile="demo", parameters=None, notebooks=None, **fields) -> Path:
    """A run's folder with its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = notebooks if notebooks is not None else [entry("04_redundancy_analysis.ipynb"), entry("05_pruning.ipynb")]
    manifest = {"run": folder.name, "profile": profile, "status": status, "started": "2026-03-01T08:00:00+00:00",
                "git_commit": None, "versions": {"python": "3.11.7"}, "parameters": parameters or {}, "inputs": {},
                "notebooks": entries, **fields}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def entry(name: str, status="ok", **fields) -> dict:
    done = {"seconds": 2.5, "peak_memory_mib": 321.0, "outputs": {}} if status == "ok" else {}
    return {"notebook": name, "status": status, "fingerprint": "0", "parameters": {}, **done, **fields}


def tables(folder: Path, rows: list[dict], dropped: dict[str, str], probabilities=(0.9, 0.6, 0.2)) -> None:
    """samples, kept, dropped, pairs and groups; `dropped` gives each dropped id the row that stands for it."""
    data = folder / "data"
    records.write_table(data / "samples.parquet", rows, records.SAMPLES)
    records.write_table(data / "kept.parquet", [row for row in rows if row["id"] not in dropped], records.SAMPLES)
    gone = [{**row, "kept_by": dropped[row["id"]], "probability": 0.9, "policy": "balanced", "reason": "said", "position": place}
            for place, row in enumerate(rows) if row["id"] in dropped]
    records.write_table(data / "dropped.parquet", gone, records.DROPPED)
    pairs = [{"left_id": "a", "right_id": "b", "left_language": "en", "right_language": "fr", "cosine": 0.5, "margin": 1.0,
              "probability": probability} for probability in probabilities]
    records.write_table(data / "pairs.parquet", pairs, records.PAIRS)
    groups = [{"id": row["id"], "group": number if row["id"] not in dropped else 0, "size": 1, "representative": row["id"],
               "duplicate_of": None} for number, row in enumerate(rows)]
    records.write_table(data / "groups.parquet", groups, records.GROUPS)
