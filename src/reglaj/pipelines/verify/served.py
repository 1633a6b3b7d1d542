"""Promise 7: what was evaluated is what is served: the same files, tokens, weights and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from reglaj.core.errors import ReglajError
from reglaj.core.runs import software
from reglaj.pipelines.verify.sealed import test_hash
from reglaj.pipelines.verify.subject import Subject, short
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted, not_applicable

TOLERANCE = 1e-6
"""Of a figure, relative to it: what rounding may do to a sum over rows."""
_MACHINE = ("device", "precision", "hardware", "layout")
_LIBRARIES = ("torch", "transformers")


def same_files(subject: Subject) -> Finding:
    """Files, golden prompts and trained weights are those that were evaluated."""
    listed = subject.listed(7)
    there = {str(file.relative_to(subject.path)) for file in subject.model.rglob("*") if file.is_file()}
    problems = subject.changed_files(7)
    problems += [f"{name} is there, and not in the manifest" for name in sorted(there - listed.keys())]
    task, _ = subject.connected
    try:
        task.verify(subject.model)
    except ReglajError as error:
        problems.append(error.problems[0].why)
    weights = weights_of(subject)
    told = {"report.json": subject.report.get("weights_sha256"), "the manifest": subject.manifest.get("weights_sha256")}
    problems += [
        f"the weights have the sha256 {short(weights)}, and {name} says {short(digest)}"
        for name, digest in told.items()
        if digest != weights
    ]
    golden = subject.model / "golden_prompts.json"
    prompts = "golden prompts give their tokens, " if golden.is_file() else ""
    return concluded(
        problems,
        f"{counted(len(listed), 'file')} of model/ as in the manifest and no other; {prompts}the reloaded weights have "
        f"the sha256 {short(weights)} of report and manifest",
    )


def weights_of(subject: Subject) -> str:
    """The hash of the trained weights as they are loaded now."""
    from reglaj.training.learner import weights_sha256

    return weights_sha256(subject.assembled.learner.trained())


def same_figures(subject: Subject) -> Finding:
    """The reloaded model gives the reported figures of the test part, answers that it writes included."""
    from reglaj.tasks.base import Evaluation
    from reglaj.training.engine import using_threads

    if subject.data is None:
        return not_applicable(subject.no_data)
    reported: dict[str, Any] = subject.report.get("test") or {}
    found_hash, then = test_hash(subject), (subject.report.get("data") or {}).get("test_hash")
    if found_hash != then:
        told = f"these test rows ({short(found_hash)}) are not those that were evaluated ({short(then)}): see promise 2"
        return not_applicable(told)
    assembled = subject.assembled
    test, openings = subject.test
    evaluation = Evaluation(
        learner=assembled.learner,
        tokenizer=assembled.tokenizer,
        test=test,
        config=subject.recipe.evaluate,
        max_tokens=assembled.max_tokens,
        seed=subject.recipe.train.seed,
    )
    with using_threads(assembled.learner.engine.threads):
        again = assembled.task.evaluate(evaluation, subject.console).test
    again = json.loads(json.dumps(again))
    other = _elsewhere(subject, assembled.learner.engine.facts())
    problems = list(_differences(reported, again, "test", in_interval=bool(other)))
    count = sum(1 for _ in _leaves(reported))
    opened = f"the test part was opened for it, {counted(openings, 'time')} in all"
    if other:
        told = f"within their intervals, elsewhere than the run was evaluated ({', '.join(other)})"
    else:
        told = f"equal within {TOLERANCE:.0e}"
    headline = subject.task_type.headline
    return concluded(
        problems,
        f"{counted(len(test), 'test row')} scored again: {count:,} figures of the report {told} ({headline} "
        f"{again[headline]['value']:.6g}); {opened}",
    )


def _elsewhere(subject: Subject, here: dict[str, Any]) -> list[str]:
    """What was otherwise where the run was evaluated, and may show in the last digits."""
    then = (subject.report.get("engine") or {}) | (subject.manifest.get("software") or {})
    now = here | software()
    return [f"{name} {then.get(name)}" for name in (*_MACHINE, *_LIBRARIES) if then.get(name) != now.get(name)]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def _differences(reported: Any, again: Any, path: str, *, in_interval: bool) -> Iterator[str]:
    """Where two documents of figures differ. in_interval: figures with one may move inside it, and no others count."""
    if isinstance(reported, dict) and isinstance(again, dict):
        if in_interval and {"value", "low", "high"} <= reported.keys() & again.keys():
            if not reported["low"] <= again["value"] <= reported["high"]:
                yield f"{path} is {again['value']:.6g}, outside of [{reported['low']:.6g}, {reported['high']:.6g}]"
            return
        for key in sorted(reported.keys() | again.keys()):
            if key not in again or key not in reported:
                yield f"{path}.{key} is {'reported, and not found' if key in reported else 'found, and not reported'}"
            else:
                yield from _differences(reported[key], again[key], f"{path}.{key}", in_interval=in_interval)
    elif isinstance(reported, list) and isinstance(again, list) and len(reported) == len(again):
        for place, (one, other) in enumerate(zip(reported, again, strict=True)):
            yield from _differences(one, other, f"{path}[{place}]", in_interval=in_interval)
    elif not in_interval and not _is_same(reported, again):
        yield f"{path} is reported as {_shown(reported)}, and is {_shown(again)}"


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9)
    return bool(one == other)


def _shown(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else repr(value)[:60]
