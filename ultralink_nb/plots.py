"""Figures in one visual language: a language has the same colour everywhere, and Chinese and Cyrillic are never boxes.

Every function returns `(fig, ax)`, so that a notebook can add to a figure before `save` writes it as PNG and SVG.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from ultralink_nb.languages import LANGUAGES
from ultralink_nb.workspace import Run

# Kinds take the remaining well-separated hues of the Okabe-Ito family; anything else cycles through seaborn's "colorblind".
KIND_COLORS = {"chat_specific": "#882255", "chat_agnostic": "#44AA99", "math": "#DDCC77", "code": "#332288", "chat": "#44AA99",
               "sentence": "#999999"}
OUTCOME_COLORS = {"kept": "#0072B2", "dropped": "#C7C7C7", "rejected": "#D55E00",
                  "same content": "#0072B2", "different": "#E69F00"}


def _cjk_font() -> str | None:
    """A font with Chinese, Cyrillic and Latin letters: the one that mplfonts carries, else one found on the system."""
    spec = importlib.util.find_spec("mplfonts")
    if spec and spec.origin:
        path = Path(spec.origin).parent / "fonts" / "NotoSansCJKsc-Regular.otf"
        if path.is_file():
            font_manager.fontManager.addfont(path)
            return font_manager.FontProperties(fname=path).get_name()
    known = {font.name for font in font_manager.fontManager.ttflist}
    wanted = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "Arial Unicode MS", "PingFang SC", "SimHei")
    return next((name for name in wanted if name in known), None)


def use_theme() -> None:
    """Set the kit's theme for every figure that follows. A dollar sign in a user's text stays a dollar sign."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    font = _cjk_font()
    mpl.rcParams["font.family"] = [font, "DejaVu Sans"] if font else ["DejaVu Sans"]
    mpl.rcParams.update({
        "figure.figsize": (8, 4.5), "figure.dpi": 100, "savefig.dpi": 150, "axes.titlelocation": "left", "axes.titlesize": 12,
        "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
        "axes.unicode_minus": False, "text.parse_math": False, "svg.hashsalt": "ultralink",
        "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.4,
    })


def language_palette(codes: Sequence[str]) -> dict[str, str]:
    """A colour for each language code, the same in every figure; grey for a code that the kit does not know."""
    return {code: LANGUAGES[code].color if code in LANGUAGES else "#999999" for code in codes}


def palette(values: Sequence[str]) -> dict[str, str]:
    """Colours for the values of a hue: languages, kinds and outcomes have their own, the rest the colour-blind cycle."""
    fixed = {**KIND_COLORS, **OUTCOME_COLORS, **{code: language.color for code, language in LANGUAGES.items()}}
    others = iter(sns.color_palette("colorblind", max(10, len(values))).as_hex())
    return {value: fixed.get(value) or next(others) for value in values}


def save(fig: Figure, run: Run, name: str) -> None:
    """Write a figure to the run's figures folder as PNG (150 dpi) and SVG."""
    for suffix in ("png", "svg"):
        fig.savefig(run.figures / f"{name}.{suffix}", bbox_inches="tight", metadata={"Date": None} if suffix == "svg" else None)


def _axes(ax: Axes | None, figsize: tuple[float, float] | None = None) -> tuple[Figure, Axes]:
    if ax is not None:
        return ax.figure, ax
    fig, ax = plt.subplots(figsize=figsize, layout="constrained")
    return fig, ax


def _nothing(fig: Figure, ax: Axes, title: str) -> tuple[Figure, Axes]:
    """A figure that says that there is nothing to draw."""
    ax.annotate("no rows", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color="#777777")
    ax.set(title=title, xticks=[], yticks=[])
    return fig, ax


def _legend_beside(ax: Axes, title: str | None) -> None:
    if ax.get_legend():
        sns.move_legend(ax, "upper left", bbox_to_anchor=(1.01, 1), title=title)


