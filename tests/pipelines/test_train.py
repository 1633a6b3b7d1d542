"""The whole path on a tiny model: what a run holds, that it is repeatable, and what stops it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import recipe_for, write_model, write_rows

import reglaj
from reglaj.core.config import dump_yaml
from reglaj.core.errors import EnvironmentFault, GateRefused, UserError
from reglaj.core.files import sha256_file
from reglaj.core.run_listing import list_runs
from reglaj.core.runs import locked, read_manifest, write_manifest
from reglaj.pipelines.predict import predict_file


@pytest.fixture(scope="module")
def finished(tiny_model, tiny_rows, tmp_path_factory):
    """A finished run of each method."""
    runs = tmp_path_factory.mktemp("runs")
    made = {}
    for method in ("full", "lora", "linear-probe"):
        recipe = recipe_for(tiny_model("bert"), tiny_rows, name=f"tiny-{method}", method={"name": method})
        made[method] = reglaj.train(recipe, runs=runs)
    return made


METHODS = pytest.mark.parametrize("method", ["full", "lora", "linear-probe"])


@METHODS
def test_a_run_explains_itself(finished, method):
    run = finished[method]
    held = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert {
        "recipe.yaml",
        "manifest.json",
        "metrics.jsonl",
        "report.json",
        "report.html",
        "README.md",
        "model/head.safetensors",
    } <= held
    assert not [name for name in held if name.endswith((".bin", ".pt", ".pkl", ".tmp"))]
    manifest = read_manifest(run.path)
    assert manifest["status"] == "finished"
    for name, digest in manifest["files"].items():
        assert sha256_file(run.path / name) == digest
    report = json.loads((run.path / "report.json").read_text())
    assert report == run.report
    data = report["data"]
    assert data["read"] == data["train"] + data["validation"] + data["test"] + sum(data["dropped"].values()) == 240
    assert report["weights_sha256"] == manifest["weights_sha256"]
    assert (
        report["test"]["accuracy"]["low"] <= report["test"]["accuracy"]["value"] <= report["test"]["accuracy"]["high"]
    )
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["event"] == "step"]
    assert steps == list(range(1, report["training"]["steps"] + 1))
    assert any(line["event"] == "evaluation" for line in lines)


def test_it_learns_and_beats_the_majority(tiny_model, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 600)
    settings = {"train": {"epochs": 6}, "evaluate": {"baselines": ["majority"]}}
    report = reglaj.train(recipe_for(tiny_model("bert"), rows, **settings), runs=tmp_path / "runs").report
    assert report["test"]["accuracy"]["value"] > 0.7
    difference = report["baselines"]["majority"]["accuracy"]["difference"]
    assert difference["low"] > 0 and difference["p"] < 0.05


@METHODS
def test_the_same_recipe_is_the_same_run_and_fresh_is_bitwise_equal(finished, method, tiny_model, tiny_rows):
    run = finished[method]
    recipe = recipe_for(tiny_model("bert"), tiny_rows, name=f"tiny-{method}", method={"name": method})
    again = reglaj.train(recipe, runs=run.path.parent)
    assert again.was_finished and again.path == run.path and again.report == run.report
    fresh = reglaj.train(recipe, runs=run.path.parent, fresh=True)
    assert fresh.path != run.path
    assert fresh.report["weights_sha256"] == run.report["weights_sha256"]
    assert fresh.report["test_openings"] > run.report["test_openings"]


@METHODS
def test_the_resolved_recipe_is_the_same_run_from_anywhere(finished, method, tmp_path, monkeypatch):
    run = finished[method]
    monkeypatch.chdir(tmp_path)
    again = reglaj.train(run.path / "recipe.yaml", runs=run.path.parent)
    assert again.was_finished and again.report["weights_sha256"] == run.report["weights_sha256"]


def test_a_run_without_its_report_is_made_again(tiny_model, tiny_rows, tmp_path):
    recipe = recipe_for(tiny_model("bert"), tiny_rows)
    first = reglaj.train(recipe, runs=tmp_path / "runs")
    (first.path / "report.json").unlink()
    again = reglaj.train(recipe, runs=tmp_path / "runs")
    assert again.path == first.path and again.report["weights_sha256"] == first.report["weights_sha256"]


@pytest.mark.parametrize("name", ["head.safetensors", "model.safetensors", "task.json", "tokenizer.json"])
def test_a_model_that_was_changed_is_not_served(finished, tmp_path, name):
    copy = Path(shutil.copytree(finished["full"].path, tmp_path / "copy"))
    content = bytearray((copy / "model" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged or was changed"):
        reglaj.load(copy)
    (copy / "model" / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        reglaj.load(copy)


def test_the_tokenizer_that_was_trained_with_is_the_one_that_answers(tiny_rows, tmp_path):
    base = write_model(tmp_path / "base")
    recipe = recipe_for(base, tiny_rows, method="full")
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    expected = _ours(run)
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["card"], vocabulary["lost"] = vocabulary["lost"], vocabulary["card"]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert _ours(run) == expected
    assert reglaj.train(recipe, runs=tmp_path / "runs").path != run.path


def test_long_texts_are_answered_from_their_beginning_and_said(finished):
    answers = reglaj.load(finished["full"].path).predict(["card " * 100, "card", "\ud800 card", None])
    assert answers[0]["cut"] is True and "cut" not in answers[1]
    assert "surrogate" in answers[2]["error"] and answers[3]["error"] == "empty text"


def test_a_user_error_while_loading_leaves_no_run(tiny_rows, tmp_path):
    base = write_model(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "quantumbert"}))
    with pytest.raises(UserError, match="cannot be loaded"):
        reglaj.train(recipe_for(base, tiny_rows), runs=tmp_path / "runs")
    assert list_runs(tmp_path / "runs") == []


def test_weights_out_of_range_after_the_last_step_stop_the_run(tiny_model, tiny_rows, tmp_path):
    huge = {"max_steps": 1, "learning_rate": 1e38, "head_learning_rate": 1e38, "warmup_ratio": 0}
    with pytest.raises(GateRefused, match=r"step 1: .* not finite"):
        reglaj.train(recipe_for(tiny_model("bert"), tiny_rows, train=huge), runs=tmp_path / "runs")
    assert not (tmp_path / "runs" / "tiny-001" / "model").exists()


def test_two_processes_at_one_moment_make_one_run(tiny_model, tiny_rows, tmp_path):
    recipe = tmp_path / "twin.yaml"
    recipe.write_text(dump_yaml(recipe_for(tiny_model("bert"), tiny_rows) | {"name": "twin"}))
    command = [sys.executable, "-m", "reglaj", "train", str(recipe), "--runs", str(tmp_path / "runs")]
    twins = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    codes = sorted(twin.wait(timeout=120) for twin in twins)
    assert codes in ([0, 4], [0, 0]), "one trains; the other is told so, or comes late and sees the result"
    assert [summary.path.name for summary in list_runs(tmp_path / "runs")] == ["twin-001"]


def test_predict_does_not_write_over_its_input(finished, tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text\nmy card\n")
    for output, why in (
        (path, "it is the input"),
        (tmp_path, "ends in"),
        (tmp_path / "no" / "x.csv", "does not exist"),
    ):
        with pytest.raises(UserError, match=why):
            predict_file(finished["full"].path, path, output)
    assert path.read_text() == "text\nmy card\n"


def test_another_value_is_another_run(finished, tiny_model, tiny_rows):
    recipe = recipe_for(tiny_model("bert"), tiny_rows, name="tiny-lora", method={"name": "lora"})
    other = reglaj.train(recipe, runs=finished["lora"].path.parent, train__seed=5)
    assert other.path != finished["lora"].path
    assert other.report["weights_sha256"] != finished["lora"].report["weights_sha256"]
    shutil.rmtree(other.path)


@METHODS
def test_a_run_predicts_the_same_from_another_place(finished, method, tmp_path):
    texts = ["my card is lost", "unde este taxa", "  ", "where is the transfer"]
    here = reglaj.load(finished[method].path).predict(texts)
    shutil.copytree(finished[method].path, tmp_path / "moved")
    assert reglaj.load(tmp_path / "moved").predict(texts) == here
    assert [answer["input"] for answer in here] == texts
    assert here[2] == {"input": "  ", "error": "empty text"}
    for answer in (here[0], here[1], here[3]):
        assert answer["prediction"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


@METHODS
def test_evaluating_again_gives_the_reported_figures_and_counts_the_opening(finished, method):
    run = finished[method]
    again = reglaj.evaluate(run.path)
    assert again["test"]["accuracy"] == run.report["test"]["accuracy"]
    assert again["test"]["log_loss"]["value"] == pytest.approx(run.report["test"]["log_loss"]["value"], abs=1e-6)
    assert again["test_openings"] == reglaj.evaluate(run.path)["test_openings"] - 1


def test_evaluating_a_file_accounts_for_its_rows(finished, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text(
        "text,label\nmy card is lost,cards\n,fees\nrefund the fee,fees\nonly one cell\nlate money,transfers\n"
    )
    result = reglaj.evaluate(finished["full"].path, data=path)
    assert result["weights_sha256"] == finished["full"].report["weights_sha256"] and result["baselines"] == {}
    assert result["data"] == {"read": 5, "test": 3, "dropped": {"empty_text": 1, "ragged": 1}}
    path.write_text("text,label\nmy card is lost,card\nrefund,fees\n")
    result = reglaj.evaluate(finished["full"].path, data=path)
    assert result["data"] == {"read": 2, "test": 1, "dropped": {"unknown_label": 1}}
    path.write_text("text,label\nmy card is lost,card\n")
    with pytest.raises(UserError, match="does not know card"):
        reglaj.evaluate(finished["full"].path, data=path)
    path.write_text("text\nmy card is lost\n")
    with pytest.raises(UserError, match="column for"):
        reglaj.evaluate(finished["full"].path, data=path)


def test_full_weights_open_in_plain_transformers_with_equal_logits(finished):
    from transformers import AutoModel, AutoTokenizer

    folder = finished["full"].path / "model"
    plain, tokenizer = (
        AutoModel.from_pretrained(folder, add_pooling_layer=False).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    assert _plain_probabilities(plain, tokenizer, folder) == pytest.approx(_ours(finished["full"]), abs=1e-5)


def test_the_adapter_opens_in_plain_peft_with_equal_logits(finished, tiny_model):
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    folder = finished["lora"].path / "model"
    base = AutoModel.from_pretrained(tiny_model("bert"), add_pooling_layer=False)
    plain = PeftModel.from_pretrained(base, folder).eval()
    assert _plain_probabilities(plain, AutoTokenizer.from_pretrained(folder), folder) == pytest.approx(
        _ours(finished["lora"]), abs=1e-5
    )


TEXT = "my card is lost, please help"


def _ours(run) -> list[float]:
    return list(reglaj.load(run.path).predict([TEXT])[0]["probabilities"].values())


def _plain_probabilities(model, tokenizer, folder: Path) -> list[float]:
    head = load_file(folder / "head.safetensors")
    with torch.no_grad():
        hidden = model(**tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False)).last_hidden_state
        scores = hidden.mean(1) @ head["linear.weight"].T + head["linear.bias"]
    return scores.softmax(-1)[0].tolist()


def test_a_full_model_answers_without_its_base_and_an_adapter_says_that_it_is_gone(tiny_rows, tmp_path):
    base = write_model(tmp_path / "base")
    runs = {
        m: reglaj.train(recipe_for(base, tiny_rows, name=m, method=m), runs=tmp_path / "runs") for m in ("full", "lora")
    }
    expected = _ours(runs["full"])
    tensors = load_file(base / "model.safetensors")
    save_file({k: t + 1 for k, t in tensors.items()}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="is not the one that lora-001 was trained on"):
        reglaj.load(runs["lora"].path)
    shutil.rmtree(base)
    assert _ours(runs["full"]) == expected
    with pytest.raises(UserError, match="no model folder"):
        reglaj.load(runs["lora"].path)


def test_a_planted_nan_stops_the_run_and_saves_nothing(tiny_rows, tmp_path):
    base = write_model(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    tensors[name][40:60] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GateRefused, match=r"step 1: the loss is not finite(?s:.*)rows.jsonl, line"):
        reglaj.train(recipe_for(base, tiny_rows), runs=tmp_path / "runs")
    run = tmp_path / "runs" / "tiny-001"
    assert not (run / "model").exists() and not (run / "report.json").exists()
    assert read_manifest(run)["status"] == "failed"
    assert "not finite" in read_manifest(run)["reason"]
    with pytest.raises(UserError, match="holds no model"):
        reglaj.load(run)


def test_an_unfinished_run_is_started_again_in_its_folder(tiny_model, tiny_rows, tmp_path):
    recipe = recipe_for(tiny_model("bert"), tiny_rows)
    first = reglaj.train(recipe, runs=tmp_path / "runs")
    manifest = json.loads((first.path / "manifest.json").read_text())
    (first.path / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    shutil.rmtree(first.path / "model")
    again = reglaj.train(recipe, runs=tmp_path / "runs")
    assert again.path == first.path and not again.was_finished
    assert again.report["weights_sha256"] == first.report["weights_sha256"]


def test_a_run_in_use_is_left_alone(tiny_model, tiny_rows, tmp_path):
    recipe = recipe_for(tiny_model("bert"), tiny_rows)
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    manifest = read_manifest(run.path)
    write_manifest(run.path, manifest | {"status": "running"})
    before = (run.path / "metrics.jsonl").read_bytes()
    with locked(run.path), pytest.raises(EnvironmentFault, match=f"in use by process {os.getpid()}"):
        reglaj.train(recipe, runs=tmp_path / "runs")
    assert (run.path / "metrics.jsonl").read_bytes() == before
    assert read_manifest(run.path)["status"] == "running"
    assert reglaj.train(recipe, runs=tmp_path / "runs").path == run.path


def test_early_stopping_keeps_the_best_weights(tiny_model, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 120, seed=1)
    settings = {"epochs": 40, "learning_rate": 2e-2, "schedule": "constant", "early_stopping": {"patience": 2}}
    run = reglaj.train(recipe_for(tiny_model("bert"), rows, train=settings), runs=tmp_path / "runs")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    evaluations = {
        line["step"]: (-line["validation_accuracy"], line["validation_loss"])
        for line in lines
        if line["event"] == "evaluation"
    }
    training = run.report["training"]
    assert training["stopped"] == "early"
    assert training["best_step"] == min(evaluations, key=lambda step: (*evaluations[step], step))
    assert training["best_step"] < training["steps"]
    off = reglaj.train(
        recipe_for(tiny_model("bert"), rows, train=settings | {"early_stopping": None, "epochs": 8}),
        runs=tmp_path / "runs",
    )
    assert off.report["training"]["stopped"] == "epochs"
    assert off.report["training"]["best_step"] == off.report["training"]["steps"]


def test_runs_are_listed(finished):
    summaries = list_runs(finished["full"].path.parent)
    assert {summary.method for summary in summaries} >= {"full", "lora", "linear-probe"}
    assert all("accuracy" in summary.headline for summary in summaries)
