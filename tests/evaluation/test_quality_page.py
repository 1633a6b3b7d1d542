"""The page on the quality of data: whole with all there is, whole with nothing, and safe whatever the rows say."""

import copy
import re

import pytest
from tests.evaluation.sample_quality import ARABIC, sample_data, sample_quality
from tests.evaluation.sample_reports import HOSTILE
from tests.evaluation.test_report import FETCHING, Page

from reglaj.core.errors import EnvironmentFault
from reglaj.evaluation.report.quality import render_quality, write_quality_page

SECTIONS = [
    "findings",
    "rows",
    "split",
    "labels",
    "label-errors",
    "difficulty",
    "near-duplicates",
    "odd-rows",
    "lengths",
    "languages",
    "encodings",
]
KEYS = list(sample_quality(3))
NESTED = [(key, inner) for key, values in sample_quality(3).items() if isinstance(values, dict) for inner in values]
NESTED = [*NESTED, *(("tokens", "text", inner) for inner in sample_quality(3)["tokens"]["text"])]


def page_of(data, quality, **more):
    return Page(render_quality(data, quality, **more))


def anchors(page):
    return [attributes["id"] for name, attributes in page.elements if name == "section"]


@pytest.fixture(scope="module", params=[3, 12, 77])
def sample(request):
    data, quality = sample_data(request.param), sample_quality(request.param)
    return data, quality, page_of(data, quality, name="tickets", facts=["classify", "starter:minilm"])


def test_every_section_stands_in_order_and_is_linked(sample):
    *_, page = sample
    assert anchors(page) == SECTIONS
    links = {attributes["href"] for name, attributes in page.elements if name == "a"}
    assert {f"#{anchor}" for anchor in SECTIONS} <= links
    assert links <= {f"#{anchor}" for anchor in [*SECTIONS, "top"]}


