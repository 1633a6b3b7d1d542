"""A table of answers says as much as a document of them."""

from __future__ import annotations

import csv
import json

import pytest
from tests.tiny import recipe_for
from typer.testing import CliRunner

import reglaj
from reglaj.cli.app import app


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_json_of_a_written_file_has_every_probability(tiny_model, tiny_rows, tmp_path, ending):
    run = reglaj.train(recipe_for(tiny_model("bert"), tiny_rows), runs=tmp_path / "runs")
    (tmp_path / "in.csv").write_text("text\nmy card is lost\n  \nrefund the fee\n")
    output = tmp_path / f"out.{ending}"
    command = ["predict", str(run.path), "--input", str(tmp_path / "in.csv"), "--output", str(output), "--json"]
    answers = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    expected = reglaj.load(run.path).predict(["my card is lost", "  ", "refund the fee"])
    for answer, right, line in zip(answers, expected, (2, 3, 4), strict=True):
        assert answer["input"].strip() == right["input"].strip() and answer["line"] == line
        if "error" in right:
            assert answer["error"] == right["error"]
        else:
            assert answer["prediction"] == right["prediction"]
            assert answer["probabilities"] == pytest.approx(right["probabilities"])
    if ending in ("csv", "tsv"):
        with output.open(newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t" if ending == "tsv" else ","))
        assert float(row["probability"]) == pytest.approx(max(json.loads(row["probabilities"]).values()), abs=1e-6)
