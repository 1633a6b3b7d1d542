"""Several processes train one model: the same trajectory, the same evaluation, and one that dies ends all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import recipe_for
from tests.tiny_chat import write_chat_model, write_conversations

import reglaj
from reglaj.core.config import dump_yaml
from reglaj.core.errors import UserError
from reglaj.core.runs import read_manifest, write_manifest
from reglaj.training.checkpoints import list_checkpoints
from reglaj.training.parallel import Ranks, check_batch_size

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def write_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(dump_yaml(recipe), encoding="utf-8")
    return file


def command(recipe: Path, runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "reglaj", "train", str(recipe), "--runs", str(runs), *more]


def run(recipe: Path, runs: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(recipe, runs, *more),
        capture_output=True, text=True, env=ENVIRONMENT | environment, timeout=240, check=False,
    )  # fmt: skip


def planted(folder: Path, code: str) -> dict[str, str]:
    """The environment in which every Python runs this code first."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


def losses(path: Path) -> list[float]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "step"]


@pytest.fixture(scope="module")
def recipe(tiny_model, tiny_rows, tmp_path_factory) -> Path:
    """Twenty steps without dropout, a checkpoint after each; the gradient is not clipped, so that it can be read."""
    train = {
        "epochs": 5, "max_steps": 20, "batch_size": 16, "model_dropout": 0.0, "max_grad_norm": None,
        "checkpoint_every": 1, "keep": 20, "early_stopping": None,
    }  # fmt: skip
    baselines = {"evaluate": {"baselines": ["majority", "frozen_probe"], "bootstrap_samples": 100}}
    values = recipe_for(tiny_model("bert"), tiny_rows, train=train, **baselines)
    return write_recipe(tmp_path_factory.mktemp("recipe"), values)


@pytest.fixture(scope="module")
def single(recipe, tmp_path_factory) -> Path:
    return reglaj.train(recipe, runs=tmp_path_factory.mktemp("single")).path


