"""What validation decided is saved with the model, read back bit by bit, and served."""

import json

import numpy as np
import pytest
from tests.tiny import recipe_for
from typer.testing import CliRunner

import reglaj
from reglaj.cli.app import app
from reglaj.core.errors import UserError
from reglaj.evaluation.config import EvaluateConfig
from reglaj.evaluation.metrics.calibration import softmax
from reglaj.tasks.classify import Classify
from reglaj.tasks.classify_calibration import load_calibration, settle

LABELS = ["a", "b", "c"]
BOTH = EvaluateConfig(thresholds="macro_f1", bootstrap_samples=200)


def drawn(num_rows, seed=0):
    """Scores of a model that is twice too sure, of classes of very different size."""
    generator = np.random.default_rng(seed)
    shares = np.array([0.88, 0.08, 0.04])
    truth = generator.choice(3, num_rows, p=shares)
    scores = generator.normal(size=(num_rows, 3))
    scores[np.arange(num_rows), truth] += 1.2
    return (2 * (scores * 1.2 + np.log(shares))).astype(np.float32), truth


def test_what_is_saved_gives_the_same_answers_bit_by_bit(tmp_path):
    found = settle(LABELS, *drawn(1500), BOTH, 1)
    assert found.temperature != 1 and found.offsets is not None
    Classify(LABELS, found).save(tmp_path)
    again = Classify.load(tmp_path).calibration
    scores, _ = drawn(200, seed=4)
    one, other = found.answers(scores), again.answers(scores)
    assert (one.probabilities == other.probabilities).all() and (one.classes == other.classes).all()
    assert found.threshold(0.1, 0.95) == again.threshold(0.1, 0.95) is not None
    np.testing.assert_array_equal(one.probabilities, softmax(scores, found.temperature))


def test_none_and_none_serve_the_scores_as_they_come(tmp_path):
    plain = settle(LABELS, *drawn(1500), EvaluateConfig(calibration="none", thresholds="none"), 1)
    assert plain.temperature == 1 and plain.offsets is None and plain.in_words() == []
    scores, _ = drawn(100)
    np.testing.assert_array_equal(plain.answers(scores).probabilities, softmax(scores))


def test_a_model_without_the_file_still_loads_and_one_with_half_of_it_does_not(tmp_path):
    Classify(LABELS).save(tmp_path)
    old = Classify.load(tmp_path)
    assert old.calibration is None
    with pytest.raises(UserError, match=r"without calibration\.json"):
        old.sure_enough(0.05, 0.95)
    (tmp_path / "calibration.json").write_text('{"temperature": 2.0}')
    with pytest.raises(UserError, match=r"calibration\.json cannot be read"):
        load_calibration(tmp_path, LABELS)


def test_an_impossible_target_says_what_is_possible():
    found = settle(LABELS, *drawn(300), EvaluateConfig(), 1)
    with pytest.raises(UserError) as refused:
        found.sure_enough(0.001, 0.95)
    (problem,) = refused.value.problems
    assert problem.allowed[0:2] == "0." and "which would then answer about" in problem.allowed
    lowest = float(problem.allowed.split()[0])
    assert 0 <= found.sure_enough(lowest, 0.95) < 1


@pytest.fixture(scope="module")
def run(tiny_model, tiny_rows, tmp_path_factory):
    recipe = recipe_for(tiny_model("bert"), tiny_rows, train={"epochs": 2, "learning_rate": 1e-3})
    recipe["evaluate"] = {"baselines": ["majority"], "bootstrap_samples": 100}
    return reglaj.train(recipe, runs=tmp_path_factory.mktemp("runs"), train__sampling="balanced")


def test_a_run_serves_what_it_reports(run):
    test = run.report["test"]
    assert "model/calibration.json" in json.loads((run.path / "manifest.json").read_text())["files"]
    assert test["calibration"]["validation"]["rows"] == run.report["data"]["validation"]
    assert test["abstention"]["curve"][-1]["coverage"] == 1.0
    assert test["abstention"]["curve"][-1]["error"]["value"] == pytest.approx(1 - test["accuracy"]["value"])
    again = reglaj.evaluate(run.path)["test"]
    assert again["abstention"] == test["abstention"] and again["log_loss"] == test["log_loss"]


def test_both_balances_at_once_are_refused(tiny_model, tiny_rows, tmp_path):
    recipe = recipe_for(tiny_model("bert"), tiny_rows, train={"sampling": "balanced", "class_weights": "balanced"})
    with pytest.raises(UserError, match="one of the two"):
        reglaj.train(recipe, runs=tmp_path)


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_file_says_what_was_withheld(run, tmp_path, ending):
    (tmp_path / "in.csv").write_text("text\nmy card is lost\n  \nrefund the fee\nzzz qqq\n")
    answers = reglaj.load(run.path).predict(["my card is lost", "refund the fee", "zzz qqq"])
    sure = sorted(max(answer["probabilities"].values()) for answer in answers)
    between = (sure[0] + sure[1]) / 2
    output = tmp_path / f"out.{ending}"
    command = ["predict", str(run.path), "--input", str(tmp_path / "in.csv"), "--output", str(output), "--json"]
    found = CliRunner().invoke(app, [*command, "--abstain-below", str(between)], catch_exceptions=False)
    told = json.loads(found.stdout)
    assert sum(answer.get("abstained", False) for answer in told) == 1 and "error" in told[1]
    for answer in (told[0], told[2], told[3]):
        assert (answer["prediction"] is None) == answer["abstained"] == (answer["confidence"] < between)
    assert "2 answered, 1 abstained, 1 refused" in found.stderr
    if ending == "csv":
        assert output.read_text().splitlines()[0] == "line,input,prediction,probability,probabilities,abstained,error"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--abstain-below", "1.5"], "above 0 and below 1"),
        (["--target-error", "5"], "--target-error 0.05"),
        (["--abstain-below", "0.5", "--target-error", "0.1"], "one of them"),
        (["--target-error", "0.0001"], "do not show"),
    ],
)
def test_what_cannot_be_asked_ends_with_2(run, asked, message):
    error = CliRunner().invoke(app, ["predict", str(run.path), "my card is lost", *asked]).exception
    assert isinstance(error, UserError) and error.exit_code == 2 and message in str(error)


def test_a_task_without_labels_has_neither_sampling_nor_calibration():
    from reglaj.pipelines.recipe import load_recipe

    recipe = {"task": "chat", "data": {"sources": [{"path": "x.jsonl"}]}}
    for section, key, value in (
        ("train", "sampling", "balanced"),
        ("evaluate", "calibration", "none"),
        ("evaluate", "thresholds", "macro_f1"),
    ):
        with pytest.raises(UserError, match="chat does not read it"):
            load_recipe(recipe | {section: {key: value}})
