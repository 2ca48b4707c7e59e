import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultralink_nb.protection import LostPlaceholder, prose, protect, protected_spans, restore

TEXT = """Use `sorted(x)` here, see https://example.org/a_b?c=1.

```python
print("#### 7")  # a comment
```

The root is $x^2 + 1$ and \\(y\\), it costs $5 or $10 today.
#### 1,250"""


def test_every_kind_of_span_is_held_and_put_back():
    masked, held = protect(TEXT)
    kinds = [span.kind for span in protected_spans(TEXT)]
    assert kinds == ["inline_code", "url", "code", "latex", "latex", "final_answer"]
    assert "print" not in masked and "sorted" not in masked and "x^2" not in masked and "1,250" not in masked
    assert "it costs $5 or $10 today" in masked and "c=1⟧" not in masked
    assert restore(masked, held) == TEXT


@pytest.mark.parametrize("text", [
    "It costs $5, then $6, and they pay $20 x 5 = $100.", "#### A heading\n\nand text", "a $ b $ c", "no `open tick",
    "#### 5 ways to cook rice\n\nFirst, wash it.",
])
def test_prose_is_left_alone(text):
    assert protected_spans(text) == []


@given(st.text(alphabet="a b`$\\#\n⟦1⟧()[]~4", max_size=80), st.sampled_from(["", "code"]))
def test_restoring_what_was_protected_gives_the_text_back(text, kind):
    masked, held = protect(text, kind)
    assert restore(masked, held) == text


def test_a_text_that_has_brackets_of_its_own_keeps_them():
    masked, held = protect("⟦1⟧ and `x`")
    assert list(held) == ["⟦2⟧"] and restore(masked, held) == "⟦1⟧ and `x`"


def test_placeholders_may_change_their_order_but_not_get_lost():
    _, held = protect("`a` before `b`")
    assert restore("⟦2⟧ после ⟦1⟧", held) == "`b` после `a`"
    with pytest.raises(LostPlaceholder, match="⟦2⟧ missing"):
        restore("⟦1⟧ seul", held)
    with pytest.raises(LostPlaceholder, match="⟦1⟧ 2 times"):
        restore("⟦1⟧ ⟦1⟧ ⟦2⟧", held)


def test_a_completion_without_placeholders_stands_on_its_own():
    _, held = protect("Use `a`.")
    assert restore("Utilisez `a`.", held) == "Utilisez `a`."


def test_unfenced_code_counts_only_in_code_samples():
    text = (
        "Write a function that adds two numbers.\n\n# adds\nimport math\n\ndef add(a, b):\n    # the sum\n    return a + b\n\n"
        "print(add(1, 2))\n\nIt returns the sum. For example, 3."
    )
    assert prose(text) == text
    left = prose(text, "code")
    assert "def add" not in left and "the sum\n" not in left and "import" not in left and "# adds" not in left
    assert "Write a function" in left and "It returns the sum. For example, 3." in left


@pytest.mark.parametrize("code", [
    "[(1, 4), (9, 12), (3, 6)]", "n = 5", "customers(id, name)\norders(id, customer_id, order_date, amount)",
    "SELECT name\nFROM books\nWHERE price < 3", "from flask import Flask", "let a = [1];\nconsole.log(a); // [1]",
    'pairs = [("tea", 3)]\npairs.sort(key=lambda pair: pair[1], reverse=True)\nprint([name for name, _ in pairs])',
])
def test_inputs_that_are_code(code):
    assert prose(f"Explain this.\n\n{code}", "code").strip() == "Explain this."


@pytest.mark.parametrize("text", [
    "Sort the words by length.", "If the list is empty, return nothing.", "the quick apple",
    "For each item:\n  - weigh it\n  - note it",
])
def test_inputs_that_are_prose(text):
    assert prose(text, "code") == text
