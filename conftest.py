"""What every test shares: no hub, one cache of starters, and property tests that say the same every time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports transformers: a test that needs the network finds out at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# `make torture`: many more examples, new ones each time; a failure prints how to repeat it.
settings.register_profile(
    "torture", max_examples=1000, deadline=None, derandomize=False, database=None, print_blob=True
)


@pytest.fixture(scope="session")
def reglaj_home() -> Path:
    """The cache of starters for tests that use the real ones: the user's own, so that a download happens once."""
    from reglaj.models.starters import home

    return home()
