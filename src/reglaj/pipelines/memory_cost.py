"""What a training keeps in memory, told from names and shapes alone: one part a line, in bytes.

What waits for the backward pass was counted with hooks on what autograd saves (MiniLM and SmolLM2, every method, four
texts of 64 tokens): the figures below are within a tenth of those counts.

Legend: D width, I width of the feed-forward part, V vocabulary, N heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reglaj.methods.base import Method
from reglaj.methods.config import MethodConfig
from reglaj.training.budget import FLOAT_BYTES

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

PROCESS_BYTES = 620_000_000
"""Python with torch, transformers and the data, before any model."""
MOMENT_BYTES = {"adamw": 8, "adamw-8bit": 2.05}
"""Of one value that learns; in eight bits with the exponents of the blocks."""
SCORES_BYTES = 75_000_000
"""The scores of one chunk of supervised positions (2^23 values), with what is made of them."""
ALLOCATOR = 1.8
"""What a processor's allocator holds for tensors that come and go, by what they are: between tensors that stay, it
keeps the places of those that went. On a CUDA device, torch's own gives them back."""
HOLES = 0.7
"""Of what every layer makes and lets go of under checkpointing, what is held between the inputs that stay."""
HALF = 0.65
"""Of the activations in float32, what they take where products are made in bfloat16: norms and sums stay float32."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A training, as far as it decides what it costs.

    tokens_per_row and longest_row: of a text, without virtual tokens. micro_batch_tokens: of one pass, with them. rows:
    all that are trained on, over all epochs. is_long: it lasts until a checkpoint is copied while it goes on.
    """

    device: str
    precision: str
    steps: int
    rows: int
    batch_size: int
    tokens_per_row: float
    longest_row: float
    micro_batch_tokens: float
    predicts_tokens: bool
    optimizer: str = "adamw"
    has_attention_dropout: bool = False
    is_computed_twice: bool = False
    narrows_frozen: bool = False
    keeps_best: bool = True
    is_long: bool = False


def memory_of(
    method: type[Method[MethodConfig]], config: MethodConfig, facts: ModelFacts, work: Work
) -> dict[str, int]:
    """Bytes of each part at the highest point of the training; of the device alone where that is a GPU."""
    trainable = method.trainable_parameters(config, facts)
    moments = MOMENT_BYTES[work.optimizer]
    own = 0 if method.trains_base else FLOAT_BYTES * trainable
    memory = {
        "weights": _weights(method, config, facts, work) + own,
        "gradients_and_optimizer": trainable * (FLOAT_BYTES + moments),
        "best_weights": FLOAT_BYTES * trainable * work.keeps_best,
        "activations": _activations(method, config, facts, work),
        "scores": _scores(facts, work, learns=_learns_vocabulary(method, config, facts)) if work.predicts_tokens else 0,
        # A copy, while the second thread writes it; that of a device lies in the machine's own memory.
        "checkpoints": trainable * (FLOAT_BYTES + moments) * (work.is_long and work.device == "cpu"),
        "process": PROCESS_BYTES if work.device == "cpu" else 0,
    }
    return {part: int(count) for part, count in memory.items()}


def loading_bytes(facts: ModelFacts, work: Work) -> int:
    """Bytes at the highest point of loading, before anything is made smaller: a file is mapped, not copied."""
    return 0 if work.device == "cuda" else PROCESS_BYTES + facts.parameters * FLOAT_BYTES


def frozen_linear(method: type[Method[MethodConfig]], config: MethodConfig, facts: ModelFacts) -> tuple[int, int]:
    """Values of the trunk's linear layers: those that stay frozen, and those that learn."""
    linear = sum(rows * columns for rows, columns in facts.linear_modules().values())
    learns = min(linear, method.trainable_parameters(config, facts)) if method.trains_base else 0
    return linear - learns, learns


def _weights(method: type[Method[MethodConfig]], config: MethodConfig, facts: ModelFacts, work: Work) -> float:
    frozen, learns = frozen_linear(method, config, facts)
    rest = (facts.parameters - frozen) * FLOAT_BYTES
    storage = method.storage(config)
    if storage is not None:
        return frozen * storage.bytes_per_value + rest
    if work.precision == "float32":
        return frozen * FLOAT_BYTES + rest
    if work.narrows_frozen:
        return frozen * 2 + learns * 2 + rest  # of what learns autocast keeps a copy beside it
    return frozen * (FLOAT_BYTES + 2) + learns * 2 + rest


def _activations(method: type[Method[MethodConfig]], config: MethodConfig, facts: ModelFacts, work: Work) -> float:
    """What waits for the backward pass, and what one layer needs at a time."""
    virtual = method.virtual_tokens(config, facts)
    # A row that is longer than a pass may be has a pass of its own.
    within = min(work.micro_batch_tokens, work.batch_size * (work.tokens_per_row + virtual))
    tokens = max(within, work.longest_row + virtual)
    layer = values_per_layer(facts, work)
    layers = facts.layers - method.lowest_trained_layer(config, facts)
    if not method.trainable_parameters(config, facts):
        values = layer
    elif work.is_computed_twice:
        values = layers * facts.hidden_size + 2 * layer + method.kept_values(config, facts) / max(1, layers)
        values += HOLES / ALLOCATOR * layers * layer * (work.device == "cpu")
    else:
        values = layers * layer + method.kept_values(config, facts) + layer
    held = ALLOCATOR if work.device == "cpu" else 1.0
    return held * tokens * values * FLOAT_BYTES * (1 if work.precision == "float32" else HALF)


def values_per_layer(facts: ModelFacts, work: Work) -> float:
    """Of one token, in a layer whose weights are frozen: queries, keys, values and answers of attention, what each norm
    reads, and what is not linear between the wide products.
    """
    width, wide = facts.hidden_size, feed_forward_width(facts)
    values = 6.0 * width + (3 * wide if is_gated(facts) else wide)
    if work.has_attention_dropout:
        # The probabilities of attention are there: as they were, which of them are dropped, and what is left.
        heads = next((int(facts.config[key]) for key in ("num_attention_heads", "n_heads") if key in facts.config), 0)
        values += 1.2 * width + 3 * heads * work.longest_row * (work.device == "cpu")
    return values


def _scores(facts: ModelFacts, work: Work, *, learns: bool) -> float:
    vocabulary = facts.config.get("vocab_size")
    matrix = facts.hidden_size * (vocabulary if isinstance(vocabulary, int) else 0)
    # The matrix once more: in bfloat16, or as oneDNN lays it out for its product.
    again = 2 if work.precision != "float32" else FLOAT_BYTES * (work.device == "cpu")
    # The gradient of the matrix by a chunk, and of the embeddings it is tied to, before they are added up.
    return SCORES_BYTES + again * matrix + 2 * FLOAT_BYTES * matrix * learns


def _learns_vocabulary(method: type[Method[MethodConfig]], config: MethodConfig, facts: ModelFacts) -> bool:
    frozen, _ = frozen_linear(method, config, facts)
    return method.trains_base and not frozen


def feed_forward_width(facts: ModelFacts) -> int:
    """I: the longest side of the linear layers."""
    return max((max(shape) for shape in facts.linear_modules().values()), default=4 * facts.hidden_size)


def is_gated(facts: ModelFacts) -> bool:
    """Whether the feed-forward part has a third matrix, as in Llama."""
    return any(module.endswith(("gate_proj", "wi_0")) for module in facts.linear_modules())
