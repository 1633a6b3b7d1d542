"""What the page and the card say of what was learnt: no more than the figures carry."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from tests.evaluation.sample_answers import sample_answers
from tests.evaluation.sample_reports import HOSTILE, sample_report
from tests.evaluation.test_browser import PROBE, browser, needs_browser
from tests.evaluation.test_report import Page
from tests.tiny_chat import chat_tokenizer

from reglaj.evaluation.report import write_report
from reglaj.evaluation.report.answers import ANSWERS
from reglaj.evaluation.report.classification import CLASSIFICATION
from reglaj.models.nearest_words import prompt_facts

KINDS = ["attention.self.query", "attention.self.key", "attention.output.dense", "intermediate.dense"]


def prompt(count=20, at_words=0, seed=3):
    """What a method gives for a prompt at random, or one that partly lies at words."""
    tokenizer = chat_tokenizer()
    torch.manual_seed(seed)
    table = torch.randn(len(tokenizer), 64)
    vectors = torch.randn(count, 64)
    vectors[:at_words] = table[50 : 50 + at_words] + 0.05 * torch.randn(at_words, 64)
    return prompt_facts(vectors, table, tokenizer)


def updates(stacks=("encoder.layer",), ranks=True):
    layers = [
        {"stack": stack, "layer": i, "change": 0.02 + 0.003 * i, **({"rank": 70 - 3 * i} if ranks else {})}
        for stack in stacks
        for i in range(6)
    ]
    kinds = [
        {"kind": kind, "modules": 6, "change": 0.03 + 0.01 * i, **({"rank": 4.5 + i} if ranks else {})}
        for i, kind in enumerate(KINDS)
    ]
    return {"updates": {"modules": {}, "layers": layers, "kinds": kinds}}


def written(folder, learnt, make=CLASSIFICATION):
    report, extras = (
        sample_report(5, 200, samples=100) if make is CLASSIFICATION else sample_answers(num_rows=8, samples=100)
    )
    write_report(folder, {**report, "learnt": learnt}, extras, make)
    section = re.search('<section id="learnt".*?</section>', (folder / "report.html").read_text("utf-8"), re.S)
    card = (folder / "README.md").read_text("utf-8")
    return Page(section[0]) if section else None, card.partition("## What was learnt")[2].partition("\n## ")[0]


@pytest.mark.parametrize("make", [CLASSIFICATION, ANSWERS])
def test_a_prompt_stands_beside_its_words(tmp_path, make):
    learnt = prompt()
    page, card = written(tmp_path, learnt, make)
    known = {value for token in learnt["virtual_tokens"] for value in (token["norm"], token["words"][0]["cosine"])}
    assert known == set(page.values), "every figure of every token, and no other"
    for token in learnt["virtual_tokens"]:
        assert all(word["text"] in page.text for word in token["words"])
    assert len(re.findall(r"^\| \d", card, re.M)) == 20
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["learnt"] == learnt


def test_chance_is_called_chance(tmp_path):
    page, card = written(tmp_path, prompt())
    for text in (page.text, card):
        assert "no nearer than chance" in text and "seldom an instruction" in text
        assert "lie at a word" not in text
    assert "The other 8 virtual tokens" in page.text


def test_words_that_were_hardly_left_are_called_so(tmp_path):
    page, card = written(tmp_path, prompt(4, at_words=3))
    for text in (page.text, card):
        assert "3 of 4 lie at a word" in text and "seldom an instruction" in text
        assert "no nearer than chance" not in text
    assert "The other" not in page.text


def test_one_virtual_token_stands_alone(tmp_path):
    page, _ = written(tmp_path, prompt(1))
    assert "1 learnt vector stands before each text" in page.text


def test_hostile_words_stay_text(tmp_path):
    learnt = prompt(3)
    learnt["virtual_tokens"][0]["words"][0]["text"] = HOSTILE
    learnt["virtual_tokens"][1]["words"][1]["text"] = "a | b `c`\n# d"
    _, card = written(tmp_path, learnt)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in text.casefold() and "<script" not in card and "\n# d" not in card
    assert all(line.count(" | ") == 3 for line in card.splitlines() if re.match(r"\| \d", line))


@pytest.mark.parametrize("ranks", [True, False])
@pytest.mark.parametrize("stacks", [("encoder.layer",), ("encoder.block", "decoder.block")])
def test_updates_are_drawn_by_layer(tmp_path, stacks, ranks):
    learnt = updates(stacks, ranks)
    page, card = written(tmp_path, learnt)
    drawings = [a for name, a in page.elements if name == "svg" and a.get("role") == "img"]
    assert len(drawings) == 1 + ranks
    assert "2.0% to 3.5% by layer, the most in layer 5" in page.text and "2.0% to 3.5% by layer" in card
    assert ("decoder.block" in page.text) == (len(stacks) > 1)
    assert ("mean rank" in page.text) == ranks
    kinds = [value for kind in learnt["updates"]["kinds"] for key, value in kind.items() if key != "kind"]
    assert sorted(page.values) == sorted(map(float, kinds))


def test_equal_ranks_are_not_drawn(tmp_path):
    learnt = updates()
    for layer in learnt["updates"]["layers"]:
        layer["rank"] = 96
    page, _ = written(tmp_path, learnt)
    assert "ranks of a layer" not in page.text


@pytest.mark.parametrize("learnt", [{}, None, {"virtual_tokens": []}, {"updates": {"layers": []}}])
def test_nothing_to_show_is_no_section(tmp_path, learnt):
    page, card = written(tmp_path, copy.deepcopy(learnt))
    assert page is None and not card


@needs_browser
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("learnt", [prompt(30), updates()], ids=["prompt", "updates"])
def test_fits_the_window(tmp_path, learnt, width):
    written(tmp_path, learnt)
    page = tmp_path / "report.html"
    policy = "default-src &#x27;none&#x27;;"
    text = page.read_text(encoding="utf-8").replace("<details>", "<details open>")
    text = text.replace(policy, f"{policy} script-src &#x27;unsafe-inline&#x27;;").replace("</head>", PROBE)
    page.write_text(text, encoding="utf-8")
    done = browser.browse(page, "--dump-dom", f"--window-size={width},900")
    found = json.loads(re.search('<pre id="probe">(.*?)</pre>', done.stdout, re.S)[1].replace("&quot;", '"'))
    assert found["overflow"] <= 0 and found["wide"] == [] and found["fetched"] == []
