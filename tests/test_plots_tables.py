import warnings

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")

from ultralink_nb import plots, tables  # noqa: E402
from ultralink_nb.languages import LANGUAGES  # noqa: E402
from ultralink_nb.workspace import open_run  # noqa: E402

TABLE = pd.DataFrame({
    "language": ["en", "zh", "ru", "en", "zh", "ru"], "kind": ["math"] * 3 + ["code"] * 3, "rows": [3, 4, 5, 6, 7, 8],
})


@pytest.fixture(autouse=True)
def theme():
    plots.use_theme()
    yield
    matplotlib.pyplot.close("all")


def test_chinese_and_cyrillic_have_glyphs(workspace):
    """Matplotlib warns about every glyph that a font lacks: none may be missing, in any language of the kit."""
    run = open_run("papermill_runs/fonts")
    title = " ".join(language.own_name for language in LANGUAGES.values()) + " 端午节 Масленица bœuf ¿Qué?"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig, _ = plots.bars(TABLE, "language", "rows", "kind", title, stacked=True)
        plots.save(fig, run, "fonts")
    assert (run.figures / "fonts.png").stat().st_size > 5000
    assert (run.figures / "fonts.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_a_language_has_one_colour_everywhere():
    fig, ax = plots.bars(TABLE, "kind", "rows", "language")
    drawn = {
        text.get_text(): matplotlib.colors.to_hex(patch.get_facecolor()).upper()
        for text, patch in zip(ax.get_legend().get_texts(), ax.get_legend().get_patches(), strict=True)
    }
    assert drawn == {code: LANGUAGES[code].color for code in ("en", "zh", "ru")} == plots.language_palette(["en", "zh", "ru"])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.funnel({"read": 10, "kept": 3}, "funnel"),
        lambda: plots.funnel(pd.DataFrame({"en": [5, 2], "zh": [4, 4]}, index=["read", "kept"])),
        lambda: plots.bars(TABLE, "language", "rows", "kind"),
        lambda: plots.histogram(TABLE, "rows", "language", log=True),
        lambda: plots.heatmap(pd.DataFrame([[None, 0.5], [0.2, None]], index=["en", "zh"], columns=["en", "zh"])),
        lambda: plots.scatter(TABLE.assign(x=range(6), y=range(6)), "x", "y", "language", "kind"),
        lambda: plots.lines(TABLE, "rows", "rows", "kind", "lines"),
        lambda: plots.bars(TABLE.assign(kind=["a $x_{1$"] * 6), "kind", "rows", "language", "a $ and a $ in a name"),
    ],
)
def test_figures_draw_without_a_warning(draw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig, ax = draw()
        fig.canvas.draw()
    assert ax.has_data()
    assert not any("math" in label.get_text() for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels(which="both"))


def test_an_empty_table_is_drawn_as_such():
    for fig, ax in (plots.bars(TABLE[:0], "kind", "rows", "language"), plots.histogram(TABLE[:0], "rows", "kind")):
        fig.canvas.draw()
        assert [text.get_text() for text in ax.texts] == ["no rows"]


def shown(monkeypatch, *arguments, **options):
    caught = []
    monkeypatch.setattr(tables, "display", lambda data, raw: caught.append(data))
    tables.show(*arguments, **options)
    return caught[0]


def test_tables_escape_clip_and_count(monkeypatch):
    rows = [{"text": "<b>bold</b> " + "x" * 300, "n": 1234567, "p": 0.12345, "none": None} for _ in range(60)]
    data = shown(monkeypatch, rows, "a caption", clip=40, limit=50)
    assert "&lt;b&gt;" in data["text/html"] and "<b>bold" not in data["text/html"]
    assert "1,234,567" in data["text/html"] and "0.123" in data["text/html"] and "… and 10 more rows" in data["text/html"]
    assert "a caption" in data["text/plain"] and "x" * 41 not in data["text/html"]


def test_columns_of_numbers_stand_to_the_right_and_only_long_words_break(monkeypatch):
    page = shown(monkeypatch, [{"gate": "grounding", "n": 3}, {"gate": "https://example.org/" + "x" * 20, "n": 12}])["text/html"]
    assert "<th style='text-align:left'>gate" in page and "<th style='text-align:right'>n<" in page
    assert "break-word'>grounding" in page and "anywhere'>https:" in page


def test_counts_become_a_matrix():
    rows = TABLE.to_dict("records")
    assert tables.counts(rows, "language", "kind").loc["zh", "code"] == 1
    assert tables.counts(rows, "kind")["rows"].tolist() == [3, 3]


def test_numbers_above_bars_are_short_and_never_in_powers_of_ten():
    table = pd.DataFrame({"rows in a group": [*"123456"], "share": [4990, 0.0064, 0.25, 0, 24.5, 3.0]})
    _, ax = plots.bars(table, "rows in a group", "share")
    assert [text.get_text() for text in ax.texts] == ["4,990", "0.0064", "0.25", "0", "24.5", "3"]
