"""Plain loops over transformers, PEFT and torch, as a careful user would write them: the steadiest denominator.

The better chat loop packs a step's rows into one, with a block mask through sdpa and the vocabulary projection at
learnt positions only. The others pad, as tutorials do. torch's `cross_entropy`, which both use, is 1.7e-5 nats below
the loss in float64 over these 49,152 words (torch 2.13 on a processor; ours and TRL's are within 5e-7 of it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks import conversations
from benchmarks.conversations import IGNORED, RATE, ChatWork, encoded, labelled, start_values
from benchmarks.measuring import Turn, timed


def adapted(work: ChatWork) -> Any:
    """SmolLM2 under PEFT's LoRA, as `get_peft_model` makes it."""
    import peft

    model = transformers.AutoModelForCausalLM.from_pretrained(
        conversations.facts().folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    model = peft.get_peft_model(model, lora_config(work))
    start_values({name: p for name, p in model.named_parameters() if p.requires_grad})
    return model.train()


def lora_config(work: ChatWork) -> Any:
    """The same update as ours in PEFT's words."""
    import peft

    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=work.rank,
        lora_alpha=work.alpha,
        lora_dropout=0.0,
        target_modules=list(work.targets) if work.targets else "all-linear",
    )


def packed_loss(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """Mean loss over learnt tokens of all rows, laid out as one row that a block mask keeps apart."""
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    input_ids = torch.tensor([token for ids, _ in rows for token in ids])[None]
    labels = torch.tensor([token for _, learnt in rows for token in learnt])
    position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    mask = ((owner[:, None] == owner[None, :]) & torch.ones(len(owner), len(owner), dtype=torch.bool).tril())[
        None, None
    ]
    causal = model.base_model.model  # PEFT's wrapper around the model with its output matrix
    hidden = causal.model(
        input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
    ).last_hidden_state[0]
    learnt = labels[1:] != IGNORED  # a row's first token is never learnt, so no row predicts into the next
    return F.cross_entropy(causal.lm_head(hidden[:-1][learnt]), labels[1:][learnt])


def padded_loss(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """The model's own loss over a padded batch."""
    input_ids = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True)
    labels = pad_sequence([torch.tensor(learnt) for _, learnt in rows], batch_first=True, padding_value=IGNORED)
    mask = pad_sequence([torch.ones(len(ids), dtype=torch.long) for ids, _ in rows], batch_first=True)
    loss: Tensor = model(input_ids=input_ids, attention_mask=mask, labels=labels, use_cache=False).loss
    return loss


def loop(parameters: list[Any], losses_of_steps: Sequence[Callable[[], Tensor]], optimizer: Any) -> Turn:
    """Forward, backward, clip, move; the loss of each step is read once."""
    losses: list[float] = []
    first_done = 0.0
    with timed() as region:
        for loss_of_step in losses_of_steps:
            loss = loss_of_step()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            first_done = first_done or time.time()
    return Turn(region=region[0], losses=tuple(losses), first_done=first_done)


def chat(work: ChatWork, rows: int, steps: int, loss: Callable[..., Tensor]) -> Turn:
    """The first `steps` of the work on so many rows."""
    data = encoded(rows)
    batches = [[labelled(data, row) for row in step] for step in conversations.order(work, data, steps)]
    model = adapted(work)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    return loop(parameters, [partial(loss, model, batch) for batch in batches], optimizer)
