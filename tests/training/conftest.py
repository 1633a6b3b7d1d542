"""Folders of tiny models, encoders and decoders alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny_chat import write_chat_model
from tests.training.choices import DECODERS


@pytest.fixture(scope="session")
def model_folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`model_folder("gpt2")` is a folder with that architecture, made once."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in DECODERS:
            return tiny_model(family)
        if family not in made:
            made[family] = write_chat_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return make
