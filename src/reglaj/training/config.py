"""The `train` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reglaj.core.config import Config


class EarlyStoppingConfig(Config):
    """Stop when validation no longer improves; the best weights are the ones that are kept."""

    metric: Literal["validation_loss", "validation_accuracy", "validation_macro_f1"] | None = None
    """The figure of validation that has to improve; by default the task's own. Among equals the lower loss wins."""
    patience: int = Field(2, ge=1)
    """Evaluations without improvement before the run stops."""


class TrainConfig(Config):
    """How the trainable parameters move. What is left out is derived from method, model and data, and printed."""

    epochs: int | None = Field(None, ge=1)
    """Passes over the training rows, at most; early stopping may end before."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; ends the run before `epochs` does. The schedule ends there too."""
    batch_size: int | None = Field(None, ge=1)
    """Examples of one optimizer step; by default at most 32, fewer where the data would give under 100 steps."""
    micro_batch_tokens: int | None = Field(None, ge=1)
    """Tokens of one forward pass; never changes the result beyond rounding. By default the engine chooses."""
    learning_rate: float | None = Field(None, gt=0)
    """Of the base or the method, at its highest; no effect on a new head."""
    head_learning_rate: float | None = Field(None, gt=0)
    """Learning rate of the new head; no effect on parameters of the base or the method."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the decay after the warm-up."""
    warmup_ratio: float = Field(0.06, ge=0, lt=1)
    """Share of all steps over which the learning rate rises from zero."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """`adamw-8bit` keeps the two moments of tensors of 4,096 values or more in eight bits a value: 2 bytes of memory
    instead of 8, nearly the same course (Dettmers et al. 2022, arXiv:2110.02861)."""
    weight_decay: float = Field(0.01, ge=0)
    """No effect on biases and normalisation weights."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Global gradient norm above which gradients are scaled down; null turns it off."""
    max_tokens: int | None = Field(None, ge=4)
    """Longest example in tokens. A longer text is cut at its end and counted; of a longer conversation data.too_long
    says what becomes. By default what the model can, to 512 for texts and 2048 for conversations."""
    on: Literal["answers", "last_answer", "all"] = "answers"
    """Which tokens of a conversation are learnt: every answer with its end token, only the last one, or every token."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """Weight of each label in the loss: `balanced` is inverse frequency; a mapping names labels, others weigh 1."""
    sampling: Literal["natural", "balanced"] = "natural"
    """`balanced` draws the rows of an epoch so that labels come equally often: of frequent ones some rows, rare ones
    several times; the steps are as many. `natural` takes every row once."""
    early_stopping: EarlyStoppingConfig | None = EarlyStoppingConfig()
    """null trains to the end and keeps the last weights."""
    evaluate_every: int | None = Field(None, ge=1)
    """Optimizer steps between evaluations on validation; by default once an epoch."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Optimizer steps between checkpoints, from which a training that was stopped goes on; null leaves it to the time.
    There is always one at the end."""
    checkpoint_minutes: float | None = Field(5.0, gt=0)
    """Minutes between checkpoints, at most; null leaves it to the steps."""
    keep: int = Field(2, ge=1)
    """Newest checkpoints that stay on disk. With one alone there is nothing to fall back on when it is damaged."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is not finite does: ends the run, or is left out and counted."""
    max_skipped_steps: int = Field(10, ge=1)
    """Steps that on_nonfinite: skip may leave out before the run ends all the same; no effect under `stop`."""
    model_dropout: float | None = Field(None, ge=0, lt=1)
    """Overrides every dropout probability of the base model; null keeps the model's own."""
    gradient_checkpointing: bool = False
    """Keep one hidden state per layer and compute the rest again: a third more time for much less memory."""
    trunk_cache: Literal["auto", "off"] = "auto"
    """`auto` runs the frozen layers below the lowest trained one once, where that pays, and keeps on disk what they
    give; no effect where the lowest layer learns. Never changes the result beyond rounding."""
    trunk_cache_gb: float = Field(8.0, gt=0)
    """Most room for such states in the runs folder, in 10^9 bytes, those of earlier trainings included (the oldest go
    first); no effect where there are none."""
    seed: int = Field(0, ge=0)
    """Fixes the head's first weights, the order of batches and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`bfloat16` multiplies in bfloat16 and keeps float32 weights; `auto` does so where the hardware is fast at it: on
    CUDA devices that have it, and for models of width 512 or more on processors with AVX512-BF16 or AMX."""
    frozen_weights: Literal["auto", "float32"] = "auto"
    """`auto` keeps frozen linear weights in bfloat16 where they are multiplied in bfloat16 anyway: half the memory, the
    same result bitwise. `float32` keeps all weights as they came. No effect where products are made in float32, on what
    learns, and on weights that a method reads by itself."""
