"""How well samples are ranked by how culture-bound they are, without a chat model: AUC out of fold, beside a bag of words.

    python benchmarks/culture.py FILE [--encoder use] [--cache-dir .cache] [--repeats 5] [--curve FILE.csv] [--write]

FILE is OMGEval as JSONL: rows {id, language, messages, group, localised}. The truth for an English prompt is in how many of the
other languages its translators had to rewrite it for their culture. Everything is fitted inside the folds, which keep prompts
with the same beginning together; a row's score is its mean over the repeats, each with other folds. Intervals are
bootstrapped over prompts. --write fits on all rows and writes what the kit ships (`calibrations/culture*.json`).

The word lists of `sift_rules.py` are fixed and not fitted, but whoever wrote them had seen some of these prompts: a figure on
prompts that nobody has seen may be lower.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from specificity import auc, intervals

from ultralink_nb import culture, sift_rules
from ultralink_nb.calibration import SHIPPED
from ultralink_nb.embedding import Encoder, embed, open_encoder

BOUND = 2  # languages that had to rewrite a prompt for it to count as bound
FITTED_ON = "OMGEval's English prompts (MIT; AlpacaEval's, Apache-2.0): share of four languages whose translators rewrote them"
OF_A_CULTURE = [
    "a question about a famous actor, singer or athlete", "a film, a television series or a novel", "travel in a city or country",
    "street directions in a town", "a poem, a joke or a pun", "English spelling, grammar or pronunciation",
    "a traditional recipe", "a price in dollars", "miles, pounds and degrees Fahrenheit", "a public holiday and its customs",
    "politics and national history", "the law of one country", "a product of a brand or a company",
    "a post on a social network", "religion and its rites",
]
OF_NONE = [
    "a computer program", "mathematics", "physics, chemistry or biology", "advice on health, work or life", "machine learning",
    "an email to a colleague", "the definition of a concept", "a business plan",
]
Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows to learn from, rows to score → scores


def read_prompts(path: Path) -> tuple[list[tuple[str, str]], np.ndarray]:
    """(question, answer) of every English row, and in how many other languages it was rewritten."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    times: dict[str, int] = {}
    for row in rows:
        number = row["id"].rpartition("_")[0]
        times[number] = times.get(number, 0) + (row["language"] != "en" and bool(row["localised"]))
    english = [row for row in rows if row["language"] == "en"]
    return [sift_rules.parts(row) for row in english], np.array([times[row["id"].rpartition("_")[0]] for row in english])


