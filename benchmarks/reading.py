"""How fast a table becomes three parts, and in how much memory.

    python benchmarks/reading.py [--rows 1000000] [--unused 0] [--kind csv] [--json FILE]

Makes short labelled rows (some duplicate, contradictory, empty or ragged; `--unused` adds a column of that many
characters that nothing reads), prepares them in a process of its own, and prints rows per second, peak memory and the
time as a multiple of a plain loop over the same file that only reads, folds and drops duplicates.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import IO, Any

WORDS = ["card", "bank", "money", "transfer", "account", "late", "help", "why", "ștergeți", "plată", "întârziere"]


def write_rows(path: Path, rows: int, unused: int, kind: str) -> None:
    """A file of `rows` records, the same for the same arguments."""
    chance = random.Random(0)
    filler = "x" * unused
    with open_for_text(path) as file:
        if kind == "csv":
            file.write("id,unused,text,label\n")
        for i in range(rows):
            words = " ".join(chance.choices(WORDS, k=8))
            text = " ".join(chance.choices(WORDS, k=3)) if chance.random() < 0.02 else f"{words}, row {i}"
            text = "" if chance.random() < 0.005 else text
            label = f"label {hash_of(text) % 20}" if chance.random() < 0.99 else f"label {chance.randrange(20)}"
            write_row(file, kind, (str(i), filler, text, label), is_ragged=chance.random() < 0.002)


def open_for_text(path: Path) -> IO[str]:
    """The file for writing, packed if its name says so."""
    return gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8")


def open_for_reading(path: Path) -> IO[str]:
    """The file for reading, unpacked if its name says that it is packed."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def hash_of(text: str) -> int:
    """A number that is the same in every process, unlike `hash`."""
    return sum(map(ord, text))


def write_row(file: IO[str], kind: str, cells: tuple[str, str, str, str], *, is_ragged: bool) -> None:
    """One record, as CSV or JSON Lines."""
    number, filler, text, label = cells
    if kind == "csv":
        file.write(f'{number},{filler},"{text}"\n' if is_ragged else f'{number},{filler},"{text}",{label}\n')
    else:
        record = {"id": int(number), "unused": filler, "text": text} | ({} if is_ragged else {"label": label})
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def prepare_here(path: Path, store: Path) -> dict[str, Any]:
    """Prepare the file in this process; seconds, peak memory and the counts."""
    from reglaj.core.console import SILENT
    from reglaj.data.config import DataConfig
    from reglaj.data.prepare import prepare
    from reglaj.data.roles import ColumnRoles

    start = time.perf_counter()
    prepared = prepare(
        DataConfig.model_validate({"sources": [{"path": str(path)}]}),
        ColumnRoles(inputs=("text",), target="label"),
        folder=path.parent,
        store=store,
        task="classify",
        default_split="stratified",
        resolve_starter=Path,
        console=SILENT,
    )
    seconds = time.perf_counter() - start
    report = prepared.report
    return {
        "seconds": round(seconds, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "times_plain": round(seconds / min(read_plainly(path), read_plainly(path)), 1),
        **{name: report[name] for name in ("read", "train", "validation", "test", "dropped")},
    }


def read_plainly(path: Path) -> float:
    """Seconds of the loop that a user would write: every record once, and nothing told or written."""
    start = time.perf_counter()
    seen = set()
    with open_for_reading(path) as file:
        records = csv.DictReader(file) if ".csv" in path.name else map(json.loads, file)
        for record in records:
            text = unicodedata.normalize("NFKC", record["text"] or "").casefold()
            seen.add(hashlib.sha256(text.encode()).digest())
    return time.perf_counter() - start


def measure(rows: int, unused: int, kind: str) -> dict[str, Any]:
    """One line of the table, measured in a fresh process so that its peak is its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{kind}"
        write_rows(path, rows, unused, kind.removesuffix(".gz"))
        command = [sys.executable, __file__, "--prepare", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        size = path.stat().st_size
    found: dict[str, Any] = json.loads(done.stdout)
    facts = {"kind": kind, "rows": rows, "unused": unused, "file_mib": size >> 20}
    return facts | found | {"rows_per_second": round(rows / found["seconds"])}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--unused", type=int, nargs="*", default=[0, 2000], help="characters of the unused column")
    parser.add_argument("--kind", nargs="*", default=["csv"], help="csv, jsonl, csv.gz, jsonl.gz")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepare:
        print(json.dumps(prepare_here(given.prepare, given.prepare.parent / "store")))
        return
    print("| format | rows | unused column | file MiB | seconds | rows/s | peak MiB | plain loops |")
    print("|---|---|---|---|---|---|---|---|")
    results = []
    for kind in given.kind:
        for unused in given.unused:
            found = measure(given.rows, unused, kind)
            results.append(found)
            cells = (kind, found["rows"], f"{unused} characters", found["file_mib"], found["seconds"])
            row = (*cells, f"{found['rows_per_second']:,}", found["peak_mib"], found["times_plain"])
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
