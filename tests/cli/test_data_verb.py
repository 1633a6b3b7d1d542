"""`reglaj data`: findings at the top, the account below, one document under `--json`; and `--where`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.evaluation.sample_quality import sample_data, sample_quality

from reglaj.cli.page import Page
from reglaj.cli.quality import read_quality


@pytest.fixture
def recipe(tmp_path: Path, tickets: Path, tiny_model) -> Path:
    file = tmp_path / "tickets.yaml"
    file.write_text(
        f"task: classify\nmodel: {tiny_model('bert')}\n"
        "data: {sources: [{path: tickets.csv, columns: {text: message, label: intent}}]}\n"
    )
    return file


def test_the_account_alone_where_nothing_is_to_be_judged(reglaj, recipe):
    outcome = reglaj("data", recipe, "--no-quality")
    assert outcome.code == 0, outcome.err
    assert "rows read" in outcome.out and "36" in outcome.out and "in parts" in outcome.out
    assert "near-duplicates" in outcome.out and "leakage" in outcome.out
    document = reglaj("data", recipe, "--no-quality", "--json").document
    assert "quality" not in document and document["data"]["read"] == 36


def test_findings_page_and_document_are_one_report(reglaj, recipe):
    outcome = reglaj("data", recipe, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    folder = Path(document["folder"])
    assert (
        json.loads((folder / "quality.json").read_text(encoding="utf-8"))["findings"] == document["quality"]["findings"]
    )
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="findings"' in page and 'id="rows"' in page
    shown = reglaj("data", recipe).out
    assert str(folder / "report.html") in shown
    urgent = [one for one in document["quality"]["findings"] if one["level"] != "fine"]
    lines = shown.splitlines()
    # Two sentences about so few rows would be no report: the first line is the first finding.
    assert urgent and urgent[0]["title"] in lines[0]
    for one in urgent:
        assert one["title"] in shown and one["do"][:60] in shown
    assert shown.index(urgent[-1]["title"]) < shown.index("rows read")


def test_what_matters_most_stands_first_and_shows_rows(capsys):
    data, quality = sample_data(3), sample_quality(3)
    read_quality(Page(), data, quality)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "!! act   412 labels are likely wrong (4.7%)"
    assert lines[1] == "         do: Read the rows below; `data.clean: {label_errors: drop}` leaves them out."
    assert "Where is my new card" in lines[2] and "questions of the second quarter.csv:12" in lines[2]
    assert any(line.startswith(" ? look  70 records") for line in lines)
    assert "   fine  languages, encodings" in lines
    told = "\n".join(lines)
    assert "split" in told and "`stratified`" in told
    assert "repair: 23 records nearly repeat one in a later part (dropped from the earlier part" in told
    assert "70 records in 31 clusters (similarity 0.8 or more), the largest of 18; 3 inside another text" in told


def test_hostile_rows_do_nothing_to_the_terminal_and_the_test_part_is_not_quoted(capsys):
    data, quality = sample_data(3), sample_quality(3)
    quality["findings"][0]["examples"] = [
        {
            "text": "\x1b[2Jgone",
            "label": "\x1b[31mred",
            "note": "a\nb",
            "source": "x\x1b.csv",
            "line": 1,
            "part": "train",
        },
        {"text": "the secret", "part": "test"},
    ]
    read_quality(Page(), data, quality)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "gone" in out and "the secret" not in out


def test_nothing_is_printed_where_there_is_nothing_to_say(capsys):
    read_quality(Page(), {}, {})
    assert capsys.readouterr().out == ""


def test_where_leads_to_file_and_line(reglaj, recipe):
    outcome = reglaj("data", recipe, "--where", "THE PASSWORD does not work number 2")
    assert outcome.code == 0, outcome.err
    document = reglaj("data", recipe, "--where", "the password does not work number 2", "--json").document
    (one,) = document["records"]
    line = next(n for n, text in enumerate(Path("tickets.csv").read_text().splitlines(), 1) if "work number 2" in text)
    assert (one["source"], one["line"], document["found"]) == ("tickets.csv", line, {"exact": 1})
    assert f"tickets.csv:{line}  {one['bucket']}" in outcome.out
    assert ("password" in outcome.out.splitlines()[-3]) != (one["bucket"] == "test")
    many = reglaj("data", recipe, "--where", "number", "runs_do_not_matter=1")
    assert many.code == 2
    many = reglaj("data", recipe, "--where", "number")
    assert "36 with it inside their text" in many.out and "... and 16 more" in many.out


def test_where_finds_nothing(reglaj, recipe):
    visible = reglaj("data", recipe, "--where", "number", "--json").document["records"][0]
    outcome = reglaj("data", recipe, "--where", f"{visible['text']} zebra", "--json")
    assert outcome.code == 2
    (problem,) = outcome.problems
    assert visible["text"] in problem["remedy"] and "FILE:LINE" in problem["allowed"]
    assert reglaj("data", "no-such-run", "--where", "x").code == 2
    assert reglaj("data", recipe, "--where", "x", "--show", "2").code == 2
