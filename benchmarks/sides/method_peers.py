"""The Hugging Face Trainer with plain PEFT, on the very work that a method of ours does.

The peer's model is a fresh base, around it what plain PEFT makes of the files that our untrained method has saved: so
both begin with the same values. Where PEFT has no such method, but the parameters that learn are the base's own, the
same ones learn in a plain model. Rows, their order, rates and decay are ours; padding and loop are the peer's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional as F

from benchmarks.measuring import Turn, timed, with_seconds
from benchmarks.sides.trl_trainer import StepClock
from reglaj.methods import METHODS
from reglaj.pipelines.assemble import Assembled
from reglaj.tasks.base import Encoded
from reglaj.training.fit import plan_for

IGNORED = -100


class NoPeerError(Exception):
    """Plain PEFT cannot do this work; the reason is the text."""


class PeftClassifier(torch.nn.Module):
    """A backbone under PEFT, the mean over real tokens, and the head of our learner with its values."""

    def __init__(self, backbone: Any, head: Any, virtual_tokens: int) -> None:
        super().__init__()
        self.backbone, self.dropout, self.linear, self.virtual_tokens = (
            backbone,
            head.dropout,
            head.linear,
            virtual_tokens,
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, **_: Any) -> Any:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        hidden = hidden[:, -input_ids.shape[1] :]  # PEFT gives the states of learnt tokens too
        mask = attention_mask[..., None].to(hidden.dtype)
        loss = F.cross_entropy(self.linear(self.dropout((hidden * mask).sum(1) / mask.sum(1))), labels)
        penalty = adalora_penalty(self.backbone)
        return {"loss": loss if penalty is None else loss + penalty}


def adalora_penalty(model: Any) -> torch.Tensor | None:
    """What PEFT's AdaLoRA adds to the loss of a model that has one, here added to ours (Zhang et al. 2023, eq. 4)."""
    config = next(iter(getattr(model, "peft_config", {}).values()), None)
    if config is None or config.peft_type.value != "ADALORA":
        return None
    terms = []
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = p @ p.T if "lora_A" in name else p.T @ p
            terms.append(torch.norm(product - torch.eye(len(product), device=p.device), p="fro"))
    return config.orth_reg_weight * torch.stack(terms).mean()


class Reallocate(transformers.TrainerCallback):
    """AdaLoRA's own call after each step of the optimizer, while there are gradients, as PEFT's documentation says."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.model.base_model.update_and_allocate(state.global_step + 1)


def peer_of(assembled: Assembled) -> Any:
    """The peer's backbone with everything that learns, at the values of ours. Raises `NoPeerError`."""
    learner, facts = assembled.learner, assembled.facts
    handle = learner.handle
    base: Any = assembled.task.load_model(
        facts, assembled.recipe.train.model_dropout, _storage(assembled), learner.engine.device
    ).to(learner.engine.device)
    with tempfile.TemporaryDirectory() as folder:
        handle.save(Path(folder))
        if (Path(folder) / "adapter_config.json").is_file():
            import peft

            encoder = getattr(handle, "encoder", None)
            if encoder is None:
                return peft.PeftModel.from_pretrained(base, folder, is_trainable=True)
            # PEFT goes on with no prompt from a file: what computes it is made anew, and gets our values.
            settings = peft.PeftConfig.from_pretrained(folder)
            settings.inference_mode = False
            model = peft.get_peft_model(base, settings)
            model.prompt_encoder["default"].load_state_dict(encoder.state_dict())
            return model
    ours = {name for group in handle.parameters().values() for name, _ in group}
    theirs = dict(base.named_parameters())
    if not ours <= theirs.keys():
        raise NoPeerError("plain PEFT has no such method")
    for name, parameter in theirs.items():
        parameter.requires_grad_(name in ours)
    return base


def _storage(assembled: Assembled) -> Any:
    return METHODS.get(assembled.recipe.method.name).storage(assembled.recipe.method)


def train(assembled: Assembled, encoded: Encoded, steps: int) -> Turn:
    """The Trainer's steps. assembled: an untrained learner of ours, whose head and values the peer takes."""
    config, learner = assembled.recipe.train, assembled.learner
    learner.handle.begin(steps)  # the files of some say how long a training is
    backbone = peer_of(assembled)
    is_chat = learner.backbone.get_output_embeddings() is not None
    model = backbone if is_chat else PeftClassifier(backbone, learner.head, learner.handle.capabilities.virtual_tokens)
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    expected = sum(t.numel() for t in learner.trained().values())
    if learnt != expected:
        raise NoPeerError(f"{learnt:,} parameters would learn in plain PEFT, {expected:,} do in ours")
    plan = plan_for(config, encoded.rows)
    order = [row for number in range(1, plan.total_steps + 1) for row in plan.rows(number)]
    on_cuda = learner.engine.device == "cuda"
    optimizer, clock = _optimizer(model, backbone, config), StepClock()
    callbacks: list[Any] = [clock]
    if getattr(backbone, "peft_type", None) == "ADALORA":
        callbacks.append(Reallocate(backbone))
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=config.batch_size,
            max_grad_norm=config.max_grad_norm,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not on_cuda,
            bf16=on_cuda and learner.engine.precision == "bfloat16",
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=[_item(encoded, row, is_chat) for row in order],
            data_collator=transformers.DataCollatorForTokenClassification(_padding(assembled.tokenizer))
            if is_chat
            else transformers.DataCollatorWithPadding(assembled.tokenizer),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
            processing_class=assembled.tokenizer,
            callbacks=callbacks,
        )
        trainer.log = lambda logs, *_, **__: trainer.state.log_history.append(logs)
        model.train()
        with timed() as region:
            trainer.train()
    losses = tuple(line["loss"] for line in trainer.state.log_history if "loss" in line)
    return Turn(region=with_seconds(region[0], clock.seconds), losses=losses, first_done=clock.first_done)


def _padding(tokenizer: Any) -> Any:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _item(encoded: Encoded, row: int, is_chat: bool) -> dict[str, Any]:
    ids = encoded.rows[row].tolist()
    if not is_chat:
        return {"input_ids": ids, "labels": int(encoded.targets[row])}
    start, end = encoded.rows.starts[row], encoded.rows.starts[row + 1]
    flags = encoded.targets.flags[start:end]
    labels = [token if is_learnt else IGNORED for token, is_learnt in zip(ids, flags, strict=True)]
    return {"input_ids": ids, "labels": labels}


def _optimizer(model: Any, backbone: Any, config: Any) -> torch.optim.AdamW:
    """AdamW as ours: the head has its own rate, vectors do not decay. The fused kernel, as the Trainer's default is."""
    own = {id(p) for p in backbone.parameters()}
    settings = [
        {"params": found, "lr": rate, "weight_decay": config.weight_decay * decays}
        for is_own, rate in ((True, config.learning_rate), (False, config.head_learning_rate))
        for decays in (True, False)
        if (
            found := [
                p
                for p in model.parameters()
                if p.requires_grad and (id(p) in own) == is_own and (p.ndim >= 2) == decays
            ]
        )
    ]
    return torch.optim.AdamW(settings, fused=True)
