"""A second run on the same texts reads their tokens, and learns the same from them. The test's are never kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import recipe_for
from tests.tiny_chat import write_chat_model, write_conversations

from reglaj.core.run_listing import TOKENS
from reglaj.models import token_cache
from reglaj.pipelines.remove import remove_runs
from reglaj.pipelines.train import train


def kept(runs: Path) -> dict[str, int]:
    """Name of each set, and when its tokens were written."""
    folders = [path for path in (runs / TOKENS).iterdir() if not path.name.startswith(".")]
    return {folder.name: (folder / token_cache.FILE).stat().st_mtime_ns for folder in folders}


@pytest.mark.parametrize("task", ["classify", "chat"])
def test_a_second_run_reads_what_the_first_has_tokenised(
    task: str,
    tiny_model: Callable[[str], Path],
    tiny_rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_cache, "LEAST_CHARACTERS", 0)
    runs, steps = tmp_path / "runs", {"max_steps": 2, "epochs": 1}
    if task == "classify":
        recipe = recipe_for(tiny_model("bert"), tiny_rows, train=steps)
    else:
        rows = write_conversations(tmp_path / "rows.jsonl", count=60)
        model = write_chat_model(tmp_path / "model")
        evaluate = {"generate_rows": 0}
        recipe = recipe_for(model, rows, task="chat", train=steps, evaluate=evaluate, method="lora")
        del recipe["train"]["head_learning_rate"]
    first = train(recipe, runs=runs)
    sets = kept(runs)
    assert len(sets) == 2  # train and validation
    second = train(recipe, runs=runs, fresh=True)
    assert kept(runs) == sets
    assert second.report["weights_sha256"] == first.report["weights_sha256"]
    assert second.report["cut_texts"] == first.report["cut_texts"]
    remove_runs([first.path.name], runs=runs)
    assert kept(runs) == sets
    remove_runs([second.path.name], runs=runs)
    assert kept(runs) == {}
