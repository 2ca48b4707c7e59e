"""Made negatives: translations of which one text was rewritten for another culture, as translators of SFT data do.

A row rewritten for its own culture keeps its sentence and exchanges a name or the thing that it is about; hardly any labelled
set has such rows. They are made from parallel texts: of a share of the contents, some languages' rows get another name of the
same language, or another rare word where they name nobody, of like but not the same meaning by the encoder. English stays as it
is. What comes out is often nonsense; what matters is that all else agrees.
"""

import re
from collections import Counter

import numpy as np
import pandas as pd

from ultralink_nb.embedding import Encoder, embed

OF_CONTENTS, OF_LANGUAGES = 0.5, 0.75  # shares that are rewritten: every second content, there three of four languages
SEVERAL = 0.25  # share of the rewritten rows in which two or three words are exchanged
ALIKE = (0.4, 0.9)  # cosine of a word and what takes its place
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BEFORE_CAPITAL = ("", ".", "!", "?", ":", "…")


def _words(text: str, language: str) -> list[tuple[str, bool]]:
    """The words of a text that may be exchanged, and whether each is a name: has a capital within a sentence."""
    if language == "zh":
        import jieba

        return [(word, False) for word in jieba.cut(text) if len(word) > 1 and re.fullmatch("[\u4e00-\u9fff]+", word)]
    found = []
    for match in _WORD.finditer(text):
        word, before = match[0], text[max(0, match.start() - 3) : match.start()].rstrip(' "«“(')[-1:]
        if len(word) > (2 if word[0].isupper() else 3):
            found.append((word, word[0].isupper() and before not in _BEFORE_CAPITAL))
    return found


class _Pool:
    """The words of a language that may take each other's place, with their unit vectors."""

    def __init__(self, words: list[str], encoder: Encoder, cache_dir: str) -> None:
        self.words, self.place = words, {word: number for number, word in enumerate(words)}
        vectors = np.asarray(embed(words, encoder, cache_dir), np.float32) if words else np.zeros((0, 1), np.float32)
        self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def another(self, word: str, rng: np.random.Generator) -> str | None:
        """A word of like meaning, drawn at random."""
        if word not in self.place:
            return None
        cosine = self.vectors @ self.vectors[self.place[word]]
        alike = np.flatnonzero((cosine > ALIKE[0]) & (cosine < ALIKE[1]))
        return self.words[rng.choice(alike)] if len(alike) else None


def localise(rows: pd.DataFrame, encoder: Encoder, cache_dir: str, seed: int = 7) -> pd.DataFrame:
    """The rows (language, content, text), some of them rewritten, which then have a content of their own."""
    rows, rng = rows.reset_index(drop=True), np.random.default_rng(seed)
    words = [_words(text, language) for text, language in zip(rows["text"], rows["language"], strict=True)]
    texts, contents = rows["text"].tolist(), rows["content"].tolist()
    chosen = rng.random(rows["content"].nunique()) < OF_CONTENTS
    chosen = chosen[pd.factorize(rows["content"])[0]] & (rng.random(len(rows)) < OF_LANGUAGES)
    for language, of_language in rows.groupby("language", sort=False):
        if language == "en":
            continue
        count = Counter(word for row in of_language.index for word in {word for word, _ in words[row]})
        capital = Counter(word for row in of_language.index for word in {word for word, name in words[row] if name})
        names = sorted(word for word, n in capital.items() if 2 * n > count[word])
        rare = sorted(word for word, n in count.items() if n <= max(3, 0.02 * len(of_language)) and word not in set(names))
        pools = {True: _Pool(names, encoder, cache_dir), False: _Pool(rare, encoder, cache_dir)}
        for row in of_language.index[chosen[of_language.index]]:
            named = {word for word, name in words[row] if name}
            words_of = named or {word for word, _ in words[row] if word in pools[False].place}
            several = 1 if rng.random() > SEVERAL else 2 + int(rng.integers(2))
            text = texts[row]
            for word in sorted(words_of, key=lambda word: (count[word], word))[:several]:
                other = pools[word in pools[True].place].another(word, rng)
                text = re.sub(re.escape(word) if language == "zh" else rf"\b{re.escape(word)}\b", other or word, text)
            if text != texts[row]:
                texts[row], contents[row] = text, f"rewritten {row}"
    return rows.assign(text=texts, content=contents)
