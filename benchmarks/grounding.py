"""The grounded gate beside plain cosine and plain word overlap: does a score know an answer's own passage from its neighbours?

    python benchmarks/grounding.py FOLDER [--run papermill_runs/reference/data] [--encoder use] [--cache-dir .cache]
                                   [--output ultralink_nb/calibrations/grounded.json]

FOLDER holds XQuAD (xquad.LANGUAGE.json) and, where they are there, CMRC 2018 (zh), DRCD (zh, traditional characters) and PIAF
(fr), all in the layout of SQuAD. `--run` is a run's data folder: its dialogues have answers of several full sentences (those of
the reference run were written for this kit). A neighbour is another passage of the same article; where each article has one
passage, one of the four that share most of their rare words. What each condition holds against each other:

    turn          question and answer with their own passage, against the same with a neighbour
    answer        the answer alone, its own passage against a neighbour
    paraphrase    the question alone, as a statement in other words than the passage's
    swapped       the own passage throughout: the right answer against a neighbour's
    one of three  three questions with their answers told in a row, against the same with one of them a neighbour's
    same passage  the right answer against that of another question on the same passage: who reads for words cannot tell

The AUC (the chance that the supported one of two has the higher score, ties half) stands with half of its 95% interval, from a
bootstrap over articles. The weights of `combined` are fitted on the first five conditions in the other languages, XQuAD's on
other articles too, each set, condition and label with the same total weight: no weight has seen the language or the article that
it is measured on. `--output` writes weights fitted on all of XQuAD and of the run, the ones that the kit ships.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

from ultralink_nb.checks import units
from ultralink_nb.dialogues import passage_text
from ultralink_nb.embedding import Encoder, embed, open_encoder
from ultralink_nb.grounded import PARTS, Weights, design, measure, plain

XQUAD = {f"XQuAD {code}": (f"xquad.{code}.json", code) for code in ("en", "es", "ru", "zh")}
OTHERS = {
    "CMRC zh": ("zh_cmrc2018_trial.json", "zh"), "DRCD zh": ("zht_drcd_dev.json", "zh"), "PIAF fr": ("fr_piaf_small.json", "fr"),
}
CONDITIONS = ("turn", "answer", "paraphrase", "swapped", "one of three", "same passage")
FITTED = CONDITIONS[:5]
THRESHOLDS = (0.1, 0.2, 0.3, 0.5)


def read_squad(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(passages: article, text; turns: question, answer, passage as a row number of passages)."""
    passages, turns = [], []
    for article, entry in enumerate(json.loads(path.read_text(encoding="utf-8"))["data"]):
        for paragraph in entry["paragraphs"]:
            passages.append((article, paragraph["context"]))
            turns += [(one["question"].strip(), one["answers"][0]["text"].strip(), len(passages) - 1) for one in paragraph["qas"]]
    return pd.DataFrame(passages, columns=["article", "text"]), pd.DataFrame(turns, columns=["question", "answer", "passage"])


def read_run(folder: Path, language: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As `read_squad`, from a run's passages and dialogues of a language; each document is an article."""
    rows = pd.read_parquet(folder / "passages.parquet").query("language == @language").reset_index(drop=True)
    number = {name: row for row, name in enumerate(rows["id"])}
    turns = []
    for sample in pd.read_parquet(folder / "samples_02.parquet").query("language == @language").itertuples():
        texts = [message["content"] for message in sample.messages]
        passage = number[sample.id.partition("_chat_specific_")[2]]
        turns += [(question, answer, passage) for question, answer in zip(texts[::2], texts[1::2], strict=False)]
    passages = pd.DataFrame({"article": pd.factorize(rows["document_id"])[0],
                             "text": [passage_text(row) for row in rows.to_dict("records")]})
    return passages, pd.DataFrame(turns, columns=["question", "answer", "passage"])


def neighbours(passages: pd.DataFrame, language: str) -> list[np.ndarray]:
    """Row numbers of each passage's neighbours, at most four."""
    article = passages["article"].to_numpy()
    if article.max() < len(article) // 2:
        rows = np.arange(len(article))
        return [rows[(article == article[row]) & (rows != row)][:4] for row in rows]
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer=units).fit_transform(plain(text, language) for text in passages["text"])
    cosine = (vectors @ vectors.T).toarray()
    np.fill_diagonal(cosine, -1)
    return list(np.argsort(-cosine, axis=1)[:, :4])


