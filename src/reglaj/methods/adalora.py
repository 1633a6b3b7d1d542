"""AdaLoRA: low-rank updates whose ranks are given to the layers that need them most (Zhang et al. 2023).

Equation 3: the update is P diag(E) Q with P (out, R) and Q (R, in) kept near orthogonal by a penalty, E zeros at the
start. Every singular value is scored with its vectors by how much the loss hangs on them (equations 7 to 12), and
while the budget falls along a cubic curve (equation 19) the least important are set to zero. Layers and files are
PEFT's, and so is every number: the penalty is the mean norm, not the sum of squares of equation 4, and a step is
counted as in `update_and_allocate`. PEFT calls P `lora_B` and Q `lora_A`.

Legend: M layers, R initial rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Capabilities, Handle, Method, by_size
from reglaj.methods.injected import PREFIX, WEIGHTS, InjectedHandle, inject, misfit, peft_task, saved_config
from reglaj.methods.targets import (
    TargetedConfig,
    chosen_modules,
    lowest_layer,
    peft_targets,
    rank_problems,
    target_problems,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

BETA_1 = BETA_2 = 0.85
"""How slowly importance and its uncertainty follow the last step (section 4.1 of the paper)."""
ALLOCATIONS = 200
"""About as many times in a training the budget is shared out anew."""
_RATES = ((60_000_000, 3e-3), (200_000_000, 6e-3), (float("inf"), 2e-3))


class AdaLoraConfig(TargetedConfig):
    """Low-rank updates with ranks that move between layers."""

    name: Literal["adalora"] = "adalora"
    init_rank: int = Field(12, ge=1)
    """Rank of every layer at the start."""
    target_rank: int = Field(8, ge=1)
    """Mean rank of a layer at the end."""
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / init_rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the input of the update, while training."""
    orthogonality_weight: float = Field(0.5, ge=0)
    """Of the penalty, which counts in the loss of a training step; 0 leaves it out."""
    initial_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the steps before the first rank is taken away."""
    final_ratio: float = Field(0.3, ge=0, lt=1)
    """Share of the steps, the last ones, in which ranks stay as they are."""


@METHODS.register("adalora")
class AdaLora(Method[AdaLoraConfig]):
    """Low-rank updates through PEFT, unmerged while training."""

    config_type = AdaLoraConfig
    summary = "low-rank updates whose ranks move to the layers that need them"
    citation = "Zhang et al. 2023, arXiv:2303.10512"
    is_mergeable = True
    served_by = (PEFT,)

    @classmethod
    def check(cls, config: AdaLoraConfig, facts: ModelFacts) -> list[Problem]:
        chosen = chosen_modules(config, facts)
        problems = target_problems(config, facts) or rank_problems(config.init_rank, chosen, "method.init_rank")
        return [*problems, *_schedule_problems(config)]

    @classmethod
    def trainable_parameters(cls, config: AdaLoraConfig, facts: ModelFacts) -> int:
        chosen = chosen_modules(config, facts)
        return sum(config.init_rank * (rows + columns + 1) for rows, columns in chosen.values())

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def attach(cls, config: AdaLoraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        import peft

        chosen = chosen_modules(config, facts)
        peft_config = peft.AdaLoraConfig(
            task_type=peft_task(model),
            base_model_name_or_path=str(facts.folder),
            init_r=config.init_rank,
            target_r=config.target_rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            orth_reg_weight=config.orthogonality_weight,
            beta1=BETA_1,
            beta2=BETA_2,
            total_step=1,  # nothing is known of it yet; `begin` says
            target_modules=peft_targets(model, chosen, facts),
            inference_mode=True,  # else PEFT makes an allocator of its own
        )
        inject(peft_config, model, name)
        peft_config.inference_mode = False
        capabilities = Capabilities(linear_deltas=True, lowest_trained_layer=lowest_layer(chosen, facts))
        return AdaLoraHandle(model, name, capabilities, config)


def _schedule_problems(config: AdaLoraConfig) -> list[Problem]:
    problems = []
    if config.target_rank > config.init_rank:
        problems.append(
            Problem(
                where="method.target_rank",
                given=f"{config.target_rank}",
                allowed=f"1 to method.init_rank, which is {config.init_rank}",
                why="ranks are taken away while training, never given",
                remedy="lower it, or raise method.init_rank",
            )
        )
    if config.initial_ratio + config.final_ratio >= 1:
        problems.append(
            Problem(
                where="method.final_ratio",
                given=f"{config.initial_ratio:g} of the steps before and {config.final_ratio:g} after",
                allowed="less than 1 together",
                why="ranks are taken away in the steps between the two",
                remedy="lower method.initial_ratio or method.final_ratio",
            )
        )
    return problems


_PARTS = ("lora_A", "lora_E", "lora_B")


class AdaLoraHandle(InjectedHandle):
    """A named set of updates among others on the same base, and the scores by which ranks are shared out."""

    def __init__(self, model: nn.Module, name: str, capabilities: Capabilities, config: AdaLoraConfig) -> None:
        import torch

        super().__init__(model, name, capabilities)
        self.settings = config
        layers = self.layers()
        self._q, self._e, self._p = ([getattr(layer, part)[name] for layer in layers] for part in _PARTS)
        self.kept = torch.ones(len(layers), config.init_rank, dtype=torch.bool, device=self._e[0].device)
        """(M, R) which singular values have not been taken away."""
        self._total = self._start = self._end = 0
        self._is_settled = False
        """Whether the ranks are those of the end."""
        self._importance: list[Tensor] = []
        self._uncertainty: list[Tensor] = []

    def begin(self, total_steps: int) -> None:
        """The schedule of a training: budget full up to `_start`, then falling, at its target from `_end` on."""
        import torch

        config = self.config
        self._total, self._is_settled = total_steps, False
        self._end = total_steps - min(round(self.settings.final_ratio * total_steps), max(0, total_steps - 2))
        self._start = min(round(self.settings.initial_ratio * total_steps), self._end - 1)
        self._every = max(1, (self._end - self._start) // ALLOCATIONS)
        config.total_step, config.tinit, config.tfinal = total_steps, self._start, total_steps - self._end
        config.deltaT = self._every
        self.kept = self.kept.to(self._e[0].device)
        self._importance = [torch.zeros_like(p) for p in self._scored()]
        self._uncertainty = [torch.zeros_like(p) for p in self._scored()]

    def penalty(self) -> Tensor | None:
        """How far the singular vectors are from orthogonal: the mean of |Q Q' - I| and |P' P - I| over all layers."""
        import torch

        if not self.settings.orthogonality_weight:
            return None
        products = torch.stack([q @ q.T for q in self._q] + [p.T @ p for p in self._p])
        distance = products - torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)
        return self.settings.orthogonality_weight * torch.linalg.vector_norm(distance, dim=(1, 2)).mean()

    def after_step(self, step: int) -> None:
        if self._total == 1:
            return  # nothing is known yet of what is important
        if step < self._end:
            self._score()
        if step >= self._end:
            # Not only at `_end`: that step may have been left out. Made again, it comes out the same.
            self._take_away() if self._is_settled else self._allocate(self._budget(self._end))
            self._is_settled = True
        elif step > self._start and step % self._every == 0:
            self._allocate(self._budget(step))

    def finish(self) -> None:
        """The vectors of singular values that were taken away become zero, as they are when the files are read."""
        import torch

        with torch.no_grad():
            for q, e, p, gone in zip(self._q, self._e, self._p, ~self._there(), strict=True):
                q.masked_fill_(gone[:, None], 0)  # a product would leave zeros with a sign
                e.masked_fill_(gone[:, None], 0)
                p.masked_fill_(gone, 0)

    def state(self) -> dict[str, Tensor]:
        named = {"kept": self.kept}
        for kind, tensors in (("importance", self._importance), ("uncertainty", self._uncertainty)):
            named |= {f"{kind}.{number}": tensor for number, tensor in enumerate(tensors)}
        return named

    def _scored(self) -> list[Tensor]:
        return [*self._q, *self._e, *self._p]

    def _score(self) -> None:
        """Sensitivity |w g| of every value, smoothed, and how much it varies: equations 9 and 10."""
        import torch

        with torch.no_grad():
            parameters = self._scored()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            now = torch._foreach_abs(torch._foreach_mul(parameters, gradients))
            torch._foreach_mul_(self._importance, BETA_1)
            torch._foreach_add_(self._importance, now, alpha=1 - BETA_1)
            varies = torch._foreach_abs(torch._foreach_sub(now, self._importance))
            torch._foreach_mul_(self._uncertainty, BETA_2)
            torch._foreach_add_(self._uncertainty, varies, alpha=1 - BETA_2)

    def _budget(self, step: int) -> int:
        """Singular values that stay, of all layers together: equation 19."""
        full, target = self.kept.numel(), self.settings.target_rank * len(self.kept)
        left = 1 - (step - self._start) / (self._end - self._start)
        return int((full - target) * left**3 + target)

    def _allocate(self, budget: int) -> None:
        """Keep the singular values whose score with their vectors (equations 7 and 11) is highest."""
        import torch

        if budget >= self.kept.numel():
            return
        with torch.no_grad():
            scores = torch._foreach_mul(self._importance, self._uncertainty)
            q, e, p = (scores[i * len(self._e) : (i + 1) * len(self._e)] for i in range(3))
            each = [a.mean(dim=1) + b.view(-1) + c.mean(dim=0) for a, b, c in zip(q, e, p, strict=True)]
            together = torch.stack(each)
            # No value leaves the device: a step waits for nothing.
            threshold = torch.kthvalue(together.view(-1), together.numel() - budget).values
            self.kept.copy_(together > threshold)
        self._take_away()

    def _take_away(self) -> None:
        import torch

        with torch.no_grad():
            torch._foreach_mul_(self._e, list(self.kept.to(self._e[0].dtype).unsqueeze(-1).unbind()))

    def save(self, folder: Path) -> None:
        """What was taken away is left out, and adapter_config.json says which ranks of which layer are there."""
        config = self.config
        pattern = self._pattern()
        config.rank_pattern = None if all(all(kept) for kept in pattern.values()) else pattern
        try:
            super().save(folder)
        finally:
            config.rank_pattern = None

    def _there(self) -> Tensor:
        """(M, R) which singular values are saved. The best weights may be of a step when more were there."""
        import torch

        return self.kept | torch.stack([e.detach().view(-1) != 0 for e in self._e])

    def _pattern(self) -> dict[str, list[bool]]:
        """By PEFT's names, which singular values are saved."""
        there = self._there()
        names = {id(p): key for key, p in self.learnt_tensors().items()}
        return {names[id(e)].removeprefix(PREFIX): kept for e, kept in zip(self._e, there.tolist(), strict=True)}

    def tensors(self) -> dict[str, Tensor]:
        learnt = self.learnt_tensors()
        pattern = self.config.rank_pattern
        if pattern is None:
            return learnt
        return {key: _picked(key, tensor, pattern) for key, tensor in learnt.items()}

    def load(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        found, saved = load_file(folder / WEIGHTS), saved_config(folder)
        pattern: dict[str, list[bool]] = saved.get("rank_pattern") or dict.fromkeys(
            self._pattern(), [True] * self.kept.shape[1]
        )
        if pattern.keys() != self._pattern().keys() or saved.get("init_r") != self.settings.init_rank:
            raise misfit(folder)
        whole = {key: _spread(key, tensor, pattern) for key, tensor in found.items()}
        self.take(whole, self.learnt_tensors(), folder)
        self.kept.copy_(torch.tensor([pattern[key] for key in self._pattern()]))


def _of_pattern(key: str, pattern: dict[str, list[bool]]) -> Tensor:
    """(R,) bool: which ranks of the layer that a tensor of this name belongs to are there."""
    import torch

    return torch.tensor(pattern[f"{key.removeprefix(PREFIX).rpartition('.lora_')[0]}.lora_E"])


def _picked(key: str, tensor: Tensor, pattern: dict[str, list[bool]]) -> Tensor:
    """A tensor without what was taken away."""
    there = _of_pattern(key, pattern).to(tensor.device)
    return tensor[:, there] if key.endswith("lora_B") else tensor[there]


def _spread(key: str, tensor: Tensor, pattern: dict[str, list[bool]]) -> Tensor:
    """What `_picked` gave, at its places among zeros. Of another shape where the tensor is not of this pattern."""
    there = _of_pattern(key, pattern)
    is_left = key.endswith("lora_B")
    if tensor.shape[1 if is_left else 0] != int(there.sum()):
        return tensor
    whole = tensor.new_zeros((len(tensor), len(there)) if is_left else (len(there), tensor.shape[1]))
    if is_left:
        whole[:, there] = tensor
    else:
        whole[there] = tensor
    return whole
