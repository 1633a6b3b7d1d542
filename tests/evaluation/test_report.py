import copy
import json
import re
from html.parser import HTMLParser

import pytest
import yaml
from tests.evaluation.sample_reports import HOSTILE, sample_report

from reglaj.core.errors import EnvironmentFault
from reglaj.evaluation.report import Block, Document, write_report
from reglaj.evaluation.report.classification import CLASSIFICATION
from reglaj.evaluation.report.markup import Markup, escaped, tag, with_code

FETCHING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}
SECTIONS = {
    "baselines",
    "classes",
    "confusion",
    "mistakes",
    "calibration",
    "rows",
    "learning",
    "limits",
    "cost",
    "provenance",
}
VOID = {"meta", "br", "hr", "col", "wbr"}


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, text, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open, self.values = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name == "data":
            self.values.append(float(dict(attributes)["value"]))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if not self.open or self.open[-1] != "style":
            self.words.append(text)

    @property
    def text(self):
        return "".join(self.words)


def written(tmp_path, report, extras):
    write_report(tmp_path, report, extras, CLASSIFICATION)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=[(20, 965), (77, 3080)], ids=["20", "77"])
def sample(request, tmp_path_factory):
    report, extras = sample_report(*request.param, samples=100)
    folder = tmp_path_factory.mktemp("run")
    return folder, report, extras, written(folder, report, extras)


def test_json_holds_the_document_as_it_is(sample):
    folder, report, *_ = sample
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report))


def test_page_has_every_section_with_a_title_and_a_link(sample):
    *_, page = sample
    anchors = {a["id"] for name, a in page.elements if name == "section"}
    assert anchors == SECTIONS
    links = {a["href"] for name, a in page.elements if name == "a"}
    assert {f"#{anchor}" for anchor in SECTIONS} <= links


