"""A run as one self-contained page: what each notebook found, its tables and figures, without the code."""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from ultralink_nb.records import atomic_path
from ultralink_nb.runs import RunError, read_manifest

_PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ manifest.run }}: report of a run</title>
<style>
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; max-width: 70rem; margin: 2rem auto;
       padding: 0 1rem; color: #222 }
h1, h2, h3 { line-height: 1.25 } h2 { border-top: 2px solid #ddd; padding-top: 1rem; margin-top: 3rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto }
th, td { border: 1px solid #ddd; padding: .25rem .5rem; text-align: left; vertical-align: top } th { background: #f5f5f5 }
img { max-width: 100%; margin: 1rem 0 } pre { background: #f7f7f7; padding: .5rem .75rem; white-space: pre-wrap; font-size: 13px }
.ok { color: #007a5a } .failed { color: #b33c00 } caption { font-weight: bold; text-align: left }
</style></head><body>
<h1>Run {{ manifest.run }}</h1>
<p>Profile {{ manifest.profile }}, started {{ manifest.started }}, status
<b class="{{ manifest.status }}">{{ manifest.status }}</b>{% if manifest.git_commit %}, commit
<code>{{ manifest.git_commit }}</code>{% endif %}.</p>
<table><thead><tr><th>notebook</th><th>status</th><th>seconds</th><th>peak memory, MiB</th></tr></thead><tbody>
{% for entry in manifest.notebooks %}<tr><td><a href="#{{ entry.notebook }}">{{ entry.notebook }}</a></td>
<td class="{{ entry.status }}">{{ entry.status }}{% if entry.error %}: {{ entry.error }}{% endif %}</td>
<td>{{ entry.seconds }}</td><td>{{ entry.peak_memory_mib }}</td></tr>{% endfor %}</tbody></table>
<details><summary>Parameters and versions</summary><pre>{{ details }}</pre></details>
{% for book in books %}<h2 id="{{ book.name }}">{{ book.title }}</h2>
<p><a href="{{ book.name }}">the executed notebook</a></p>
{% for part in book.parts %}{{ part|safe }}
{% endfor %}{% endfor %}
</body></html>
""")


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder from its manifest and executed notebooks, and return its path."""
    manifest = read_manifest(folder)
    if not manifest:
        raise RunError(f"{folder} has no manifest.json: it is not a run", 2)
    books = [_book(folder / entry["notebook"]) for entry in manifest["notebooks"] if (folder / entry["notebook"]).is_file()]
    details = json.dumps({"parameters": manifest["parameters"], "versions": manifest["versions"]}, indent=1, ensure_ascii=False)
    path = folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(_PAGE.render(manifest=manifest, books=books, details=details), encoding="utf-8")
    return path


def _book(path: Path) -> dict[str, Any]:
    title, parts, heading = path.stem, [], ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            first = cell.source.lstrip().splitlines()[0] if cell.source.strip() else ""
            if first.startswith("# "):
                title = first[2:]
            elif first.startswith("## "):
                heading = _html("#" + first)
            continue
        shown = [part for output in cell.get("outputs", []) if (part := _output(output))]
        if shown and heading:
            parts.append(heading)
            heading = ""
        parts.extend(shown)
    return {"name": path.name, "title": title, "parts": parts}


def _html(markdown: str) -> str:
    """Markdown as HTML, without the links to itself that nbconvert adds to each heading."""
    return re.sub(r"<a class=\"anchor-link\".*?</a>", "", markdown2html_mistune(markdown))


def _output(output: Any) -> str:
    """One output as HTML: pictures and tables as they are, text in a box; progress bars and widgets are left out."""
    if output.output_type == "stream":
        return f"<pre>{html.escape(output.text.rstrip())}</pre>" if output.name == "stdout" and output.text.strip() else ""
    if output.output_type == "error":
        return f"<pre class='failed'>{html.escape(output.ename)}: {html.escape(output.evalue)}</pre>"
    data = output.get("data", {})
    if "image/png" in data:
        picture = data["image/png"]
        encoded = picture if isinstance(picture, str) else base64.b64encode(picture).decode()
        return f"<img alt='figure' src='data:image/png;base64,{encoded.strip()}'>"
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""
    if "text/html" in data:
        return data["text/html"]
    if "text/markdown" in data:
        return _html(data["text/markdown"])
    text = data.get("text/plain", "")
    return f"<pre>{html.escape(text)}</pre>" if text and not text.startswith("<Figure") else ""
