"""The house rules, each shown to catch a planted violation, and to be silent about this repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "lint.py"

CLEAN = {
    "src/reglaj/__init__.py": "def train():\n    from reglaj.pipelines.train import train\n    return train()\n",
    "src/reglaj/__main__.py": "from reglaj.cli import main\n\nmain()\n",
    "src/reglaj/core/__init__.py": "",
    "src/reglaj/core/registry.py": "class Registry: ...\n",
    "src/reglaj/methods/__init__.py": (
        "from typing import TYPE_CHECKING\n"
        "from reglaj.core.registry import Registry\n"
        "if TYPE_CHECKING:\n    from reglaj.methods.base import Method\n"
        'METHODS = Registry("method", "reglaj.methods")\n'
    ),
    "src/reglaj/methods/base.py": "class Method: ...\n",
    "src/reglaj/methods/full.py": (
        'from . import METHODS\nfrom .base import Method\n@METHODS.register("full")\nclass Full(Method): ...\n'
    ),
    "src/reglaj/methods/lora.py": (
        "from reglaj.methods import METHODS\nfrom reglaj.methods.base import Method\n"
        '@METHODS.register("lora")\nclass Lora(Method): ...\n'
    ),
    "src/reglaj/pipelines/__init__.py": "",
    "src/reglaj/pipelines/train.py": "def train():\n    import reglaj.methods\n    from reglaj import core\n",
    "src/reglaj/cli/__init__.py": "import reglaj\nfrom reglaj.pipelines.train import train\ndef main(): ...\n",
    "tests/test_something.py": "def test_it():\n    pass\n",
}


def lint(tree: dict[str, str], root: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the script on a repository with these files."""
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, str(SCRIPT), str(root)], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_a_clean_tree_passes(tmp_path: Path) -> None:
    assert lint(CLEAN, tmp_path) == (0, ["floors, sizes, names and the sealed test part are in order"])


def test_this_repository_passes() -> None:
    code, lines = lint({}, ROOT)
    assert code == 0, "\n".join(lines)


@pytest.mark.parametrize(
    ("file", "text", "place", "words"),
    [
        ("core/files.py", "import reglaj.data.config\n", "1", "core (floor 0) imports reglaj.data.config (floor 1)"),
        ("core/files.py", "import reglaj\n", "1", "core (floor 0) imports reglaj (floor 8)"),
        ("data/read.py", "from reglaj import train\n", "1", "imports reglaj.train (floor 8)"),
        ("data/read.py", "\nfrom reglaj.models.starters import fetch\n", "2", "data (floor 1) imports reglaj.models"),
        ("data/read.py", "from reglaj import tasks\n", "1", "imports reglaj.tasks (floor 5)"),
        ("data/read.py", "def f():\n    from reglaj.training import loop\n", "2", "imports reglaj.training.loop"),
        ("data/read.py", "from ..pipelines import train\n", "1", "imports reglaj.pipelines.train (floor 7)"),
        ("data/deep/read.py", "from ...cli import main\n", "1", "imports reglaj.cli.main (floor 9)"),
        (
            "data/read.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from reglaj.tasks.base import Task\n",
            "3",
            "imports reglaj.tasks.base.Task (floor 5)",
        ),
        ("data/read.py", "import importlib\nimportlib.import_module('reglaj.cli')\n", "2", "imports reglaj.cli"),
        ("pipelines/run.py", "from reglaj.cli import main\n", "1", "pipelines (floor 7) imports reglaj.cli.main"),
        ("methods/ia3.py", "from reglaj.methods.lora import Lora\n", "1", "imports the plug-in reglaj.methods.lora"),
        ("methods/ia3.py", "from . import lora\n", "1", "imports the plug-in reglaj.methods.lora"),
        ("methods/shared.py", "import reglaj.methods.lora\n", "1", "imports the plug-in reglaj.methods.lora"),
        ("attic/old.py", "", "1", "the room 'attic' has no floor"),
        ("stray.py", "", "1", "the room 'stray' has no floor"),
        ("data/utils.py", "", "1", "the name 'utils' says nothing"),
        ("data/common/__init__.py", "", "1", "the name 'common' says nothing"),
        ("data/long.py", "x = 1\n" * 401, "1", "401 lines, at most 400"),
        ("data/long.py", "y = 1\n\ndef f():\n" + "    x = 1\n" * 60, "3", "f has 61 lines, at most 60"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, place: str, words: str) -> None:
    code, lines = lint({**CLEAN, f"src/reglaj/{file}": text}, tmp_path)
    assert code == 1
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"src/reglaj/{file}:{place}: ") and words in lines[0]


@pytest.mark.parametrize(
    ("file", "text", "place", "words"),
    [
        ("search/study.py", "def f(data):\n    return data.open_test(opened_by=None)\n", "2", "opens the sealed test"),
        ("search/study.py", "def f(data):\n    return getattr(data, 'open_test')\n", "2", "opens the sealed test"),
        ("search/study.py", "from reglaj.data.examples import PreparedData\n", "1", "take VisibleData"),
        ("curation/look.py", "def f():\n    from reglaj.data import examples\n", None, ""),
        ("curation/look.py", "def f():\n    from reglaj.data.examples import load_prepared\n", "2", "take VisibleData"),
        ("curation/look.py", "from ..data.examples import _read_part\n", "1", "take VisibleData"),
        ("evaluation/other.py", "def f(p):\n    return p / 'test.parquet'\n", "2", "names a part's file"),
        ("training/other.py", "def f(p, part):\n    return p / f'{part}.parquet'\n", "2", "names a part's file"),
        ("pipelines/compare.py", "def f(p):\n    return list(p.glob('*.parquet'))\n", "2", "names a part's file"),
        ("pipelines/compare.py", "def f(p):\n    return p / 'train.parquet'\n", None, ""),
        ("pipelines/compare.py", '"""A text about test.parquet."""\n', None, ""),
        ("pipelines/evaluate.py", "def f(data):\n    return data.open_test(opened_by='me')\n", None, ""),
        ("pipelines/verify/deep.py", "def f(p):\n    return p / 'test.parquet'\n", None, ""),
    ],
)
def test_only_a_final_evaluation_gets_at_the_test_part(
    tmp_path: Path, file: str, text: str, place: str | None, words: str
) -> None:
    code, lines = lint({**CLEAN, f"src/reglaj/{file}": text}, tmp_path)
    if place is None:
        assert code == 0, lines
        return
    assert code == 1 and len(lines) == 1, lines
    assert lines[0].startswith(f"src/reglaj/{file}:{place}: ") and words in lines[0]


def test_sizes_hold_for_tests_too(tmp_path: Path) -> None:
    code, lines = lint({**CLEAN, "tests/test_long.py": "x = 1\n" * 401}, tmp_path)
    assert code == 1 and lines[0].startswith("tests/test_long.py:1: 401 lines")


def test_an_empty_place_is_not_called_clean(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "nothing to look at" in done.stderr


@pytest.mark.parametrize(
    "file", ["training/step.py", "models/attention.py", "models/vocabulary.py", "data/batching.py"]
)
def test_the_hot_path_can_be_read_at_a_sitting(file: str) -> None:
    """Step, attention, loss and plan: four files, each short."""
    assert len((ROOT / "src" / "reglaj" / file).read_text(encoding="utf-8").splitlines()) < 250
