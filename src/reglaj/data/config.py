"""The `data` section of a recipe: sources, what is left out, and the split."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from reglaj.core.config import Config
from reglaj.data.cleaning import CleanConfig


class SourceConfig(Config):
    """One file to read."""

    path: str = Field(min_length=1)
    """File, relative to the recipe; or a starter such as `starter:medical`."""
    columns: dict[str, str] = {}
    """Role to column name, such as `{text: message, label: intent}`. A role left out is the column of its own name."""
    kind: Literal["csv", "tsv", "json", "jsonl", "parquet"] | None = None
    """Format; by default told by the file's name and its first bytes."""
    part: Literal["train", "validation", "test"] | None = None
    """The part that all of its records are in; with `data.split.kind: given` only."""


class SplitConfig(Config):
    """How records become train, validation and test."""

    kind: str = "auto"
    """`auto` looks at the data and says what it chose; `reglaj schema` lists the others."""
    train: float | None = Field(None, gt=0, lt=1)
    """Share of the rows; null is the rest. Where validation or test is left out, they share what it leaves."""
    validation: float = Field(0.1, gt=0)
    """Rows on which every choice is made: stopping, comparing. A share below 1, or a whole number of rows."""
    test: float = Field(0.1, gt=0)
    """Rows that are read by the final evaluation only. A share below 1, or a whole number of rows."""
    seed: int = Field(0, ge=0)
    """Another seed is another split; no effect on `time` and `given`."""
    group: str | None = None
    """Column whose equal values stay in one part; or `source`, the file, or `conversation`, those that begin alike.
    Where the split is `time`, `hash` or `given`, groups that cross it are leakage."""
    time: str | None = None
    """Column of dates: validation and test are the latest. With `given` the parts are checked against it."""
    column: str | None = None
    """Column that says the part, for `given`: train; validation, valid, val or dev; test."""

    def train_rows(self, rows: int) -> int:
        """About how many of so many rows are learnt from; at least 1."""
        others = sum(size * rows if size < 1 else size for size in (self.validation, self.test))
        return max(1, round(rows - others))

    @model_validator(mode="before")
    @classmethod
    def _what_train_leaves(cls, values: Any) -> Any:
        """`train: 0.6` alone means 0.2 for each of the others."""
        if not isinstance(values, dict) or not isinstance(values.get("train"), int | float):
            return values
        open_parts = [part for part in ("validation", "test") if values.get(part) is None]
        given = sum(size for part in ("validation", "test") if isinstance(size := values.get(part), int | float))
        left = round((1 - values["train"] - given) / len(open_parts), 9) if open_parts else 0.0
        return values | dict.fromkeys(open_parts, left) if left > 0 else values

    @model_validator(mode="after")
    def _sizes_make_a_whole(self) -> Self:
        for part in ("validation", "test"):
            size = getattr(self, part)
            if size >= 1 and size != int(size):
                raise ValueError(f"{part} is {size:g}: a share is below 1, and a number of rows is whole")
        shares = [size for size in (self.validation, self.test) if size < 1]
        if self.train is None:
            if sum(shares) >= 1:
                raise ValueError(f"validation + test must leave something to learn from, and are {sum(shares):g}")
        elif len(shares) < 2:
            raise ValueError("where validation or test is a number of rows, train is the rest: leave it out")
        elif abs(self.train + sum(shares) - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, and are {self.train + sum(shares):g}")
        return self


class NearDuplicatesConfig(Config):
    """When two texts count as nearly the same."""

    threshold: float = Field(0.8, gt=0.3, le=1)
    """Jaccard similarity of the sets of 5 characters in a row, after folding; the same from there on."""
    semantic: float | None = Field(None, gt=0, le=1)
    """Cosine similarity of embeddings from which texts are reported as saying the same in other words; null: not
    looked for. They are reported by `reglaj data`, and change nothing."""


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
    near_duplicates: NearDuplicatesConfig | None = NearDuplicatesConfig()
    """Texts that are nearly the same never lie in two parts; null compares texts after folding only."""
    leakage: Literal["repair", "stop", "report"] | None = None
    """What becomes of leakage between parts: `repair` keeps together what belongs together, or drops it from the
    earlier part where the split is not ours to make; `stop` refuses (exit code 3); `report` only counts. By default
    `stop` for `given`, else `repair`."""
    decontaminate: tuple[str, ...] = ()
    """Files with your evaluation sets: records that nearly repeat one of their texts are dropped as `contaminated`."""
    clean: CleanConfig = CleanConfig()
    """What is left out, or mended, because of what the quality report finds."""
    too_long: Literal["drop", "truncate_prompt", "split_turns"] = "drop"
    """A conversation beyond `train.max_tokens`: `drop` it as `too_long`; `truncate_prompt` leaves out the oldest turns,
    then the beginning of the question; `split_turns` makes an example of each stretch that fits. No answer is cut."""
