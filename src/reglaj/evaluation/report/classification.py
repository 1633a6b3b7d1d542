"""How the result of a classifier is told: its headline, its sections, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.evaluation.report.calibration import abstention, calibration, thresholds
from reglaj.evaluation.report.imbalance import imbalance_told, is_imbalanced, what_to_do
from reglaj.evaluation.report.learnt import learnt
from reglaj.evaluation.report.ledger import where_rows_went
from reglaj.evaluation.report.markup import exact, figure, folded, joined, table, tag
from reglaj.evaluation.report.plan import Block, Document, Figure, ReportPlan
from reglaj.evaluation.report.plots import heat_map, small_interval
from reglaj.evaluation.report.sections import baseline_title, comparison, cost, learning_curve, limits, provenance
from reglaj.evaluation.report.slices import gate, slices
from reglaj.evaluation.report.words import (
    count,
    difference_span,
    level,
    number,
    percent,
    plural,
    points,
    shown,
    span,
)

_FEW_ROWS = 10
"""Test rows below which the figures of a class are little more than an anecdote."""
_LONGEST_QUOTE = 400
_MOST_CONFUSIONS = 15
_MISTAKES_SHOWN = 10
_CLASSES_SHOWN = 30


def headline(document: Document) -> str:
    """Accuracy in words, and against the best baseline; and whether accuracy is the figure to look at."""
    return f"{_accuracy_told(document)} {imbalance_told(document.report['test'])}".rstrip()


def _accuracy_told(document: Document) -> str:
    """Better than the best baseline, worse, or not shown to be either."""
    test = document.report["test"]
    accuracy = test["accuracy"]
    told = (
        f"On {plural(_test_rows(test), 'test row')} it is right {percent(accuracy['value'])} of the time "
        f"({level(document.confidence)} interval {span(accuracy, is_share=True)})."
    )
    best = _best_baseline(document)
    if best is None:
        return f"{told} No baseline was tried, so nothing here says whether a simpler way would do as well."
    name, theirs = best
    paired = theirs["difference"]
    told += f" The best baseline, {baseline_title(name)}, is right {percent(theirs['value'])}"
    bounds = difference_span(paired, is_share=True)
    if paired["low"] > 0:
        bounds = " to ".join(number(paired[end] * 100, 1) for end in ("low", "high"))
        return f"{told}; the difference is {number(paired['value'] * 100, 1)} points ({bounds})."
    if paired["high"] < 0:
        return f"{told}: the model is worse, by {points(paired['value'])} points ({bounds})."
    return (
        f"{told}; the difference of {points(paired['value'])} points ({bounds}) may be chance: "
        "its interval includes zero."
    )


def verdict(document: Document) -> tuple[str, str]:
    """The answer to "is it better than something simpler?", for the coloured mark."""
    best = _best_baseline(document)
    if best is None:
        return "open", "Not compared with anything"
    below = [s["accuracy"]["difference"]["low"] > 0 for s in document.compared.values()]
    if best[1]["difference"]["high"] < 0:
        return "bad", "A baseline is better"
    if all(below):
        macro = [s["macro_f1"]["difference"]["low"] > 0 for s in document.compared.values() if "macro_f1" in s]
        if is_imbalanced(document.report["test"]) and not all(macro):
            return "open", "Better in accuracy alone, which says little here"
        return (
            "good",
            f"Better than {'each of the ' + count(len(below)) + ' baselines' if len(below) > 1 else 'the baseline'}",
        )
    return "open", "Not shown to be better than the best baseline"


def per_class(document: Document) -> Block | None:
    """Precision, recall and F1 of each class, the weakest first."""
    scores: Mapping[str, Any] = document.report["test"].get("per_class") or {}
    if not scores:
        return None
    weakest = sorted(scores.items(), key=lambda item: (item[1]["f1"]["value"], -item[1]["support"]))
    rows = []
    for label, values in weakest:
        f1 = values["f1"]
        rows.append(
            [
                label,
                exact(values["support"], count(values["support"])),
                small_interval(f1["low"], f1["value"], f1["high"]),
                *(shown(values[name], is_share=True) for name in ("f1", "precision", "recall")),
            ]
        )
    few = sum(values["support"] < _FEW_ROWS for values in scores.values())
    lead = f"{plural(len(scores), 'class', 'classes')}, the weakest first. "
    lead += "Precision: of the rows that were called so, how many are so. "
    lead += "Recall: of the rows that are so, how many were called so. F1 balances the two."
    if few:
        lead += f" {plural(few, 'class has', 'classes have')} fewer than {_FEW_ROWS} test rows: "
        lead += "read the interval, not the figure."
    headings = ["class", "test rows", "F1, from 0 to 100%", "F1", "precision", "recall"]
    caption = f"Per class, with {level(document.confidence)} intervals"
    first = table(headings, rows[:_CLASSES_SHOWN], caption=caption, numeric=(1, 3, 4, 5), style="classes")
    rest = rows[_CLASSES_SHOWN:]
    more = table(headings, rest, caption="The stronger classes", numeric=(1, 3, 4, 5), style="classes") if rest else ""
    body = joined([first, folded(f"{plural(len(rest), 'stronger class', 'stronger classes')}", more) if rest else ""])
    return Block(anchor="classes", title="Class by class", lead=lead, body=body)


def confusion(document: Document) -> Block | None:
    """The confusion matrix as a heat map, and its largest mistakes as a table."""
    test = document.report["test"]
    matrix, labels = test.get("confusion_matrix"), list(test.get("per_class") or {})
    if not matrix or not labels:
        return None
    mixed = sorted(
        ((rows, i, j) for i, line in enumerate(matrix) for j, rows in enumerate(line) if rows and i != j), reverse=True
    )
    right = sum(matrix[i][i] for i in range(len(labels)))
    told = f"Confusion matrix of {len(labels)} classes: {right} of {_test_rows(test)} rows lie on the diagonal"
    legend = [("box", "right"), ("box wrong", "wrong; the stronger, the larger the share of the class")]
    plot = figure(heat_map(matrix, labels, alternative=told), "Rows: what it is. Columns: what the model said.", legend)
    confusions = [
        [labels[i], labels[j], exact(rows, count(rows)), percent(rows / sum(matrix[i]), 0)]
        for rows, i, j in mixed[:_MOST_CONFUSIONS]
    ]
    found = table(
        ["it is", "the model said", "rows", "share of the class"],
        confusions,
        caption=f"The most frequent confusions ({min(len(mixed), _MOST_CONFUSIONS)} of {count(len(mixed))} kinds)",
        numeric=(2, 3),
    )
    lead = "A model that is always right colours the diagonal and nothing else."
    body = joined([plot, tag("div", found, class_="narrow-table")]) if confusions else plot
    return Block(anchor="confusion", title="What is taken for what", lead=lead, body=body)


def mistakes(document: Document) -> Block | None:
    """The wrong answers of which the model was surest: first the place to look for wrong labels."""
    found = document.extras.get("mistakes") or []
    if not found:
        return None
    rows = [_quoted(mistake) for mistake in found]
    headings = ["text", "labelled", "the model said", "how sure"]
    first = table(headings, rows[:_MISTAKES_SHOWN], caption="Wrong on test, the surest first", numeric=(3,))
    rest = rows[_MISTAKES_SHOWN:]
    more = folded(f"{len(rest)} more", table(headings, rest, caption="The next ones", numeric=(3,))) if rest else ""
    lead = "Some of these are the model's mistakes and some are wrong labels: both are worth knowing."
    return Block(anchor="mistakes", title="Its worst mistakes", lead=lead, body=joined([first, more]))


def _quoted(mistake: Mapping[str, Any]) -> list[Any]:
    text = str(mistake["text"])
    quote = text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
    place = f"{mistake.get('source', '')}:{mistake.get('line', '')}".strip(":")
    return [
        # The direction of the text itself decides how it runs: labels and texts may be Arabic or Hebrew.
        tag("div", quote, tag("div", place, class_="quiet"), class_="quoted", dir="auto"),
        tag("span", mistake["label"], dir="auto"),
        tag("span", mistake["prediction"], dir="auto"),
        exact(mistake["probability"], percent(mistake["probability"])),
    ]


def _more_limits(document: Document) -> list[str]:
    test = document.report["test"]
    per_label: Mapping[str, Any] = test.get("per_class") or {}
    few = [label for label, values in per_label.items() if values["support"] < _FEW_ROWS]
    told = ["Labels were taken as they are. Where people would disagree about a label, no model can be right."]
    contradictory = (document.report.get("data") or {}).get("dropped", {}).get("contradictory_label")
    if contradictory:
        told.append(
            f"{plural(contradictory, 'record')} with contradictory labels were left out; "
            "in use, such texts will come all the same."
        )
    if len(document.compared) > 1:
        told.append("Several baselines were tried and the best on test is named, which favours the baseline.")
    if few:
        told.append(
            f"{plural(len(few), 'class has', 'classes have')} fewer than {_FEW_ROWS} test rows. What is said of "
            f"{'it' if len(few) == 1 else 'them'} is weak, and macro-F1, which counts every class alike, leans on "
            f"{'it' if len(few) == 1 else 'them'}."
        )
    if is_imbalanced(test):
        told.append(what_to_do(test))
    told.append(
        f"It always answers with one of its {plural(len(per_label), 'label')}. "
        "A text that belongs to none gets one of them all the same, unless `predict --abstain-below P` withholds it."
    )
    return told


def _best_baseline(document: Document) -> tuple[str, Mapping[str, Any]] | None:
    """Name and accuracy (with `difference`) of the baseline with the highest accuracy."""
    if not document.compared:
        return None
    name = max(document.compared, key=lambda key: document.compared[key]["accuracy"]["value"])
    return name, document.compared[name]["accuracy"]


def _test_rows(test: Mapping[str, Any]) -> int:
    return sum(sum(line) for line in test["confusion_matrix"])


_ACCURACY = Figure(name="accuracy", title="Accuracy", meaning="share of test rows that are right")
_MACRO_F1 = Figure(
    name="macro_f1",
    title="Macro-F1",
    meaning="mean F1 over classes, rare ones counting as much as frequent ones",
)
_LOG_LOSS = Figure(
    name="log_loss",
    title="Log loss",
    meaning="nats per row; punishes being sure and wrong, lower is better",
    is_share=False,
    lower_is_better=True,
)

CLASSIFICATION = ReportPlan(
    headline=headline,
    verdict=verdict,
    figures=(
        _ACCURACY,
        _MACRO_F1,
        _LOG_LOSS,
        Figure(
            name="expected_calibration_error",
            title="Calibration error",
            meaning="mean gap between how sure it is and how often it is right",
            lower_is_better=True,
        ),
    ),
    slice_figures=(
        _ACCURACY,
        _MACRO_F1,
        Figure(name="recall", title="Recall", meaning="mean recall of the classes that are there"),
        _LOG_LOSS,
    ),
    sections=(
        gate,
        comparison,
        slices,
        per_class,
        confusion,
        mistakes,
        thresholds,
        calibration,
        abstention,
        where_rows_went,
        learning_curve,
        learnt,
        limits,
        cost,
        provenance,
    ),
    limits=_more_limits,
    pipeline_tag="text-classification",
    use="It puts a text into one of the classes it was trained on, and says how sure it is of each.",
)
