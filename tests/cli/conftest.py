"""The command line as a user calls it, in this process: starting Python anew for every test would cost minutes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reglaj.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document; anything else on it fails the test."""
        return json.loads(self.out)

    @property
    def problems(self) -> list[dict[str, str]]:
        assert set(self.document) == {"error", "exit_code"}
        assert self.document["exit_code"] == self.code
        return self.document["error"]["problems"]


@pytest.fixture
def reglaj(capsys, tmp_path, monkeypatch) -> Callable[..., Outcome]:
    """Calls a verb in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """Thirty short texts in two languages, three intents."""
    intents = {
        "card": ["my card has not arrived", "cardul meu nu a ajuns", "where is the new card"],
        "refund": ["I want my money back", "vreau banii înapoi", "please refund this payment"],
        "login": ["I cannot log in any more", "nu pot intra în cont", "the password does not work"],
    }
    lines = ["message,intent"]
    for intent, texts in intents.items():
        lines += [f"{text} number {n},{intent}" for n in range(4) for text in texts]
    file = tmp_path / "tickets.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
