"""The final evaluation of answers, on a model of counted words: small enough that every figure can be worked out."""

import json
import math

import numpy as np
import pytest
from tests.cache_model import TOPICS, VOCABULARY, CacheModel, conversation, conversations, examples

from reglaj.core.console import SILENT
from reglaj.core.errors import UserError
from reglaj.data.conversation import Conversation
from reglaj.evaluation.baselines.answering import in_front
from reglaj.evaluation.config import EvaluateConfig
from reglaj.tasks.answering import MOST_SHOWN, evaluate_answers

TEXT_FIGURES = ["rouge_l", "chrf", "exact_match", "token_f1", "length_ratio", "ends_by_itself", "repetition"]
TRAIN, TEST = conversations(60, seed=1), conversations(40, seed=2)


def evaluated(model=None, test=TEST, train=TRAIN, baselines=("untuned", "few_shot"), seed=3, **config):
    model = model or CacheModel(TRAIN)
    settings = EvaluateConfig(**{"bootstrap_samples": 200, "generate_rows": 8, **config})
    return evaluate_answers(
        examples(test), model.answerer(), settings, train=train, baselines=baselines, seed=seed, console=SILENT
    )


@pytest.fixture(scope="module")
def result():
    return evaluated()


def test_figures_come_in_the_form_of_report_json(result):
    figures = [name for name, value in result.test.items() if isinstance(value, dict)]
    assert figures == ["loss", "perplexity", *TEXT_FIGURES]
    for name in figures:
        one = result.test[name]
        assert set(one) == {"value", "low", "high"} and one["low"] <= one["value"] <= one["high"]
    tokens = sum(len(row.last_answer.split()) + 1 for row in TEST)
    assert {key: result.test[key] for key in ("rows", "answer_tokens", "generated_rows", "max_new_tokens")} == {
        "rows": 40, "answer_tokens": tokens, "generated_rows": 8, "max_new_tokens": 512,
    }  # fmt: skip
    for scores in result.baselines.values():
        assert list(scores) == figures
        assert all(set(one["difference"]) == {"value", "low", "high", "p"} for one in scores.values())
    json.dumps([result.test, result.baselines, result.mistakes, result.extras], allow_nan=False)


def test_loss_is_that_of_all_tokens_together(result):
    nll, tokens = CacheModel(TRAIN).token_losses(TEST, None)
    assert result.test["loss"]["value"] == pytest.approx(nll.sum() / tokens.sum())
    assert result.test["perplexity"]["value"] == pytest.approx(math.exp(nll.sum() / tokens.sum()))


def test_the_trained_model_is_seen_as_better_than_the_untouched_one(result):
    untuned = result.baselines["untuned"]
    loss = untuned["loss"]["difference"]
    assert loss["value"] == pytest.approx(result.test["loss"]["value"] - untuned["loss"]["value"])
    assert loss["high"] < 0 and loss["p"] < 0.05
    assert untuned["rouge_l"]["difference"]["low"] > 0
    assert untuned["ends_by_itself"]["value"] == 0 and untuned["ends_by_itself"]["difference"]["value"] == 1
    assert untuned["repetition"]["value"] > 0.5 > result.test["repetition"]["high"]
    assert result.test["exact_match"]["value"] >= 0.5 > untuned["exact_match"]["value"]


def test_a_model_that_learnt_the_wrong_thing_is_seen_as_worse():
    class Wrong(CacheModel):
        def _probability(self, word, seen, model):
            return 0.5 / VOCABULARY if model is None else super()._probability(word, seen, model)

    worse = evaluated(Wrong(TRAIN), generate_rows=0)
    for name in ("untuned", "few_shot"):
        assert worse.baselines[name]["loss"]["difference"]["low"] > 0


@pytest.mark.parametrize("on", ["answers", "last_answer"])
@pytest.mark.parametrize("system", [None, "Fii politicos."])
def test_examples_in_the_prompt_are_not_scored_themselves(on, system):
    """Only the test row's own tokens count, whatever the model is trained on: worked out word by word."""
    test = conversations(6, seed=5, system=system)
    model = CacheModel(TRAIN, on=on)
    result = evaluated(model, test=test, generate_rows=0)
    shown = few_shot_exchanges()
    direct = CacheModel(TRAIN, on="last_answer")
    nll, tokens = direct.token_losses([in_front(shown, row) for row in test], "untuned")
    assert result.baselines["few_shot"]["loss"]["value"] == pytest.approx(nll.sum() / tokens.sum())
    assert result.test["answer_tokens"] == tokens.sum()
    assert result.baselines["few_shot"]["loss"]["value"] < result.baselines["untuned"]["loss"]["value"]


def few_shot_exchanges(seed=3, count=3):
    from reglaj.core.seeding import derive_seed
    from reglaj.evaluation.baselines.answering import AnswerBaselineData
    from reglaj.evaluation.baselines.few_shot import FewShot

    return FewShot().exchanges(AnswerBaselineData(train=TRAIN, examples=count, seed=derive_seed(seed, "baselines")))


