"""Any other method of PEFT by the name that it has there: `method: {name: peft, type: OFT, ...}`.

The section's other keys are fields of that type's config in PEFT and are checked against PEFT's own source. What makes
a type unfit for this interface is said in `_REFUSED`; everything else is PEFT's layers, and its files.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict

from reglaj.core.errors import Problem, UserError, listing, nearest, user_error
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Capabilities, Handle, Method, by_size
from reglaj.methods.injected import WEIGHTS, InjectedHandle, inject, misfit, peft_task
from reglaj.methods.peft_types import peft_types
from reglaj.methods.targets import (
    Modules,
    TargetedConfig,
    chosen_modules,
    in_and_out,
    input_values,
    lowest_layer,
    names_in,
    peft_targets,
    target_problems,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from reglaj.models.inspect import ModelFacts

_BY_ITSELF = "it is a method by itself here, with defaults of its own"
_VIRTUAL = "packing, caches and checkpointing must know of its virtual tokens, and know of those of our methods only"
_OURS = {
    "LORA": ("lora", _BY_ITSELF), "ADALORA": ("adalora", _BY_ITSELF), "IA3": ("ia3", _BY_ITSELF),
    "VERA": ("vera", _BY_ITSELF), "PROMPT_TUNING": ("prompt", _VIRTUAL), "CPT": ("prompt", _VIRTUAL),
    "MULTITASK_PROMPT_TUNING": ("prompt", _VIRTUAL), "P_TUNING": ("p-tuning", _VIRTUAL),
    "PREFIX_TUNING": ("prefix", _VIRTUAL), "CARTRIDGE": ("prefix", _VIRTUAL), "ADAPTION_PROMPT": ("prefix", _VIRTUAL),
}  # fmt: skip
"""Types that have a method of ours, and why that is to be taken."""
_REFUSED = {
    "XLORA": "it mixes adapters that were trained before",
    "POLY": "its layers want to be told which task a row belongs to",
    "SHADOW": "it replaces the model's own forward pass",
    "TRAINABLE_TOKENS": "it learns rows of the embedding matrix and no layer",
    "FROD": "it keeps tensors outside of the model, where they cannot follow it to another device",
}
_KEYS_OF_OURS = {
    "peft_type": "`type` says it", "layers_to_transform": "use `layers`", "layers_pattern": "use `layers`",
    "exclude_modules": "name those that are meant in `target_modules`",
    "target_parameters": "name modules in `target_modules`", "trainable_token_indices": "embeddings stay as they are",
    "modules_to_save": "a new head learns anyway, and everything else of the base stays as it is",
    "bias": "the base's biases stay as they are; method bitfit trains them",
    "fan_in_fan_out": "the model's layers say it",
    "task_type": "the task says it", "inference_mode": "it is set while training and when saving",
    "auto_mapping": "nothing here reads it", "base_model_name_or_path": "`model` says it",
    "peft_version": "the installed PEFT says it", "revision": "`model` says it",
}  # fmt: skip
_NORMS = ("LN_TUNING",)
"""Types that stand in the place of normalisation layers, not beside linear ones."""
_UNMERGEABLE = ("LILY", "LN_TUNING", "BEFT")
_RATES = ((60_000_000, 2e-3), (200_000_000, 1e-3), (float("inf"), 5e-4))


class PeftMethodConfig(TargetedConfig):
    """Another method of PEFT. Beside these keys, every field of that type's config in PEFT."""

    model_config = ConfigDict(extra="allow")
    name: Literal["peft"] = "peft"
    type: str | None = None
    """What PEFT calls it, such as OFT, LOHA or BOFT. Has no default: a recipe names it."""


