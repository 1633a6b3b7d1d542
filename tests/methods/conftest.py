"""The models of the conformance suite, each written once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.methods.subjects import Subject, write_subject


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """`subject("t5")` is a tiny model of that family, with everything that the suite wants of it."""
    made: dict[str, Subject] = {}

    def make(family: str) -> Subject:
        if family not in made:
            made[family] = write_subject(family, tmp_path_factory.mktemp(f"method-{family}"))
        return made[family]

    return make
