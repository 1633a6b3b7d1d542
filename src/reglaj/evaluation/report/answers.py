"""How the result of a model that answers with text is told: its headline, its figures, its sections, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.evaluation.report.exchanges import generated_figures, side_by_side, trained_on
from reglaj.evaluation.report.learnt import learnt
from reglaj.evaluation.report.ledger import where_rows_went
from reglaj.evaluation.report.plan import Block, Document, Figure, ReportPlan
from reglaj.evaluation.report.sections import (
    baseline_title,
    comparison_on,
    cost,
    learning_curve,
    limits,
    provenance,
)
from reglaj.evaluation.report.slices import gate, slices
from reglaj.evaluation.report.words import count, difference_span, level, number, plural, signed, span

_UNTUNED = "untuned"
_FEW_ANSWERS = 100
"""Generated answers below which their figures are an impression rather than a measurement."""

_LIKELIHOOD = (
    Figure(
        name="loss",
        title="Loss",
        meaning="nats per token of the reference answers, lower is better",
        is_share=False,
        lower_is_better=True,
    ),
    Figure(
        name="perplexity",
        title="Perplexity",
        meaning="e to the loss: among how many equally likely tokens it wavers, lower is better",
        is_share=False,
        lower_is_better=True,
    ),
)
_GENERATED = (
    Figure(
        name="rouge_l",
        title="ROUGE-L",
        meaning="words in common with the reference in the same order, 0 to 1",
        is_share=False,
    ),
    Figure(
        name="chrf", title="chrF", meaning="runs of characters in common with the reference, 0 to 1", is_share=False
    ),
    Figure(
        name="token_f1",
        title="Token F1",
        meaning="words in common with the reference in any order, 0 to 1",
        is_share=False,
    ),
    Figure(name="exact_match", title="Exact match", meaning="answers that are the reference to the letter"),
    Figure(name="ends_by_itself", title="Ends by itself", meaning="answers that the model itself brought to an end"),
    Figure(
        name="length_ratio",
        title="Length ratio",
        meaning="words of the answers by words of the references; 1 is as long",
        is_share=False,
        has_best=False,
    ),
    Figure(
        name="repetition",
        title="Repetition",
        meaning="runs of four words that the same answer has said before",
        lower_is_better=True,
    ),
)


def headline(document: Document) -> str:
    """Loss in words, against the untouched model, against a better baseline if there is one, and how answers end."""
    test = document.report["test"]
    loss = test["loss"]
    told = (
        f"On {plural(test['rows'], 'test row')} its loss is {number(loss['value'])} nats per answer token "
        f"({level(document.confidence)} interval {span(loss, is_share=False)})"
    )
    return " ".join([told + _against_untuned(document), *_against_others(document), *_endings(test)])


def _against_untuned(document: Document) -> str:
    theirs = document.compared.get(_UNTUNED)
    if theirs is None:
        return ". It was not compared with the untouched model, so nothing here says what training changed."
    paired = theirs["loss"]["difference"]
    before = f"the untouched model's {number(theirs['loss']['value'])}"
    if paired["high"] < 0:
        return f", {_lower(paired)} lower than {before} ({_lower_span(paired)})."
    bounds = difference_span(paired, is_share=False)
    if paired["low"] > 0:
        return f": worse than {before}, by {signed(paired['value'])} ({bounds})."
    told = f"; the difference of {signed(paired['value'])} to {before} ({bounds})"
    return f"{told} may be chance: its interval includes zero."


def _against_others(document: Document) -> list[str]:
    """A baseline that reaches the model, or more than it."""
    told = []
    for name, scores in document.compared.items():
        paired = scores["loss"]["difference"]
        if name == _UNTUNED or paired["high"] < 0:
            continue
        reached = f"The {baseline_title(name)} reaches {number(scores['loss']['value'])}"
        if paired["low"] > 0:
            told.append(f"{reached}, which is better, without any training.")
        else:
            told.append(f"{reached} without any training; the difference may be chance.")
    return told


def _endings(test: Mapping[str, Any]) -> list[str]:
    if "ends_by_itself" not in test:
        return []
    answers = test["generated_rows"]
    ended = round(test["ends_by_itself"]["value"] * answers)
    return [
        f"{count(ended)} of {plural(answers, 'generated answer')} ended by "
        f"{'itself' if answers == 1 else 'themselves'} within {plural(test['max_new_tokens'], 'token')}."
    ]


def _lower(paired: Mapping[str, float]) -> str:
    return number(-paired["value"])


def _lower_span(paired: Mapping[str, float]) -> str:
    return f"{number(-paired['high'])} to {number(-paired['low'])}"


def verdict(document: Document) -> tuple[str, str]:
    """The answer to "did training help?", for the coloured mark."""
    differences = {name: scores["loss"]["difference"] for name, scores in document.compared.items()}
    if not differences:
        return "open", "Not compared with anything"
    worse = [name for name, paired in differences.items() if paired["low"] > 0]
    if _UNTUNED in worse:
        return "bad", "Worse than before training"
    if worse:
        return "bad", f"The {baseline_title(worse[0])} is better"
    unclear = [name for name, paired in differences.items() if paired["high"] >= 0]
    if unclear:
        return "open", f"Not shown to be better than the {baseline_title(unclear[0])}"
    ends = document.report["test"].get("ends_by_itself")
    if ends and ends["value"] < 0.5:
        return "open", "A lower loss, but most answers do not end"
    names = [baseline_title(name) for name in differences]
    return "good", f"Better than the {names[0]}" if len(
        names
    ) == 1 else f"Better than each of the {len(names)} baselines"


def comparison(document: Document) -> Block | None:
    """Loss and perplexity beside the baselines."""
    lead = (
        "How likely each finds the reference answers of the same test rows, token by token. None of these was trained: "
        "what the model is better by is what training brought. Differences are paired: both sides are scored on the "
        "same rows each time, so a difference can be clear even where the intervals of the two overlap."
    )
    return comparison_on(document, _LIKELIHOOD, lead)


def generated(document: Document) -> Block | None:
    """The figures of the generated answers."""
    return generated_figures(document, _GENERATED)


def _more_limits(document: Document) -> list[str]:
    test = document.report["test"]
    told = [
        "A lower loss says that answers like the references became likelier: their manner and length count in it as "
        "much as what they say. It is per token of this model's own tokenizer; a model with another one cannot be "
        "compared on it."
    ]
    answers = test.get("generated_rows", 0)
    if answers:
        told.append(
            "Overlap with a reference (ROUGE-L, chrF, token F1) says how alike two texts are, not whether an answer is "
            "true, safe or useful: a right answer in other words scores low, a wrong one in the same words scores high."
        )
        told.append(
            "Answers were generated with the settings of the recipe. Another temperature, system prompt or limit gives "
            "other answers than those that were measured."
        )
    if 0 < answers < _FEW_ANSWERS:
        told.append(
            f"Only {plural(answers, 'answer was', 'answers were')} generated: read the intervals of the text figures, "
            "not the figures. `evaluate.generate_rows` sets how many."
        )
    if "few_shot" in document.compared:
        told.append(
            "The examples in front of the untouched model are short ones drawn by the seed, and nobody worked on the "
            "prompt: a better prompt may do better."
        )
    told.append("Like every model of its kind it can say false things in fluent sentences. Nothing here checks facts.")
    return told


ANSWERS = ReportPlan(
    headline=headline,
    verdict=verdict,
    figures=(*_LIKELIHOOD, *_GENERATED),
    slice_figures=(*_LIKELIHOOD, *_GENERATED),
    sections=(
        gate,
        comparison,
        slices,
        side_by_side,
        generated,
        trained_on,
        learning_curve,
        learnt,
        where_rows_went,
        limits,
        cost,
        provenance,
    ),
    limits=_more_limits,
    pipeline_tag="text-generation",
    use="It answers in conversations, in the manner of the answers it was trained on.",
    example="a question of yours",
    commands=("chat {run}", "predict {run} {example}"),
    too_long="left out of the figures",
)
