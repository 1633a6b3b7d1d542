"""Figures for generated answers, each by comparison with a reference, or about the answer alone.

Words are runs of letters, marks and digits of any script, in lower case (Unicode NFC, case folding): `ș` and `ţ` are
letters, punctuation counts for nothing. Scripts that write without spaces (Chinese, Japanese, Thai, ...) give one word
per character. A text without any word, such as an emoji, has its characters for words.

Departures from the sources:
1. `rouge_l`: the F-measure with beta = 1 over the whole text as one sequence (`rougeL` of the package rouge_score, not
   `rougeLsum`), without stemming, which exists for English only.
2. `token_f1`: SQuAD's (Rajpurkar et al. 2016), but English articles stay words: `the` may not be dropped from a text
   in Romanian.
3. `exact_match`: equal after Unicode NFC and with every run of white space as one space; case and punctuation count.

References:
- Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.
- Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; sacrebleu's, 6 characters, beta 2.
- Hyyrö 2004, "Bit-Parallel LCS-length Computation Revisited".

N answers.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import regex

from reglaj.evaluation.intervals import (
    Difference,
    Interval,
    Statistic,
    bootstrap,
    mean_of,
    paired_difference,
    percentile_interval,
    point,
    proportion,
    ratio_of_sums,
    together,
)
from reglaj.evaluation.types import FloatArray

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])+")
_REPEATED_WORDS = 4
"""Length of the runs of words that `repetition` looks for."""
SHARES = ("exact_match", "ends_by_itself")
"""Figures that are yes or no for each answer: Wilson's interval instead of the bootstrap's."""


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers:
    """What each of N answers got; all (N,)."""

    rouge_l: FloatArray
    chrf: FloatArray
    exact_match: FloatArray
    token_f1: FloatArray
    answer_words: FloatArray
    reference_words: FloatArray
    ends_by_itself: FloatArray
    repetition: FloatArray

    def statistics(self) -> dict[str, Statistic]:
        """By the name of each figure, in the order in which they are told."""
        return {
            "rouge_l": mean_of(self.rouge_l),
            "chrf": mean_of(self.chrf),
            "exact_match": mean_of(self.exact_match),
            "token_f1": mean_of(self.token_f1),
            "length_ratio": ratio_of_sums(self.answer_words, self.reference_words),
            "ends_by_itself": mean_of(self.ends_by_itself),
            "repetition": mean_of(self.repetition),
        }


def judge(answers: Sequence[str], references: Sequence[str], ended: Sequence[str]) -> JudgedAnswers:
    """Every figure of every answer. ended: why each one is over; `end` where the model itself ended it."""
    pairs = list(zip(answers, references, ended, strict=True))
    if not pairs:
        raise ValueError("no answers to judge")
    found = [
        {
            "rouge_l": rouge_l(answer, reference),
            "chrf": chrf(answer, reference),
            "exact_match": float(exact_match(answer, reference)),
            "token_f1": token_f1(answer, reference),
            "answer_words": float(len(words(answer))),
            "reference_words": float(len(words(reference))),
            "ends_by_itself": float(why == "end"),
            "repetition": repetition(answer),
        }
        for answer, reference, why in pairs
    ]
    return JudgedAnswers(**{name: np.array([row[name] for row in found]) for name in found[0]})


def answer_scores(
    judged: JudgedAnswers, *, confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """`rouge_l, chrf, exact_match, token_f1, length_ratio, ends_by_itself, repetition`, each `{value, low, high}`.

    Means over answers; `length_ratio` is all words of the answers by all words of the references. Intervals: bootstrap
    over answers, Wilson's for `exact_match` and `ends_by_itself`.
    """
    statistics = judged.statistics()
    num_answers = len(judged.rouge_l)
    statistic = together(list(statistics.values()))
    values = point(statistic, num_answers)
    draws = bootstrap(statistic, num_answers, samples=samples, seed=seed)
    scores = {}
    for column, name in enumerate(statistics):
        if name in SHARES:
            scores[name] = proportion(float(getattr(judged, name).sum()), num_answers, confidence)
        else:
            scores[name] = percentile_interval(float(values[column]), draws[:, column], confidence)
    return scores


def answer_differences(
    ours: JudgedAnswers, theirs: JudgedAnswers, *, confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Model minus baseline on answers to the same questions, for every figure: `{value, low, high, p}`; paired."""
    model, baseline = (together(list(judged.statistics().values())) for judged in (ours, theirs))

    def difference(weights: FloatArray) -> FloatArray:
        return model(weights) - baseline(weights)

    num_answers = len(ours.rouge_l)
    values = point(difference, num_answers)
    draws = bootstrap(difference, num_answers, samples=samples, seed=seed)
    return {
        name: paired_difference(float(values[column]), draws[:, column], confidence)
        for column, name in enumerate(ours.statistics())
    }


def words(text: str) -> list[str]:
    """The words of a text, as the page on top says; none only where it is empty or white space."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return _WORD.findall(folded) or list("".join(folded.split()))


def rouge_l(answer: str, reference: str) -> float:
    """F-measure over the longest common subsequence of words, from 0 to 1 (Lin 2004, eq. 2 to 4, beta = 1)."""
    ours, theirs = words(answer), words(reference)
    # 2PR / (P + R) with P = lcs / |ours| and R = lcs / |theirs|.
    total = len(ours) + len(theirs)
    return 2 * _longest_common_subsequence(ours, theirs) / total if total else 1.0


def token_f1(answer: str, reference: str) -> float:
    """F-measure over words as a bag, from 0 to 1."""
    ours, theirs = Counter(words(answer)), Counter(words(reference))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 1.0


def chrf(answer: str, reference: str) -> float:
    """F-measure over n-grams of 1 to 6 characters that counts recall twice, from 0 to 1; case counts."""
    answer, reference = (unicodedata.normalize("NFC", text) for text in (answer, reference))
    return float(_chrf().sentence_score(answer, [reference]).score) / 100


def exact_match(answer: str, reference: str) -> bool:
    """Whether both are the same text, but for white space and Unicode form."""
    ours, theirs = (" ".join(unicodedata.normalize("NFC", text).split()) for text in (answer, reference))
    return ours == theirs


def repetition(answer: str) -> float:
    """The share of runs of four words that were already said in the same answer; 0 below four words."""
    said = words(answer)
    runs = [tuple(said[i : i + _REPEATED_WORDS]) for i in range(len(said) - _REPEATED_WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length. Hyyrö 2004: a row of the table is one integer, so 500 by 500 words take a fifth of a millisecond."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every  # a bit is 0 where the length of the common subsequence grows
    for word in second:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & every
    return len(first) - row.bit_count()
