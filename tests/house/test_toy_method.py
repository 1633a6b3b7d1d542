"""The toy method of CONTRIBUTING is one file and one test: built from the text, it passes what every method must."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SUITES = sorted(path.name for path in (ROOT / "tests" / "methods").glob("test_conformance*.py"))
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")


def block(marker: str) -> str:
    """The fenced Python that follows `<!-- toy: marker -->`."""
    (found,) = re.findall(rf"^<!-- toy: {marker} -->\n```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this one with the two files of the text in it, and nothing else changed."""
    copy = tmp_path_factory.mktemp("toy")
    for name in ("src", "tests", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=LEFT_OUT)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, copy / name)
    for marker, place in (("method", "src/reglaj/methods/scale.py"), ("test", "tests/methods/test_scale.py")):
        assert f"`{place}`" in PAGE and not (copy / place).exists()
        (copy / place).write_text(block(marker), encoding="utf-8")
    return copy


def run(repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(repository / "src")}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


def test_it_passes_the_conformance_suite_and_its_own_test(repository: Path) -> None:
    assert len(SUITES) >= 3
    files = [f"tests/methods/{name}" for name in (*SUITES, "test_scale.py")]
    done = run(repository, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "scale", *files)
    told = done.stdout[-3000:] + done.stderr[-1000:]
    assert done.returncode == 0, told
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 45, told


def test_the_house_rules_hold_for_it(repository: Path) -> None:
    files = ["src/reglaj/methods/scale.py", "tests/methods/test_scale.py"]
    ruff = str(Path(sys.executable).parent / "ruff")
    for command in ([ruff, "check", *files], [ruff, "format", "--check", *files]):
        done = run(repository, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "scale" not in run(repository, sys.executable, "scripts/lint.py").stdout


def test_the_command_line_knows_it(repository: Path) -> None:
    done = run(repository, sys.executable, "-m", "reglaj", "methods", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = [method for method in json.loads(done.stdout) if method["name"] == "scale"]
    assert line["summary"] and line["citation"]
