"""Promise 5, rehearsed: a training on the run's own rows is killed, taken up again, and has to end as if nothing was.

Three processes: one that nobody disturbs, one that is killed by SIGKILL once the checkpoint of a middle step is on
disk, one that goes on from there. `rehearse.py` starts them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reglaj.core.errors import environment_fault
from reglaj.core.files import sha256_file
from reglaj.pipelines.verify.subject import Subject, read_json, read_json_lines
from reglaj.pipelines.verify.verdicts import Finding, concluded, not_applicable

CALM, AGAIN, KILLED, RESULT = "calm", "again", "killed", "result.json"
STEPS = 4
KILLED_AFTER = 2
_OUTPUT = "output.txt"


def rehearsed(subject: Subject) -> Finding:
    """Calm, killed and resumed, in a temporary folder."""
    if subject.data is None:
        return not_applicable(subject.no_data)
    with tempfile.TemporaryDirectory(prefix="reglaj-verify-") as name, subject.console.progress("rehearsing a kill"):
        folder = Path(name)
        _play(subject.path, folder)
        result = read_json(folder / KILLED / RESULT)
        problems = list(_differences(folder / CALM, folder / KILLED))
        if problems:
            _play(subject.path, folder, AGAIN)
            if list(_differences(folder / CALM, folder / AGAIN)):
                return not_applicable(
                    f"two short trainings on {result['device']} that nobody disturbs do not end with the same weights: "
                    "a kill cannot be told from chance here"
                )
    if result["resumed_at"] != [KILLED_AFTER]:
        problems.append(f"killed after step {KILLED_AFTER}, it went on after {result['resumed_at'] or 'nothing'}")
    return concluded(
        problems,
        f"three trainings of {STEPS} steps on {result['rows']} of its rows: killed by SIGKILL after step "
        f"{KILLED_AFTER} and taken up again, it ends with bitwise the weights, the optimizer and the metrics of one "
        "that nobody disturbed",
    )


def _play(run: Path, folder: Path, *parts: str) -> None:
    """All three trainings, or those named. Raises `EnvironmentFault` where they do not come to their end."""
    command = [sys.executable, "-m", "reglaj.pipelines.verify.rehearse", str(run), str(folder), *parts]
    with (folder / _OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # mostly all of them are gone by now
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        lines = (folder / _OUTPUT).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise environment_fault(
            "the rehearsal of a kill did not come to its end",
            allowed="three short trainings on this machine",
            why=lines[-1] if lines else f"it ended with {code} and said nothing",
            remedy="see that there is memory, and room in the temporary folder (TMPDIR), and verify again",
        )


def _differences(calm: Path, killed: Path) -> Iterator[str]:
    from reglaj.training.checkpoints import FOLDER, checkpoint_path

    one, other = (read_json(folder / RESULT) for folder in (calm, killed))
    if one["weights_sha256"] != other["weights_sha256"]:
        yield "killed and taken up again, the training ends with other weights than one that nobody disturbed"
    for name in ("weights", "optimizer"):
        files = [checkpoint_path(folder / FOLDER, STEPS) / f"{name}.safetensors" for folder in (calm, killed)]
        if len({sha256_file(file) for file in files}) > 1:
            yield f"{name}.safetensors of the last checkpoint is another after a kill"
    told, again = (_without_times(read_json_lines(folder / "metrics.jsonl")) for folder in (calm, killed))
    if told != again:
        yield "killed and taken up again, the training writes other metrics than one that nobody disturbed"


def _without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]
