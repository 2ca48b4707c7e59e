"""A run as one self-contained page: what each notebook found, its tables and figures, without the code."""

import base64
import html
import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from PIL import Image, ImageChops, ImageStat

from ultralink_nb.parameters import PARAMETERS
from ultralink_nb.records import atomic_path
from ultralink_nb.runs import RunError, read_manifest

STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; max-width: 70rem; margin: 2rem auto;
       padding: 0 1rem; color: #222 }
h1, h2, h3 { line-height: 1.25 } h2 { border-top: 2px solid #ddd; padding-top: 1rem; margin-top: 3rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto }
th, td { border: 1px solid #ddd; padding: .25rem .5rem; text-align: left; vertical-align: top } th { background: #f5f5f5 }
img { max-width: 100%; margin: 1rem 0 } pre { background: #f7f7f7; padding: .5rem .75rem; white-space: pre-wrap; font-size: 13px }
.ok { color: #007a5a } .failed, .interrupted { color: #b33c00 } caption { font-weight: bold; text-align: left }
code { overflow-wrap: anywhere } nav ul { list-style: none; padding-left: 1rem; margin: .25rem 0 }
@media (min-width: 96rem) { nav { position: fixed; top: 2rem; bottom: 2rem; left: 1rem; width: 16rem; overflow-y: auto;
  font-size: 13px } body:has(nav) { margin-left: 19rem } }
@media print { nav { display: none } }
"""
_PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ manifest.run }}: report of a run</title>
<style>{{ style|safe }}</style></head><body>
<h1>Run {{ manifest.run }}</h1>
<p>Profile {{ manifest.profile }}, started {{ manifest.started }}{% if manifest.finished %}, finished {{ manifest.finished }}
{%- endif %}, status <b class="{{ manifest.status }}">{{ manifest.status }}</b>
{%- if manifest.git_commit %}, commit
<code>{{ manifest.git_commit }}</code>{% endif %}.</p>
<table><thead><tr><th>notebook</th><th>status</th><th>seconds</th><th>peak memory, MiB</th></tr></thead><tbody>
{% for entry in entries %}<tr><td>{% if entry.shown %}<a href="#{{ entry.notebook }}">{{ entry.notebook }}</a>
{%- else %}{{ entry.notebook }}{% endif %}</td>
<td class="{{ entry.status }}">{{ entry.status }}{% if entry.error %}: {{ entry.error }}{% endif %}</td>
<td>{{ entry.seconds }}</td><td>{{ entry.peak_memory_mib }}</td></tr>{% endfor %}</tbody></table>
<nav><b>Contents</b><ul>
{% for book in books %}<li><a href="#{{ book.name }}">{{ book.title }}</a>{% if book.sections %}<ul>
{% for section in book.sections if section.title %}<li><a href="#{{ section.id }}">{{ section.title|safe }}</a></li>
{% endfor %}</ul>{% endif %}</li>
{% endfor %}<li><a href="#settings">Parameters, inputs, versions, files</a></li></ul></nav>
{% for book in books %}<h2 id="{{ book.name }}">{{ book.title }}</h2>
<p><a href="{{ book.name }}">the executed notebook</a></p>
{% for section in book.sections %}{% if section.title %}<h3 id="{{ section.id }}">{{ section.title|safe }}</h3>{% endif %}
{% for part in section.parts %}{{ part|safe }}
{% endfor %}{% endfor %}{% endfor %}
<h2 id="settings">Parameters, inputs, versions, files</h2>
<table><caption>Parameters that the run was given; all others are at the notebooks' defaults</caption>
<thead><tr><th>parameter</th><th>value</th><th>what it is</th></tr></thead><tbody>
{% for name, value in manifest.parameters.items() %}<tr><td>{{ name }}</td><td><code>{{ value|tojson }}</code></td>
<td>{{ meanings[name] }}</td></tr>{% endfor %}</tbody></table>
{% if manifest.inputs %}<table><caption>Inputs</caption><thead><tr><th>file</th><th>SHA-256</th></tr></thead><tbody>
{% for name, digest in manifest.inputs.items() %}<tr><td>{{ name }}</td><td><code>{{ digest }}</code></td></tr>
{% endfor %}</tbody></table>{% else %}<p>Inputs: none was named; the run read the embedded sample.</p>{% endif %}
<table><caption>Versions</caption><tbody>{% for name, version in manifest.versions.items() %}<tr><td>{{ name }}</td>
<td>{{ version }}</td></tr>{% endfor %}
{% if manifest.platform %}<tr><td>platform</td><td>{{ manifest.platform }}</td></tr>{% endif %}</tbody></table>
<details><summary>Files written</summary><table><thead><tr><th>notebook</th><th>file</th><th>bytes</th></tr></thead><tbody>
{% for entry in entries %}{% for file in entry.files %}<tr><td>{{ entry.notebook }}</td><td>{% if file.link %}
<a href="{{ file.link }}">{{ file.name }}</a>{% else %}{{ file.name }}{% endif %}</td><td>{{ file.size }}</td></tr>
{% endfor %}{% endfor %}</tbody></table></details>
</body></html>
""")


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder from its manifest and executed notebooks, and return its path.

    A run that failed, was killed or is in progress gets a page of what is there. Raises RunError (code 2) for what is no run.
    """
    manifest = {"parameters": {}, "versions": {}, "inputs": {}, "notebooks": [], **read_manifest(folder)}
    if "run" not in manifest:
        raise RunError(f"{folder} has no manifest.json: it is not a run", 2)
    books = [_book(folder / entry["notebook"]) for entry in manifest["notebooks"] if (folder / entry["notebook"]).is_file()]
    entries = [{**entry, "shown": (folder / entry["notebook"]).is_file(),
                "files": [_file(folder, name, size) for name, size in entry.get("outputs", {}).items()]}
               for entry in manifest["notebooks"]]
    meanings = {name: parameter.help for name, parameter in PARAMETERS.items()}
    path = folder / "report.html"
    with atomic_path(path) as temporary:
        page = _PAGE.render(manifest=manifest, entries=entries, books=books, style=STYLE, meanings=meanings)
        temporary.write_text(page, encoding="utf-8")
    return path


def _file(folder: Path, name: str, size: int) -> dict[str, Any]:
    """A file's name and size, and a link to it from the run's folder where it is there."""
    link = Path(os.path.relpath(name, folder)).as_posix() if Path(name).is_file() else ""
    return {"name": name, "size": f"{size:,}", "link": link}


def _book(path: Path) -> dict[str, Any]:
    """A notebook's title and its sections that show something."""
    title, sections = path.stem, [{"title": "", "parts": []}]  # what comes before any heading
    try:
        cells = nbformat.read(path, as_version=4).cells
    except (ValueError, OSError, nbformat.reader.NotJSONError, nbformat.ValidationError):  # killed while it was being saved
        cells, sections[0]["parts"] = [], ["<p class='failed'>This notebook cannot be read: run it again.</p>"]
    for cell in cells:
        if cell.cell_type == "markdown":
            first = cell.source.lstrip().splitlines()[0] if cell.source.strip() else ""
            if first.startswith("# "):
                title = first[2:]
            elif first.startswith("## "):
                sections.append({"title": _inline(first[3:]), "parts": []})
        else:
            sections[-1]["parts"] += [part for output in cell.get("outputs", []) if (part := _output(output))]
    shown = [{**section, "id": f"{path.stem}-{number}"} for number, section in enumerate(sections) if section["parts"]]
    return {"name": path.name, "title": title, "sections": shown}


def _html(markdown: str) -> str:
    """Markdown as HTML, without the links to itself that nbconvert adds to each heading."""
    return re.sub(r"<a class=\"anchor-link\".*?</a>", "", markdown2html_mistune(markdown))


def _inline(markdown: str) -> str:
    """A heading's text as HTML, without the paragraph around it."""
    return re.sub(r"</?p>", "", _html(markdown)).strip()


def smaller(picture: bytes) -> bytes:
    """A PNG in a palette of 256 colours on white, where nobody sees the difference; else as it is.

    A figure has few colours, so that its palette is nearly exact: a third of the size, and a channel (0 to 255) off by less than
    0.25 on average. What is not a readable picture is left as it is.
    """
    try:
        image = Image.open(io.BytesIO(picture)).convert("RGBA")
    except (OSError, ValueError):
        return picture
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    plain = white.convert("RGB")
    palette = plain.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    difference = ImageStat.Stat(ImageChops.difference(plain, palette.convert("RGB"))).mean
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue() if max(difference) < 0.25 and len(buffer.getvalue()) < len(picture) else picture


def _output(output: Any) -> str:
    """One output as HTML: pictures and tables as they are, text in a box; progress bars and widgets are left out."""
    if output.output_type == "stream":
        return f"<pre>{html.escape(output.text.rstrip())}</pre>" if output.name == "stdout" and output.text.strip() else ""
    if output.output_type == "error":
        said = re.sub(r"\x1b\[[0-9;]*m", "", f"{output.ename}: {output.evalue}")
        return f"<pre class='failed'>{html.escape(said)}</pre>"
    data = output.get("data", {})
    if "image/png" in data:
        picture = smaller(base64.b64decode(data["image/png"]))
        return f"<img alt='figure' src='data:image/png;base64,{base64.b64encode(picture).decode()}'>"
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""
    if "text/html" in data:
        return data["text/html"]
    if "text/markdown" in data:
        return _html(data["text/markdown"])
    text = data.get("text/plain", "")
    return f"<pre>{html.escape(text)}</pre>" if text and not text.startswith("<Figure") else ""
