"""Two readings of the same sources, whatever the sources are called."""

from __future__ import annotations

import json
from pathlib import Path

import reglaj
from reglaj.core.config import dump_yaml
from reglaj.pipelines.verify.stored import Stored, contradictions, differences, read_stored


def read(recipe: Path | dict, store: Path) -> Stored:
    return read_stored(Path(reglaj.prepare_data(recipe, runs=store)["folder"]))


def test_sources_may_be_called_otherwise_when_they_are_read_again(tmp_path: Path) -> None:
    rows = [{"text": f"card {n}", "label": ("a", "b")[n % 2]} for n in range(40)]
    extra = [*rows[:2], {"text": "card 0", "label": "b"}, {"text": "", "label": "a"}]
    for name, some in (("x.jsonl", rows), ("x.jsonl.2", extra)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    sources = [{"path": "x.jsonl"}, {"path": "x.jsonl.2", "kind": "jsonl"}]
    recipe = {"name": "n", "task": "classify", "data": {"sources": sources}}
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe))
    first = read(tmp_path / "recipe.yaml", tmp_path / "one")
    names = {str(tmp_path / source["path"]): source["path"] for source in sources}
    absolute = recipe | {"data": {"sources": [{**s, "path": str(tmp_path / s["path"])} for s in sources]}}
    again = read(absolute, tmp_path / "two")
    assert any("of x.jsonl" in (record.reason or "") for record in first.records)
    assert first.records != again.records, "names are in the ledger and in its reasons"
    assert differences(first, again, names) == []
    assert contradictions(first, first.report) == []
    assert contradictions(first, first.report | {"read": 45}) == [
        "report.json says another read than the report of the data"
    ]
    seeded = read(absolute | {"data": {**absolute["data"], "split": {"seed": 5}}}, tmp_path / "three")
    assert any("the ledger has line" in told for told in differences(first, seeded, names))
