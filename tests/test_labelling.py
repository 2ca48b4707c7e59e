import json

import numpy as np
import pandas as pd
import pytest

from ultralink_nb import labelling
from ultralink_nb.records import BadRecord


@pytest.fixture
def pairs():
    probability = np.linspace(0, 1, 200)
    return pd.DataFrame({"left_id": [f"e{n}" for n in range(200)], "right_id": [f"z{n}" for n in range(200)],
                         "probability": probability})


def test_pairs_to_label_come_from_every_band(pairs):
    chosen = labelling.to_label(pairs, 50)
    assert len(set(chosen.tolist())) == 50
    assert np.bincount((pairs["probability"][chosen] * 9.999).astype(int)).min() >= 4


def test_a_click_is_on_disk_at_once_and_is_not_asked_again(pairs, tmp_path):
    path, texts = tmp_path / "labels.jsonl", {row: f"<text {row}>" for row in [*pairs["left_id"], *pairs["right_id"]]}
    form = labelling.label_form(pairs, texts, path, count=3)
    shown, (same, different, skip) = form.children[1], form.children[0].children
    first = labelling.to_label(pairs, 3)
    assert f"&lt;text e{first[0]}&gt;" in shown.value  # a text is shown as it is, never as markup
    same.click()
    assert [json.loads(line)["same"] for line in path.read_text().splitlines()] == [True]
    skip.click()
    different.click()
    assert "2 labelled, 0 to go" in shown.value and same.disabled
    found, labels = labelling.read_labels(path, pairs)
    assert dict(zip(found.tolist(), labels.tolist(), strict=True)) == {first[0]: 1, first[2]: 0}
    again = labelling.label_form(pairs, texts, path, count=3)
    assert "2 labelled, 1 to go" in again.children[1].value


def test_a_line_that_is_no_label_is_named(pairs, tmp_path):
    (tmp_path / "l.jsonl").write_text('{"left_id": "e1", "right_id": "z1", "same": true}\n{"left_id": "e2", "same": 1}\n')
    with pytest.raises(BadRecord, match="l.jsonl, line 2: a label is"):
        labelling.read_labels(tmp_path / "l.jsonl", pairs)
