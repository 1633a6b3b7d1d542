"""The demo in two parts: a classifier on recipes/medical.yaml, then a chat model on recipes/finance.yaml.

Each part trains, shows its table and some answers to questions that are not in the data, and says where its report
lies. A second call finds the finished runs and shows them again.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import reglaj
from reglaj.cli.faults import report_fault
from reglaj.cli.figures import read_report
from reglaj.cli.page import Page
from reglaj.core.console import RichConsole
from reglaj.core.processors import share_processors
from reglaj.pipelines.chat import before_and_after

ROOT = Path(__file__).resolve().parents[1]
# Made up for this page; a test holds that none of them is in the data.
QUESTIONS = (
    "Which nerve is at risk when the surgical neck of the humerus breaks after a fall?",
    "A toddler wakes at night with a barking cough and noisy breathing in. What is the most likely cause?",
    "Which luting cement gives off the least heat while setting under a ceramic crown?",
)
MONEY_QUESTION = "Should I pay off a small student loan early or put the money into an index fund?"


def main() -> int:
    """Run the demo from the repository's root; the exit code."""
    share_processors()
    os.chdir(ROOT)  # so that every path that is printed is short and can be copied
    page = Page()
    try:
        classify(page)
        chat(page)
    except BaseException as error:
        return report_fault(error, as_json=False, debug="--debug" in sys.argv)
    return 0


def classify(page: Page) -> None:
    """Which specialty a medical question belongs to."""
    page.line("== 1 of 2: a classifier, full fine-tuning of MiniLM\n")
    run = reglaj.train("recipes/medical.yaml", runs="runs", console=RichConsole())
    answers = reglaj.load(run.path).predict(list(QUESTIONS))
    page.line()
    read_report(page, run.report)
    page.line("\nthree questions that are not in the data:")
    for answer in answers:
        sure = max(answer["probabilities"].values())
        page.line(f"  {answer['prediction']:<24} {sure:4.0%}  {answer['input']}")
    page.line(f"\nthe whole report, for a browser: {run.path / 'report.html'}\n")


def chat(page: Page) -> None:
    """How people answer questions about money."""
    page.line("== 2 of 2: a chat model, LoRA on SmolLM2\n")
    run = reglaj.train("recipes/finance.yaml", runs="runs", console=RichConsole())
    page.line()
    read_report(page, run.report)
    before, after = before_and_after(run.path, MONEY_QUESTION, max_new_tokens=160)
    page.line(f"\na question that is not in the data: {MONEY_QUESTION}")
    for title, text in (("before", before), ("after", after)):
        page.line(f"\n{title}:")
        page.line(textwrap.indent(textwrap.fill(" ".join(text.split()), 112), "  "))
    page.line(f"\nthe whole report, for a browser: {run.path / 'report.html'}")
    page.line(f"talk to it: reglaj chat {run.path}")


if __name__ == "__main__":
    sys.exit(main())
