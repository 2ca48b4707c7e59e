"""The recordings of the embedded sample as a chat model: written by the kit's authors, not a model's output."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralink_nb.completions import ChatRequest, Completion, NoRecording
from ultralink_nb.records import read_rows
from ultralink_nb.structured import checked_json
from ultralink_nb.tokens import count_tokens
from ultralink_nb.workspace import AUTHORS, SAMPLE

REPLAY = "replay"


class ReplayModel:
    """The recordings of the embedded sample: written by the kit's authors, not a model's output.

    A question or an answer is found by the recording whose anchor (a fragment of the article) stands in
    `about["passage"]`, and by `about["turn"]`; a sifting verdict and a translated message by `about["subject"]`, the sample's id.
    Raises `NoRecording` where there is none.
    """

    name = REPLAY
    label = AUTHORS

    def __init__(self, sample: str | Path = SAMPLE):
        self.sample = Path(sample)
        self._files: dict[str, list[dict]] = {}

    def _rows(self, name: str) -> list[dict]:
        if name not in self._files:
            path = self.sample / name
            self._files[name] = [row for _, row in read_rows(path)] if path.is_file() else []
        return self._files[name]

    async def complete(self, request: ChatRequest) -> Completion:
        text = self._recorded(request.about)
        if request.schema is not None:
            text = checked_json(text, request.schema)
        prompt = "\n".join(message["content"] for message in request.messages)
        prompt_tokens, completion_tokens = count_tokens([prompt, text])
        return Completion(text, self.name, "stop", prompt_tokens, completion_tokens, 0.0, cached=True)

    def _recorded(self, about: Mapping[str, Any]) -> str:
        task, subject, turn = about.get("task"), about.get("subject"), about.get("turn", 0)
        if task in ("question", "answer"):
            for row in self._rows(f"dialogues/{about['language']}.jsonl"):
                if row["anchor"] in about["passage"]:
                    if turn < len(row["turns"]):
                        return row["turns"][turn][task]
                    raise NoRecording(f"the recorded dialogue for passage {subject} has {len(row['turns'])} turns")
        elif task == "sift":
            for row in self._rows("sft/verdicts.jsonl"):
                if row["id"] == subject:
                    return json.dumps(row["scores"], ensure_ascii=False)
        elif task == "translate":
            for row in self._rows(f"sft/translations/{about['language']}.jsonl"):
                if row["id"] == subject and turn < len(row["messages"]):
                    return row["messages"][turn]["content"]
        raise NoRecording(
            f"nothing is recorded for {task} {subject} ({about.get('language')}): replay knows the embedded sample only; "
            "for other data name a model with chat_model and base_url"
        )
