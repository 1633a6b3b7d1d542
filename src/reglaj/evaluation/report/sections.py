"""Sections that fit every task: comparison, learning curve, cost, limits, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, folded, joined, table, tag, with_code
from reglaj.evaluation.report.plan import Block, Document, Figure
from reglaj.evaluation.report.plots import Axis, Dot, Series, dots_and_intervals, line_chart
from reglaj.evaluation.report.words import (
    count,
    duration,
    level,
    listed,
    number,
    openings_told,
    p_value,
    percent,
    plural,
    shown,
    shown_difference,
    size,
)

_MOST_POINTS = 160
"""Points of the training loss that are drawn; more are averaged, for one step's loss is mostly noise."""


def baseline_title(name: str) -> str:
    """How a sentence calls a baseline; its own name where it is unknown."""
    from reglaj.evaluation.baselines import BASELINES

    return BASELINES.get(name).title if name in BASELINES else name.replace("_", " ")


def comparison(document: Document) -> Block | None:
    """The model beside the baselines, with paired differences."""
    lead = (
        "What simpler ways reach on the same test rows, each trained on the same training rows as the model. "
        "Differences are paired: both sides are scored on the same rows each time, so a difference can be clear "
        "even where the intervals of the two overlap."
    )
    return comparison_on(document, document.plan.figures, lead)


def comparison_on(document: Document, figures: Sequence[Figure], lead: str) -> Block | None:
    """The model beside the baselines on some figures: the first is drawn, and every one has its table."""
    if not document.compared:
        return None
    first = figures[0]
    ordered = sorted(document.compared.items(), key=lambda item: -item[1][first.name]["value"])
    if first.lower_is_better:
        ordered.reverse()
    scores = [("this model", document.report["test"], True), *((baseline_title(n), s, False) for n, s in ordered)]
    dots = [
        Dot(label=name, is_ours=ours, **{k: values[first.name][k] for k in ("value", "low", "high")})
        for name, values, ours in scores
    ]
    cells = [shown(values[first.name], is_share=first.is_share) for _, values, _ in scores]
    write = (lambda v: percent(v, 0)) if first.is_share else (lambda v: number(v, 2))
    plot = dots_and_intervals(dots, write, cells, alternative=f"{first.title} of the model and of each baseline")
    told = f"{first.title} with {level(document.confidence)} intervals. The band is the model's own interval."
    if first.lower_is_better:
        told += " Lower is better."
    tables = [_figure_table(document, f, scores) for f in figures if _is_compared(document, f)]
    notes = [str(note) for note in document.report.get("notes", [])]
    remarks = tag("ul", *(tag("li", note) for note in notes), class_="plain quiet") if notes else ""
    return Block(
        anchor="baselines",
        title="Against the baselines",
        lead=lead,
        body=joined([figure(plot, told), *tables, remarks]),
    )


def _is_compared(document: Document, one: Figure) -> bool:
    return all("difference" in scores.get(one.name, {}) for scores in document.compared.values())


def _figure_table(document: Document, one: Figure, scores: Sequence[tuple[str, Mapping[str, Any], bool]]) -> Markup:
    unit = "points" if one.is_share else "lower is better" if one.lower_is_better else "higher is better"
    rows: list[list[Any]] = []
    for name, values, ours in scores:
        value = shown(values[one.name], is_share=one.is_share)
        if ours:
            rows.append([tag("b", name), tag("b", value), "", ""])
            continue
        paired = values[one.name]["difference"]
        difference = shown_difference(paired, is_share=one.is_share)
        rows.append([name, value, difference, exact(paired["p"], p_value(paired["p"]))])
    headings = ["", one.title.lower(), f"model minus it ({unit})", "p"]
    caption = f"{one.title}: {one.meaning}"
    return table(headings, rows, caption=caption, numeric=(1, 2, 3))