def spread(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / max(scores.std(), 1e-9)


def ways(texts: list[tuple[str, str]], share: np.ndarray, encoder: Encoder, cache_dir: str) -> dict[str, Scorer]:
    """Every way of scoring by its name; each learns from the share of languages that rewrote a prompt."""
    questions, answers = ([text[part] for text in texts] for part in (0, 1))
    counts = sift_rules.features(texts).astype(float)
    asked, answered, prototypes = (embed(part, encoder, cache_dir) for part in (questions, answers, OF_A_CULTURE + OF_NONE))
    closeness = asked @ prototypes.T
    nearer = closeness[:, : len(OF_A_CULTURE)].max(1) - closeness[:, len(OF_A_CULTURE) :].max(1)

    def words(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        bag = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([questions[row] for row in train])
        known, new = (bag.transform([questions[row] for row in rows]) for rows in (train, test))
        model = LogisticRegression(C=3, max_iter=2000, class_weight="balanced").fit(known, 4 * share[train] >= BOUND)
        return model.decision_function(new)

    def linear(columns: np.ndarray, strength: float, scale: bool = False) -> Scorer:
        def one(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            mean, width = (columns[train].mean(0), columns[train].std(0).clip(1e-6)) if scale else (0, 1)
            return (columns[test] - mean) / width @ culture._logistic((columns[train] - mean) / width, share[train], strength)[0]
        return one

    def process(columns: np.ndarray, length: float) -> Scorer:
        def one(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            kernel = ConstantKernel(0.15) * RBF(length) + WhiteKernel(0.1)
            model = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(columns[train], share[train])
            return model.predict(columns[test])
        return one

    def trees(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = ExtraTreesRegressor(300, min_samples_leaf=4, max_features=0.3, n_jobs=2, random_state=0)
        return model.fit(counts[train], share[train]).predict(counts[test])

    def shipped(chosen: Encoder | None) -> Scorer:
        def one(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            model = culture.fit([texts[row] for row in train], share[train], chosen, cache_dir)
            return model.probability(counts[test], asked[test])
        return one

    def with_trees(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return spread(trees(train, test)) + spread(shipped(encoder)(train, test))

    return {
        "bag of words (TF-IDF, logistic)": words,
        "likeness to descriptions, nothing fitted": lambda _, test: nearer[test],
        "likeness to descriptions, logistic": linear(closeness, 0.01, True),
        "vector of the question, logistic": linear(asked, 1),
        "vectors of question and answer, logistic": linear(np.hstack([asked, answered]), 3),
        "vector of the question, Gaussian process": process(asked, 0.5),
        "rules on the question, logistic": linear(counts[:, : counts.shape[1] // 2], 0.01, True),
        "rules, trees": trees,
        "rules (shipped, needs no encoder)": shipped(None),
        "rules + vector (shipped)": shipped(encoder),
        "rules + vector + trees": with_trees,
    }


def out_of_fold(score: Scorer, bound: np.ndarray, groups: np.ndarray, repeats: int) -> np.ndarray:
    """(n,) mean over the repeats of a row's score, spread alike in each, from models that never saw the row or its group."""
    total = np.zeros(len(bound))
    for seed in range(repeats):
        held = np.zeros(len(bound))
        for train, test in StratifiedGroupKFold(10, shuffle=True, random_state=seed).split(held, bound, groups):
            held[test] = score(train, test)
        total += held
    return total / repeats


def saved_at(recall: float, scores: np.ndarray, bound: np.ndarray) -> float:
    found = culture.curve(scores, bound)
    return float(found.loc[found["recall"] >= recall, "saved"].max())


def rule_table(texts: list[tuple[str, str]], times: np.ndarray) -> pd.DataFrame:
    """How often prompts in which a rule finds something were rewritten by someone, and by two languages or more."""
    found = [{cue.rule for cue in sift_rules.find_cues(question)} for question, _ in texts]
    hits = {rule: np.array([rule in rules for rules in found]) for rule in sift_rules.RULES}
    hits["any that refuses"] = np.logical_or.reduce([hits[rule] for rule in sift_rules.SURE])
    return pd.DataFrame([
        {"rule": rule, "refuses": rule not in sift_rules.RULES or rule in sift_rules.SURE, "prompts": hit.sum(),
         "rewritten by one or more": (times[hit] > 0).mean(), "by two or more": (times[hit] >= BOUND).mean()}
        for rule, hit in hits.items() if hit.any()
    ]).round(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--curve", type=Path, help="write the shipped classifier's curve, out of fold, as CSV")
    parser.add_argument("--write", action="store_true", help="write what the kit ships")
    arguments = parser.parse_args()
    if not arguments.file.is_file():
        print(f"skipped: {arguments.file} is not there")
        return
    texts, times = read_prompts(arguments.file)
    bound, share = times >= BOUND, times / 4
    groups = np.unique([question[:40].lower() for question, _ in texts], return_inverse=True)[1]
    encoder = open_encoder(arguments.encoder)
    print(f"{len(texts)} prompts, rewritten in 0 to 4 languages: {np.bincount(times, minlength=5).tolist()}")
    print(rule_table(texts, times).to_string(index=False), flush=True)

    rows, held = {}, {}
    for name, way in ways(texts, share, encoder, arguments.cache_dir).items():
        held[name] = out_of_fold(way, bound, groups, arguments.repeats)
        rows[name] = {f"≥{least}": auc(times >= least, held[name]) for least in (1, 2, 3, 4)}
        low, high = intervals(bound, [held[name]])[0]
        rows[name] |= {"≥2, 95%": f"[{low:.3f}, {high:.3f}]", "calls saved": saved_at(culture.RECALL, held[name], bound)}
        print(f"{name}: {rows[name]['≥2']:.3f}", flush=True)
    print(f"\nAUC out of fold, and share of calls saved at {culture.RECALL:.0%} recall of prompts that two or more rewrote")
    print(pd.DataFrame(rows).T.to_string(float_format=lambda value: f"{value:.3f}"))
    found = culture.curve(held["rules + vector (shipped)"], bound)
    if arguments.curve:
        found.to_csv(arguments.curve, index=False)
    for name, chosen in (("culture.json", None), (f"culture_{encoder.name}.json", encoder)):
        model = culture.fit(texts, share, chosen, arguments.cache_dir, fitted_on=FITTED_ON, groups=groups)
        scores = model.probability(sift_rules.features(texts), embed([q for q, _ in texts], encoder, arguments.cache_dir))
        print(f"{name}: band {model.low:.3f} to {model.high:.3f}; in it {culture.band(scores, model.low, model.high).mean():.0%}")
        if arguments.write:
            model.save(SHIPPED / name)
    if arguments.write:
        points = found.iloc[:: max(1, len(found) // 100)].round(4)
        (SHIPPED / "culture_curve.json").write_text(json.dumps(points.to_dict("list")), encoding="utf-8")


if __name__ == "__main__":
    main()
