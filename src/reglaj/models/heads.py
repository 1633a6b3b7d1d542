"""The new layers on top of a base: one vector per text, and scores from it. Saved beside the method, in safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

import numpy as np
from torch import Tensor, nn

from reglaj.core.files import write_json
from reglaj.models.laying import on_device

Pooling = Literal["cls", "mean", "last"]
INITIAL_STD = 0.02


def pool(hidden: Tensor, lengths: tuple[int, ...], pooling: Pooling) -> Tensor:
    """One vector per text. hidden: (T, D), texts one after the other. Returns (B, D)."""
    ends = np.cumsum(lengths)
    if pooling == "cls":
        return hidden.index_select(0, on_device(ends - lengths, hidden.device))
    if pooling == "last":
        return hidden.index_select(0, on_device(ends - 1, hidden.device))
    # A (B, T) matrix of 1/length: a product is deterministic on every device, a scatter-add is not.
    weights = np.zeros((len(lengths), hidden.shape[0]), dtype=np.float32)
    for row, (length, end) in enumerate(zip(lengths, ends.tolist(), strict=True)):
        weights[row, end - length : end] = 1 / length
    return on_device(weights, hidden.device).to(hidden.dtype) @ hidden


class ScoreHead(nn.Module):
    """Pooling, dropout and a linear layer: (T, D) to (B, outputs)."""

    def __init__(self, width: int, outputs: int, *, pooling: Pooling, dropout: float = 0.0) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, outputs)
        nn.init.normal_(self.linear.weight, std=INITIAL_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """hidden: (T, D). Returns scores (B, outputs)."""
        return self.scores(pool(hidden, lengths, self.pooling))

    def scores(self, pooled: Tensor) -> Tensor:
        """pooled: (B, D), one vector per text. Returns scores (B, outputs)."""
        scores: Tensor = self.linear(self.dropout(pooled))
        return scores

    def save(self, folder: Path) -> None:
        """Write head.safetensors and head.json."""
        from safetensors.torch import save_file

        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / "head.safetensors")
        shape = {"width": self.linear.in_features, "outputs": self.linear.out_features, "pooling": self.pooling}
        write_json(folder / "head.json", shape | {"dropout": self.dropout.p})

    def loaded(self, folder: Path) -> Self:
        """A head of what lies in a folder, on the same device."""
        return type(self).load(folder).to(self.linear.weight.device)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        from safetensors.torch import load_file

        shape = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        head = cls(shape["width"], shape["outputs"], pooling=shape["pooling"], dropout=shape["dropout"])
        head.load_state_dict(load_file(folder / "head.safetensors"))
        return head
