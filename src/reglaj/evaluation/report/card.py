"""README.md of a run: a model card as Hugging Face reads it (Mitchell et al. 2019, "Model Cards for Model Reporting").

It quotes no row of the data, so that it can be published where the report cannot.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from reglaj.evaluation.report.learnt import learnt_sentences
from reglaj.evaluation.report.plan import Document, Figure
from reglaj.evaluation.report.sections import baseline_title, limit_sentences
from reglaj.evaluation.report.slices import sentences_for_card
from reglaj.evaluation.report.words import (
    count,
    difference_span,
    duration,
    level,
    number,
    openings_told,
    p_value,
    percent,
    points,
    signed,
    size,
    span,
)

_HUB_ID = re.compile(r"^[\w.\-]+/[\w.\-]+$")
_KNOWN_LICENCES = (
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "bsd-2-clause",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-3.0",
)


def render_card(document: Document) -> str:
    """The whole of README.md."""
    front = yaml.safe_dump(_front_matter(document), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {_plain(document.name)}",
        _plain(document.plan.headline(document)),
        _intended_use(document),
        _figures(document),
        _data(document),
        _learnt(document),
        _limits(document),
        _how_to_use(document),
        _provenance(document),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(document: Document) -> dict[str, Any]:
    report, plan = document.report, document.plan
    model = str(document.extras.get("base_model") or report.get("model") or "")
    values: dict[str, Any] = {
        "license": _licence_id(document),
        "library_name": "reglaj",
        "pipeline_tag": plan.pipeline_tag,
        "tags": [tag for tag in (plan.pipeline_tag, "reglaj", "fine-tuned", report.get("method")) if tag],
    }
    if _HUB_ID.match(model):
        values["base_model"] = model
    figures = [f for f in plan.figures if f.name in report["test"]]
    measured = [{"type": f.name, "name": f.title, "value": round(report["test"][f.name]["value"], 6)} for f in figures]
    result = {
        "task": {"type": plan.pipeline_tag},
        "dataset": {"name": f"sealed test split of {document.name}", "type": "private"},
        "metrics": measured,
    }
    values["metrics"] = [f.name for f in figures]
    values["model-index"] = [{"name": document.name, "results": [result]}]
    return values


def _licence_id(document: Document) -> str:
    """The licence of the base model in the hub's spelling; `other` where it has none."""
    licences: Sequence[Mapping[str, Any]] = document.extras.get("licences") or [{}]
    stated = str(licences[0].get("licence") or "").strip().lower().replace(" ", "-")
    return stated if stated in _KNOWN_LICENCES else "other"


def _intended_use(document: Document) -> str:
    report = document.report
    labels = list((report["test"].get("per_class") or {}).keys())
    text = f"## Intended use\n\n{document.plan.use}"
    base, method = _plain(report.get("model", "its base model")), _plain(report.get("method"))
    text += f" Fine-tuned from `{base}` with the method `{method}`"
    text += " by [reglaj](#provenance), on the data described below and for texts like those."
    text += " Decisions about people should not rest on it alone."
    if labels:
        shown = ", ".join(f"`{_plain(label)}`" for label in labels[:100])
        rest = f" and {len(labels) - 100} more" if len(labels) > 100 else ""
        text += f"\n\nClasses ({len(labels)}): {shown}{rest}."
    return text


def _figures(document: Document) -> str:
    report, plan = document.report, document.plan
    figures = [f for f in plan.figures if f.name in report["test"]]
    models = [("this model", report["test"]), *((baseline_title(n), s) for n, s in document.compared.items())]
    lines = [
        "## Evaluation",
        "",
        f"On the sealed test split, with {level(document.confidence)} intervals in brackets.",
        "",
        _row(["", *(_plain(name) for name, _ in models)]),
        _row(["---", *("---:" for _ in models)]),
    ]
    for figure in figures:
        ours, *theirs = (_value(figure, scores[figure.name]) if figure.name in scores else "" for _, scores in models)
        lines.append(_row([figure.title, f"**{ours}**", *theirs]))
    differences = [
        _row([_plain(baseline_title(name)), figure.title, *_difference(figure, scores[figure.name]["difference"])])
        for name, scores in document.compared.items()
        for figure in figures
        if "difference" in scores.get(figure.name, {})
    ]
    if differences:
        lines += ["", "The model minus each baseline, paired on the same rows (shares in percentage points):", ""]
        lines += [_row(["baseline", "figure", "difference", "p"]), _row(["---", "---", "---:", "---:"]), *differences]
    if told := sentences_for_card(document):
        lines += ["", *(f"- {_plain(sentence)}" for sentence in told)]
    return "\n".join(lines)