def test_page_fetches_and_runs_nothing(sample):
    folder, _, _, page = sample
    for name, attributes in page.elements:
        assert name not in {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in FETCHING:
                assert value.startswith("#"), (name, key, value)
    style = re.search("<style>(.*?)</style>", (folder / "report.html").read_text(encoding="utf-8"), re.S)[1]
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_numbers_of_the_page_are_those_of_the_document(sample):
    _, report, extras, page = sample
    known = {0.0}

    def collect(value):
        if isinstance(value, dict):
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                collect(inner)
        elif isinstance(value, int | float):
            known.add(float(value))

    collect(report)
    collect(extras)
    assert len(page.values) > 200
    assert [value for value in page.values if value not in known] == []
    for scores in (report["test"], *report["baselines"].values()):
        for metric in ("accuracy", "macro_f1", "log_loss"):
            assert {scores[metric][key] for key in ("value", "low", "high")} <= set(page.values)


def test_headline_says_figure_interval_baseline_and_difference(sample):
    _, report, _, page = sample
    accuracy = report["test"]["accuracy"]
    assert f"it is right {accuracy['value']:.1%} of the time" in page.text
    assert f"(95% interval {accuracy['low'] * 100:.1f}–{accuracy['high'] * 100:.1f}%)" in page.text
    difference = report["baselines"]["tfidf_char"]["accuracy"]["difference"]
    assert f"character TF-IDF, is right {report['baselines']['tfidf_char']['accuracy']['value']:.1%}" in page.text
    assert f"the difference is {difference['value'] * 100:.1f} points" in page.text


def test_hostile_text_stays_text(sample):
    folder, _, _, page = sample
    assert "<script" not in (folder / "report.html").read_text(encoding="utf-8").casefold()
    assert HOSTILE.replace("\x00", "\ufffd").rstrip() in page.text


@pytest.mark.parametrize("where", ["label", "name", "baseline", "reason", "licence", "software", "recipe"])
def test_hostile_names_stay_text_wherever_they_stand(where, tmp_path):
    report, extras = sample_report(3, 200, samples=100)
    evil = "<script>alert(1)</script>|`x`\n# h"
    if where == "label":
        report["test"]["per_class"] = {f"{evil}{i}": v for i, v in enumerate(report["test"]["per_class"].values())}
    elif where == "name":
        report["name"] = report["run"] = report["method"] = report["model"] = evil
    elif where == "baseline":
        report["baselines"][evil] = report["baselines"].pop("tfidf_char")
    elif where == "reason":
        report["data"]["dropped"][evil] = report["data"]["dropped"].pop("ragged")
    elif where == "licence":
        extras["licences"][0] = {"name": evil, "licence": evil, "source": evil}
    elif where == "software":
        extras["software"][evil] = evil
    else:
        extras["recipe_yaml"] = extras["derived"]["x"] = evil
    page = written(tmp_path, report, extras)
    assert "script" not in {name for name, _ in page.elements}
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    card = (tmp_path / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]
    outside = re.sub("```.*?```", "", card, flags=re.S)
    assert "<script" not in outside
    assert "\n# h" not in card


def change_accuracy_difference(report, value, low, high):
    for scores in report["baselines"].values():
        scores["accuracy"]["difference"] = {"value": value, "low": low, "high": high, "p": 0.5}


@pytest.mark.parametrize(
    ("difference", "told", "verdict"),
    [
        ((0.036, 0.007, 0.066), "the difference is 3.6 points (0.7 to 6.6).", "Better than each of the 4 baselines"),
        ((0.010, -0.012, 0.031), "+1.0 points (−1.2 to +3.1) may be chance", "Not shown to be better"),
        ((0.010, 0.0, 0.031), "may be chance: its interval includes zero", "Not shown to be better"),
        ((-0.030, -0.051, -0.011), "the model is worse, by −3.0 points (−5.1 to −1.1)", "A baseline is better"),
    ],
)
def test_headline_is_honest(difference, told, verdict, tmp_path):
    report, extras = sample_report(5, 200, samples=100)
    change_accuracy_difference(report, *difference)
    page = written(tmp_path, report, extras)
    assert told in page.text
    assert verdict in page.text


def test_without_baselines_it_says_so(tmp_path):
    report, extras = sample_report(5, 200, samples=100)
    page = written(tmp_path, {**report, "baselines": {}}, extras)
    assert "No baseline was tried" in page.text
    assert "baselines" not in {a.get("id") for name, a in page.elements if name == "section"}


def test_a_bare_report_is_enough(tmp_path):
    """What `evaluate --data FILE` has: figures and nothing else."""
    report, _ = sample_report(5, 200, samples=100)
    page = written(tmp_path, {"task": "classify", "test": report["test"]}, {})
    assert {"classes", "confusion", "calibration", "limits"} <= {
        a.get("id") for name, a in page.elements if name == "section"
    }


def test_the_ledger_adds_up_or_says_that_it_does_not(tmp_path):
    report, extras = sample_report(5, 200, samples=100)
    assert "equals the records read" in written(tmp_path, report, extras).text
    broken = copy.deepcopy(report)
    broken["data"]["read"] += 1
    assert "do not add up" in written(tmp_path, broken, extras).text


def test_the_number_of_openings_is_told(tmp_path):
    report, extras = sample_report(5, 200, samples=100)
    assert "opened 2 times" in written(tmp_path, report, extras).text
    assert "opened once: nothing can have been chosen" in written(tmp_path, {**report, "test_openings": 1}, extras).text


def test_drawings_have_text_alternatives(sample):
    *_, page = sample
    for name, attributes in page.elements:
        if attributes.get("role") in {"img", "region", "group"} and name != "svg":
            assert attributes.get("aria-label")
    html = page.elements[0]
    assert html[0] == "html" and html[1]["lang"] == "en"
    drawings = [a for name, a in page.elements if name == "svg" and a.get("role") == "img"]
    assert len(drawings) >= 3
    assert sum(name == "title" for name, _ in page.elements) > len(drawings)


def test_card_is_a_model_card_with_every_figure(sample):
    folder, report, _, _ = sample
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "apache-2.0" and front["pipeline_tag"] == "text-classification"
    measured = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert measured["accuracy"] == pytest.approx(report["test"]["accuracy"]["value"], abs=1e-6)
    for title in ("Intended use", "Evaluation", "Data", "Limits", "How to use it", "Provenance"):
        assert f"\n## {title}\n" in card
    assert f"{report['test']['accuracy']['value']:.1%}" in card
    assert 'reglaj predict runs/sample-001 "' in card
    assert "epigastric" not in card, "a card can be published, rows of the data cannot"


def test_a_hub_model_is_named_as_base(tmp_path):
    report, extras = sample_report(3, 200, samples=100)
    written(tmp_path, {**report, "model": "acme/small-bert"}, {**extras, "licences": [{"licence": "Odd"}]})
    front = yaml.safe_load((tmp_path / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["base_model"] == "acme/small-bert"
    assert front["license"] == "other"


def test_another_task_brings_its_own_sections(tmp_path):
    from dataclasses import replace

    def own(document: Document) -> Block:
        return Block(anchor="own", title="A section of another task", body=tag("p", document.report["task"]))

    report, extras = sample_report(3, 200, samples=100)
    write_report(
        tmp_path, report, extras, replace(CLASSIFICATION, sections=(own,), headline=lambda _: "Its own words.")
    )
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [a["id"] for name, a in page.elements if name == "section"] == ["own"]
    assert "Its own words." in page.text


def test_a_number_that_json_has_no_word_for_is_refused(tmp_path):
    report, extras = sample_report(3, 200, samples=100)
    report["cost"]["train_seconds"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path, report, extras, CLASSIFICATION)
    assert not list(tmp_path.glob("report.*"))


def test_a_folder_that_cannot_be_written_to_is_an_environment_fault(tmp_path):
    report, extras = sample_report(3, 200, samples=100)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentFault):
        write_report(tmp_path / "file", report, extras, CLASSIFICATION)


def test_markup_escapes_everything_but_itself():
    assert tag("p", "<b>", Markup("<i>")) == "<p>&lt;b&gt;<i></p>"
    assert tag("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'
    assert escaped("a\x00b") == "a\ufffdb"
    assert with_code("say `a<b` twice") == "say <code>a&lt;b</code> twice"


def test_the_page_says_where_a_run_was_interrupted_and_what_it_left_out(tmp_path):
    report, extras = sample_report()
    report["training"] |= {"resumed_at": [40, 1200], "skipped_steps": 1}
    write_report(tmp_path, report, extras, CLASSIFICATION)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "went on after step 40, 1,200." in text and "1 step was left out" in text
