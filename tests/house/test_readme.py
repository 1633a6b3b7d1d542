"""The README keeps its word: its commands run, its links lead somewhere, its test command is the one CI runs."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def block(marker: str) -> list[str]:
    """The lines of the fenced block that follows `<!-- marker -->`."""
    found = re.findall(rf"^<!-- {re.escape(marker)} -->\n```\w*\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} blocks are marked {marker!r}"
    return found[0].splitlines()


def test_the_test_command_is_make_test() -> None:
    assert block("test-command") == ["make test"]
    assert "<!-- test-command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"setup", "demo", "test", "lint", "bench", "torture"} <= targets
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE)) <= targets


def test_every_verb_that_is_named_exists() -> None:
    from reglaj.cli.app import app

    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    named = set(re.findall(r"^reglaj (\w+)|`reglaj ([a-z]\w*)", README, flags=re.MULTILINE))
    assert {first or second for first, second in named} <= verbs


def test_every_relative_link_leads_to_a_file() -> None:
    links = [
        (name, link)
        for name in DOCUMENTS
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert links
    missing = [link for _, link in links if not (ROOT / link).is_file()]
    assert not missing


def test_own_data_in_three_commands(tmp_path: Path) -> None:
    """The README's commands as they stand, on a small file as a help desk would have it, Romanian included."""
    topics = {
        "card": ["My card has not arrived", "Cardul meu nu a ajuns încă", "The new card was sent to an old address"],
        "refund": ["I want my money back", "Vreau banii înapoi", "The refund for my order is late"],
        "password": ["I forgot my password", "Am uitat parola", "The reset link does not work"],
    }
    with (tmp_path / "tickets.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ticket", "message", "topic"])
        for number in range(90):
            topic = list(topics)[number % 3]
            writer.writerow([f"T-{number:04d}", f"{topics[topic][number // 3 % 3]}, case {number}", topic])
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    outputs = []
    for command in block("tested: own-data"):
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs.append(done.stdout)
    assert len(outputs) == 3
    assert "card" in outputs[2]
    run = tmp_path / "runs" / "tickets-001"
    for name in ("recipe.yaml", "metrics.jsonl", "report.html", "report.json", "README.md"):
        assert (run / name).is_file()
