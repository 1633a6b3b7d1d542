"""Promise 4: one loss, however a step is cut. Promise 6: nothing non-finite is applied."""

from __future__ import annotations

import pytest
import torch
from tests.training.harness import learner_for, some_rows, supervise

from reglaj.data.batching import micro_batches
from reglaj.models.packing import TokenBatch
from reglaj.training.engine import choose_engine
from reglaj.training.fit import build_step
from reglaj.training.optimizer import schedule_factor, set_learning_rate
from reglaj.training.step import NonFiniteError

WEIGHTS = {"cards": 3.0, "fees": 0.5}


def gradients(folder, method, budget, *, layout="packed", weights="none"):
    assembled = learner_for(folder, method, class_weights=weights)
    learner = assembled.learner
    learner.engine = choose_engine(assembled.recipe.train, "cpu", layout, "")
    if method == "lora":  # B is zero at the start, and then A has no gradient: give it one
        with torch.no_grad():
            for key, parameter in learner.handle.parameters()["lora"]:
                if "lora_B" in key:
                    parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    supervision, encoded = supervise(assembled, some_rows(24))
    step = build_step(learner, supervision, assembled.recipe.train)
    groups = micro_batches(range(24), encoded.rows.lengths, budget)
    loss = step.accumulate([supervision.load(group) for group in groups])
    named = [(k, p) for group in learner.handle.parameters().values() for k, p in group] + list(
        learner.head.named_parameters()
    )
    return len(groups), loss.item(), {key: p.grad.clone() for key, p in named}


@pytest.mark.parametrize("method", ["full", "lora", "linear-probe"])
@pytest.mark.parametrize("weights", ["none", "balanced", WEIGHTS], ids=["none", "balanced", "given"])
def test_loss_and_gradient_do_not_depend_on_micro_batches_or_padding(tiny_model, method, weights):
    folder = tiny_model("bert")
    whole, loss, expected = gradients(folder, method, 10_000, weights=weights)
    assert whole == 1
    for budget, layout in [(1, "packed"), (40, "packed"), (100, "packed"), (10_000, "padded"), (40, "padded")]:
        count, other_loss, others = gradients(folder, method, budget, layout=layout, weights=weights)
        assert count > 1 or budget == 10_000
        assert other_loss == pytest.approx(loss, abs=1e-5)
        for key, gradient in expected.items():
            assert torch.allclose(others[key], gradient, atol=1e-5), (budget, layout, key)


def test_a_wrong_division_would_be_seen(tiny_model):
    """The check above can fail: averaging the averages of unequal micro-batches is another loss."""
    assembled = learner_for(tiny_model("bert"))
    supervision, encoded = supervise(assembled, some_rows(24))
    groups = micro_batches(range(24), encoded.rows.lengths, 100)
    means = []
    for group in groups:
        batch = supervision.load(group)
        (term,) = supervision.objective.terms(supervision.forward(batch), batch).values()
        means.append(term.sum / len(group))
    _, loss, _ = gradients(tiny_model("bert"), "full", 10_000)
    assert abs(torch.stack(means).mean().item() - loss) > 1e-3


def test_the_schedule_rises_then_falls_to_zero_just_after_the_last_step():
    config = learner_config(warmup_ratio=0.1)
    factors = [schedule_factor(step, 100, config) for step in range(1, 101)]
    assert factors[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert factors[10] == 1.0 and factors[-1] == pytest.approx(1 / 90)
    assert [schedule_factor(s, 100, learner_config(schedule="constant", warmup_ratio=0)) for s in (1, 100)] == [
        1.0,
        1.0,
    ]
    assert schedule_factor(51, 100, learner_config(schedule="cosine", warmup_ratio=0)) == pytest.approx(0.5)


def learner_config(**keys):
    from reglaj.training.config import TrainConfig

    return TrainConfig(**keys)


def test_a_planted_nan_stops_the_step_names_the_row_and_moves_nothing(tiny_model):
    assembled = learner_for(tiny_model("bert"))
    supervision, encoded = supervise(assembled, some_rows(16))
    word = int(encoded.rows[3][1])
    with torch.no_grad():
        assembled.learner.backbone.get_input_embeddings().weight[word] = float("nan")
    guilty = [f"row-{i}" for i in range(16) if word in encoded.rows[i]]
    step = build_step(assembled.learner, supervision, assembled.recipe.train)
    before = {key: tensor.clone() for key, tensor in assembled.learner.trained().items()}
    with pytest.raises(NonFiniteError) as caught:
        step(7, [supervision.load(g) for g in micro_batches(range(16), encoded.rows.lengths, 64)])
    message = str(caught.value)
    assert "step 7" in message
    assert all(name in message for name in guilty[:8])
    innocent = next(f"row-{i}" for i in range(16) if f"row-{i}" not in guilty)
    assert f"{innocent}," not in message
    for key, tensor in assembled.learner.trained().items():
        assert torch.allclose(tensor, before[key], rtol=0, atol=0, equal_nan=True), key


def test_a_gradient_that_is_not_contiguous_is_applied_right(tiny_model):
    """The fused CPU AdamW scrambles such an update; the step must not let it."""
    assembled = learner_for(tiny_model("bert"), "linear-probe")
    supervision, _ = supervise(assembled, some_rows(8))
    step = build_step(assembled.learner, supervision, assembled.recipe.train)
    weight = assembled.learner.head.linear.weight
    original = step.accumulate

    def transposed(batches, totals):
        loss = original(batches, totals)
        weight.grad = weight.grad.t().contiguous().t()
        assert not weight.grad.is_contiguous()
        return loss

    batches = [supervision.load(list(range(8)))]
    expected = weight.detach().clone().requires_grad_()
    original(batches)
    expected.grad = weight.grad.clone()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in step.parameters]))
    expected.grad *= min(1.0, 1.0 / norm.item())
    step.optimizer.zero_grad()
    torch.optim.AdamW([expected], lr=1e-2, weight_decay=0.01, fused=False).step()
    step.accumulate = transposed
    set_learning_rate(step.optimizer, 1.0)
    step(1, batches)
    assert torch.allclose(weight, expected, atol=1e-6)


def test_token_batch_keeps_order():
    batch = TokenBatch.of([torch.tensor([5, 6]).numpy(), torch.tensor([7]).numpy()])
    assert batch.input_ids.tolist() == [5, 6, 7] and batch.lengths == (2, 1)
