"""The bottleneck against its equation, and its place in every architecture of the table."""

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


def equation(made: Any, activation: str, x: Tensor, beside: Tensor) -> Tensor:
    """r + s (f(x A' + a) B' + b), written out."""
    down, up = made.down, made.up
    active = ACTIVATIONS[activation](x @ down.weight.T + down.bias)
    return beside + made.scale * (active @ up.weight.T + up.bias)


@pytest.mark.parametrize("is_parallel", [False, True], ids=["series", "parallel"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_value_and_gradient_are_those_of_the_equation(activation: str, is_parallel: bool) -> None:
    made = bottleneck(activation)
    x, beside = texts(1, 2, TOKENS), texts(2, 2, TOKENS)
    wanted = [x, *made.parameters(), *([beside] if is_parallel else [])]
    values = [made(x, beside if is_parallel else None), equation(made, activation, x, beside if is_parallel else x)]
    found, expected = (torch.autograd.grad((value * texts(3, 2, TOKENS)).sum(), wanted) for value in values)
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(values[0], beside if is_parallel else x), "or nothing was compared"


@pytest.mark.parametrize("is_parallel", [False, True], ids=["series", "parallel"])
def test_half_precision(is_parallel: bool) -> None:
    """Under autocast, and over a base that lies in half precision: the equation as far as bfloat16 goes."""
    made = bottleneck(dtype=torch.float32)
    x, beside = texts(1, TOKENS, dtype=torch.bfloat16), texts(2, TOKENS, dtype=torch.bfloat16)
    wide = [values.detach().float() for values in (x, beside)]
    expected = equation(made, "gelu", wide[0], wide[1] if is_parallel else wide[0]).detach()
    with torch.autocast("cpu", torch.bfloat16):
        value = made(x, beside if is_parallel else None)
    assert value.dtype == torch.bfloat16
    value.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in made.parameters())
    outside = made(x, beside if is_parallel else None)
    assert outside.dtype == torch.bfloat16
    for found in (value, outside):
        assert (found.detach().float() - expected).abs().max() <= 0.03 * expected.abs().max()


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
