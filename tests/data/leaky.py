"""Rows whose texts are far apart, and near copies of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.data.tables import ROLES

from reglaj.core.console import SILENT
from reglaj.curation.near_duplicates import MinHashMatcher
from reglaj.data.config import DataConfig, NearDuplicatesConfig
from reglaj.data.prepare import Looks, PreparedData, prepare

SYLLABLES = [a + b for a in "bcdfghjklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "or")]


def far_texts(count: int, seed: int = 0, words: int = 9) -> list[str]:
    """Texts of made-up words: no two of them are near-duplicates."""
    chance = random.Random(seed)
    return [" ".join("".join(chance.choice(SYLLABLES) for _ in range(3)) for _ in range(words)) for _ in range(count)]


def near_copy(text: str) -> str:
    """The same text with other capitals, a comma and one more letter."""
    return text.capitalize().replace(" ", ", ", 1) + "s"


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def prepare_rows(
    folder: Path, rows: list[dict[str, Any]], *, looks: Looks | None = None, **section: Any
) -> PreparedData:
    """The rows as one source, with the matcher that `reglaj` itself uses."""
    path = write_jsonl(folder / "rows.jsonl", rows)
    sources = section.pop("sources", None) or [{"path": str(path)}]
    return prepare(
        DataConfig.model_validate({"sources": sources} | section),
        ROLES,
        folder=folder,
        store=folder / "runs" / ".data",
        task="classify",
        default_split="stratified",
        resolve_starter=lambda name: folder / name,
        console=SILENT,
        looks=looks or Looks(matcher=MinHashMatcher(NearDuplicatesConfig())),
    )
