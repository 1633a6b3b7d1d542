import random
import unicodedata

import pytest

from reglaj.evaluation.metrics.answers import (
    answer_differences,
    answer_scores,
    chrf,
    exact_match,
    judge,
    repetition,
    rouge_l,
    token_f1,
    words,
)

REFERENCES = ["the card is on its way", "a transfer takes three days", "Banii ajung mâine."] * 8


def test_words_of_any_script():
    assert words("Țările și ÎNTÂRZIE, da!") == ["țările", "și", "întârzie", "da"]
    assert words(unicodedata.normalize("NFD", "Țările și")) == ["țările", "și"]
    assert words("hindi: हिन्दी है") == ["hindi", "हिन्दी", "है"]
    assert words("我的卡 ready") == ["我", "的", "卡", "ready"]
    assert words("it's 3.5_x") == ["it", "s", "3", "5", "x"]
    assert words("👍 👍") == ["👍", "👍"] and words(" \n") == []
    assert words("STRASSE straße") == ["strasse", "strasse"]


def test_rouge_l_by_hand():
    # Lin 2004, section 3.1: "police kill the gunman" has 2 of 4 words in order, "police ended the gunman" 3.
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(0.5)
    assert rouge_l("the gunman", reference) == pytest.approx(2 * 2 / (2 + 4))
    assert rouge_l("", reference) == 0 and rouge_l("POLICE killed the gunman.", reference) == 1
    assert rouge_l("ţara și ȚARA", "tara si tara") == 0, "letters with marks are other letters"


def test_rouge_l_is_that_of_the_package_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    chance = random.Random(0)
    vocabulary = ["the", "a", "cat", "dog's", "don't", "3.5", "run-time", "_x_", "It", "was", "YOU", ",", "!", "(said)"]
    for _ in range(500):
        answer = " ".join(chance.choices(vocabulary, k=chance.randint(0, 80)))
        reference = " ".join(["the", *chance.choices(vocabulary, k=chance.randint(1, 80))])
        assert rouge_l(answer, reference) == pytest.approx(scorer.score(reference, answer)["rougeL"].fmeasure)


def test_token_f1_counts_words_as_often_as_they_stand_there():
    assert token_f1("days three", "three days") == 1
    assert token_f1("the the the", "the end") == pytest.approx(2 * 1 / 5)
    assert token_f1("the end", "end") == pytest.approx(2 / 3), "articles are words"
    assert token_f1("nothing", "three days") == 0


def test_chrf_is_that_of_sacrebleu_and_knows_marks():
    from sacrebleu.metrics.chrf import CHRF

    answer, reference = "Banii ajung maine", "Banii ajung mâine."
    assert chrf(answer, reference) == pytest.approx(CHRF().sentence_score(answer, [reference]).score / 100)
    assert chrf(reference, reference) == pytest.approx(1) and chrf("", reference) == 0
    assert chrf(unicodedata.normalize("NFD", reference), reference) == pytest.approx(1)


def test_exact_match_forgives_white_space_and_unicode_form_only():
    assert exact_match(" o  dată\n", unicodedata.normalize("NFD", "o dată"))
    assert not exact_match("O dată", "o dată") and not exact_match("o dată.", "o dată")


def test_repetition_is_the_share_of_runs_said_before():
    assert repetition("one two three four five six") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("no no no no no no") == pytest.approx(2 / 3)
    assert repetition("a b c") == 0 and repetition("") == 0


def test_scores_are_means_with_intervals():
    answers = [text if i % 2 else "no idea" for i, text in enumerate(REFERENCES)]
    scores = answer_scores(judge(answers, REFERENCES, ["end", "end", "length"] * 8), samples=300)
    assert list(scores) == [
        "rouge_l", "chrf", "exact_match", "token_f1", "length_ratio", "ends_by_itself", "repetition",
    ]  # fmt: skip
    assert scores["exact_match"]["value"] == 0.5
    assert scores["rouge_l"]["value"] == pytest.approx(0.5) == scores["token_f1"]["value"]
    assert scores["ends_by_itself"]["value"] == pytest.approx(16 / 24)
    right = sum(len(words(text)) for text in REFERENCES[1::2])
    assert scores["length_ratio"]["value"] == pytest.approx((right + 24) / sum(len(words(t)) for t in REFERENCES))
    assert all(one["low"] <= one["value"] <= one["high"] for one in scores.values())


def test_shares_have_an_interval_even_where_all_are_alike():
    scores = answer_scores(judge(REFERENCES, REFERENCES, ["end"] * 24), samples=100)
    assert scores["ends_by_itself"] == {"value": 1.0, "low": pytest.approx(0.862, abs=0.001), "high": 1.0}
    assert scores["exact_match"]["low"] < 0.9


def test_only_the_models_own_end_is_an_end():
    scores = answer_scores(judge(["a"] * 3, ["a"] * 3, ["end", "stop", "length"]), samples=100)
    assert scores["ends_by_itself"]["value"] == pytest.approx(1 / 3)


def test_a_worse_model_is_seen_as_worse():
    good = judge(REFERENCES, REFERENCES, ["end"] * 24)
    bad = judge(["la la la la la la la la"] * 24, REFERENCES, ["length"] * 24)
    differences = answer_differences(bad, good, samples=200)
    for name in ("rouge_l", "chrf", "exact_match", "token_f1", "ends_by_itself"):
        assert differences[name]["high"] < 0 and differences[name]["p"] < 0.05, name
    assert differences["repetition"]["low"] > 0
    assert answer_differences(good, good, samples=100)["chrf"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert differences == answer_differences(bad, good, samples=200)


def test_answers_and_references_belong_together():
    with pytest.raises(ValueError):
        judge(["a"], ["a", "b"], ["end"])
    with pytest.raises(ValueError, match="no answers"):
        judge([], [], [])