def labelled(passages: pd.DataFrame, turns: pd.DataFrame, language: str, told: bool, seed: int = 1) -> pd.DataFrame:
    """Rows: condition, question, answer, passage (its text), language, article, supported. told: make `one of three` too."""
    rng, rows, beside = np.random.default_rng(seed), [], neighbours(passages, language)
    questions, answers, own = (turns[name].to_numpy() for name in ("question", "answer", "passage"))
    of_passage = [np.flatnonzero(own == row) for row in range(len(passages))]
    space, stop = ("", "。") if language == "zh" else (" ", ".")

    def tell(row: int) -> str:
        return f"{questions[row].rstrip('?？ ')}: {answers[row].rstrip('.。')}{stop}"

    def unlike(candidates: np.ndarray, answer: str) -> np.ndarray:
        return np.array([row for row in candidates if answers[row] not in answer and answer not in answers[row]], dtype=int)

    for row, (question, answer, passage) in enumerate(zip(questions, answers, own, strict=True)):
        texts = {"turn": (question, answer), "answer": ("", answer), "paraphrase": ("", question)}
        rows += [(name, *pair, passage, True) for name, pair in texts.items()]
        rows += [(name, *pair, other, False) for name, pair in texts.items() for other in beside[passage]]
        foreign = unlike(np.concatenate([np.array([], int), *(of_passage[other] for other in beside[passage])]), answer)
        fellows = of_passage[passage][of_passage[passage] != row]
        for name, wrong in (("swapped", foreign), ("same passage", unlike(fellows, answer))):
            if len(wrong):
                rows += [(name, question, answer, passage, True), (name, question, answers[rng.choice(wrong)], passage, False)]
        if told and len(foreign) and len(fellows) > 1:
            three = [row, *rng.choice(fellows, 2, replace=False)]
            rows.append(("one of three", question, space.join(map(tell, three)), passage, True))
            three[rng.integers(3)] = rng.choice(foreign)
            rows.append(("one of three", question, space.join(map(tell, three)), passage, False))
    table = pd.DataFrame(rows, columns=["condition", "question", "answer", "passage", "supported"])
    article, text = passages.loc[table["passage"], ["article", "text"]].to_numpy().T
    return table.assign(language=language, article=article, passage=text)


def word_overlap(texts: pd.Series, table: pd.DataFrame) -> np.ndarray:
    """Share of a text's distinct words (Chinese: characters) that its passage has, shape (n,)."""
    words = {passage: set(units(passage)) for passage in table["passage"].unique()}
    found = [(set(units(text)), words[passage]) for text, passage in zip(texts, table["passage"], strict=True)]
    return np.array([len(said & there) / max(1, len(said)) for said, there in found])


def measured(table: pd.DataFrame, encoder: Encoder, cache_dir: str) -> pd.DataFrame:
    """The table with the baselines and the parts as further columns; equal rows of two conditions are measured once."""
    keys = ["question", "answer", "passage"]
    once = table.drop_duplicates(keys).reset_index(drop=True)
    together = (once["question"] + " " + once["answer"]).str.strip()
    vectors = {name: embed(list(texts), encoder, cache_dir) for name, texts in
               (("answer", once["answer"]), ("turn", together), ("passage", once["passage"]))}
    once["cosine answer"], once["cosine turn"] = ((vectors[name] * vectors["passage"]).sum(axis=1) for name in ("answer", "turn"))
    once["words answer"], once["words turn"] = word_overlap(once["answer"], once), word_overlap(together, once)
    lists = [list(once[name]) for name in (*keys, "language")]
    once[list(PARTS)] = measure(*lists, encoder, cache_dir)
    once["runs turn"] = measure([""] * len(once), list(together), *lists[2:])["words"].to_numpy()
    return table.merge(once.drop(columns=["condition", "supported", "article", "language"]), on=keys, how="left")


def fit(tables: list[pd.DataFrame], encoder: str | None, fitted_on: str) -> Weights:
    """Weights for the parts (without the similarity where encoder is None)."""
    table = pd.concat([part.assign(part=number) for number, part in enumerate(tables)])
    table = table[table["condition"].isin(FITTED)]
    columns = design(table[list(PARTS if encoder else PARTS[:-1])])
    weight = 1 / table.groupby(["part", "condition", "supported"])["answer"].transform("size")
    model = LogisticRegression(C=100, max_iter=2000)
    model.fit(columns, table["supported"], sample_weight=weight * len(table) / weight.sum())
    weights = {name: round(float(value), 4) for name, value in zip(columns, model.coef_[0], strict=True)}
    return Weights(encoder, weights, round(float(model.intercept_[0]), 4), fitted_on)


def held_out(tables: dict[str, pd.DataFrame], name: str, fitted_on: list[str], encoder: str | None) -> np.ndarray:
    """Scores of a set by weights that have seen neither its language nor, within XQuAD, its articles."""
    table = tables[name]
    others = [other for other in fitted_on if tables[other]["language"].iloc[0] != table["language"].iloc[0]]
    if name not in XQUAD:
        return fit([tables[other] for other in others], encoder, "").score(table)
    scores = np.zeros(len(table))
    for half in (0, 1):
        parts = [tables[other][tables[other]["article"] % 2 != half] if other in XQUAD else tables[other] for other in others]
        here = (table["article"] % 2 == half).to_numpy()
        scores[here] = fit(parts, encoder, "").score(table[here])
    return scores


