"""What page and card say of groups of test rows and of the gate."""

import copy

import pytest
from tests.evaluation.sample_reports import HOSTILE, sample_report
from tests.evaluation.sample_slices import LONG, with_slices
from tests.evaluation.test_report import Page

from reglaj.evaluation.report import Document, write_report
from reglaj.evaluation.report.classification import CLASSIFICATION
from reglaj.evaluation.report.slices import slices_told, verdict


@pytest.fixture(scope="module")
def sample():
    report, extras = sample_report(3, 400, samples=100)
    return with_slices(report), extras


def written(folder, report, extras):
    write_report(folder, report, extras, CLASSIFICATION)
    page = (folder / "report.html").read_text(encoding="utf-8")
    return page, Page(page), (folder / "README.md").read_text(encoding="utf-8")


def told(report):
    return list(slices_told(Document(report=report, extras={}, plan=CLASSIFICATION)))


def test_every_group_and_rule_is_shown_with_the_numbers_of_the_document(sample, tmp_path):
    report, extras = sample
    _, page, card = written(tmp_path, report, extras)
    assert {"gate", "slices"} <= {a.get("id") for name, a in page.elements if name == "section"}
    shown = set(page.values)
    for one in report["slices"]["by"].values():
        for group in one["groups"]:
            for figure in group["figures"].values():
                assert {figure["value"], figure["low"], figure["high"], group["rows"]} <= shown
    for worst in report["slices"]["worst"].values():
        assert {worst["value"], worst["difference"]["value"], worst["rest"]["high"]} <= shown
    assert "Romanian (ro)" in page.text and "Chinese (zh)" in page.text and "(few)" in page.text
    assert "The gate failed: 2 of 3 rules" in page.text
    assert "no test row is in it; groups of language: en, ro, unsure, zh" in page.text
    assert page.text.count("holds") >= 2
    assert "Gate: **failed**." in card and "worst_slice.recall >= 0.97 fails" in card


def test_group_names_stay_text(sample, tmp_path):
    report, extras = sample
    worst = copy.deepcopy(report)
    for one in worst["slices"]["worst"].values():
        one |= {"slice": "department", "group": HOSTILE}
    text, page, card = written(tmp_path, worst, extras)
    assert "<script" not in text and "<script" not in card and "\n# h" not in card
    assert LONG[:79] in page.text


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "is_shown", "words"),
    [
        ("accuracy", -0.2, -0.31, -0.08, True, "It is worse by 20.0 points (8.0 to 31.0, for having been chosen among"),
        ("accuracy", -0.05, -0.2, 0.1, False, "the difference of 5.0 points (-10.0 to 20.0) may be chance"),
    ],
)
def test_the_worst_group_is_told_in_a_sentence(sample, metric, value, low, high, is_shown, words):
    report = copy.deepcopy(sample[0])
    report["slices"]["worst"][metric] |= {
        "difference": {"value": value, "low": low, "high": high}, "is_shown": is_shown,
    }  # fmt: skip
    assert words in " ".join(told(report)).replace("−", "-")


def test_where_no_group_is_large_enough_that_is_said(sample):
    report = copy.deepcopy(sample[0])
    report["slices"]["worst"] = {}
    assert told(report) == ["No slice has two groups of which one has 20 test rows, so none is judged."]
    assert told({"test": report["test"]}) == []


def test_the_mark_on_top_is_the_gate_where_it_failed(sample):
    report = copy.deepcopy(sample[0])
    document = Document(report=report, extras={}, plan=CLASSIFICATION)
    assert verdict(document) == ("bad", "The gate failed: 2 of 3 rules")
    for rule in report["gate"]["rules"]:
        rule["passed"] = True
    kind, words = verdict(document)
    assert kind == CLASSIFICATION.verdict(document)[0] and words.endswith("; the gate passed")
    del report["gate"]
    assert verdict(document) == CLASSIFICATION.verdict(document)