def _value(figure: Figure, value: Mapping[str, float]) -> str:
    write = percent if figure.is_share else number
    return f"{write(value['value'])} ({span(value, is_share=figure.is_share)})"


def _difference(figure: Figure, paired: Mapping[str, float]) -> list[str]:
    write = points if figure.is_share else signed
    return [f"{write(paired['value'])} ({difference_span(paired, is_share=figure.is_share)})", p_value(paired["p"])]


def _data(document: Document) -> str:
    data = document.report.get("data")
    if not data:
        return ""
    lines = [
        "## Data",
        "",
        "Every record that was read, in the one place it ended in:",
        "",
        _row(["bucket", "records"]),
    ]
    lines.append(_row(["---", "---:"]))
    lines += [_row([part, count(data.get(part, 0))]) for part in ("train", "validation", "test")]
    dropped = sorted(data.get("dropped", {}).items(), key=lambda item: -item[1])
    lines += [_row([f"dropped: {_plain(reason).replace('_', ' ')}", count(n)]) for reason, n in dropped if n]
    lines.append(_row(["**read**", f"**{count(data['read'])}**"]))
    return "\n".join(lines)


def _learnt(document: Document) -> str:
    if not (told := learnt_sentences(document)):
        return ""
    lines = ["## What was learnt", "", _plain(" ".join(told))]
    tokens = document.report["learnt"].get("virtual_tokens") or []
    if tokens:
        lines += ["", _row(["", "nearest words", "cosine of the first", "norm"]), _row(["---:", "---", "---:", "---:"])]
    for place, token in enumerate(tokens, start=1):
        words = ", ".join(f"“{_plain(word['text'])}”" for word in token["words"][:3])
        lines.append(_row([count(place), words, number(token["words"][0]["cosine"], 2), number(token["norm"], 2)]))
    return "\n".join(lines)


def _limits(document: Document) -> str:
    return "## Limits\n\n" + "\n".join(f"- {sentence}" for sentence in limit_sentences(document))


def _how_to_use(document: Document) -> str:
    # One line and no backticks: nothing may end the code block early.
    run = " ".join(str(document.report.get("run") or "RUN").replace("`", "").split())
    quoted, folder = shlex.quote(run), PurePath(run).as_posix()
    example = document.plan.example
    filled = (command.format(run=quoted, example=f'"{example}"') for command in document.plan.commands)
    commands = "\n".join(f"reglaj {command}" for command in filled)
    return (
        "## How to use it\n\n"
        f"```sh\n{commands}\n```\n\n"
        f"```python\nimport reglaj\n\nmodel = reglaj.load({folder!r})\nprint(model.predict([{example!r}]))\n```\n\n"
        "The run folder may lie anywhere; give its path as it is then."
    )


def _provenance(document: Document) -> str:
    report, extras = document.report, document.extras
    cost, training = report.get("cost") or {}, report.get("training") or {}
    facts = []
    if cost:
        facts.append(
            f"Trained in {duration(cost.get('train_seconds', 0))}, {count(training.get('steps', 0))} steps, weights of "
            f"step {count(training.get('best_step', 0))}; {count(cost.get('trainable_parameters', 0))} trainable "
            f"parameters, {size(cost.get('stored_bytes', 0))} stored."
        )
    if report.get("test_openings") is not None:
        facts.append(openings_told(report["test_openings"]))
    if report.get("weights_sha256"):
        facts.append(f"SHA-256 of the trained weights: `{report['weights_sha256']}`.")
    for licence in extras.get("licences") or []:
        source = f", from {_plain(licence['source'])}" if licence.get("source") else ""
        facts.append(
            f"{_plain(licence.get('name'))}: licence {_plain(licence.get('licence') or 'not stated')}{source}."
        )
    software = ", ".join(
        f"{_plain(name)} {_plain(version)}" for name, version in (extras.get("software") or {}).items()
    )
    if software:
        facts.append(f"Software: {software}.")
    facts.append(
        "`recipe.yaml` holds every setting, `manifest.json` the hash of every file, `report.html` the whole report."
    )
    return "## Provenance\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(value: Any) -> str:
    """Text that stays text inside Markdown: one line, no cell ends, no HTML, no code ends."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
