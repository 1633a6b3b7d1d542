"""`reglaj check`: every problem of a recipe at once, and what its training would cost."""

from __future__ import annotations

from typing import Any

from reglaj.cli import options
from reglaj.cli.figures import bytes_text, duration, share
from reglaj.cli.page import Page
from reglaj.cli.verb import Answer


def check(recipe: options.Recipe, overrides: options.Overrides = None, runs: options.Runs = options.RUNS) -> Answer:
    """Find every problem that can be known before training, and predict memory and time."""
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.check import check as check_recipe

    found = check_recipe(recipe, overrides or [], runs=runs, console=RichConsole())
    return Answer(found, lambda page: _read(page, found))


def _read(page: Page, found: dict[str, Any]) -> None:
    model, method, cost = found["model"], found["method"], found["forecast"]
    trains = f"trains {method['trainable_parameters']:,} of them ({share(method['share'])})"
    trains += ", and a new head" if method["has_new_head"] else ""
    rows = f"{'' if cost['rows_are_exact'] else 'about '}{cost['train_rows']:,} rows"
    page.line(f"{found['recipe']}: no problems found")
    page.line()
    page.pairs(
        [
            ("task", found["task"]),
            ("model", f"{model['name']} ({model['type']}, {model['parameters']:,} parameters)"),
            ("method", f"{method['name']} {trains}"),
            *(("source", _source(source)) for source in found["sources"]),
            ("training", f"{rows}, {cost['epochs']} epochs at most, {cost['steps']:,} steps on the {cost['device']}"),
            ("memory", f"about {bytes_text(cost['memory_bytes'])}{_available(cost)}"),
            ("time", f"about {duration(cost['train_seconds'])} (taken: {cost['assumes']})"),
        ]
    )
    page.line()
    page.line("every method on this model and data, with what it derives; least memory first:")
    columns = ("", "method", "trains", "memory", "fits", "time", "steps")
    page.table(columns, [_method(one) for one in found["methods"] if "problem" not in one], right=columns[2:4])
    for one in found["methods"]:
        if "problem" in one:
            page.line(f"cannot: {one['method']} ({one['problem']})")
    for note in found["notes"]:
        page.line(f"note: {note}")


def _available(cost: dict[str, Any]) -> str:
    if not cost["available_bytes"]:
        return ""
    where = "the GPU" if cost["device"] == "cuda" else "this machine"
    fits = cost["memory_bytes"] <= cost["available_bytes"]
    return f" of {bytes_text(cost['available_bytes'])} in {where}{'' if fits else ': it will not fit'}"


def _method(one: dict[str, Any]) -> list[str]:
    fits = {True: "yes", False: "no", None: "unknown"}[one["fits"]]
    cells = [one["method"], f"{one['trainable_parameters']:,}", bytes_text(one["memory_bytes"]), fits]
    return ["->" if one["is_chosen"] else "", *cells, duration(one["train_seconds"]), f"{one['steps']:,}"]


def _source(source: dict[str, Any]) -> str:
    amount = "all" if source["is_complete"] else "the first"
    encoding = f", {source['encoding']}" if source["encoding"] else ""
    return f"{source['path']} ({source['kind']}{encoding}; seen: {amount} {source['rows_seen']:,} rows)"
