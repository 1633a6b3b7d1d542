"""Milliseconds a step of every method, beside plain PEFT under the Hugging Face Trainer on the same work.

    python benchmarks/method_speed.py [--tasks classify,chat] [--only lora,ia3] [--repeats 3] [--tables]

MiniLM on questions of banking77, batch 32, and SmolLM2 on conversations of finance, batch 8: the same rows in the same
order from the same first values, in turns whose order rotates, after a warm-up in which the losses of every step are
compared without dropout. Where plain PEFT cannot do the work, that is said. Each finished contest is a line of --lines,
and is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import transformers

from benchmarks import machine
from benchmarks.measuring import OURS, Measured, measure, ratios, tell
from benchmarks.method_works import BANKING77
from benchmarks.works.methods import LORA, PEER, MethodWork, contest
from reglaj.core.errors import ReglajError
from reglaj.core.files import write_text
from reglaj.methods import METHODS

HERE = Path(__file__).parent
Line = dict[str, Any]
BOUND = 1.15
"""The adapter costs at most so many times what unmerged LoRA of equal parameters does."""


def run(work: MethodWork, repeats: int) -> Line:
    """One contest; where the peer breaks, our side alone, with the reason."""
    line: Line = {"task": work.task, "method": work.method, "model": work.model, "date": machine.today()}
    line |= {"machine": machine.facts(), "device": work.device, "precision": work.precision}
    started = machine.load_average()
    no_peer = ""
    for has_peer in (True, False):
        one = contest(work, has_peer=has_peer)
        tell(f"{one.name}: {one.title}")
        try:
            facts = one.facts()
            measured = measure(one, repeats, lambda _: None)
            break
        except ReglajError as error:  # the product itself refuses the work
            return line | {"refused": str(error).splitlines()[0]}
        except Exception as error:
            if not has_peer:
                raise
            traceback.print_exc()
            no_peer = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return (
        line
        | _figures(measured, one.amount)
        | {
            "facts": facts,
            "no_peer": no_peer,
            "load_average": [started, machine.load_average()],
        }
    )


def _figures(measured: Measured, steps: int) -> Line:
    return {"sides": measured.sides, "steps": steps}


def read_lines(file: Path) -> dict[tuple[str, str], Line]:
    """Finished contests; the later line counts."""
    if not file.is_file():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return {(line["task"], line["method"]): line for line in lines}


def markdown(lines: list[Line]) -> str:
    """The table, with a verdict for each method."""
    told = ["# Every method beside plain PEFT under the Hugging Face Trainer", ""]
    told += [
        "`python benchmarks/method_speed.py --tables`: milliseconds of an optimizer step, medians (range) of turns"
    ]
    told += [
        "that rotate; the ratio is taken within each turn. Losses: of every step, without dropout, largest difference."
    ]
    for task in sorted({line["task"] for line in lines}):
        some = [line for line in lines if line["task"] == task]
        told += ["", f"## {task}", "", _where(some), ""]
        told += [
            "| method | trainable | reglaj, ms | Trainer + PEFT, ms | theirs / ours | losses |",
            "|---|---|---|---|---|---|",
        ]
        told += [_row(line) for line in some if line["method"] != "adapter"]
        told += [text for line in some if line["method"] == "adapter" and "sides" in line for text in _adapter(line)]
    return "\n".join(told) + "\n"


def _where(lines: list[Line]) -> str:
    some = next((line for line in lines if "facts" in line), lines[0])
    facts = some.get("facts", {})
    loads = [load for line in lines for load in line.get("load_average", ()) if load is not None]
    others = [
        share for line in lines for side in line.get("sides", {}).values() for share in side["others_share"] if share
    ]
    return (
        f"{facts.get('rows')} rows, {facts.get('tokens')} tokens ({facts.get('tokens_with_padding')} with padding), "
        f"batch {facts.get('batch_size')}, {some['device']}, {some['precision']}. {machine.sentence(some['machine'])}. "
        f"Load average {loads[0] if loads else ''} to {loads[-1] if loads else ''}"
        + (f", others took {statistics.fmean(others):.0%} of the processors." if others else ".")
    )


def _row(line: Line) -> str:
    if "refused" in line:
        return f"| {line['method']} | | refused: {line['refused']} | | | |"
    sides, steps = line["sides"], line["steps"]
    cells = [line["method"], f"{line['facts']['trainable']:,}", _milliseconds(sides[OURS], steps)]
    if PEER not in sides:
        return f"| {' | '.join(cells)} | none: {line['no_peer'] or 'plain PEFT has no such method'} | | |"
    found, agreement = ratios(sides, PEER), sides[PEER]["agreement"]
    mark = "" if statistics.median(found) >= 1 else " **slower**"
    agrees = f"{agreement['distance']:.1e}" + ("" if agreement["agrees"] else " **apart**")
    return f"| {' | '.join(cells)} | {_milliseconds(sides[PEER], steps)} | {_spread(found)}{mark} | {agrees} |"


def _adapter(line: Line) -> list[str]:
    sides, steps = line["sides"], line["steps"]
    told = [
        "",
        f"The adapter ({line['facts']['trainable']:,} parameters) takes {_milliseconds(sides[OURS], steps)} ms a step.",
    ]
    for name in ("reglaj lora", LORA, f"{PEER} lora"):
        if name in sides:
            shares = [1 / ratio for ratio in ratios(sides, name)]
            verdict = "within" if statistics.median(shares) <= BOUND else "**above**"
            own = f"{name} of as many parameters ({_milliseconds(sides[name], steps)} ms)"
            told.append(f"- {_spread(shares)} of {own}: {verdict} {BOUND}")
    return told


def _milliseconds(side: Line, steps: int) -> str:
    return _spread([seconds * 1000 / steps for seconds in side["seconds"] if seconds], 0 if steps else 1)


def _spread(values: list[float], digits: int = 2) -> str:
    digits = 1 if digits == 0 and statistics.median(values) < 100 else digits
    shown = f"{statistics.median(values):.{digits}f}"
    return shown if len(values) < 2 else f"{shown} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    """Measure what is not measured yet, then tell."""
    options = _parser().parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    chosen = options.only.split(",") if options.only else METHODS.names()
    end = time.monotonic() + options.seconds
    for task in options.tasks.split(","):
        for method in chosen if options.repeats else ():
            if (task, method) in read_lines(options.lines) or time.monotonic() > end:
                continue
            batch = options.batch or (32 if task == "classify" else 8)
            work = MethodWork(
                method=method,
                task=task,
                batch=batch,
                rows=batch * options.steps,
                model=options.model if task == "chat" else "",
                device=options.device,
                precision=options.precision,
                banking77=options.banking77,
            )
            try:
                line = run(work, options.repeats)
            except Exception as error:
                traceback.print_exc()
                tell(f"{task} {method}: broke off: {error}")
                continue
            with options.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    lines = list(read_lines(options.lines).values())
    text = markdown(lines)
    print(text)
    if options.tables:
        write_text(HERE / "RESULTS-methods.md", text)
        write_text(HERE / "methods.json", json.dumps(lines, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="classify,chat", help="by commas")
    parser.add_argument("--only", default="", help="methods, by commas; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every side; 0 only tells")
    parser.add_argument("--steps", type=int, default=5, help="of a turn")
    parser.add_argument("--batch", type=int, help="rows of a step (32; chat: 8)")
    parser.add_argument("--model", default="", help="another model for chat, as a folder")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no contest is begun after these")
    parser.add_argument("--lines", type=Path, default=HERE / "method-speed.jsonl", help="finished contests")
    parser.add_argument("--banking77", type=Path, default=BANKING77)
    parser.add_argument("--tables", action="store_true", help="write RESULTS-methods.md and methods.json")
    return parser


if __name__ == "__main__":
    main()
