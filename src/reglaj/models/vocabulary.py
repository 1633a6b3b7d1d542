"""From hidden states to the loss of chosen tokens, without ever holding the scores of all of them.

Legend: P positions whose next token is asked for, D width, V vocabulary, C positions of a chunk.

A row of scores is V floats (0.2 MB for 49,152 words), so P of them are the largest tensor of the whole step. Here
they exist for one chunk at a time, and only where a token is supervised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from reglaj.core.errors import user_error
from reglaj.models.packing import TokenBatch, hidden_states

CHUNK_VALUES = 1 << 23
"""Scores that exist at a time: 32 MB in float32."""
_TOLERANCE = 1e-3


class _TokenLosses(torch.autograd.Function):
    """Negative log-likelihood of each target: (P,). With a frozen matrix its gradient is made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        matrix = weight.to(dtype)
        gradient = torch.empty_like(hidden) if wants_hidden and not wants_weight else None
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            scores, losses[rows] = _softmax_minus_truth(hidden[rows].to(dtype), matrix, targets[rows])
            if gradient is not None:
                gradient[rows] = scores.to(dtype) @ matrix
        ctx.chunk, ctx.dtype, ctx.wants_weight = chunk, dtype, wants_weight
        if wants_weight:
            ctx.save_for_backward(hidden, weight, targets)
        elif gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (per_token,) = gradients
        if not ctx.wants_weight:
            (made,) = ctx.saved_tensors
            return made * per_token[:, None].to(made.dtype), None, None, None, None
        # What each token's loss is weighed by is known only now, so the scores are made once more, chunk by chunk.
        hidden, weight, targets = ctx.saved_tensors
        matrix = weight.to(ctx.dtype)
        to_hidden, to_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(targets), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            states = hidden[rows].to(ctx.dtype)
            scores, _ = _softmax_minus_truth(states, matrix, targets[rows])
            scores = scores.mul_(per_token[rows, None]).to(ctx.dtype)
            to_hidden[rows] = scores @ matrix
            to_weight += scores.T @ states
        return to_hidden, to_weight.to(weight.dtype), None, None, None


def _softmax_minus_truth(hidden: Tensor, matrix: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(C, V) gradient of each loss by its scores, and (C,) losses, both float32."""
    scores = _product(hidden, matrix).float()
    normaliser = scores.logsumexp(dim=1)
    losses = normaliser - scores.gather(1, targets[:, None])[:, 0]
    scores.sub_(normaliser[:, None]).exp_()
    scores[torch.arange(len(targets), device=targets.device), targets] -= 1
    return scores, losses


def _product(hidden: Tensor, matrix: Tensor) -> Tensor:
    """hidden @ matrix': (C, D), (V, D) to (C, V).

    A matrix of a hundred times as many rows as columns is what MKL cuts badly: on two cores without AVX512 oneDNN,
    which torch holds as well, makes the same product in 0.6 to 0.8 of the time.
    """
    if hidden.device.type == "cpu" and hidden.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        scores: Tensor = torch.ops.mkldnn._linear_pointwise(hidden.contiguous(), matrix, None, "none", [], "")
        return scores
    return hidden @ matrix.T


class VocabularyHead(nn.Module):
    """A model's own output matrix. Nothing is added: it has no parameters of its own, and nothing to save."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = [model]  # in a list: the model's parameters are its method's, not this head's
        config = model.config
        self._is_plain = self._matrix.bias is None and not any(
            getattr(config, key, None) for key in ("final_logit_softcapping", "logit_scale", "logits_scaling")
        )

    @property
    def _matrix(self) -> Any:
        return self._model[0].get_output_embeddings()

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood in nats of each target after its hidden state. (P, D), (P,) to (P,) float32."""
        chunk = max(1, CHUNK_VALUES // self._matrix.weight.shape[0])
        if self._is_plain:
            device = hidden.device.type
            dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
            losses: Tensor = _TokenLosses.apply(hidden, self._matrix.weight, targets, chunk, dtype)
            return losses
        from torch.utils.checkpoint import checkpoint

        pieces = [
            checkpoint(self._plain_losses, h, t, use_reentrant=False)
            for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
        ]
        return torch.cat(pieces)

    def _plain_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.scores(hidden).float(), targets, reduction="none")

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of every word after each hidden state: (P, D) to (P, V)."""
        config = self._model[0].config
        scores: Tensor = self._matrix(hidden)
        if scale := getattr(config, "logit_scale", None):
            scores = scores * scale
        if divisor := getattr(config, "logits_scaling", None):
            scores = scores / divisor
        if cap := getattr(config, "final_logit_softcapping", None):
            scores = torch.tanh(scores / cap) * cap
        return scores

    def check(self, name: str) -> None:
        """Raises `UserError` where the architecture makes its scores in a way that is not known here."""
        model = self._model[0]
        device = next(model.parameters()).device
        ids = torch.arange(3, 9, device=device) % model.config.vocab_size
        with torch.no_grad():
            theirs = model(input_ids=ids[None], use_cache=False).logits[0].float()
            tokens = TokenBatch(input_ids=ids, lengths=(len(ids),))
            ours = self.scores(hidden_states(model.base_model, tokens, "padded")).float()
        if not (theirs - ours).abs().max() <= _TOLERANCE * max(1.0, theirs.abs().max().item()):
            raise user_error(
                f"the model {name!r} ({model.config.model_type}) makes its scores in an unknown way",
                allowed="a linear layer over the last hidden state, scaled or soft-capped",
                why="the loss would not be that of the model",
                remedy="choose another model, and tell us about this one",
                where="model",
            )

    def save(self, folder: Path) -> None:
        """Nothing: the matrix belongs to the model."""

    def loaded(self, folder: Path) -> Self:
        """Itself, for there is nothing to read."""
        return self
