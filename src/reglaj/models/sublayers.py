"""Where the attention and the feed-forward of a layer end, by architecture: what is added to the residual there.

Needs no torch. Paths are of modules in a layer, a number among them counts in a list (-1 is the last). The end is the
last module before the sum with the residual: behind dropout, and behind the second norm where an architecture has one
on the way out (Gemma 2 and 3, OLMo 2).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sublayers:
    """stacks: paths of the lists of layers in a trunk, encoder first. attention, feed_forward: the modules whose output
    is added to the residual; an output that is a tuple has it first. feed_forward_start: the module whose first
    argument is what the feed-forward reads.
    """

    stacks: tuple[str, ...]
    attention: str
    feed_forward_start: str
    feed_forward: str


_BERT = Sublayers(
    stacks=("encoder.layer",),
    attention="attention.output.dropout",
    feed_forward_start="intermediate",
    feed_forward="output.dropout",
)
_LLAMA = Sublayers(stacks=("layers",), attention="self_attn", feed_forward_start="mlp", feed_forward="mlp")
_SANDWICH = Sublayers(
    stacks=("layers",),
    attention="post_attention_layernorm",
    feed_forward_start="mlp",
    feed_forward="post_feedforward_layernorm",
)
# Behind cross-attention there is nothing: see the departures of methods/adapter.py.
_T5 = Sublayers(
    stacks=("encoder.block", "decoder.block"),
    attention="layer.0.dropout",
    feed_forward_start="layer.-1.DenseReluDense",
    feed_forward="layer.-1.dropout",
)
SUBLAYERS: dict[str, Sublayers] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": Sublayers(
        stacks=("transformer.layer",), attention="attention", feed_forward_start="ffn", feed_forward="ffn"
    ),
    "gpt2": Sublayers(stacks=("h",), attention="attn", feed_forward_start="mlp", feed_forward="mlp"),
    "gpt_neox": Sublayers(
        stacks=("layers",),
        attention="post_attention_dropout",
        feed_forward_start="mlp",
        feed_forward="post_mlp_dropout",
    ),
    "phi3": Sublayers(
        stacks=("layers",),
        attention="resid_attn_dropout",
        feed_forward_start="mlp",
        feed_forward="resid_mlp_dropout",
    ),
    **dict.fromkeys(
        ("llama", "qwen2", "qwen3", "mistral", "gemma", "smollm3", "olmo", "granite", "starcoder2", "helium"), _LLAMA
    ),
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2"), _SANDWICH),
    **dict.fromkeys(("t5", "mt5"), _T5),
}
"""By `model_type`. tests/models/test_bottleneck.py runs each."""
