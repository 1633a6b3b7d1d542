"""The machinery of the benchmarks, on sides that do nothing: turns, agreement, floors, files, the limit's sum."""

import json
import time
from pathlib import Path

import pytest
from benchmarks import quick, results
from benchmarks.floors import FLOORS, judge
from benchmarks.limits import Trained, products
from benchmarks.measuring import OURS, Contest, Measured, Region, Side, Turn, measure, ratios, timed
from benchmarks.quick import Guard, verdict

from reglaj.models.inspect import ModelFacts


def side(seconds: float, losses: tuple[float, ...] = (1.0, 0.5), **more) -> Side:
    region = Region(seconds=seconds, processor_seconds=seconds, others_share=0.0)
    return Side(run=lambda steps: Turn(region=region, losses=losses), **more)


def contest(**sides: Side) -> Contest:
    return Contest(name="chat", title="a work", sides=sides, amount=2, warm_up=1, tolerance=1e-4)


def part_of(measured: Measured, **more) -> dict:
    machine = {"processor": "p", "cores": 2, "threads": 2, "torch_capability": "c", "memory_bytes": 2**30}
    machine["versions"] = dict.fromkeys(("torch", "transformers", "peft", "trl"), "1")
    head = {"title": "a work", "date": "today", "turns": 2, "load_average": [0, 0], "facts": {}, "machine": machine}
    return head | {"sides": measured.sides, "limits": measured.limits} | more


def test_ratios_are_taken_within_turns_and_slow_sides_leave_their_place_empty():
    kept = []
    measured = measure(contest(reglaj=side(1.0), peer=side(3.0), slow=side(9.0, most_turns=1)), 3, kept.append)
    assert ratios(measured.sides, "peer") == [3.0, 3.0, 3.0]
    assert measured.sides["slow"]["seconds"] == [9.0, None, None]
    assert ratios(measured.sides, "slow") == [9.0]
    assert len(kept) == 3


@pytest.mark.parametrize(
    ("losses", "agrees"), [((1.0, 0.50001), True), ((1.0, 0.6), False), ((1.0,), False), ((1.0, float("nan")), False)]
)
def test_a_speed_up_with_another_loss_does_not_count(losses, agrees):
    measured = measure(contest(**{OURS: side(1.0), "TRL padding_free": side(3.0, losses)}), 1, lambda _: None)
    assert measured.sides["TRL padding_free"]["agreement"]["agrees"] is agrees
    found = judge(FLOORS[0], {"chat": part_of(measured)})
    assert found.text == "aim reached" if agrees else found.text.startswith("no result")
    assert bool(found.values) is agrees


def test_a_block_is_timed_and_its_own_work_is_not_that_of_others():
    with timed() as region:
        started = time.process_time()
        while time.process_time() - started < 0.2:
            pass
    assert region[0].seconds >= 0.19
    assert 0.19 <= region[0].processor_seconds <= region[0].seconds * 1.2 + 0.1
    assert region[0].others_share is None or 0 <= region[0].others_share <= 1


def test_a_check_without_dropout_decides_and_turns_are_noted_beside():
    same = side(1.0).run
    drawn = side(2.0, (1.0, 0.7))
    measured = measure(
        contest(**{OURS: Side(run=side(1.0, (0.9, 0.8)).run, check=same), "peer": Side(run=drawn.run, check=same)}),
        1,
        lambda _: None,
    )
    assert measured.sides["peer"]["agreement"]["agrees"]
    assert "mean losses" in measured.sides["peer"]["turns_agree"]


def test_an_interrupted_run_does_not_replace_a_whole_one(tmp_path: Path):
    file = tmp_path / "results.json"
    part = part_of(measure(contest(**{OURS: side(1.0), "plain packed": side(2.0)}), 1, lambda _: None))
    results.put("chat", part | {"date": "first"}, is_finished=False, file=file)
    results.put("chat", part | {"date": "second"}, is_finished=True, file=file)
    results.put("chat", part | {"date": "third"}, is_finished=False, file=file)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["parts"]["chat"]["date"] == "second"
    assert found["unfinished"]["chat"]["date"] == "third"
    assert "**2.00**" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")


def test_the_table_goes_between_the_markers_and_nowhere_else(tmp_path: Path):
    file, readme = tmp_path / "results.json", tmp_path / "README.md"
    results.put("chat", part_of(measure(contest(reglaj=side(1.0)), 1, lambda _: None)), is_finished=True, file=file)
    readme.write_text(f"before\n{results.MARKERS[0]}\nof yesterday\n{results.MARKERS[1]}\nafter\n", encoding="utf-8")
    results.into_readme(readme, file)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "of yesterday" not in text and "| floor |" in text
    readme.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="speed-table"):
        results.into_readme(readme, file)


@pytest.mark.parametrize(
    ("seconds", "is_broken"), [((1.0, 1.0, 1.0), True), ((1.0, 1.0, 1.4), False), ((1.4, 1.4, 1.0), False)]
)
def test_the_guard_breaks_only_where_every_turn_is_below_the_floor(seconds, is_broken):
    sides = {OURS: {"seconds": [1.0] * 3}, "plain": {"seconds": list(seconds), "agreement": {"agrees": True}}}
    guard = Guard(contest(reglaj=side(1.0), plain=side(1.0)), "plain", 1.2, "it was promised")
    told = verdict(guard, Measured(sides=sides))
    assert bool(told) is is_broken
    assert ("it was promised" in told) is is_broken


def test_the_guards_exist_and_run_in_turns():
    found = quick.guards(1, 32)
    assert [guard.against for guard in found] == ["plain packed", "plain padded"]
    assert all(set(guard.contest.sides) == {OURS, guard.against} for guard in found)


def test_useful_products_leave_out_what_no_trained_layer_needs():
    tensors = {f"model.layers.{n}.self_attn.{name}_proj.weight": (8, 8) for n in (0, 1) for name in "qkvo"}
    facts = ModelFacts(
        name="m", folder=Path(), config={"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 50}, tensors=tensors
    )

    def count(trained: Trained, kind: str, inner: int = 8, outer: int = 8) -> int:
        return sum(
            times
            for product, times in products(facts, trained, has_vocabulary=True).items()
            if (product.kind, product.inner, product.outer) == (kind, inner, outer)
        )

    lora = Trained(rank=2, targets=("q_proj", "v_proj"))
    assert count(lora, "forward") == 8
    assert count(lora, "by input") == 5  # all four of layer 1, and o of layer 0, which leads back to q and v
    assert count(lora, "by weight") == 0
    assert count(lora, "by weight", 8, 2) == 4  # A of q and v in two layers
    assert count(lora, "by input", 2, 8) == 2  # x of layer 0 wants no gradient
    assert count(Trained(), "by weight") == count(Trained(), "by input") == 8
    assert count(lora, "forward", 8, 50) == count(lora, "by input", 50, 8) == 1


def test_every_floor_is_of_a_side_that_its_contest_has():
    from benchmarks.__main__ import WORKS
    from benchmarks.works.sizes import Sizes

    contests = {contest.name: contest for make in WORKS.values() for contest in make(Sizes())}
    for floor in FLOORS:
        if floor.what in ("speed", "memory"):
            assert floor.against in contests[floor.contest].sides
        elif floor.what == "limit":
            assert contests[floor.contest].limit is not None