def auc(score: np.ndarray, supported: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Chance that a supported row scores higher than an unsupported one, ties half; weight (n,): how often each row counts."""
    weight = np.ones(len(score)) if weight is None else weight
    place = np.unique(score, return_inverse=True)[1]
    right, wrong = (np.bincount(place, weight * label, place.max() + 1) for label in (supported, ~supported))
    return float((right * (np.cumsum(wrong) - wrong / 2)).sum() / max(1e-12, right.sum() * wrong.sum()))


def with_interval(table: pd.DataFrame, column: str, resamples: int = 200) -> str:
    """`AUC±half of the 95% interval`, from articles drawn with replacement."""
    score, supported, article = table[column].to_numpy(), table["supported"].to_numpy(bool), pd.factorize(table["article"])[0]
    rng, count = np.random.default_rng(1), article.max() + 1
    draws = [np.bincount(rng.integers(0, count, count), minlength=count)[article] for _ in range(resamples)]
    low, high = np.percentile([auc(score, supported, draw) for draw in draws], [2.5, 97.5])
    return f"{auc(score, supported):.3f}±{(high - low) / 2:.3f}"


def speed(table: pd.DataFrame, encoder: Encoder) -> None:
    """Print how long the supported turns of a set take, with an empty cache of embeddings."""
    rows = table[(table["condition"] == "turn") & table["supported"]]
    lists = [list(rows[name]) for name in ("question", "answer", "passage", "language")]
    with tempfile.TemporaryDirectory() as cache_dir:
        for name, one in (("lexical", None), (f"with {encoder.name}", encoder)):
            start = time.perf_counter()
            measure(*lists, one, cache_dir)
            seconds = time.perf_counter() - start
            print(f"{name}: {len(rows)} answers on {rows['passage'].nunique()} passages in {seconds:.1f} s, "
                  f"{len(rows) / seconds:.0f} a second, 100,000 in {seconds / len(rows) * 1e5 / 60:.0f} minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, default=Path("papermill_runs/reference/data"), help="data folder of a run")
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--output", type=Path, help="where to write the weights fitted on XQuAD and the run")
    options = parser.parse_args()
    files = {name: (options.folder / file, code) for name, (file, code) in (XQUAD | OTHERS).items()}
    sources = {name: (*read_squad(path), code) for name, (path, code) in files.items() if path.exists()}
    if not sources.keys() >= XQUAD.keys():
        sys.exit(f"skipped: {options.folder} lacks XQuAD (xquad.en.json, …)")
    if (options.run / "samples_02.parquet").exists():
        codes = pd.read_parquet(options.run / "samples_02.parquet", columns=["language"])["language"].unique()
        sources |= {f"run {code}": (*read_run(options.run, code), code) for code in codes}
    encoder = open_encoder(options.encoder)
    tables = {name: measured(labelled(*source, told=not name.startswith("run")), encoder, options.cache_dir)
              for name, source in tqdm(sources.items(), desc="sets")}
    fitted_on = [name for name in tables if name in XQUAD or re.match("run ", name)]
    methods = ["cosine answer", "cosine turn", "words answer", "words turn", "similarity", "runs turn", "combined lexical",
               f"combined {encoder.name}"]
    for name, table in tables.items():
        for column, kind in zip(methods[-2:], (None, encoder.name), strict=True):
            table[column] = held_out(tables, name, fitted_on, kind)
    print(f"encoder {encoder.name}; AUC ± half of its 95% interval")
    for condition in CONDITIONS:
        rows = {name: table[table["condition"] == condition] for name, table in tables.items()}
        print(f"\n{condition}\n" + pd.DataFrame({
            f"{name} ({part['supported'].sum()}/{(~part['supported']).sum()})": {one: with_interval(part, one) for one in methods}
            for name, part in rows.items() if part["supported"].nunique() == 2
        }).T.to_string())
    print("\nshare refused below a threshold, turn: supported / with a neighbour")
    print(pd.DataFrame({
        (name, method): {threshold: " / ".join(f"{(part[method] < threshold).mean():.3f}" for _, part in
                                               table[table["condition"] == "turn"].groupby("supported", sort=False))
                         for threshold in THRESHOLDS}
        for name, table in tables.items() for method in methods[-2:]
    }).T.to_string())
    print()
    speed(tables["XQuAD en"], encoder)
    if options.output:
        weights = [fit([tables[name] for name in fitted_on], kind, ", ".join(fitted_on)) for kind in (None, encoder.name)]
        options.output.write_text(json.dumps(list(map(asdict, weights)), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
