"""Promise 4 for decoders: a packed step is its conversations alone, summed, and follows a plain Hugging Face loop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.tiny_chat import write_chat_model
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

from reglaj.data.batching import micro_batches
from reglaj.data.conversation import Conversation
from reglaj.models import packing
from reglaj.models.attention import ATTENTION_NAME, Texts, packed_attention
from reglaj.models.inspect import inspect_model
from reglaj.models.packing import TokenBatch, register_attention
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks.base import Encoded
from reglaj.tasks.chat import Chat
from reglaj.training.engine import choose_engine
from reglaj.training.fit import Supervision, build_step, plan_for
from reglaj.training.optimizer import schedule_factor, set_learning_rate

BUDGET = 10_000
WORDS = ["where", "is", "my", "card", "when", "will", "the", "money", "come", "unde", "este", "cardul", "și", "42"]
FAMILIES = ["llama", "qwen2", "mistral", "gpt2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: write_chat_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


class Rows:
    """Questions and answers of unequal length, as the data room gives them."""

    def __init__(self, count: int = 24, seed: int = 0) -> None:
        chance = random.Random(seed)

        def say(most: int) -> str:
            return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))

        self.pairs = [(say(12), say(16)) for _ in range(count)]
        turns = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in self.pairs]
        self.texts = [Conversation.of(turn).to_json() for turn in turns]
        self.ids = self.source = [f"row-{i}" for i in range(count)]
        self.line = list(range(1, count + 1))

    def column(self, role: str) -> list[str]:
        return self.texts


def learner_for(folder: Path, method: str, **train: Any) -> Assembled:
    settings = {
        "epochs": 5, "batch_size": 8, "learning_rate": 3e-3, "max_tokens": 256, "device": "cpu", "model_dropout": 0.0,
        "precision": "float32", **train,
    }  # fmt: skip
    recipe = load_recipe(
        {
            "task": "chat",
            "model": str(folder),
            "data": {"sources": [{"path": "none.jsonl"}]},
            "method": {"name": "lora", "rank": 8} if method == "lora" else {"name": method},
            "train": settings,
        }
    )
    return assemble(recipe, inspect_model(str(folder), folder=Path()), Chat())


def supervise(assembled: Assembled, rows: Rows) -> tuple[Supervision[Any], Encoded]:
    task, learner = assembled.task, assembled.learner
    encoded = task.encode(rows, assembled.tokenizer, assembled.max_tokens)
    supervision = Supervision(
        rows=encoded.rows,
        load=lambda numbers: task.batch(encoded, numbers, "cpu"),
        forward=lambda batch: task.outputs(learner, batch),
        objective=task.objective(assembled.recipe.train, encoded),
        row_places=task.row_places,
        cut_rows=task.cut_rows,
        measure=lambda: task.validate(learner, encoded),
    )
    return supervision, encoded


class Measured:
    """Loss and gradient of one step over all rows, cut in one way or another."""

    def __init__(
        self,
        folder: Path,
        method: str = "full",
        *,
        budget: int = BUDGET,
        layout: str | None = None,
        spare: bool = False,
        count: int = 24,
    ) -> None:
        assembled = learner_for(folder, method)
        learner = assembled.learner
        self.layout = learner.engine.layout
        if layout:
            learner.engine = choose_engine(assembled.recipe.train, "cpu", layout, "")  # type: ignore[arg-type]
        if method == "lora":  # B is zero at the start, and then A has no gradient: give it one
            with torch.no_grad():
                for key, parameter in learner.handle.parameters()["lora"]:
                    if "lora_B" in key:
                        parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
        if spare:
            learner.checkpoint_gradients()
        supervision, encoded = supervise(assembled, Rows(count))
        step = build_step(learner, supervision, assembled.recipe.train)
        groups = micro_batches(range(len(encoded)), encoded.rows.lengths, budget, is_padded=learner.engine.is_padded)
        self.num_groups, self.num_layer_passes = len(groups), 0
        layer = next(m for m in learner.backbone.modules() if isinstance(m, torch.nn.ModuleList))[0]
        # On a part of the layer: hooks of the layer itself stay outside of what checkpointing repeats.
        next(layer.children()).register_forward_pre_hook(self._count)
        learner.train()
        self.loss = step.accumulate([supervision.load(group) for group in groups]).item()
        named = [pair for group in learner.handle.parameters().values() for pair in group]
        self.gradients = {key: p.grad.clone() for key, p in named}

    def _count(self, *_: Any) -> None:
        self.num_layer_passes += 1

    def distance(self, other: Measured) -> tuple[float, float]:
        """The largest difference of loss and of any gradient."""
        assert self.gradients.keys() == other.gradients.keys() and self.gradients
        each = [(g - other.gradients[key]).abs().max().item() for key, g in self.gradients.items()]
        return abs(self.loss - other.loss), max(each)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_alone(folders: dict[str, Path], family: str, method: str) -> None:
    packed = Measured(folders[family], method)
    assert packed.layout == "packed-causal" and packed.num_groups == 1
    for budget, layout in [
        (1, None),
        (200, None),
        (1, "padded"),
        (BUDGET, "padded"),
        (BUDGET, "packed-masked-causal"),
    ]:
        other = Measured(folders[family], method, budget=budget, layout=layout)
        assert other.num_groups > 1 or budget == BUDGET
        loss, gradient = packed.distance(other)
        assert loss < 1e-5 and gradient < 1e-5, (budget, layout, loss, gradient)


@pytest.fixture(params=["attention", "positions"])
def leak(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packing gone wrong: texts see each other, or positions run on from one to the next."""

    def one_text(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        texts = Texts((query.shape[2],), query.device, is_causal=True)
        return packed_attention(module, query, key, value, mask, **{**options, "texts": texts})

    if request.param == "attention":
        AttentionInterface.register(ATTENTION_NAME, one_text)
        monkeypatch.setattr(packing, "register_attention", lambda: None)
    else:
        monkeypatch.setattr(TokenBatch, "positions", property(lambda batch: torch.arange(len(batch.input_ids))))
    yield
    register_attention()


def test_a_leak_would_be_seen(folders: dict[str, Path], leak: None) -> None:
    """The comparison above can fail, and by a wide margin."""
    # GPT-2 looks positions up; rotary ones are relative and would forgive the shift.
    leaking, alone = (Measured(folders["gpt2"], budget=b, layout="packed-causal", count=3) for b in (BUDGET, 1))
    loss, gradient = leaking.distance(alone)
    assert loss > 1e-3 and gradient > 1e-3


def test_the_engine_looks_before_it_packs(folders: dict[str, Path], leak: None) -> None:
    engine = learner_for(folders["gpt2"], "full").learner.engine
    assert engine.layout != "packed-causal" and "differs" in engine.layout_reason


@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpointing_gives_the_same_gradient(folders: dict[str, Path], method: str) -> None:
    plain, sparing = Measured(folders["llama"], method), Measured(folders["llama"], method, spare=True)
    assert (plain.num_layer_passes, sparing.num_layer_passes) == (1, 2), "each layer is computed again"
    assert max(plain.distance(sparing)) < 1e-6


class PlainSide:
    """transformers and PEFT by hand: padded, the template written out, torch's own unfused AdamW."""

    def __init__(self, folder: Path, assembled: Assembled) -> None:
        self.config = assembled.recipe.train
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if assembled.recipe.method.name == "lora":
            settings = peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, target_modules="all-linear")
            self.model = peft.get_peft_model(self.model, settings)
            ours = dict(assembled.learner.backbone.named_parameters())
            with torch.no_grad():
                for key, parameter in self.model.named_parameters():
                    if "lora_" in key:
                        parameter.copy_(ours[key.removeprefix("base_model.model.")])
        moving = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in moving if p.ndim >= 2], "weight_decay": self.config.weight_decay},
            {"params": [p for p in moving if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [
            {**g, "lr": self.config.learning_rate, "peak": self.config.learning_rate} for g in groups if g["params"]
        ]
        self.optimizer = torch.optim.AdamW(groups, fused=False, foreach=False)

    def _row(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        before = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        asked = self.tokenizer(before)["input_ids"]
        learnt = self.tokenizer(f"{answer}<|im_end|>")["input_ids"]
        return asked + learnt, [-100] * len(asked) + learnt

    def step(self, pairs: list[tuple[str, str]]) -> float:
        rows = [self._row(*pair) for pair in pairs]
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in rows])
        labels = torch.tensor([row + [-100] * (longest - len(row)) for _, row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in rows])
        loss = self.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        self.optimizer.zero_grad()
        loss.backward()
        moving = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(moving, self.config.max_grad_norm)
        self.optimizer.step()
        return loss.item()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_twenty_steps_equal_a_plain_loop(folders: dict[str, Path], method: str) -> None:
    """The same losses and, at the end, the same weights, cut into several packs a step."""
    assembled = learner_for(folders["llama"], method)
    learner, config, rows = assembled.learner, assembled.recipe.train, Rows(32)
    supervision, encoded = supervise(assembled, rows)
    plan = plan_for(config, encoded.rows)
    assert plan.total_steps == 20 and learner.engine.layout == "packed-causal"
    plain = PlainSide(folders["llama"], assembled)
    step = build_step(learner, supervision, config)
    before = {key: tensor.clone() for key, tensor in learner.trained().items()}
    learner.train()
    losses = []
    for number, chosen in enumerate((rows for epoch in range(plan.epochs) for rows in plan.steps(epoch)), start=1):
        factor = schedule_factor(number, plan.total_steps, config)
        set_learning_rate(step.optimizer, factor)
        set_learning_rate(plain.optimizer, factor)
        groups = micro_batches(chosen, plan.lengths, 250, is_padded=False)
        assert 1 < len(groups) < 8
        ours = step(number, [supervision.load(group) for group in groups])
        theirs = plain.step([rows.pairs[i] for i in chosen])
        assert ours.loss == pytest.approx(theirs, abs=1e-4), number
        losses.append(ours.loss)
    assert losses[-1] < losses[0] - 0.2, "something was learnt"
    expected = {key.removeprefix("base_model.model."): p for key, p in plain.model.named_parameters()}
    for key, tensor in learner.trained().items():
        assert torch.allclose(tensor, expected[key], atol=1e-4), key
        assert not torch.equal(tensor, before[key]), key