@pytest.fixture(scope="module")
def double(recipe, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    runs = tmp_path_factory.mktemp("double")
    done = run(recipe, runs, "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    return runs / "tiny-001", json.loads(done.stdout)


def test_two_processes_take_the_same_steps(single, double):
    path, report = double
    assert report["engine"]["processes"] == 2
    assert losses(path) == pytest.approx(losses(single), abs=1e-4) and len(losses(path)) == 20
    first = [load_file(list_checkpoints(p / "checkpoints")[0] / "optimizer.safetensors") for p in (single, path)]
    gradients = {key: tensor * 10 for key, tensor in first[0].items() if key.endswith("exp_avg")}  # (1 - beta_1) g
    assert len(gradients) > 30
    worst = max(gradients, key=lambda key: (gradients[key] - first[1][key] * 10).abs().max().item())
    difference = (gradients[worst] - first[1][worst] * 10).abs().max().item()
    assert difference < 1e-5, worst
    last = [load_file(list_checkpoints(p / "checkpoints")[-1] / "weights.safetensors") for p in (single, path)]
    for key, tensor in last[0].items():
        if not key.endswith("key.bias"):  # no true gradient: Adam lets it wander
            assert torch.allclose(tensor, last[1][key], atol=1e-4), key


def test_evaluation_counts_each_row_once(single, double):
    ours = json.loads((single / "report.json").read_text())
    _, report = double
    assert report["data"] == ours["data"]
    for name in ("accuracy", "log_loss", "macro_f1"):
        assert report["test"][name]["value"] == pytest.approx(ours["test"][name]["value"], abs=1e-4)
        assert report["test_openings"] == 1, "two that read are one opening"
    probe = [one["baselines"]["frozen_probe"]["accuracy"]["value"] for one in (ours, report)]
    assert probe[0] == probe[1]


def test_a_run_begun_with_one_process_goes_on_with_two(recipe, single, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(single.parent, runs)
    path = runs / "tiny-001"
    for checkpoint in list_checkpoints(path / "checkpoints")[8:]:
        shutil.rmtree(checkpoint)
    shutil.rmtree(path / "model")
    write_manifest(path, read_manifest(path) | {"status": "running"})
    done = run(recipe, runs, "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["training"]["resumed_at"] == [8] and "begun with 1 processes, goes on with 2" in done.stderr
    assert losses(path) == pytest.approx(losses(single), abs=1e-4)


def test_a_process_that_dies_ends_all_and_the_run_goes_on(recipe, tmp_path):
    """With dropout: the random states of both processes are in the checkpoint."""
    dropout = ("--processes", "2", "train.model_dropout=0.2", "--json")
    launcher = subprocess.Popen(
        command(recipe, tmp_path / "runs", *dropout), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    path = tmp_path / "runs" / "tiny-001"
    while len(list_checkpoints(path / "checkpoints")) < 2:
        assert launcher.poll() is None
        time.sleep(0.01)
    children = children_of(launcher.pid)
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    told, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 4 == json.loads(told)["exit_code"], "one document"
    assert "process 1 of 2 was ended by SIGKILL" in said and "goes on" in said
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert read_manifest(path)["status"] == "interrupted"
    done = [json.loads(run(recipe, tmp_path / runs, *dropout).stdout) for runs in ("runs", "calm")]
    assert done[0]["training"]["resumed_at"] and not done[1]["training"]["resumed_at"]
    assert done[0]["weights_sha256"] == done[1]["weights_sha256"], "bitwise, with as many processes"


# The second process has less memory than the first, which has none for the copy of a checkpoint.
_SHORT_OF_MEMORY = """
import os
if os.environ.get("RANK"):
    import torch
    from reglaj.training import saving, step
    accumulate = step.Step.accumulate
    def short(self, batches, totals=None):
        if os.environ["RANK"] == "1" and any(len(batch.tokens.input_ids) > 40 for batch in batches):
            raise torch.OutOfMemoryError("planted")
        return accumulate(self, batches, totals)
    step.Step.accumulate = short
    def none(self, tensors):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    saving.Copies.take = none
"""


@pytest.mark.torture
def test_memory_that_one_process_lacks_is_less_for_all(recipe, single, tmp_path):
    done = run(recipe, tmp_path, "--processes", "2", "--json", **planted(tmp_path / "site", _SHORT_OF_MEMORY))
    assert done.returncode == 0, done.stderr
    report, ours = json.loads(done.stdout), json.loads((single / "report.json").read_text())
    assert report["engine"]["halved_at"][0] == 1 and report["engine"]["micro_batch_tokens"] <= 40
    assert losses(tmp_path / "tiny-001") == pytest.approx(losses(single), abs=1e-4)
    assert len(list_checkpoints(tmp_path / "tiny-001" / "checkpoints")) == 20
    for name in ("accuracy", "log_loss"):  # were the rows shared out unequally, some would count twice
        assert report["test"][name]["value"] == pytest.approx(ours["test"][name]["value"], abs=1e-4)


_SLOW_TO_SAVE = """
import os, time
from reglaj.pipelines import launch
launch.GRACE_S = launch.FIRST_GRACE_S = 0.2
if os.environ.get("RANK"):
    from reglaj.training import saving
    write = saving.write_checkpoint
    def slow(*arguments, **keys):
        time.sleep(1)
        write(*arguments, **keys)
    saving.write_checkpoint = slow
"""


@pytest.mark.torture
def test_an_interrupt_reaches_all_is_said_once_and_waits_for_the_disk(recipe, tmp_path):
    launcher = subprocess.Popen(
        command(recipe, tmp_path, "--processes", "2", "train.epochs=90", "train.max_steps=null", "--fresh"),
        stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL,
        env=ENVIRONMENT | planted(tmp_path / "site", _SLOW_TO_SAVE),
    )  # fmt: skip
    while len(list_checkpoints(tmp_path / "tiny-001" / "checkpoints")) < 2:
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130 and said.count("stopped by SIGINT; saved after step") == 1, said
    assert said.count("the same command without --fresh goes on") == 1 and "run it again" not in said
    step = int(said.partition("saved after step ")[2].split()[0])
    assert list_checkpoints(tmp_path / "tiny-001" / "checkpoints")[-1].name == f"step-{step:06d}"
    assert read_manifest(tmp_path / "tiny-001")["status"] == "interrupted"


def test_torchrun_with_other_files_in_one_process_is_refused(recipe, tmp_path):
    other = recipe.read_text().replace("batch_size: 16", "batch_size: 1")
    (tmp_path / "recipe0.yaml").write_text(recipe.read_text())
    (tmp_path / "recipe1.yaml").write_text(other)
    line = f"exec {sys.executable} -m reglaj train {tmp_path}/recipe$RANK.yaml --runs {tmp_path}/runs"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*launcher, "bash", "-c", line], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "process 1 of 2 sees the recipe otherwise" in done.stderr and "exitcode  : 2" in done.stderr
    assert not (tmp_path / "runs" / "tiny-001").exists()


def test_what_cannot_be_shared_out_is_refused(recipe, tmp_path):
    with pytest.raises(UserError, match="3 processes for steps of 2 examples"):
        check_batch_size(2, Ranks(size=3))
    done = run(recipe, tmp_path, "--processes", "2", "train.batch_size=1")
    assert done.returncode == 2 and done.stderr.count("2 processes for steps of 1 examples") == 1, "said once"
    assert not (tmp_path / "tiny-001").exists()
    for given, environment in (("0", {}), ("2", {"WORLD_SIZE": "2", "RANK": "0"})):
        done = subprocess.run(
            command(recipe, tmp_path, f"--processes={given}"), capture_output=True, text=True, check=False,
            env=ENVIRONMENT | environment, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2 and "--processes" in done.stderr, done.stderr


@pytest.mark.torture
def test_conversations_are_trained_and_answered_by_two(tmp_path):
    values = {
        "name": "talk",
        "task": "chat",
        "model": str(write_chat_model(tmp_path / "model")),
        "data": {"sources": [{"path": str(write_conversations(tmp_path / "rows.jsonl", 60))}]},
        "method": {"name": "lora", "rank": 4},
        "train": {"max_steps": 5, "batch_size": 8, "learning_rate": 1e-2},
        "evaluate": {"baselines": ["untuned"], "bootstrap_samples": 100, "generate_rows": 5, "max_new_tokens": 8},
    }
    recipe = write_recipe(tmp_path, values)
    one = reglaj.train(recipe, runs=tmp_path / "one").report
    done = run(recipe, tmp_path / "two", "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    assert two["test"].keys() == one["test"].keys() and two["test"]["generated_rows"] == 5
    for name in ("loss", "chrf"):
        assert two["test"][name]["value"] == pytest.approx(one["test"][name]["value"], abs=1e-3)


def children_of(process: int) -> list[int]:
    """By rank: the launcher starts them in that order."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
