"""BitFit: the biases of the base learn, and nothing else of it (Ben Zaken et al. 2022).

Departures from the paper:
1. Where attention knows positions from the embeddings alone (BERT and its like), the biases of keys are left out. They
   move all scores of a query alike, which the softmax does not see: their gradient is rounding noise, and Adam, which
   divides by its size, would take full steps along it. With rotary positions they count, and are trained.
2. `norms` adds the weights of the norms: Llama, T5 and many others have no biases, or hardly any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import Capabilities, Handle, Method, by_size
from reglaj.methods.config import MethodConfig
from reglaj.methods.selective import SelectiveHandle, chosen_parameters, size, trunk_tensors

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

_RATES = ((60_000_000, 3e-3), (200_000_000, 1e-3), (float("inf"), 5e-4))
_KEYS = (".key.bias", ".k_lin.bias")
_KEYS_WITHOUT_EFFECT = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"})


class BitfitConfig(MethodConfig):
    """Biases only."""

    name: Literal["bitfit"] = "bitfit"
    norms: bool = False
    """true trains the weights of the norms too."""


@METHODS.register("bitfit")
class Bitfit(Method[BitfitConfig]):
    """A thousandth of the model."""

    config_type = BitfitConfig
    summary = "the biases of the model learn"
    citation = "Ben Zaken et al. 2022, arXiv:2106.10199"
    trains_base = True
    architectures = "with biases, such as BERT and GPT-2; others with norms: true"

    @classmethod
    def check(cls, config: BitfitConfig, facts: ModelFacts) -> list[Problem]:
        if _chosen(config, facts):
            return []
        can_norms = bool(_chosen(BitfitConfig(norms=True), facts))
        return [
            Problem(
                where="method.name",
                given=f"bitfit on {facts.name}, a {facts.model_type} model without biases",
                allowed="models with biases, such as BERT, DistilBERT and GPT-2"
                + (", or norms: true on this one" if can_norms else ""),
                why="bitfit trains biases, and there are none",
                remedy=(
                    "set norms: true, which trains the weights of its norms, or choose " if can_norms else "choose "
                )
                + "ia3 or lora with a low rank",
            )
        ]

    @classmethod
    def trainable_parameters(cls, config: BitfitConfig, facts: ModelFacts) -> int:
        return size(_chosen(config, facts))

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def attach(cls, config: BitfitConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        return SelectiveHandle(model, name, Capabilities(), chosen_parameters(model, _chosen(config, facts)), facts)


def _chosen(config: BitfitConfig, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """Vectors of the trunk: biases, and with `norms` the weights of norms, which alone are vectors beside them."""
    kinds = (".bias", ".weight") if config.norms else (".bias",)
    without_effect = _KEYS if _keys_have_no_effect(facts) else ()
    return {
        key: shape
        for key, shape in trunk_tensors(facts).items()
        if len(shape) == 1 and key.endswith(kinds) and not key.endswith(without_effect)
    }


def _keys_have_no_effect(facts: ModelFacts) -> bool:
    """Whether a bias of the keys moves all scores of a query alike."""
    positions = facts.config.get("position_embedding_type", "absolute")
    return facts.model_type in _KEYS_WITHOUT_EFFECT and positions == "absolute"
