"""How much of each work is done: by default so little that a work takes under a quarter of an hour on two cores."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """steps: of a turn of the chat works, 8 rows each. rows: of the classification and evaluation works.

    new_tokens: of each generated answer. growth_steps: drawn from few and from many rows. Slow peers and those
    beside the floors take part in the first `slow_turns` turns only. questions: whose answers are compared with
    `generate` token by token. batch: rows of a step in the chat works.
    """

    steps: int = 2
    rows: int = 320
    new_tokens: int = 64
    growth_steps: int = 20
    slow_turns: int = 2
    questions: int = 0
    batch: int = 8

    @classmethod
    def of(cls, options: argparse.Namespace) -> Sizes:
        """From the command line; --full is all 64 conversations, 640 texts and the comparison of answers."""
        given = cls(steps=8, rows=640, questions=50) if options.full else cls()
        chosen = {name: getattr(options, name) for name in ("steps", "rows", "new_tokens", "growth_steps", "batch")}
        return cls(**vars(given) | {name: value for name, value in chosen.items() if value is not None})

    def arguments(self) -> list[str]:
        """The same sizes for a process of its own."""
        return [
            *("--steps", str(self.steps), "--rows", str(self.rows)),
            *("--new-tokens", str(self.new_tokens), "--growth-steps", str(self.growth_steps)),
            *("--batch", str(self.batch)),
        ]
