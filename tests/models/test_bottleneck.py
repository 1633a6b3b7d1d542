"""The fused bottleneck against the plain one, and its place in every architecture of the table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reglaj.models.bottleneck import ACTIVATIONS, Bottleneck, Placed, find
from reglaj.models.sublayers import SUBLAYERS

WIDTH, DIM, TOKENS = 12, 5, 7


def bottleneck(activation: str = "gelu", scale: float = 1.7, dropout: float = 0.0, dtype: Any = torch.float64) -> Any:
    """One that has learnt something."""
    torch.manual_seed(0)
    made = Bottleneck(WIDTH, DIM, activation, scale, dropout).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


def texts(seed: int, *shape: int, dtype: Any = torch.float64) -> Tensor:
    values = torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_(True)


def both(made: Any, is_parallel: bool) -> list[tuple[Tensor, list[Tensor]]]:
    """Value and gradients of x, of what stands beside it and of all parameters: plain, then fused."""
    results = []
    for is_fused in (False, True):
        made.is_fused = is_fused
        x, beside = texts(1, 2, TOKENS), texts(2, 2, TOKENS)
        value = made(x, beside) if is_parallel else made(x)
        wanted = [x, *made.parameters(), *([beside] if is_parallel else [])]
        results.append((value, list(torch.autograd.grad((value * texts(3, 2, TOKENS)).sum(), wanted))))
    return results


@pytest.mark.parametrize("is_parallel", [False, True], ids=["series", "parallel"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_fused_is_plain_in_value_and_gradient(activation: str, is_parallel: bool) -> None:
    made = bottleneck(activation)
    (plain, expected), (fused, found) = both(made, is_parallel)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(plain, texts(2 if is_parallel else 1, 2, TOKENS)), "or nothing was compared"


def test_gradient_is_the_numerical_one() -> None:
    made = bottleneck("silu")
    assert torch.autograd.gradcheck(lambda x, beside: made(x, beside), (texts(1, 3), texts(2, 3)))
    assert torch.autograd.gradcheck(lambda x: made(x), (texts(1, 3),))


def test_fused_is_plain_over_a_training_with_the_real_optimizer() -> None:
    """The fused AdamW of some versions goes astray on gradients that are not contiguous: no gradient shows that."""
    ends = []
    for is_fused in (False, True):
        made = bottleneck(dtype=torch.float32)
        made.is_fused = is_fused
        optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2, fused=True)
        for step in range(20):
            optimizer.zero_grad()
            made(texts(step, TOKENS, dtype=torch.float32)).pow(2).mean().backward()
            assert all(p.grad is not None and p.grad.is_contiguous() for p in made.parameters())
            optimizer.step()
        ends.append([p.detach() for p in made.parameters()])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_parallel", [False, True], ids=["series", "parallel"])
def test_half_precision(is_parallel: bool) -> None:
    """Under autocast, and over a base that lies in half precision: plain and fused agree as far as bfloat16 goes."""
    made, values = bottleneck(dtype=torch.float32), []
    for is_fused in (False, True):
        made.is_fused = is_fused
        x, beside = texts(1, TOKENS, dtype=torch.bfloat16), texts(2, TOKENS, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            value = made(x, beside if is_parallel else None)
        assert value.dtype == torch.bfloat16
        value.sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in made.parameters())
        values.append(value.detach().float())
    assert (values[0] - values[1]).abs().max() <= 0.02 * values[0].abs().max()
    outside = made(x, beside if is_parallel else None)
    assert outside.dtype == torch.bfloat16
    assert (outside.detach().float() - values[0]).abs().max() <= 0.03 * values[0].abs().max()


def test_dropout_is_of_a_training_only() -> None:
    made = bottleneck(dropout=0.5)
    x = texts(1, TOKENS)
    made.eval()
    assert torch.equal(made(x), made(x))
    made.train()
    assert not torch.equal(made(x), made(x))


def tiny(model_type: str) -> Any:
    """A stock model of two layers, by whatever names its config has for its sizes."""
    import transformers

    shape = {
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 32, "pad_token_id": 0,
    }  # fmt: skip
    if model_type in ("t5", "mt5"):
        shape = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    elif model_type == "distilbert":
        shape |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    elif "head_dim" in vars(transformers.AutoConfig.for_model(model_type)):
        shape |= {"num_key_value_heads": 2, "head_dim": 8}
    elif "num_key_value_heads" in vars(transformers.AutoConfig.for_model(model_type)):
        shape |= {"num_key_value_heads": 2}
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(model_type, **shape)).eval()


def look(model: Any) -> Tensor:
    ids = torch.tensor([[5, 9, 23, 41, 7]])
    extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    return model(input_ids=ids, **extra).last_hidden_state


@pytest.mark.parametrize("model_type", sorted(SUBLAYERS))
def test_every_architecture_of_the_table_has_its_places(model_type: str) -> None:
    """What is hung there is gone through once a layer and place, and moves the output; taken down it is no more."""
    model, where = tiny(model_type), SUBLAYERS[model_type]
    with torch.no_grad():
        base = look(model)
        for is_parallel, places in ((False, ("attention", "feed_forward")), (True, ("feed_forward",))):
            placed = Placed(model, f"one-{is_parallel}", where)
            layers = [range(2) for _ in where.stacks]
            placed.put(layers, lambda: Bottleneck(32, 4, "relu", 1.0, 0.0), places=places, is_parallel=is_parallel)
            assert len(placed.bottlenecks()) == 2 * len(where.stacks) * len(places)
            placed.hang()
            assert torch.equal(look(model), base), "zero at the start"
            ran: list[nn.Module] = []
            for one in placed.bottlenecks():
                one.up.weight.normal_()
                one.register_forward_hook(lambda module, args, output, ran=ran: ran.append(module))
            assert (look(model) - base).abs().max() > 1e-3
            assert sorted(map(id, ran)) == sorted(map(id, placed.bottlenecks())), "each once"
            placed.take_down()
            assert torch.equal(look(model), base)


@pytest.mark.parametrize("model_type", sorted(SUBLAYERS))
def test_what_is_added_at_a_place_goes_into_the_residual_as_it_is(model_type: str) -> None:
    """A constant added in the last layer reaches the sum with the residual: no norm and no product between."""
    model, where = tiny(model_type), SUBLAYERS[model_type]
    layer = find(model, where.stacks[-1])[-1]
    end = find(layer, where.feed_forward)
    seen: list[Tensor] = []
    layer.register_forward_hook(
        lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    shift = torch.linspace(-1, 1, 32)
    with torch.no_grad():
        look(model)
        end.register_forward_hook(lambda module, args, output: output + shift)
        look(model)
    apart = seen[1] - seen[0]
    if model_type in ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"):
        assert (apart.abs().amax(-1) > 1e-2).all()  # a norm follows the sum there, as in the papers
    else:
        torch.testing.assert_close(apart, shift.expand_as(apart), rtol=1e-4, atol=1e-5)
