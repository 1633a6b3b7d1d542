"""The `data` section of a recipe: sources, what is left out, and the split."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reglaj.core.config import Config


class SourceConfig(Config):
    """One file to read."""

    path: str = Field(min_length=1)
    """File, relative to the recipe; or a starter such as `starter:medical`."""
    columns: dict[str, str] = {}
    """Role to column name, such as `{text: message, label: intent}`. A role left out is the column of its own name."""
    kind: Literal["csv", "tsv", "json", "jsonl", "parquet"] | None = None
    """Format; by default told by the file's name and its first bytes."""


class SplitConfig(Config):
    """How records become train, validation and test."""

    kind: str = "auto"
    """`auto` takes the split the task proposes; `reglaj schema` lists the others."""
    train: float = Field(0.8, gt=0, lt=1)
    """Share of the rows."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the rows on which every choice is made: stopping, comparing, searching."""
    test: float = Field(0.1, gt=0, lt=1)
    """Share of the rows that are read once, by the final evaluation."""
    seed: int = Field(0, ge=0)
    """Another seed is another split."""

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, and are {total:g}")
        return self


class DataConfig(Config):
    """What is read and what becomes of it."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """Files that are read, one after the other."""
    split: SplitConfig = SplitConfig()
    """How the rows become train, validation and test."""
    exclude_labels: tuple[str, ...] = ()
    """Records with one of these labels are left out and counted as `filtered`."""
    contradictory_labels: Literal["drop", "keep"] = "drop"
    """Equal text under different labels: `drop` all of it, or `keep` one record per label (in one part)."""
    min_label_rows: int = Field(3, ge=3)
    """A label with fewer distinct texts cannot be in all three parts: its records are dropped as `rare_label`."""
    too_long: Literal["drop", "truncate_prompt", "split_turns"] = "drop"
    """A conversation beyond `train.max_tokens`: `drop` it as `too_long`; `truncate_prompt` leaves out the oldest turns,
    then the beginning of the question; `split_turns` makes an example of each stretch that fits. No answer is cut."""
