import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultralink_nb.code_spans import docstring_parts, is_python
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


FRAME = "| item | price |\n|---|---:|\n| green tea | 4.50 |\n| 12 cups | 3 |"


def mangled(text, kind="", numbers=False):
    """A translator that puts whatever it is shown into capitals and raises every digit, but keeps placeholders."""
    masked, held = protect(text, kind, numbers)
    digits = str.maketrans("0123456789", "1234567890")
    pieces = [piece if piece in held else piece.upper().translate(digits) for piece in re.split(r"(⟦\d+⟧)", masked)]
    return restore("".join(pieces), held)


def test_what_a_hostile_translator_cannot_reach():
    text = f"{TEXT.rpartition(chr(10))[0]}\n\nDear {{name}}, {{{{total}}}} of %s or %(count)d, <b>now</b>.\n\n{FRAME}\n#### 1,250"
    back = mangled(text)
    for held in ("`sorted(x)`", "https://example.org/a_b?c=1", 'print("#### 7")  # a comment', "$x^2 + 1$", "\\(y\\)",
                 "#### 1,250", "{name}", "{{total}}", "%s", "%(count)d", "<b>", "</b>", "|---|---:|", "| 4.50 |", "| 3 |"):
        assert held in back
    assert "DEAR {name}" in back and "| GREEN TEA | 4.50 |" in back and "| 23 CUPS |" in back and "$6 OR $21" in back


def test_numbers_are_held_where_that_is_asked_for():
    text = "It takes 1,250.5 grams, 3x as much as A2 in 1990."
    assert mangled(text, numbers=True) == "IT TAKES 1,250.5 GRAMS, 3x AS MUCH AS A2 IN 1990."
    assert mangled(text) == "IT TAKES 2,361.6 GRAMS, 4X AS MUCH AS A3 IN 2001."


STUB = '''from typing import List


def far_apart(values: List[float], least: float) -> bool:
    """ Tell whether all values lie at least `least` apart.
    The list may be empty; then return True.

    >>> far_apart([1.0, 3.0], 2.0)
    True
    >>> far_apart([1.0, 1.5], 2.0)
    False

    For example far_apart([], 1) is True, and values = [2] too.
    far_apart([5], 1) == True
    """
'''


def test_of_a_function_to_be_written_only_the_prose_is_translated():
    said = [STUB[start:end] for start, end in docstring_parts(STUB)]
    assert said == ["Tell whether all values lie at least `least` apart.\n    The list may be empty; then return True.",
                    "For example", "is True, and values =", "too."]
    back = mangled(STUB, "code")
    assert "TELL WHETHER ALL VALUES LIE AT LEAST `least` APART." in back
    prose = re.compile("tell whether|the list|for example", re.IGNORECASE)
    kept, held = ([line for line in one.splitlines() if not prose.search(line)] for one in (STUB, back))
    assert kept == held and "far_apart([], 1) IS TRUE, AND VALUES = [2] TOO." in back


@pytest.mark.parametrize("text", ["", "def", "Write def f(x) for me.", "def f(:\n    \"\"\"Broken.\"\"\"", "x = 1"])
def test_what_is_no_python_stub_has_no_docstring(text):
    assert docstring_parts(text) == []


@pytest.mark.parametrize("text, python", [
    ("    return x + 1\n", True), ("total = 0\nfor x in y:\n    total += x", True), ("print(1)", True), ("Yes", False),
    ("not valid", False), ("Sort the list.", False), ("42", False),
])
def test_a_text_that_is_python(text, python):
    assert is_python(text) == python


@given(st.text(alphabet="|a -\n1:", max_size=60), st.booleans())
def test_tables_and_numbers_come_back_too(text, numbers):
    masked, held = protect(text, numbers=numbers)
    assert restore(masked, held) == text
