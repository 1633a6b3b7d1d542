"""`reglaj --help` imports nothing heavy before a verb needs it (tests/house measures the time)."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "pydantic", "pyarrow", "numpy", "pandas", "sklearn", "scipy", "yaml")
VERBS = ("new", "check", "data", "train", "evaluate", "predict", "runs", "starters", "methods", "schema")


def run(*arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "reglaj", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def imported(report: str) -> set[str]:
    """Top-level packages in the report of `python -X importtime`."""
    names = {line.rsplit("|", 1)[-1].strip() for line in report.splitlines() if line.startswith("import time:")}
    return {name.split(".")[0] for name in names}


def test_help_imports_nothing_heavy():
    process = run("--help", flags=("-X", "importtime"))
    packages = imported(process.stderr)
    assert process.returncode == 0
    assert "typer" in packages, "the report of imports was not understood"
    assert not packages & set(HEAVY)
    assert all(verb in process.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(reglaj, verb):
    outcome = reglaj(verb, "--help")
    assert outcome.code == 0
    assert "--json" in outcome.out and "--debug" in outcome.out


def test_without_a_verb_the_help_is_shown(reglaj):
    assert reglaj().out == reglaj("--help").out


def test_version_is_the_package_version(reglaj):
    import reglaj as package

    outcome = reglaj("--version")
    assert (outcome.code, outcome.out) == (0, f"reglaj {package.__version__}\n")
