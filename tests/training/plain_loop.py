"""What every fast path has to follow: transformers and PEFT by hand, padded, torch's own unfused AdamW, no dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from tests.training.choices import Training
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from reglaj.training.optimizer import set_learning_rate

_PREFIX = "base_model.model."


class PlainLoop:
    """The same model, rows and settings as a training that has not begun yet."""

    def __init__(self, folder: Path, training: Training) -> None:
        self.training, self.config = training, training.config
        self.base = self._with_updates(self._load(folder)).eval()
        self.heads: dict[str, nn.Module] = self._heads()
        groups = self._groups(self.base, self.config.learning_rate)
        for head in self.heads.values():
            groups += self._groups(head, self.config.head_learning_rate)
        self.optimizer = torch.optim.AdamW(groups, fused=False, foreach=False)

    def _load(self, folder: Path) -> Any:
        raise NotImplementedError

    def _heads(self) -> dict[str, nn.Module]:
        return {}

    def _loss(self, rows: list[int]) -> Tensor:
        """The mean over the rows' targets."""
        raise NotImplementedError

    def _with_updates(self, model: Any) -> Any:
        """PEFT's own LoRA with the first weights of ours, where that is the method."""
        learner = self.training.learner
        if self.training.assembled.recipe.method.name != "lora":
            return model
        ours = learner.backbone.peft_config["default"]
        is_part = getattr(self.training.assembled.recipe.method, "layers", None) is not None
        targets = ours.target_modules if is_part else "all-linear"
        settings = peft.LoraConfig(r=ours.r, lora_alpha=ours.lora_alpha, target_modules=targets)
        wrapped = peft.get_peft_model(model, settings)
        first = dict(learner.backbone.named_parameters())
        with torch.no_grad():
            for key, parameter in wrapped.named_parameters():
                if "lora_" in key:
                    parameter.copy_(first[key.removeprefix(_PREFIX)])
        return wrapped

    def _groups(self, module: nn.Module, rate: float | None) -> list[dict[str, Any]]:
        moving = [p for p in module.parameters() if p.requires_grad]
        is_matrix = [p.ndim >= 2 and 1 not in p.shape for p in moving]
        matrices = [p for p, is_one in zip(moving, is_matrix, strict=True) if is_one]
        decay = {"params": matrices, "weight_decay": self.config.weight_decay}
        plain = {"params": [p for p, is_one in zip(moving, is_matrix, strict=True) if not is_one], "weight_decay": 0.0}
        return [{**group, "lr": rate, "peak": rate} for group in (decay, plain) if group["params"]]

    def step(self, rows: list[int], factor: float) -> float:
        """One optimizer step on these rows at a share of the peak learning rates; the loss before it."""
        set_learning_rate(self.optimizer, factor)
        loss = self._loss(rows)
        self.optimizer.zero_grad()
        loss.backward()
        moving = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(moving, self.config.max_grad_norm)
        self.optimizer.step()
        return loss.item()

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter under our name for it."""
        base = {key.removeprefix(_PREFIX): p.detach() for key, p in self.base.named_parameters()}
        heads = {
            f"head.{name}.{k}": p.detach() for name, head in self.heads.items() for k, p in head.named_parameters()
        }
        return base | heads


class PlainChat(PlainLoop):
    """The template written out, the loss of transformers itself."""

    def _load(self, folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def _row(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        tokenizer = self.training.assembled.tokenizer
        asked = tokenizer(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        learnt = tokenizer(f"{answer}<|im_end|>")["input_ids"]
        return asked + learnt, [-100] * len(asked) + learnt

    def _loss(self, rows: list[int]) -> Tensor:
        pairs = [self._row(*self.training.rows.pairs[row]) for row in rows]
        longest = max(len(ids) for ids, _ in pairs)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in pairs])
        labels = torch.tensor([row + [-100] * (longest - len(row)) for _, row in pairs])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in pairs])
        loss: Tensor = self.base(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        return loss


class PlainClassifier(PlainLoop):
    """The mean over a text's tokens, and a linear layer."""

    def _load(self, folder: Path) -> Any:
        family = self.training.assembled.facts.model_type
        return AutoModel.from_pretrained(folder, **({"add_pooling_layer": False} if family == "bert" else {}))

    def _heads(self) -> dict[str, nn.Module]:
        ours = self.training.learner.head.linear
        head = nn.Linear(ours.in_features, ours.out_features)
        head.load_state_dict(ours.state_dict())
        return {"linear": head}

    def _loss(self, rows: list[int]) -> Tensor:
        texts = [self.training.rows.column("text")[row] for row in rows]
        tokens = self.training.assembled.tokenizer(texts, padding=True, return_tensors="pt")
        ids, attention = tokens["input_ids"], tokens["attention_mask"]
        hidden, mask = self.base(input_ids=ids, attention_mask=attention).last_hidden_state, attention[..., None]
        targets = torch.from_numpy(self.training.encoded.targets[rows])
        return nn.functional.cross_entropy(self.heads["linear"]((hidden * mask).sum(1) / mask.sum(1)), targets)


def plain_loop(folder: Path, training: Training) -> PlainLoop:
    """For whatever task the training has."""
    kind = PlainChat if training.assembled.recipe.task == "chat" else PlainClassifier
    return kind(folder, training)
