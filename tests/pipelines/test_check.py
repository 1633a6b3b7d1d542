"""`check`: all problems of a recipe at once, before anything heavy is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reglaj.core.errors import EnvironmentFault, ReglajError, UserError
from reglaj.pipelines.check import check


@pytest.fixture
def recipe(tmp_path, tiny_model, tiny_rows) -> Path:
    file = tmp_path / "recipe.yaml"
    values = {
        "task": "classify",
        "model": str(tiny_model("bert")),
        "data": {"sources": [{"path": str(tiny_rows)}]},
        "method": {"name": "lora", "rank": 4},
    }
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def problems(recipe: Path, *overrides: str, **options) -> str:
    with pytest.raises(ReglajError) as caught:
        check(recipe, overrides, **options)
    assert isinstance(caught.value, UserError)
    return str(caught.value)


def csv(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return f"data.sources=[{{path: {path}}}]"


def test_a_good_recipe_is_summed_up_with_a_rough_forecast(recipe, tmp_path):
    found = check(recipe, runs=tmp_path / "runs")
    assert found["method"]["trainable_parameters"] > 0
    assert 0 < found["method"]["share"] < 1
    assert found["sources"][0]["rows_seen"] == 240 and found["sources"][0]["is_complete"]
    forecast = found["forecast"]
    assert forecast["is_rough"] and forecast["rows_are_exact"]
    assert forecast["train_rows"] == 192
    assert forecast["memory_bytes"] > 0 and forecast["train_seconds"] >= 0
    assert not (tmp_path / "runs").exists(), "checking writes nothing"


def test_problems_of_all_stages_come_together(recipe, tmp_path):
    message = problems(
        recipe,
        "train.epoch=3",
        "train.batch_size=none",
        "evaluate.confidence=2",
        "method.target_modules=q_lin",
        f"data.sources=[{{path: {tmp_path / 'gone.csv'}}}]",
    )
    assert "did you mean 'epochs'?" in message
    assert "train.batch_size" in message
    assert "evaluate.confidence" in message
    assert "did you mean 'query'?" in message
    assert "gone.csv" in message


def test_a_broken_section_does_not_hide_the_columns(recipe, tmp_path):
    source = csv(tmp_path / "t.csv", "text,lable\n" + "some text,a\nother text,b\n" * 5)
    message = problems(recipe, source, "task=clasify", "train.epochs=zero")
    assert "did you mean 'classify'?" in message
    message = problems(recipe, source, "train.epochs=zero")
    assert "did you mean 'lable'?" in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=loar"], "did you mean 'lora'?"),
        (["model=starter:minlim"], "did you mean 'minilm'?"),
        (["data.sources.0.path=starter:medicla"], "did you mean 'medical'?"),
        (["method.rank=99"], "rank 99"),
        (["method.layers=7"], "method.layers"),
        (["train.max_tokens=4000"], "train.max_tokens"),
        (["data.sources.0.columns={txt: text}"], "did you mean 'text'?"),
        (["data.sources.0.columns={text: txt}"], "did you mean 'text'?"),
        (["evaluate.baselines=[majorty]"], "did you mean 'majority'?"),
        (["train.epochs"], "dotted.key=value"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(recipe, overrides, expected):
    assert expected in problems(recipe, *overrides)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty"),
        ("text,label\n", "header"),
        ("text,label\n" + "".join(f"text {i},a\n" for i in range(9)), "1 label to learn"),
        ("text,label\n" + "".join(f" ,{'ab'[i % 2]}\n" for i in range(9)), "none of the 9 rows"),
        ("text,label\n" + "".join(f"text {i},label {i}\n" for i in range(9)), "too rare"),
    ],
)
def test_files_from_which_nothing_can_be_learnt(recipe, tmp_path, content, expected):
    assert expected in problems(recipe, csv(tmp_path / "t.csv", content))


def test_labels_that_are_left_out_or_unknown_are_remarked(recipe):
    found = check(recipe, ["data.exclude_labels=[fees, fess]"])
    assert any("'fess'" in note for note in found["notes"])
    assert "1 label to learn: 'cards'" in problems(recipe, "data.exclude_labels=[fees, transfers]")


def test_a_model_with_pickle_weights_is_refused(recipe, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "pickle" in problems(recipe, f"model={folder}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_runs_folder_that_cannot_be_written_is_the_machines_fault(recipe, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(EnvironmentFault):
        check(recipe, runs=locked / "runs")


def test_a_file_in_the_place_of_the_runs_folder(recipe, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(EnvironmentFault, match="not a folder"):
        check(recipe, runs=tmp_path / "runs")
    assert "epoch" in problems(recipe, "train.epoch=1", runs=tmp_path / "runs")


def test_checking_imports_no_torch(recipe):
    call = f"assert main(['check', {str(recipe)!r}]) == 0"
    code = f"import sys; from reglaj.cli import main; {call}; print(sorted(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = process.stdout.splitlines()[-1]
    assert "'reglaj.pipelines.check'" in modules
    assert not any(f"'{heavy}'" in modules for heavy in ("torch", "transformers", "peft", "sklearn", "scipy"))