def test_it_is_written_whole_and_fetches_and_runs_nothing(tmp_path, sample):
    data, quality, _ = sample
    path = write_quality_page(tmp_path, data, quality)
    text = path.read_text(encoding="utf-8")
    assert path.name == "report.html" and [file.name for file in tmp_path.iterdir()] == ["report.html"]
    for name, attributes in Page(text).elements:
        assert name not in {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in FETCHING:
                assert value.startswith("#"), (name, key, value)
    style = re.search("<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert "Content-Security-Policy" in text and "default-src &#x27;none&#x27;" in text
    with pytest.raises(EnvironmentFault):
        write_quality_page(tmp_path / "nowhere", data, quality)


def test_findings_stand_at_the_top_with_what_to_do(sample):
    *_, page = sample
    text = page.text
    assert text.index("1 finding to act on, 1 to look at") < text.index("Where the rows went")
    first, second = text.index("412 labels are likely wrong. 4.7%"), text.index("70 records are nearly the same")
    assert first < second < text.index("2 checks with nothing to do")
    assert "data.clean: {label_errors: drop}" in text
    assert "3 examples of 412" in text and "looks like" in text
    opened = [attributes for name, attributes in page.elements if name == "details" and "open" in attributes]
    assert len(opened) == 1


def test_numbers_are_those_of_the_documents(sample):
    data, quality, page = sample
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

    collect([data, quality])
    kept = data["read"] - sum(data["dropped"].values())
    for label, rows in data["labels"]["train"].items():
        known.add(float(rows + 2 * data["labels"]["validation"][label]))
    known |= {float(kept), float(sum(sorted(quality["clusters"]["sizes"].values())[:5]))}
    assert len(page.values) > 60
    assert [value for value in page.values if value not in known] == []
    for key in ("flagged", "checked"):
        assert f"{quality['label_errors'][key]:,}" in page.text
    assert "equals the records read" in page.text
    for edge in ("4 of 6,126 (0.07%) are longer than 128 tokens", "86.0% (85.0–87.0)"):
        assert edge in page.text


def test_an_account_that_does_not_add_up_says_so():
    data = sample_data(3)
    assert "do not add up" in page_of({**data, "read": data["read"] + 1}, {}).text


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("empty", ["missing", None, "like"])
def test_any_part_may_be_missing_or_empty(key, empty):
    quality = sample_quality(3)
    whole = quality.pop(key)
    if empty == "like":
        quality[key] = type(whole)() if whole is not None else None
    elif empty is None:
        quality[key] = None
    assert '<section id="rows"' in render_quality(sample_data(3), quality)


@pytest.mark.parametrize("path", NESTED, ids=".".join)
def test_any_figure_of_a_part_may_be_missing(path):
    quality = sample_quality(3)
    part = quality
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    assert '<section id="findings"' in render_quality(sample_data(3), quality)


@pytest.mark.parametrize("key", [key for key in sample_data(3) if key != "read"])
def test_any_part_of_the_account_may_be_missing(key):
    data = sample_data(3)
    del data[key]
    assert '<section id="findings"' in render_quality(data, sample_quality(3))


def test_without_a_look_at_the_texts_the_account_is_still_a_page():
    page = page_of(sample_data(3), {})
    assert anchors(page) == ["rows", "split", "labels", "near-duplicates"]
    assert anchors(page_of({}, {})) == []
    assert "0 records read" in page_of({}, {}).text


def hostile_everywhere(value, evil):
    if isinstance(value, dict):
        # Names of figures are ours; those of labels, files and parts are the data's.
        return {key: hostile_everywhere(inner, evil) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile_everywhere(inner, evil) for inner in value]
    return f"{evil}{value}" if isinstance(value, str) else value


def test_hostile_texts_stay_text_wherever_they_stand():
    evil = "</td></style><script>alert(1)</script><img src=x onerror=alert(2)>\x00`"
    data, quality = sample_data(3), sample_quality(3)
    for labels in (data["labels"], quality["labels"]):
        for part in ("train", "validation"):
            labels[part] = {f"{evil}{label}": rows for label, rows in labels[part].items()}
    quality["label_errors"]["per_label"] = {f"{evil}x": {"flagged": 3, "rows": 9}}
    quality["seconds"] = {evil: 3.0}
    quality["boilerplate"]["kinds"] = {evil: 3}
    levels = [one["level"] for one in quality["findings"]]
    data, quality = hostile_everywhere(data, evil), hostile_everywhere(quality, evil)
    for one, level in zip(quality["findings"], levels, strict=True):
        one["level"] = level
    data["dropped"] = {f"{evil}{reason}": rows for reason, rows in data["dropped"].items()}
    text = render_quality(data, quality, name=evil, facts=[evil])
    assert "<script" not in text.casefold() and "\x00" not in text
    page = Page(text)
    assert not {"script", "img"} & {name for name, _ in page.elements}
    assert "<script>alert(1)</script>" in page.text


def test_hostile_text_is_shown_as_it_is(sample):
    *_, page = sample
    assert HOSTILE.replace("\x00", "\ufffd").rstrip() in page.text


def test_quoted_rows_run_in_their_own_direction(sample):
    data, quality, _ = sample
    text = render_quality(data, quality)
    assert f'class="words" dir="auto">{ARABIC}' in text


def test_rows_of_the_test_part_are_not_quoted_whoever_sends_them():
    data, quality = sample_data(3), sample_quality(3)
    secret = {
        "text": "the secret",
        "label": "the answer",
        "note": "looks odd",
        "part": "test",
        "source": "a",
        "line": 7,
    }
    for name in ("label_errors", "outliers", "boilerplate"):
        quality[name]["examples"] = [secret]
    quality["findings"][0]["examples"] = [secret]
    data["leakage"]["found"][0]["examples"] = [secret]
    text = page_of(data, quality).text
    assert "the secret" not in text and "the answer" not in text
    assert "a row of the sealed test part, not quoted" in text and "a:7" in text


def test_long_texts_open_on_a_click_and_end():
    quality = sample_quality(3)
    quality["findings"][0]["examples"] = [{"text": "y" * 9_000}, {"text": "z" * 500}]
    text = page_of(sample_data(3), quality).text
    assert "y" * 6_001 not in text and "The first 6,000 characters" in text
    assert "z" * 500 in text and "All 500 characters" in text


def test_the_page_asks_for_nothing_where_nothing_is_wrong():
    quality = sample_quality(3)
    quality["findings"] = [one for one in quality["findings"] if one["level"] == "fine"]
    text = page_of(sample_data(3), quality).text
    assert "Nothing found that asks for something" in text and "2 checks with nothing to do" in text


def test_thousands_of_labels_make_no_endless_plot():
    data, quality = sample_data(3), copy.deepcopy(sample_quality(3))
    labels = {f"label {place}": 5000 - place for place in range(5000)}
    quality["labels"] = {"train": labels, "validation": {}, "test": {}}
    quality["label_errors"]["per_label"] = {label: {"flagged": 2, "rows": 9} for label in labels}
    page = page_of({**data, "labels": {}}, quality)
    assert sum(name == "rect" for name, _ in page.elements) < 400
    assert sum(name == "tr" for name, _ in page.elements) < 600
    assert "5,000 labels" in page.text


def test_a_judge_that_is_often_wrong_says_so():
    quality = sample_quality(3)
    assert "its own mistakes" not in page_of(sample_data(3), quality).text
    quality["label_errors"]["probe_accuracy"] = 0.6
    text = page_of(sample_data(3), quality).text
    assert "The judge agrees with 60.0% of all labels, so many of these are its own mistakes" in text
    assert "Read the rows below; data.clean" in text
    quality["findings"][0]["do"] = "look; "
    assert "Do Look.3 examples" in page_of(sample_data(3), quality).text


def test_the_end_of_the_page_tells_how_it_was_judged():
    text = page_of(sample_data(3), sample_quality(3)).text
    assert "Time taken: embeddings 12.3 s and label errors 4.0 s, 17 s in all." in text
    assert "embeddings of starter:minilm." in text and "2 more were dropped as too long." in text
    quality = {**sample_quality(3), "embedder": None, "embedder_note": "no small encoder is here"}
    quality["looked_at"] = None
    assert "No small encoder is here." in page_of(sample_data(3), quality).text
    sampled = {**sample_quality(3), "looked_at": {"rows": 90_000, "sampled": 20_000}}
    assert "starter:minilm, on a sample of 20,000 records." in page_of(sample_data(3), sampled).text


def test_a_label_that_the_judge_cannot_tell_is_named():
    quality = sample_quality(3)
    quality["label_errors"]["per_label"] = {"rare": {"flagged": 60, "rows": 100}, "common": {"flagged": 9, "rows": 900}}
    assert "Of rare it takes 60% for another label" in page_of(sample_data(3), quality).text
    quality["label_errors"]["per_label"]["rare"]["flagged"] = 20
    assert "for another label" not in page_of(sample_data(3), quality).text
