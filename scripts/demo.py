"""The demo: train on recipes/medical.yaml, then show the table, three predictions, and where the report lies.

A second call finds the finished run and shows it again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import reglaj
from reglaj.cli.faults import report_fault
from reglaj.cli.figures import read_report
from reglaj.cli.page import Page
from reglaj.core.console import RichConsole
from reglaj.core.processors import share_processors

ROOT = Path(__file__).resolve().parents[1]
# Made up for this page; a test holds that none of them is in the data.
QUESTIONS = (
    "Which nerve is at risk when the surgical neck of the humerus breaks after a fall?",
    "A toddler wakes at night with a barking cough and noisy breathing in. What is the most likely cause?",
    "Which luting cement gives off the least heat while setting under a ceramic crown?",
)


def main() -> int:
    """Run the demo from the repository's root; the exit code."""
    share_processors()
    os.chdir(ROOT)  # so that every path that is printed is short and can be copied
    page = Page()
    try:
        run = reglaj.train("recipes/medical.yaml", runs="runs", console=RichConsole())
        answers = reglaj.load(run.path).predict(list(QUESTIONS))
    except BaseException as error:
        return report_fault(error, as_json=False, debug="--debug" in sys.argv)
    page.line()
    read_report(page, run.report)
    page.line("\nthree questions that are not in the data:")
    for answer in answers:
        sure = max(answer["probabilities"].values())
        page.line(f"  {answer['prediction']:<24} {sure:4.0%}  {answer['input']}")
    page.line(f"\nthe whole report, for a browser: {run.path / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
