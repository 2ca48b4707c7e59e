import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.paragraphs import paragraph_batches
from ultralink_nb.tokens import count_tokens

TEXT = "The kettle sings.\n\nTea needs hot water. Pour it slowly.\n\n- green\n- black\n\nDrink it while it is warm."


@settings(deadline=None)
@given(st.text(alphabet="ab .\n。！", max_size=80), st.integers(1, 12))
def test_the_pieces_are_the_text_and_fit(text, most):
    batches = paragraph_batches(text, most)
    assert "".join(batches) == text
    assert all(size <= most for size, piece in zip(count_tokens(batches), batches, strict=True) if len(piece.split()) > 1)


def test_cuts_are_at_blank_lines_first():
    assert paragraph_batches(TEXT, 1000) == [TEXT]
    assert paragraph_batches(TEXT, 16) == [
        "The kettle sings.\n\nTea needs hot water. Pour it slowly.\n\n", "- green\n- black\n\nDrink it while it is warm.",
    ]
    assert paragraph_batches("One two three. Four five six.", 5) == ["One two three. ", "Four five six."]
    assert paragraph_batches("", 5) == [""]
    with pytest.raises(ValueError, match="at least one token"):
        paragraph_batches(TEXT, 0)
