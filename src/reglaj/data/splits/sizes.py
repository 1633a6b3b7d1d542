"""How many rows each part is to have: shares, or counts, of which train is the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.errors import user_error
from reglaj.data.splits.dealing import TEST, VALIDATION

if TYPE_CHECKING:
    from reglaj.data.config import SplitConfig


def wanted_rows(config: SplitConfig, num_rows: int) -> dict[int, int]:
    """Rows of validation and test, at least 1 each; train has the rest.

    Raises `UserError` where counts leave nothing to learn from. Shares of a few rows do not: see `check_parts`.
    """
    sizes = {VALIDATION: config.validation, TEST: config.test}
    wanted = {part: wanted_of(size, num_rows) for part, size in sizes.items()}
    if has_counts(config) and sum(wanted.values()) >= num_rows:
        raise user_error(
            f"validation and test are to have {sum(wanted.values()):,} rows of {num_rows:,}",
            allowed="numbers of rows that leave something to learn from",
            why=f"the usable rows are shared out as {describe_sizes(config)}",
            remedy="ask for fewer rows, or for shares such as 0.1",
            where="data.split",
        )
    return wanted


def wanted_of(size: float, num_rows: int) -> int:
    """Rows of a share or count, at least 1."""
    return max(1, round(size * num_rows if size < 1 else size))


def wanted_shares(config: SplitConfig, num_rows: int) -> dict[int, float]:
    """Shares of validation and test; what was given as a count is a share of `num_rows`. Raises as `wanted_rows`."""
    wanted = wanted_rows(config, num_rows)
    sizes = {VALIDATION: config.validation, TEST: config.test}
    return {part: size if size < 1 else wanted[part] / num_rows for part, size in sizes.items()}


def has_counts(config: SplitConfig) -> bool:
    """Whether the size of a part is a number of rows."""
    return config.validation >= 1 or config.test >= 1


def describe_sizes(config: SplitConfig) -> str:
    """`train 0.8, validation 0.1, test 500 rows`."""
    train = "the rest" if config.train is None else f"{config.train:g}"
    return f"train {train}, validation {_describe(config.validation)}, test {_describe(config.test)}"


def _describe(size: float) -> str:
    return f"{size:g}" if size < 1 else f"{int(size):,} rows"
