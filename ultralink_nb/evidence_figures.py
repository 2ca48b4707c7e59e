"""The two figures of the evidence: scores against the fraction kept, and the differences with the margin drawn in."""

import textwrap

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ultralink_nb.evidence import FULL, RANDOM, Evidence
from ultralink_nb.plots import palette
from ultralink_nb.verdict import MEAN

OUTCOME_MARKS = {"hurts": "#D55E00", "small loss": "#E69F00", "no loss": "#0072B2", "helps": "#009E73", "undecided": "#999999"}


def _colors(policies: list[str]) -> dict[str, str]:
    return {**palette([policy for policy in policies if policy != RANDOM]), RANDOM: "#555555"}


def curves(found: Evidence) -> Figure:
    """Scores against the fraction kept: a panel for the mean over languages and one for each language, a line a policy.

    Bands are the 95 % intervals of the scores themselves; in a language's panel only the headline's policy and the control have
    one. A diamond is a policy at its own size, the dashed line the full set. Differences have narrower intervals than two bands
    suggest, because all models answer the same items: see `forest`.
    """
    table = found.table[found.table["seed"].isna()]
    languages = [MEAN, *(code for code in dict.fromkeys(table["language"]) if code != MEAN)]
    policies = [policy for policy in dict.fromkeys(table["policy"]) if policy not in (FULL, RANDOM)] + [RANDOM]
    colors, columns = _colors(policies), 3
    height = -(-len(languages) // columns)
    fig, axes = plt.subplots(height, columns, figsize=(12, 3.3 * height + 1), layout="constrained", sharex=True, sharey=True,
                             squeeze=False)
    for ax, language in zip(axes.flat, languages, strict=False):
        part = table[table["language"] == language]
        full = part[part["policy"] == FULL].iloc[0]
        ax.axhline(full["value"], color="black", linestyle="--", linewidth=1.2, label="full set")
        for policy in policies:
            mine, style = part[part["policy"] == policy].sort_values("kept_fraction"), {"color": colors[policy], "label": policy}
            own = mine[mine["asked"].isna()]  # the control has no size of its own: all that were drawn are on its line
            line = (mine if policy == RANDOM else mine[mine["asked"].notna()]).drop_duplicates("kept_fraction")
            ax.plot(line["kept_fraction"], line["value"], marker="o", markersize=3.5, linewidth=1.4, **style)
            if policy != RANDOM:
                ax.plot(own["kept_fraction"], own["value"], color=colors[policy], marker="D", markersize=7, linestyle="none",
                        markeredgecolor="white")
            if language == MEAN or policy in (found.headline_policy, RANDOM):
                ax.fill_between(line["kept_fraction"], line["low"], line["high"], color=colors[policy], alpha=0.1, linewidth=0)
        ax.set(title="mean over the languages" if language == MEAN else language, xlim=(0, 1.03))
    for ax in axes.flat[len(languages) :]:
        ax.set_axis_off()
    unit = "accuracy, %" if found.metric == "accuracy" else found.metric
    fig.supxlabel("rows kept, share of the training part (diamond: a policy's own size)", fontsize=10)
    fig.supylabel(unit, fontsize=10)
    handles, names = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside right upper", frameon=False)
    fig.suptitle("\n".join(line for text in title(found) for line in textwrap.wrap(text, 115)), x=0.01, ha="left", fontsize=12)
    return fig


def title(found: Evidence) -> list[str]:
    """The finding: what the headline's policy keeps and its two verdicts, a line each."""
    first, second = found.headline.iloc[0], found.headline.iloc[1]
    kept = f"{found.task}: {first['policy']} keeps {first['kept_fraction']:.0%} of the training rows"
    return [kept, f"against the full set: {first['verdict'].replace(' against the full set', '')}",
            f"against random pruning: {second['verdict'].replace(' against random pruning at equal size', '')}"]


def forest(found: Evidence) -> Figure:
    """The paired differences at each policy's own size: against the full set and against random pruning, mean and languages.

    An interval wholly right of the dotted line rules a loss as large as the margin out; one wholly left of 0 shows a loss.
    """
    curve = found.comparisons[(found.comparisons["family"] == "curve") & found.comparisons["asked"].isna()]
    languages = found.comparisons[found.comparisons["family"] == "languages"]
    references = list(dict.fromkeys(curve["reference"]))
    policies = list(dict.fromkeys(curve["policy"]))
    names = [MEAN, *dict.fromkeys(languages["language"])]
    fig, axes = plt.subplots(1, 2, figsize=(12, 0.24 * len(policies) * len(names) + 1.8), layout="constrained", sharey=True,
                             sharex=True)
    ticks: list[tuple[float, str]] = []
    for ax, reference in zip(axes, references, strict=True):
        ticks = []
        for block, policy in enumerate(policies):
            for line, name in enumerate(names):
                source = curve if name == MEAN else languages
                mine = source[(source["policy"] == policy) & (source["reference"] == reference)]
                row, first = mine[mine["language"] == name].iloc[0], name == MEAN
                y, color = block * (len(names) + 0.8) + line, OUTCOME_MARKS[row["outcome"]]
                ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=3 if first else 1.5)
                ax.plot(row["difference"], y, color=color, marker="D" if first else "o", markersize=7 if first else 4)
                ticks.append((y, f"{policy}, {name}" if first else name))
        ax.axvline(0, color="black", linewidth=1)
        ax.axvline(-found.margin, color="black", linewidth=1, linestyle=":")
        ax.grid(axis="y", visible=False)
        ax.set(title=f"against {reference}", xlabel="difference in " + ("points" if found.metric == "accuracy" else found.metric))
    axes[0].set_yticks([y for y, _ in ticks], [name for _, name in ticks])
    axes[0].invert_yaxis()
    marks = [plt.Line2D([], [], color=color, linewidth=3, label=name) for name, color in OUTCOME_MARKS.items()]
    marks.append(plt.Line2D([], [], color="black", linestyle=":", label="minus the margin"))
    fig.legend(handles=marks, loc="outside right upper", frameon=False)
    seen = curve[curve["reference"] == references[0]]["outcome"].value_counts()
    told = ", ".join(f"{name} {count} of {len(policies)}" for name, count in seen.items())
    fig.suptitle(f"Policies at their own size against the full set, mean over the languages: {told}", x=0.01, ha="left",
                 fontsize=12)
    return fig
