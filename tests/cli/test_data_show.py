"""`reglaj data --show`: which tokens are learnt, in colour on a terminal and in brackets elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.tiny_chat import write_chat_model, write_conversations


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    model, rows = write_chat_model(tmp_path / "model"), write_conversations(tmp_path / "rows.jsonl", 30)
    file = tmp_path / "talk.yaml"
    file.write_text(f"task: chat\nmodel: {model}\ndata: {{sources: [{{path: {rows}}}]}}\n")
    return file


def test_what_is_learnt_stands_in_brackets(reglaj, recipe):
    done = reglaj("data", recipe, "--show", "2")
    assert done.code == 0
    assert done.out.count("training example") == 2
    learnt = [piece.split("⟧")[0] for piece in done.out.split("\n-- training")[0].split("⟦")[2:]]
    assert learnt and all(text.endswith("<|im_end|>") for text in learnt)
    assert "\x1b" not in done.out


def test_a_terminal_shows_colours_and_obeys_nothing_else(reglaj, recipe, monkeypatch):
    rows = recipe.parent / "rows.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps(line | {"prompt": "\x1b[2J" + line["prompt"]}) + "\n" for line in lines))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = reglaj("data", recipe, "--show", "1").out
    assert "\x1b[1;4;32m" in shown
    assert "\x1b[2J" not in shown and "\\x1b[2J" in shown


def test_json_has_the_pieces(reglaj, recipe):
    document = json.loads(reglaj("data", recipe, "--show", "1", "--json").out)
    pieces = document["shown"][0]
    assert [is_learnt for _, is_learnt in pieces] == [False, True, False]
    assert "shown" not in json.loads(reglaj("data", recipe, "--json").out)
