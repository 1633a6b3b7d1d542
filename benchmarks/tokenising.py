"""How fast texts become tokens, beside the Rust backend asked for the same by hand, and what the kept tokens save.

    python benchmarks/tokenising.py [--model starter:minilm ...] [--texts FILE:COLUMN ...] [--turns 5] [--json FILE]

All sides cut at the same limit and must give the same ids. They take turns in rotating order; a ratio is the other's
time through ours within a turn, in seconds of the clock and of the processors, of which the latter counts less what
else the machine does. Without --texts: the medical starter, and every ten of its texts joined to a long one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from reglaj.data.reading import open_reader
from reglaj.models.encoding import encode_texts, untruncated
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_tokenizer
from reglaj.models.starters import fetch
from reglaj.models.token_cache import TokenStore, encode_kept, keeping_tokens

OURS, RAW, FAST, CALLED, KEPT = "reglaj", "encode_batch", "encode_batch_fast", "calling the tokenizer", "kept tokens"
Side = Callable[[], list[list[int]]]


def read_texts(spec: str) -> tuple[str, list[str]]:
    """A name and the texts of `FILE:COLUMN`."""
    path, _, column = spec.rpartition(":")
    reader = open_reader(Path(path), path, None)
    texts = [cell for batch in reader.read([column], 10_000) for cell in batch.cells[0] if cell]
    return f"{Path(path).parent.name}/{Path(path).name}", texts


def starter_texts() -> list[tuple[str, list[str]]]:
    """Short and long texts of the medical starter."""
    with fetch("starter:medical").open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    joined = ["\n".join(texts[start : start + 10]) for start in range(0, len(texts), 10)]
    return [("starter:medical", texts), ("starter:medical, ten joined", joined)]


def sides(tokenizer: Any, texts: list[str], max_tokens: int, store: TokenStore) -> dict[str, Side]:
    """Each gives the ids of all texts. The kept tokens are there from the second time on."""
    backend = tokenizer.backend_tokenizer

    def raw(encode: Callable[[list[str]], Sequence[Any]]) -> list[list[int]]:
        with untruncated(backend):
            backend.enable_truncation(max_tokens)
            return [encoding.ids for encoding in encode(texts)]

    def ours() -> list[list[int]]:
        return encode_texts(tokenizer, texts, max_tokens)[0]  # type: ignore[return-value]

    def kept() -> list[list[int]]:
        with keeping_tokens(store):
            return encode_kept(tokenizer, texts, max_tokens)[0]  # type: ignore[return-value]

    def called() -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
        return ids

    return {
        OURS: ours,
        RAW: lambda: raw(backend.encode_batch),
        FAST: lambda: raw(backend.encode_batch_fast),
        CALLED: called,
        KEPT: kept,
    }


def timed(side: Side) -> tuple[float, float]:
    """Seconds of the clock, and of the processors."""
    clock, processors = time.perf_counter(), time.process_time()
    side()
    return time.perf_counter() - clock, time.process_time() - processors


def measure(model: str, name: str, texts: list[str], max_tokens: int, turns: int) -> dict[str, Any]:
    """One line of the table."""
    facts = inspect_model(model, folder=Path())
    tokenizer = load_tokenizer(facts.folder, model)
    with tempfile.TemporaryDirectory() as folder:
        every = sides(tokenizer, texts, max_tokens, TokenStore(folder=Path(folder), data_key=""))
        ids = {side: [list(row) for row in run()] for side, run in every.items()}
        assert all(rows == ids[OURS] for rows in ids.values()), "all sides give the same ids"
        times: dict[str, list[tuple[float, float]]] = {side: [] for side in every}
        names = list(every)
        for turn in range(turns):
            start = turn % len(names)
            for side in names[start:] + names[:start]:
                times[side].append(timed(every[side]))
    return {
        "model": model,
        "texts": name,
        "rows": len(texts),
        "tokens": sum(map(len, ids[OURS])),
        "max_tokens": max_tokens,
        "seconds": round(statistics.median(clock for clock, _ in times[OURS]), 3),
        "ratios": {side: ratio_of(times[side], times[OURS]) for side in names[1:]},
    }


def ratio_of(other: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]) -> dict[str, float]:
    """How many times as long as ours: median and range on the clock, and the median in time of the processors."""
    clock = [a[0] / b[0] for a, b in zip(other, ours, strict=True)]
    processors = [a[1] / b[1] for a, b in zip(other, ours, strict=True)]
    figures = {"clock": statistics.median(clock), "low": min(clock), "high": max(clock)}
    return {name: round(value, 3) for name, value in (figures | {"processors": statistics.median(processors)}).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=["starter:minilm", "starter:smollm2"])
    parser.add_argument("--texts", nargs="*", default=[], help="FILE:COLUMN")
    parser.add_argument("--max-tokens", type=int, nargs="*", default=[128, 512])
    parser.add_argument("--rows", type=int, help="only so many texts of each")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    given = parser.parse_args()
    sets = [read_texts(spec) for spec in given.texts] or starter_texts()
    print(f"| model | texts | rows | tokens | cut at | seconds | {RAW} | {FAST} | {CALLED} | {KEPT} |")
    print("|---" * 10 + "|")
    results = []
    for model in given.model:
        for name, texts in sets:
            for max_tokens in given.max_tokens:
                found = measure(model, name, texts[: given.rows], max_tokens, given.turns)
                results.append(found)
                ratios = [
                    f"{r['clock']:.2f} ({r['low']:.2f} to {r['high']:.2f}; {r['processors']:.2f})"
                    for r in found["ratios"].values()
                ]
                cells = (
                    model,
                    name,
                    f"{found['rows']:,}",
                    f"{found['tokens']:,}",
                    max_tokens,
                    found["seconds"],
                    *ratios,
                )
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