def funnel(stages: Mapping[str, int] | pd.DataFrame, title: str = "", xlabel: str = "documents", ax: Axes | None = None):
    """What is left after each stage, top to bottom; a frame of stage x language stacks the languages."""
    table = stages if isinstance(stages, pd.DataFrame) else pd.DataFrame({"all": pd.Series(stages)})
    fig, ax = _axes(ax, (8, 0.5 * len(table) + 1.5))
    colors = palette(table.columns) if isinstance(stages, pd.DataFrame) else {"all": "#0072B2"}
    table.plot.barh(stacked=True, ax=ax, color=[colors[c] for c in table.columns], width=0.75, legend=len(table.columns) > 1)
    totals = table.sum(axis=1)
    for position, total in enumerate(totals):
        ax.annotate(f"{total:,.0f}", (total, position), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", visible=False)
    ax.set(title=title, xlabel=xlabel, ylabel="", xlim=(0, max(1, totals.max()) * 1.1))
    _legend_beside(ax, "language")
    return fig, ax


def _short(value: float) -> str:
    """A number above a bar: 0.0064, 0.25, 3, 24.5, 4,990."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 1 or value == 0:
        return f"{value:.3g}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def bars(table: pd.DataFrame, x: str, y: str, hue: str | None = None, title: str = "", xlabel: str = "", ylabel: str = "",
         stacked: bool = False, ax: Axes | None = None):
    """Bars of `y` over the categories of `x`, side by side or stacked by `hue`; each total is written on its bar."""
    fig, ax = _axes(ax)
    if table.empty:
        return _nothing(fig, ax, title)
    if hue and stacked:
        wide = table.pivot_table(index=x, columns=hue, values=y, aggfunc="sum", fill_value=0, sort=False)
        wide = wide[sorted(wide.columns, key=lambda value: ([*LANGUAGES, *OUTCOME_COLORS, value]).index(value))]
        colors = palette(wide.columns)
        wide.plot.bar(stacked=True, ax=ax, color=[colors[c] for c in wide.columns], width=0.75, rot=0)
        ax.bar_label(ax.containers[-1], labels=[f"{total:,.3g}" if total < 1 else f"{total:,.0f}" for total in wide.sum(axis=1)],
                     fontsize=8, padding=2)
        ax.set_ylim(0, 1.12 * (wide.sum(axis=1).max() or 1))  # a bar of height 0 would pin the top to itself
    else:
        own_colors = hue or (x if set(table[x]) <= {*LANGUAGES, *KIND_COLORS, *OUTCOME_COLORS} else None)
        style = {"hue": own_colors, "palette": palette(table[own_colors].unique())} if own_colors else {"color": "#0072B2"}
        sns.barplot(table, x=x, y=y, ax=ax, errorbar=None, legend=bool(hue), saturation=1, **style)
        for container in ax.containers:
            ax.bar_label(container, fmt=_short, fontsize=8, padding=2)
    ax.grid(axis="x", visible=False)
    if pd.api.types.is_integer_dtype(table[y]):
        ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    ax.set(title=title, xlabel=xlabel or x, ylabel=ylabel or y)
    lengths = [len(label.get_text()) for label in ax.get_xticklabels()]
    if max(lengths, default=0) > 14 or max(lengths, default=0) * len(lengths) > 80:
        plt.setp(ax.get_xticklabels(), rotation=25, ha="right")
    ax.margins(y=0.12)
    if hue:
        _legend_beside(ax, hue.replace("_", " "))
    return fig, ax


def histogram(table: pd.DataFrame, x: str, hue: str | None = None, title: str = "", xlabel: str = "", log: bool = False,
              bins: int = 40, ylabel: str = "rows", ax: Axes | None = None):
    """Distribution of a number; `hue` draws one outline for each value, `log` makes the counts logarithmic."""
    fig, ax = _axes(ax)
    if table.empty:
        return _nothing(fig, ax, title)
    colors = palette(table[hue].unique()) if hue else None
    sns.histplot(table, x=x, hue=hue, bins=bins, element="step", fill=hue is None, palette=colors, ax=ax,
                 **({} if hue else {"color": "#0072B2"}))
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:,.0f}")  # 1,000 instead of a power in mathematical type, which is off (see use_theme)
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(title=title, xlabel=xlabel or x, ylabel=ylabel + (" (log scale)" if log else ""))
    if hue:
        _legend_beside(ax, hue.replace("_", " "))
    return fig, ax


def heatmap(matrix: pd.DataFrame, title: str = "", label: str = "", fmt: str = ".2f", low: float | None = None,
            high: float | None = None, ax: Axes | None = None):
    """A matrix with its values written in, coloured from `low` to `high`; empty cells stay white."""
    fig, ax = _axes(ax, (1.1 * len(matrix.columns) + 2.5, 0.8 * len(matrix) + 1.2))
    sns.heatmap(matrix.astype(float), annot=True, fmt=fmt, cmap="cividis_r", cbar_kws={"label": label}, linewidths=1,
                vmin=low, vmax=high, ax=ax)
    ax.grid(False)
    ax.set(title=title, xlabel=matrix.columns.name or "", ylabel=matrix.index.name or "")
    plt.setp(ax.get_yticklabels(), rotation=0)
    return fig, ax


def scatter(table: pd.DataFrame, x: str, y: str, hue: str, style: str | None = None, title: str = "", ax: Axes | None = None):
    """A map of points coloured by `hue`; axes of a projection carry no unit, so they show no ticks."""
    fig, ax = _axes(ax, (7.5, 5.5))
    dense = len(table) > 1000
    sns.scatterplot(table, x=x, y=y, hue=hue, style=style, palette=palette(table[hue].unique()), s=12 if dense else 36,
                    alpha=0.5 if dense else 0.8, linewidth=0, ax=ax)
    ax.set(title=title, xticks=[], yticks=[])
    _legend_beside(ax, None if style else hue)
    return fig, ax


def lines(table: pd.DataFrame, x: str, y: str, hue: str | None = None, title: str = "", xlabel: str = "", ylabel: str = "",
          ax: Axes | None = None):
    """Lines of `y` over `x`, one for each value of `hue`, with a marker at each measured point."""
    fig, ax = _axes(ax)
    colors = palette(table[hue].unique()) if hue else None
    plain = {} if hue else {"color": "#0072B2"}
    sns.lineplot(table, x=x, y=y, hue=hue, palette=colors, marker="o", ax=ax, errorbar=None, **plain)
    ax.set(title=title, xlabel=xlabel or x, ylabel=ylabel or y)
    if hue:
        _legend_beside(ax, hue.replace("_", " "))
    return fig, ax


def side_by_side(count: int, width: float = 5.0, height: float = 4.2) -> tuple[Figure, np.ndarray]:
    """A row of axes for panels that are read together; pass each as `ax`."""
    fig, axes = plt.subplots(1, count, figsize=(width * count, height), layout="constrained")
    return fig, np.atleast_1d(axes)


def boxes(table: pd.DataFrame, x: str, y: str, title: str = "", xlabel: str = "", ylabel: str = "", ax: Axes | None = None):
    """A number `y` for each category of `x`: box from quartile to quartile, line at the median, whiskers to 1.5 boxes."""
    fig, ax = _axes(ax)
    sns.boxplot(table, x=x, y=y, hue=x, palette=palette(table[x].unique()), legend=False, width=0.6, fliersize=3, saturation=1,
                ax=ax)
    ax.grid(axis="x", visible=False)
    ax.set(title=title, xlabel=xlabel or x, ylabel=ylabel or y)
    return fig, ax