def learning_curve(document: Document) -> Block | None:
    """Training and validation loss by step, and where training stopped."""
    lines = document.extras.get("metrics") or []
    steps = [line for line in lines if line.get("event") == "step"]
    evaluations = [line for line in lines if line.get("event") == "evaluation"]
    if not steps:
        return None
    training = document.report.get("training", {})
    best = training.get("best_step")
    loss = [Series(points=_thinned([(line["step"], line["loss"]) for line in steps]), kind="faint")]
    legend = [("faint", "training loss")]
    measured = [(line["step"], line["validation_loss"]) for line in evaluations if "validation_loss" in line]
    if measured:
        loss.append(Series(points=measured, has_dots=True))
        legend.append(("", "validation loss"))
    if best:
        legend.append(("mark", f"kept: step {count(best)}"))
    x = Axis(title="optimizer step", write=count)
    told = _loss_in_words(steps, measured, best)
    plots = [
        figure(
            line_chart(loss, x=x, y=Axis(title="loss", write=lambda v: f"{v:g}"), mark=best, alternative=told),
            "",
            legend,
        ),
        *_validation_plot(evaluations, x, best),
    ]
    columns = ["step", *(key for key in (evaluations[0] if evaluations else {}) if key.startswith("validation_"))]
    rows = [[count(line["step"]), *(exact(line[c], number(line[c])) for c in columns[1:])] for line in evaluations]
    values = table(
        [_title(c) for c in columns], rows, caption="Every evaluation on validation", numeric=range(len(columns))
    )
    return Block(
        anchor="learning",
        title="How it learned",
        lead=_ending(training),
        body=joined([tag("div", *plots, class_="pair"), folded("Numbers of the curve", values) if rows else ""]),
    )


