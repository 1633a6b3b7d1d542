"""Files and folders are whole or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from reglaj.core.errors import EnvironmentFault
from reglaj.core.files import canonical_hash, new_folder, write_json, write_text


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with new_folder(tmp_path / "made") as folder:
            (folder / "a").write_text(text)
            assert not (tmp_path / "made" / "a").exists() or (tmp_path / "made" / "a").read_text() != text
        assert (tmp_path / "made" / "a").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from reglaj.core.files import new_folder\n"
        "with new_folder(Path(sys.argv[1]) / 'made') as folder:\n"
        "    (folder / 'secret').write_text('a name'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    living = tmp_path / f".made.{os.getppid()}.0.tmp"
    living.mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    with new_folder(tmp_path / "made"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "made"])


def test_json_refuses_what_json_has_not(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"x": "ș"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"x": "ș"}


def test_a_place_that_cannot_be_written_is_an_environment_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault) as caught:
        write_text(tmp_path / "file" / "below.txt", "x")
    assert caught.value.exit_code == 4


def test_the_hash_of_values_does_not_depend_on_their_order():
    assert canonical_hash({"a": 1, "b": [2.5, "ș"]}) == canonical_hash({"b": [2.5, "ș"], "a": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": "1"})