def test_several_answers_of_a_row_count_together():
    first, second = TEST[0].messages, TEST[1].messages
    rows = [Conversation.of([*first, *second]), TEST[2]]
    result = evaluated(test=rows, generate_rows=2)
    tokens = sum(len(row.last_answer.split()) + 1 for row in (TEST[0], TEST[1], TEST[2]))
    assert result.test["answer_tokens"] == tokens
    assert "few_shot" in result.baselines
    both = next(row for row in result.extras["answers"] if row["id"] == "r0")
    assert both["prompt"].startswith("user: ") and "\n\nassistant: " in both["prompt"]
    assert both["reference"] == TEST[1].last_answer


def test_where_the_context_is_short_there_are_fewer_examples_and_it_is_said():
    lengths = [len(CacheModel(TRAIN).pieces(in_front(few_shot_exchanges()[:1], row))) for row in TEST]
    result = evaluated(CacheModel(TRAIN, context=int(np.median(lengths))))
    assert result.test["rows"] == len(TEST), "a row as it is fits"
    fewer = [note for note in result.notes if "Not all fit into the context of 40 of 40 test rows" in note]
    assert len(fewer) == 1 and "those have 0 to 1" in fewer[0]
    assert result.baselines["few_shot"]["loss"]["value"] < result.baselines["untuned"]["loss"]["value"]


def test_rows_beyond_the_context_are_left_out_of_every_figure_and_counted():
    long = conversation("why? " * 300, TOPICS["fee"])
    result = evaluated(CacheModel(TRAIN, context=250), test=[*TEST[:5], long])
    plain = evaluated(CacheModel(TRAIN, context=250), test=TEST[:5])
    assert (result.test["rows"], result.cut) == (5, 1)
    assert result.test["loss"] == plain.test["loss"]
    assert any("1 test conversation is longer than the context" in note for note in result.notes)
    assert {row["id"] for row in result.extras["answers"]} <= {f"r{i}" for i in range(5)}


def test_nothing_to_score_is_the_users_to_know():
    with pytest.raises(UserError, match="none of the 40 test conversations can be scored"):
        evaluated(CacheModel(TRAIN, context=3))


def test_baselines_that_cannot_be_run_are_left_out():
    outside = evaluated(train=None)
    assert list(outside.baselines) == ["untuned"]
    assert evaluated(baselines=()).baselines == {}
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    tools = Conversation.of(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    )
    without = evaluated(train=[tools])
    assert list(without.baselines) == ["untuned"]
    assert any("no training conversation ends with a plain answer" in note for note in without.notes)
    with pytest.raises(ValueError, match="does not answer"):
        evaluated(baselines=("majority",))
    with pytest.raises(UserError, match="few_shot"):
        evaluated(baselines=("few_shots",))


def test_no_answers_are_generated_where_none_are_asked_for():
    model = CacheModel(TRAIN)
    result = evaluated(model, generate_rows=0)
    assert not [one for one in model.asked if one[0] == "answers"]
    assert not set(TEXT_FIGURES) & set(result.test) and result.test["generated_rows"] == 0
    assert result.mistakes == [] and result.extras["answers"] == []
    assert result.baselines["untuned"]["loss"]["difference"]["high"] < 0


def test_rows_side_by_side_are_drawn_by_the_seed_and_keep_their_order(result):
    rows = result.extras["answers"]
    assert rows == result.mistakes and len(rows) == 8
    places = [int(row["id"][1:]) for row in rows]
    assert places == sorted(places) and places != list(range(8))
    again, other = evaluated(), evaluated(seed=4)
    assert (again.test, again.baselines, again.mistakes) == (result.test, result.baselines, result.mistakes)
    assert [row["id"] for row in other.extras["answers"]] != [row["id"] for row in rows]
    nll, tokens = CacheModel(TRAIN).token_losses(TEST, None)
    for row, place in zip(rows, places, strict=True):
        assert row["prompt"] == TEST[place].questions[0] and row["reference"] == TEST[place].last_answer
        assert row["before"].startswith(row["prompt"]) and (row["ended"], row["ended_before"]) == ("end", "length")
        assert row["nll_per_token"] == pytest.approx(nll[place] / tokens[place])
        assert row["nll_per_token"] < row["nll_per_token_before"]
        assert (row["source"], row["line"]) == ("rows.jsonl", place + 1)
    assert evaluated(baselines=()).mistakes[0]["before"] is None
    assert len(evaluated(generate_rows=40).mistakes) == MOST_SHOWN


def test_what_was_trained_on_is_shown_in_pieces(result):
    shown = result.extras["rendered"]
    assert len(shown) == 3
    answers = {row.last_answer for row in TRAIN}
    for pieces in shown:
        learnt = "".join(text for text, is_learnt in pieces if is_learnt)
        assert learnt.removesuffix("<end>").strip() in answers
    broken = conversation("unrenderable", "x")
    assert len(evaluated(train=[*TRAIN[:2], broken], generate_rows=0, baselines=()).extras["rendered"]) == 2