def _validation_plot(evaluations: Sequence[Mapping[str, Any]], x: Axis, best: int | None) -> list[Markup]:
    """Shares measured on validation, such as accuracy, in a second plot: they have another unit than a loss."""
    names = [
        k for k in (evaluations[0] if evaluations else {}) if k.startswith("validation_") and k != "validation_loss"
    ]
    names = [name for name in names if all(0 <= line.get(name, -1) <= 1 for line in evaluations)][:2]
    if not names or len(evaluations) < 2:
        return []
    kinds = ("", "second")
    series = [
        Series(points=[(line["step"], line[name]) for line in evaluations], kind=kind, has_dots=True)
        for name, kind in zip(names, kinds, strict=False)
    ]
    legend = [(kind, _title(name)) for name, kind in zip(names, kinds, strict=False)]
    last = ", ".join(f"{_title(name)} {percent(evaluations[-1][name])}" for name in names)
    y = Axis(title="share", write=lambda v: percent(v, 0))
    return [figure(line_chart(series, x=x, y=y, mark=best, alternative=f"At the last evaluation: {last}"), "", legend)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbouring points, so that at most `_MOST_POINTS` are left."""
    width = max(1, -(-len(points) // _MOST_POINTS))
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(sum(p[0] for p in g) / len(g), round(sum(p[1] for p in g) / len(g), 5)) for g in groups]


def _loss_in_words(
    steps: Sequence[Mapping[str, Any]], measured: Sequence[tuple[float, float]], best: int | None
) -> str:
    told = f"Training loss from {steps[0]['loss']:.3g} to {steps[-1]['loss']:.3g} in {len(steps)} steps"
    if measured:
        told += f"; validation loss from {measured[0][1]:.3g} to {measured[-1][1]:.3g}"
    return told + (f"; the weights of step {best} were kept" if best else "")


def _ending(training: Mapping[str, Any]) -> str:
    told = f"{plural(training.get('steps', 0), 'optimizer step')}"
    if training.get("stopped") == "early":
        told += ", then training stopped early: validation no longer got better"
    if training.get("best_step"):
        told += f". The weights of step {count(training['best_step'])} were kept"
    told += ". Only validation rows decided this; test rows had no part in it."
    if resumed := training.get("resumed_at"):
        told += f" The run was interrupted and went on after step {', '.join(count(step) for step in resumed)}."
    if skipped := training.get("skipped_steps"):
        told += f" {plural(skipped, 'step was', 'steps were')} left out, for a loss or gradient was not finite."
    return told


def cost(document: Document) -> Block | None:
    """Time, memory and size."""
    values = document.report.get("cost")
    if not values:
        return None
    writers = {"seconds": duration, "bytes": size, "parameters": count, "second": lambda v: f"{v:,.0f}"}
    writers["share"] = percent
    rows = [
        [_measure(key), exact(value, writers.get(key.rsplit("_", 1)[-1], lambda v: f"{v:,}")(value))]
        for key, value in values.items()
    ]
    engine = document.report.get("engine") or {}
    choices = [[_title(key).capitalize(), value] for key, value in engine.items() if not isinstance(value, dict | list)]
    body = [table(["", "this run"], rows, caption="Measured while this run went on", numeric=(1,))]
    if choices:
        body.append(table(["", "chosen"], choices, caption="What the engine chose for this machine"))
    return Block(anchor="cost", title="What it cost", body=tag("div", *body, class_="pair"))


def _measure(key: str) -> str:
    """`train_seconds` is `Train time`: the unit stands beside the figure."""
    name, _, unit = key.rpartition("_")
    if unit == "seconds":
        return _title(f"{name}_time").capitalize()
    return _title(name if unit == "bytes" else key).capitalize()


def limits(document: Document) -> Block:
    """What the figures cannot say, in plain words."""
    sentences = [tag("li", with_code(sentence)) for sentence in limit_sentences(document)]
    return Block(anchor="limits", title="What these figures do not say", body=tag("ul", *sentences, class_="plain"))


def limit_sentences(document: Document) -> list[str]:
    """The general limits and those of the task, one sentence or two each."""
    data = document.report.get("data") or {}
    openings = document.report.get("test_openings")
    told = [
        f"The test rows come from the same files as the training rows ({count(data.get('test', 0))} of them). Texts of "
        "another time, source or language may go worse; `reglaj evaluate RUN --data FILE` measures that.",
        f"A {level(document.confidence)} interval tells how far a figure may move with other rows of the same kind. "
        "It does not cover another training run: this is one run with one seed.",
        "Rows that are equal up to case and white space never lie in two parts. Paraphrases and near copies may, and "
        "would make every figure here, the baselines' too, a little too good.",
    ]
    if len(document.compared) > 1:
        told.append("The p‑values of several baselines are not corrected for the number of comparisons.")
    told += document.plan.limits(document)
    if openings is not None:
        told.append(openings_told(openings))
    return told


def provenance(document: Document) -> Block:
    """Recipe, derived values, versions, hashes and licences: what is needed to check or to repeat the run."""
    report, extras = document.report, document.extras
    facts = [["Run", tag("code", report.get("run", ""))]]
    for key, title in (("weights_sha256", "SHA-256 of the trained weights"), ("test_openings", "Test openings")):
        if report.get(key) is not None:
            facts.append([title, tag("code", report[key])])
    for key in ("key", "test_hash"):
        if (report.get("data") or {}).get(key):
            facts.append([f"Data: {_title(key)}", tag("code", report["data"][key])])
    body: list[Any] = [table(["", ""], facts, caption="Identity")]
    licences = [
        [one.get("name"), one.get("licence") or "not stated", one.get("source") or ""]
        for one in extras.get("licences") or []
    ]
    if licences:
        body.append(table(["what", "licence", "source"], licences, caption="Licences of what this model was made from"))
    derived = [[tag("code", key), value] for key, value in (extras.get("derived") or {}).items()]
    if derived:
        body.append(
            table(["key", "value and reason"], derived, caption="Values the recipe left out, and what they became")
        )
    software = [[name, tag("code", version)] for name, version in (extras.get("software") or {}).items()]
    if software:
        body.append(folded("Versions", table(["", "version"], software, caption="Software")))
    if extras.get("recipe_yaml"):
        body.append(folded("The resolved recipe", tag("pre", extras["recipe_yaml"], tabindex="0")))
    names = listed(
        [
            name
            for name, there in (("recipe", extras.get("recipe_yaml")), ("versions", software), ("hashes", True))
            if there
        ]
    )
    return Block(
        anchor="provenance",
        title="How to check and repeat it",
        lead=f"{names.capitalize()} of this run.",
        body=joined(body),
    )


def _title(key: str) -> str:
    return key.replace("_", " ").replace("macro f1", "macro-F1")