@METHODS.register("peft")
class Peft(Method[PeftMethodConfig]):
    """Layers of PEFT, unmerged while training. What is promised beyond that depends on the type."""

    config_type = PeftMethodConfig
    summary = "another method of PEFT, named by `type`"
    citation = "Mangrulkar et al. 2022, github.com/huggingface/peft; each type names its own paper there"
    starts_as_base = False
    is_mergeable = True
    served_by = (PEFT,)
    architectures = "as the type does; GPT-2 with few"

    @classmethod
    def check(cls, config: PeftMethodConfig, facts: ModelFacts) -> list[Problem]:
        """Types and keys by PEFT's source, without loading torch; what a value must be, PEFT says when it is loaded."""
        problems = _type_problems(config)
        if problems:
            return problems
        return [
            *_key_problems(config),
            *target_problems(config, facts, _among(config, facts)),
            *_architecture_problems(config, facts),
        ]

    @classmethod
    def trainable_parameters(cls, config: PeftMethodConfig, facts: ModelFacts) -> int:
        """Counted on a model without values, which loads torch: only PEFT's layers know what they learn."""
        return _counted(config, facts)[0]

    @classmethod
    def stored_bytes(cls, config: PeftMethodConfig, facts: ModelFacts) -> int:
        return _counted(config, facts)[1]

    @classmethod
    def lowest_trained_layer(cls, config: PeftMethodConfig, facts: ModelFacts) -> int:
        return lowest_layer(_chosen(config, facts), facts)

    @classmethod
    def kept_values(cls, config: PeftMethodConfig, facts: ModelFacts) -> int:
        return input_values(_chosen(config, facts), facts)

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def attach(cls, config: PeftMethodConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        _refuse_a_second(config, model)
        tuner = _inject(config, model, facts, name)
        capabilities = Capabilities(
            linear_deltas=_type(config) not in _UNMERGEABLE,
            lowest_trained_layer=cls.lowest_trained_layer(config, facts),
        )
        return PeftHandle(model, name, capabilities, tuner)


class PeftHandle(InjectedHandle):
    """Named layers of a type among others on the same base."""

    def load(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        super().load(folder)
        found = load_file(folder / WEIGHTS)  # a type that makes new tensors when it saves would have taken over nothing
        if not all(torch.equal(tensor.cpu(), found[key]) for key, tensor in self.tensors().items()):
            raise misfit(folder)


def _type(config: PeftMethodConfig) -> str:
    return (config.type or "").upper().replace("-", "_")


def _among(config: PeftMethodConfig, facts: ModelFacts) -> Modules | None:
    """What can be targeted: of some types normalisation layers, whose weights are the vectors of a model's files."""
    if _type(config) not in _NORMS:
        return None
    vectors = {key: shape for key, shape in facts.tensors.items() if key.endswith(".weight") and len(shape) == 1}
    return {key.removesuffix(".weight"): (shape[0], shape[0]) for key, shape in vectors.items()}


def _chosen(config: PeftMethodConfig, facts: ModelFacts) -> Modules:
    return chosen_modules(config, facts, _among(config, facts))


def _type_problems(config: PeftMethodConfig) -> list[Problem]:
    types = peft_types()
    usable = sorted(types.keys() - _OURS.keys() - _REFUSED.keys())
    kind = _type(config)
    if kind in usable:
        return []
    if kind in _OURS and kind in types:
        name, why = _OURS[kind]
        remedy = f"write `method: {name}`"
    elif kind in _REFUSED and kind in types:
        why, remedy = _REFUSED[kind], "choose among the types above"
    else:
        guess = nearest(kind, usable)
        why = "the section's other keys depend on it" if config.type is None else "the installed PEFT has no such type"
        remedy = f"did you mean {guess!r}?" if guess and config.type else "choose among the types above"
    given = "nothing" if config.type is None else repr(config.type)
    return [Problem(where="method.type", given=given, allowed=listing(usable, 60), why=why, remedy=remedy)]


def _key_problems(config: PeftMethodConfig) -> list[Problem]:
    kind = peft_types()[_type(config)]
    usable = sorted(kind.fields - _KEYS_OF_OURS.keys() - {"target_modules"})
    problems = []
    for key in config.model_extra or {}:
        if key in usable:
            continue
        known = key in kind.fields and key in _KEYS_OF_OURS
        guess = _meant(key, [*usable, "target_modules", "layers"])
        problems.append(
            Problem(
                where=f"method.{key}",
                given=f"unknown key {key!r}" if not known else f"the key {key!r}",
                allowed=listing(["type", "target_modules", "layers", *usable], 60),
                why=_KEYS_OF_OURS[key] if known else f"it is no field of {kind.name} in the installed PEFT",
                remedy="remove the key" if known or not guess else f"did you mean {guess!r}?",
            )
        )
    return problems


def _meant(key: str, usable: list[str]) -> str | None:
    """PEFT calls a rank `r`, and puts the method's name before what all of them have."""
    if key == "rank" and "r" in usable:
        return "r"
    return next((one for one in usable if one.endswith(f"_{key}")), None) or nearest(key, usable)


def _architecture_problems(config: PeftMethodConfig, facts: ModelFacts) -> list[Problem]:
    kind = peft_types()[_type(config)]
    is_transposed = in_and_out((1, 2), facts) == (1, 2)
    if not is_transposed or kind.takes_conv1d or kind.name in _NORMS:
        return []
    able = sorted(name for name, one in peft_types().items() if one.takes_conv1d and name not in {*_OURS, *_REFUSED})
    return [
        Problem(
            where="method.type",
            given=f"{kind.name} on {facts.name}",
            allowed=listing([*able, *_NORMS]),
            why=f"the matrices of a {facts.model_type} model lie the other way round, and PEFT's {kind.name} cannot",
            remedy="choose among the types above, or method lora",
        )
    ]


def _refuse_a_second(config: PeftMethodConfig, model: Any) -> None:
    """Layers that share tensors would get those of the second one."""
    others = [other for other in getattr(model, "peft_config", {}).values() if other.peft_type == _type(config)]
    if others and _tuner_class(config).uses_shared_state:
        raise user_error(
            f"two handles of type {_type(config)} on one model",
            allowed="one",
            why="its layers share tensors, which the second handle would replace",
            remedy="load the base once more for the second",
            where="method.type",
        )


def _tuner_class(config: PeftMethodConfig) -> Any:
    import peft
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return PEFT_TYPE_TO_TUNER_MAPPING[peft.PeftType(_type(config))]


def _inject(config: PeftMethodConfig, model: Any, facts: ModelFacts, name: str) -> Any:
    """PEFT's layers in the model. Raises `UserError` for what PEFT says of the values."""
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    chosen = _chosen(config, facts)
    targets = names_in(model, chosen) if _type(config) in _NORMS else peft_targets(model, chosen, facts)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(_type(config))]
    try:
        settings: Any = kind(
            task_type=peft_task(model),
            base_model_name_or_path=str(facts.folder),
            target_modules=targets,
            inference_mode=False,
            **(config.model_extra or {}),
        )
        with warnings.catch_warnings(record=True) as said:  # most are about what every layer of that type is like
            warnings.simplefilter("always")
            tuner = inject(settings, model, name)
        changed = [text for text in (str(one.message) for one in said) if "Adjusted" in text]
        written = [text for text in changed if any(f"`{key}`" in text for key in config.model_extra or {})]
        if written:  # PEFT would go on with another value than the recipe's
            raise ValueError(written[0])
        return tuner
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise user_error(
            f"{_type(config)} with these keys on {facts.name}",
            allowed="what PEFT takes",
            why=f"PEFT says: {str(error).strip() or type(error).__name__}",
            remedy="change the key that it speaks of; the fields are described in PEFT's documentation",
            where="method",
        ) from error


_COUNTS: dict[str, tuple[int, int]] = {}


def _counted(config: PeftMethodConfig, facts: ModelFacts) -> tuple[int, int]:
    """Trainable values and stored bytes, counted once for a config and a model."""
    key = f"{config.model_dump()} {facts.folder} {facts.parameters}"
    if key not in _COUNTS:
        _COUNTS[key] = _count(config, facts)
    return _COUNTS[key]


def _count(config: PeftMethodConfig, facts: ModelFacts) -> tuple[int, int]:
    import torch
    from transformers import AutoConfig, AutoModel

    from reglaj.models.loading import load_backbone

    read = AutoConfig.from_pretrained(facts.folder, trust_remote_code=False, local_files_only=True)
    try:
        with torch.device("meta"):
            model: Any = AutoModel.from_config(read)
            tuner = _inject(config, model, facts, "counted")
    except Exception:  # a type that begins from the weights' own values wants to see them; what is wrong is seen again
        model = load_backbone(facts)
        tuner = _inject(config, model, facts, "counted")
    handle = InjectedHandle(model, "counted", Capabilities(), tuner)
    return handle.count(), sum(tensor.numel() * tensor.element_size() for tensor in handle.tensors().values())
