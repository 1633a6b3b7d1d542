"""The report of a model that answers: its words, its sections, what is hard to show, and the model card."""

import copy
import json

import pytest
import yaml
from tests.cache_model import TOPICS
from tests.evaluation.sample_answers import LONG, sample_answers
from tests.evaluation.sample_reports import HOSTILE
from tests.evaluation.test_report import FETCHING, Page

from reglaj.evaluation.report import write_report
from reglaj.evaluation.report.answers import ANSWERS

SECTIONS = {"baselines", "answers", "generated", "trained", "learning", "rows", "limits", "cost", "provenance"}


def written(folder, report, extras):
    write_report(folder, report, extras, ANSWERS)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    report, extras = sample_answers()
    folder = tmp_path_factory.mktemp("run")
    return folder, report, extras, written(folder, report, extras)


@pytest.fixture
def own(sample):
    """The same report and extras, free to be changed."""
    return copy.deepcopy(sample[1]), copy.deepcopy(sample[2])


def anchors(page):
    return {a["id"] for name, a in page.elements if name == "section"}


def test_page_has_every_section_and_fetches_nothing(sample):
    *_, page = sample
    assert anchors(page) == SECTIONS
    for name, attributes in page.elements:
        assert name not in {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
        assert all(value.startswith("#") for key, value in attributes.items() if key in FETCHING)


def numbers(value):
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield float(value)


def test_numbers_of_the_page_are_those_of_the_document(sample):
    _, report, extras, page = sample
    known = {0.0, *numbers(report), *numbers(extras)}
    assert len(page.values) > 100
    assert [value for value in page.values if value not in known] == []
    for scores in (report["test"], *report["baselines"].values()):
        for metric in ("loss", "perplexity", "rouge_l", "repetition"):
            assert {scores[metric][key] for key in ("value", "low", "high")} <= set(page.values)


def test_headline_says_loss_difference_and_how_answers_end(sample):
    _, report, _, page = sample
    loss, paired = report["test"]["loss"], report["baselines"]["untuned"]["loss"]["difference"]
    assert f"On 60 test rows its loss is {loss['value']:.3f} nats per answer token (95% interval" in page.text
    assert f"{-paired['value']:.3f} lower than the untouched model's" in page.text
    assert f"({-paired['high']:.3f} to {-paired['low']:.3f})" in page.text
    assert "60 of 60 generated answers ended by themselves within 512 tokens." in page.text


def differing(report, name, value, low, high):
    report["baselines"][name]["loss"]["difference"] = {"value": value, "low": low, "high": high, "p": 0.5}


@pytest.mark.parametrize(
    ("untuned", "few_shot", "told", "verdict"),
    [
        ((-0.4, -0.5, -0.3), (-0.2, -0.3, -0.1), "0.400 lower than", "Better than each of the 2 baselines"),
        ((-0.4, -0.5, -0.3), (-0.1, -0.3, 0.1), "may be chance.", "better than the untouched model with"),
        ((-0.4, -0.5, -0.3), (0.2, 0.1, 0.3), "which is better, without any", "The untouched model with examples is"),
        ((-0.1, -0.2, 0.0), (-0.2, -0.3, -0.1), "may be chance: its interval includes", "Not shown to be better"),
        ((0.3, 0.1, 0.5), (0.2, 0.1, 0.3), "worse than the untouched model's", "Worse than before training"),
    ],
)  # fmt: skip
def test_headline_and_verdict_are_honest(untuned, few_shot, told, verdict, own, tmp_path):
    report, extras = own
    differing(report, "untuned", *untuned)
    differing(report, "few_shot", *few_shot)
    page = written(tmp_path, report, extras)
    assert told in page.text
    assert verdict in page.text


def test_a_lower_loss_with_endless_answers_is_not_called_good(own, tmp_path):
    report, extras = own
    report["test"]["ends_by_itself"] = {"value": 0.25, "low": 0.15, "high": 0.37}
    page = written(tmp_path, report, extras)
    assert "15 of 60 generated answers ended by themselves" in page.text
    assert "A lower loss, but most answers do not end" in page.text


def test_the_best_loss_stands_first_and_lower_is_said_to_be_better(sample):
    _, report, _, page = sample
    text = page.text[page.text.index("Loss with 95% intervals") :]
    assert "Lower is better." in text and "model minus it (lower is better)" in text
    losses = {name: scores["loss"]["value"] for name, scores in report["baselines"].items()}
    assert losses["few_shot"] < losses["untuned"]
    places = {name: text.index(f"{scores['loss']['value']:.3f}") for name, scores in report["baselines"].items()}
    assert places["few_shot"] < places["untuned"]


def test_answers_stand_side_by_side_in_full_with_their_endings(sample):
    *_, page = sample
    for title in ("Reference", "Before training", "After training"):
        assert page.text.count(title) == 25
    assert "19 more rows" in page.text, "25 are shown"
    assert TOPICS["cardul"] in page.text and page.text.count("ended by itself") == 25 == page.text.count(
        "cut at the limit"
    )
    assert LONG.strip() in page.text and "All 2,040 characters" in page.text
    assert "system: Răspunde politicos." in page.text and "متى تصل بطاقتي؟" in page.text


def test_hostile_text_stays_text(sample):
    folder, _, _, page = sample
    assert "<script" not in (folder / "report.html").read_text(encoding="utf-8").casefold()
    assert page.text.count(HOSTILE.replace("\x00", "\ufffd")) >= 2


def test_what_was_trained_on_differs_by_more_than_colour(sample):
    folder, _, extras, page = sample
    marks = [a for name, a in page.elements if name == "mark"]
    assert len(marks) == sum(is_trained for pieces in extras["rendered"] for _, is_trained in pieces)
    style = (folder / "report.html").read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert "text-decoration: underline" in style.split(".trained {")[1].split("}")[0]
    assert "the loss counts these tokens" in page.text
    assert "Of 90,000 tokens, 35% were trained on." in page.text


def test_a_line_end_that_is_trained_on_is_seen(own, tmp_path):
    report, extras = own
    extras["rendered"] = [[["<user>\n", False], ["ok", True], ["\n", True]]]
    page = written(tmp_path, report, extras)
    assert "<user>\nok↵\n" in page.text


def test_limits_are_those_of_answers(sample):
    *_, page = sample
    assert "not whether an answer is true" in page.text and "Nothing here checks facts" in page.text
    assert "Only 60 answers were generated" in page.text
    assert "Where people would disagree about a label" not in page.text
    assert "Longer than 256 tokens and left out of the figures: 1 in test." in page.text


def test_without_baselines_or_answers_it_says_so(tmp_path):
    report, extras = sample_answers(baselines=(), generate_rows=0, samples=100)
    page = written(tmp_path, report, extras)
    assert "It was not compared with the untouched model" in page.text
    assert not {"baselines", "answers", "generated"} & anchors(page)
    assert "ended by" not in page.text


def test_a_bare_report_is_enough(own, tmp_path):
    report, _ = own
    page = written(tmp_path, {"task": "chat", "test": report["test"]}, {})
    assert {"generated", "limits"} <= anchors(page)


def test_a_broken_models_perplexity_is_shown_short(own, tmp_path):
    report, extras = own
    report["test"]["perplexity"] = {"value": 5.184705528587072e21, "low": 1e20, "high": 5.2e21}
    assert "5.18e+21" in written(tmp_path, report, extras).text


def test_the_card_says_how_to_talk_to_it_and_quotes_nothing(sample):
    folder, report, _, _ = sample
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "text-generation"
    assert "\nreglaj chat runs/sample-001\n" in card and 'reglaj predict runs/sample-001 "' in card
    assert "| | this model | untouched model | untouched model with examples |" in card.replace("|  |", "| |")
    assert f"| Loss | **{report['test']['loss']['value']:.3f} (" in card
    assert TOPICS["fee"][:20] not in card and "transfer" not in card.casefold()
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["task"] == "chat"
