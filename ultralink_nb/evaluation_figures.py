"""The figure of an evaluation: each benchmark's scores per language with their intervals, beside what was published."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ultralink_nb.evaluation import published
from ultralink_nb.languages import LANGUAGES
from ultralink_nb.plots import language_palette

REFERENCE = "UltraLink-LM"


def scores(table: pd.DataFrame) -> Figure:
    """A panel for each benchmark of a table in the shape of `evaluation.SCORES`, with one metric a benchmark.

    A bar is a language's score in percent, the line on it its 95 % interval; a diamond what UltraLink-LM's authors published, on
    the whole benchmark and by their own protocol.
    """
    names = list(dict.fromkeys(table["benchmark"]))
    fig, axes = plt.subplots(1, len(names), figsize=(1.5 + 3.6 * len(names), 4), layout="constrained", sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=True):
        part = table[table["benchmark"] == name].set_index("language")
        codes = [code for code in LANGUAGES if code in part.index]
        part = part.loc[codes]
        away = np.clip([part["score"] - part["low"], part["high"] - part["score"]], 0, None)
        colors = language_palette(codes)
        ax.bar(codes, part["score"], yerr=away, capsize=4, color=[colors[code] for code in codes], ecolor="#333333")
        theirs = published(name)
        theirs = theirs[(theirs["model"] == REFERENCE) & theirs["language"].isin(codes)]
        if len(theirs):
            style = {"color": "black", "markerfacecolor": "white", "label": f"{REFERENCE}, published"}
            ax.plot(theirs["language"], theirs["score"], "D", **style)
            ax.legend(loc="upper right", fontsize=8)
        count = int(part["questions"].median())
        ax.set(title=f"{name}, {part['metric'].iloc[0]}\n{count} questions a language", xlabel="language", ylim=(0, 100))
    axes[0, 0].set_ylabel("score, %")
    low, high = table["score"].min(), table["score"].max()
    found = "Nothing is solved" if high == 0 else f"Scores lie between {low:.0f} and {high:.0f} %"
    fig.suptitle(f"{found}; the lines say how sure that is")
    return fig
