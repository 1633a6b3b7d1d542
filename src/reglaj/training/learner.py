"""A base, a method's handle and a head as one thing that trains, predicts, saves and loads."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from reglaj.core.console import SILENT, Advance, Console
from reglaj.core.errors import is_out_of_memory, user_error
from reglaj.data.batching import micro_batches
from reglaj.models.attention import ATTENTION_NAME
from reglaj.models.encoding import TokenRows
from reglaj.models.frozen_weights import narrow_frozen
from reglaj.models.heads import ScoreHead, pool
from reglaj.models.packing import TokenBatch, hidden_states
from reglaj.models.trunk import TrunkCut
from reglaj.models.vocabulary import VocabularyHead
from reglaj.training.engine import EVALUATION_FACTOR, Engine
from reglaj.training.guards import refuse_non_finite_scores
from reglaj.training.memory import nothing_smaller, release_memory
from reglaj.training.parallel import ALONE, Ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reglaj.methods.base import Handle
    from reglaj.models.inspect import ModelFacts


Head = ScoreHead | VocabularyHead


class Learner:
    """Legend: B texts, T tokens of all of them, D width, C outputs, P supervised tokens."""

    def __init__(self, backbone: Any, handle: Handle, head: Head, facts: ModelFacts, engine: Engine) -> None:
        self.backbone = backbone.to(engine.device)
        self.handle = handle
        self.head: Any = head.to(engine.device)
        self.facts = facts
        self._is_checkpointed = self._is_narrow = False
        self.engine = replace(engine, operations="fused" if handle.fuse(True) else "plain")
        self.trunk_is_frozen = not handle.parameters()
        self.ranks: Ranks = ALONE
        """The processes that share the passes without gradients; set once the training's processes have joined."""
        self.cut: TrunkCut | None = None
        """How batches with kept states are run; set where there are such."""
        self._attention: str = self.backbone.config._attn_implementation

    @property
    def engine(self) -> Engine:
        """What the engine chose. A run that goes on sets the choices it was begun with."""
        return self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        if self._is_narrow and engine.precision != "bfloat16":
            raise RuntimeError("frozen weights were rounded to bfloat16 already: no way back to float32")
        self._engine = engine
        self.handle.fuse(engine.operations == "fused", keeps_copies=not self._is_checkpointed)

    def hidden(self, tokens: TokenBatch) -> Tensor:
        """The last hidden state of every token: (T, D), texts one after the other."""
        with torch.no_grad() if self.trunk_is_frozen else contextlib.nullcontext():
            # A model with an output matrix has its trunk as `base_model`; a bare trunk is its own.
            trunk = self.backbone.base_model
            with self.cut.entering(tokens) if self.cut and tokens.states is not None else contextlib.nullcontext():
                engine = self.engine
                virtual = self.handle.current_virtual()
                return hidden_states(
                    trunk, tokens, engine.layout, self.facts.position_offset, engine.attention, virtual
                )

    def outputs(self, tokens: TokenBatch) -> Tensor:
        """Scores of each text: (B, C)."""
        scores: Tensor
        if self.trunk_is_frozen and tokens.states is not None:  # then they are one vector per text
            scores = self.head.scores(tokens.states)
        else:
            scores = self.head(self.hidden(tokens), tokens.lengths)
        return scores

    def token_losses(self, tokens: TokenBatch, predictors: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood in nats of each target after the token at its predictor: (P,) float32."""
        losses: Tensor = self.head.token_losses(self.hidden(tokens).index_select(0, predictors), targets)
        return losses

    def checkpoint_gradients(self) -> None:
        """Keep one hidden state per layer and make the rest again in the backward pass: less memory, more time.

        Raises `UserError` where the architecture has no such thing.
        """
        if not self.backbone.supports_gradient_checkpointing:
            raise user_error(
                f"train.gradient_checkpointing is true, and {self.facts.name} ({self.facts.model_type}) cannot do it",
                allowed="false for this architecture",
                why="transformers has no checkpointed layers for it",
                remedy="remove the key; train.micro_batch_tokens makes a pass smaller",
                where="train.gradient_checkpointing",
            )
        self.backbone.activation_checkpointing_enable({"use_reentrant": False})
        # transformers lets the embeddings' output want a gradient, for the other kind of checkpointing. Frozen layers
        # would then be made again, and gone back through, for nothing.
        self.backbone.disable_input_require_grads()
        self._is_checkpointed = True
        self.engine = self.engine  # without copies from now on
        self.train(self.head.training)

    def narrow_frozen(self) -> int:
        """Keep frozen linear weights in bfloat16 where every product of this learner is made in it; the bytes freed.

        On a processor they stay: answers are generated in float32 there, whatever the precision of training.
        """
        if self.engine.device != "cuda" or self.engine.precision != "bfloat16":
            return 0
        self._is_narrow = True
        return narrow_frozen(self.backbone, torch.bfloat16)

    def parameter_groups(
        self, learning_rate: float, head_rate: float
    ) -> list[tuple[list[tuple[str, nn.Parameter]], float]]:
        """What moves, with its peak learning rate: the method's groups, then the head."""
        factors = self.handle.rate_factors()
        groups = [(named, learning_rate * factors.get(group, 1.0)) for group, named in self.handle.parameters().items()]
        head = list(self.head.named_parameters())
        return [*groups, (head, head_rate)] if head else groups

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that learns by name, the head's under `head.`."""
        parameters = {key: p for group in self.handle.parameters().values() for key, p in group}
        return parameters | {f"head.{key}": p for key, p in self.head.named_parameters()}

    def trained(self) -> dict[str, Tensor]:
        """Every trained tensor by name; detached, on their device."""
        return {key: p.detach() for key, p in self.named_parameters().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `trained` gave."""
        for key, tensor in self.trained().items():
            tensor.copy_(tensors[key])

    def train(self, mode: bool = True) -> None:
        """Dropout on or off. A frozen trunk under a probe stays in evaluation mode: its features are then constants."""
        self.backbone.train(mode and not self.trunk_is_frozen)
        self.head.train(mode)
        if self._is_checkpointed:
            # The second forward of a checkpointed layer happens outside of ours and must meet the same attention; where
            # nothing is trained, others may use the model as it came. A run that goes on may change the layout.
            is_ours = mode and self.engine.layout in ("packed", "packed-causal")
            self.backbone.config._attn_implementation = ATTENTION_NAME if is_ours else self._attention

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """No dropout, no gradients, the engine's precision; the mode before comes back afterwards."""
        was_training = self.head.training
        self.train(False)
        try:
            with torch.inference_mode(), self.engine.autocast():
                yield
        finally:
            self.train(was_training)

    def scores(
        self, rows: TokenRows, console: Console = SILENT, description: str = "evaluating"
    ) -> NDArray[np.float32]:
        """Scores of every row, in the order of the rows: (rows, C) float32. Runs sorted by length."""
        return self._map(rows, self.outputs, console, description)

    def embeddings(self, rows: TokenRows, console: Console = SILENT) -> NDArray[np.float32]:
        """What the frozen base makes of every row, pooled as the head does: (rows, D) float32."""
        with self.handle.using(None):
            return self._map(
                rows,
                lambda tokens: pool(self.hidden(tokens), tokens.lengths, self.head.pooling),
                console,
                "embedding with the frozen model",
            )

    def groups(self, lengths: NDArray[np.int64]) -> list[list[int]]:
        """Rows in batches for a pass without gradients, longest first."""
        budget = self.engine.micro_batch_tokens * EVALUATION_FACTOR
        return micro_batches(range(len(lengths)), self.costs(lengths), budget, is_padded=self.engine.is_padded)

    def costs(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each row in a pass: its own, and the virtual ones before it."""
        taken = self.handle.capabilities.virtual_tokens
        return lengths + taken if taken else lengths

    def each_group(self, lengths: NDArray[np.int64], work: Callable[[list[int]], None], advance: Advance) -> None:
        """`work` on this process's share of the groups. One that does not fit into memory is cut in two.

        A row is in exactly one group of one process.
        """
        waiting = deque(self.ranks.share(self.groups(lengths)))
        others = self.ranks.size if self.ranks.is_shared else 1  # meanwhile they do about as much
        while waiting:
            group = waiting.popleft()
            try:
                work(group)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                advance(len(group) * others)
                continue
            if len(group) == 1:
                raise nothing_smaller(int(lengths[group[0]]), where="evaluation")
            release_memory()
            half = len(group) // 2
            waiting.extendleft((group[half:], group[:half]))

    def _map(
        self, rows: TokenRows, function: Callable[[TokenBatch], Tensor], console: Console, description: str
    ) -> NDArray[np.float32]:
        ordered = np.zeros((0, 0), dtype=np.float32)

        def work(group: list[int]) -> None:
            nonlocal ordered
            tokens = rows.batch(group, self.engine.device)
            results = function(tokens).float().cpu().numpy()
            if not len(ordered):
                ordered = np.zeros((len(rows), results.shape[1]), dtype=np.float32)
            ordered[group] = results

        with self.evaluating(), console.progress(description, len(rows)) as advance:
            self.each_group(rows.lengths, work, advance)
        width = int(self.ranks.most([ordered.shape[1]])[0])  # a process may have had nothing to do
        whole = self.ranks.sum_array(ordered if len(ordered) else np.zeros((len(rows), width), dtype=np.float32))
        refuse_non_finite_scores(whole, "the scores")
        return whole

    def save(self, folder: Path) -> None:
        """What was learnt: the method's files and the head, directly in `folder`."""
        self.handle.save(folder)
        self.head.save(folder)

    def load(self, folder: Path) -> None:
        """Take over what `save` wrote."""
        self.handle.load(folder)
        self.head = self.head.loaded(folder)
        self.train(False)


def weights_sha256(tensors: dict[str, Tensor]) -> str:
    """Hex SHA-256 over names, dtypes, shapes and bytes of the tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
