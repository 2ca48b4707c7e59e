"""What the documents say holds: links lead somewhere, commands and parameters exist, recipes run, versions agree."""

import asyncio
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from ultralink_nb import cli, parameters, policies, pruning

HOW_TO = "docs/how_to.md"
ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]


@pytest.fixture(scope="module", params=DOCUMENTS)
def document(request, root):
    return root / request.param, (root / request.param).read_text(encoding="utf-8")


def code_of(text):
    """What stands in code: blocks of shell and words in backticks."""
    return [*re.findall(r"^ *```bash\n(.*?)^ *```", text, re.S | re.M), *re.findall(r"`([^`\n]+)`", text)]


def test_links_lead_to_files_that_are_there(document, root):
    path, text = document
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|mailto:", link)]
    for link in links:
        name, _, anchor = link.partition("#")
        assert (path.parent / name).exists() if name else anchor, f"{path.name} links to {link}"
    if path.name == "README.md":
        assert any(link.startswith("docs/how_to.md") for link in links)


def test_commands_and_their_options_exist(document):
    path, text = document
    root = get_command(cli.app)
    found = [line for code in code_of(text) for line in re.findall(r"^\s*ultralink-nb .*", code, re.M)]
    assert found or path.name not in ("README.md", "how_to.md")
    for line in found:
        words = line.split("#")[0].split()
        command = root if words[1].startswith("-") else root.commands.get(words[1])
        assert command, f"{path.name}: {line}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if re.fullmatch(r"--?[a-z-]+", word)} <= known, f"{path.name}: {line}"


def test_parameters_that_are_set_exist(document):
    path, text = document
    names = {name for code in code_of(text) for name in re.findall(r"-p '?([a-z_]+)[= ]", code)}
    assert names or path.name not in ("README.md", "how_to.md")
    for name in names:
        assert name in parameters.PARAMETERS, f"{path.name} sets {name}"


def test_files_that_are_named_are_there(document, root):
    path, text = document
    named = {name for name in re.findall(r"`((?:ultralink_nb|tests|benchmarks|notebooks)/[\w./]+)`", text)}
    for name in named - {"notebooks/NN_its_name.ipynb", "ultralink_nb/prompts/it.yaml"}:
        assert (root / name).exists(), f"{path.name} names {name}"


def test_the_citation_file_is_whole_and_of_this_version(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["message"] and citation["title"] and citation["authors"]
    assert str(citation["version"]) == project["version"] and citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert paper["type"] == "conference-paper" and paper["doi"] == "10.18653/v1/2024.acl-long.644"
    assert len(paper["authors"]) == 12 and all(set(author) == {"family-names", "given-names"} for author in paper["authors"])


def test_the_changelog_speaks_of_this_version(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## (.*)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert project["version"] in headings[0]


def test_a_policy_is_known_where_values_are_checked():
    assert set(parameters.POLICIES) == set(policies.POLICIES)


@pytest.fixture(scope="module")
def recipes(root):
    """What the Python blocks of the recipes define, taken as they stand."""
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", (root / HOW_TO).read_text(encoding="utf-8"), re.S | re.M)
    defined = {}
    for indent, block in blocks:
        exec(compile("\n".join(line[len(indent):] for line in block.splitlines()), HOW_TO, "exec"), defined)
    return defined


def test_the_recipe_of_an_encoder_makes_vectors(recipes):
    encoder = recipes["HashingEncoder"]()
    vectors = encoder.encode(["the same words", "the same words", "entirely different"])
    assert vectors.shape == (3, encoder.dimension) and vectors.dtype == "float32"
    assert vectors[0] @ vectors[1] == pytest.approx(1, abs=1e-5) and vectors[0] @ vectors[2] < 0.5
    assert encoder.lengths(["four words stand here"]) > 1


def test_the_recipe_of_a_chat_model_answers(recipes):
    from ultralink_nb.completions import ChatRequest
    from ultralink_nb.structured import CheckedModel

    model = CheckedModel(recipes["TailModel"](), 1)
    completion = asyncio.run(model.complete(ChatRequest(({"role": "user", "content": "what is asked"},))))
    assert completion.text == "what is asked" and completion.model == "tail:1" and not completion.cached


def test_the_recipe_of_a_policy_prunes(recipes, monkeypatch):
    import pandas as pd

    monkeypatch.setitem(policies.POLICIES, "shortest", recipes["shortest"])
    rows = pd.DataFrame({"id": ["long-id", "id", "other"], "language": ["en", "fr", "en"], "kind": ["math"] * 3})
    groups = pd.DataFrame({"id": rows["id"], "group": [0, 0, 1]})
    pairs = pd.DataFrame({"left": [0], "right": [1], "probability": [0.9]})
    pruned = pruning.prune(rows, groups, pairs, "shortest")
    assert pruned.kept == ["id", "other"] and pruned.dropped["kept_by"].tolist() == ["id"]
