"""Near-duplicates of many short texts: reglaj beside a plain loop over datasketch's MinHashLSH.

    python benchmarks/near_duplicates.py [--rows 1000000] [--both 50000] [--threshold 0.8] [--json FILE]

Makes sentences from a seed (words by Zipf's law, a third of them from templates that differ in two words), a tenth of
them near-duplicates of another: other case and punctuation, a typing error, a word more, inside a longer text. Each
side runs in a process of its own: seconds by the clock, seconds of processor time (which say more where the machine is
shared), peak of resident memory with the texts in it. Recall is counted by brute force: all pairs at or above the
threshold of 1,000 rows with all others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = 1000
PERMUTATIONS = 128
SYLLABLES = [c + v for c in "bcdfglmnprstvz" for v in ("a", "e", "i", "o", "u", "ea", "an", "er", "st")]


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Sentences of some 60 characters, the same for the same arguments."""
    chance = random.Random(seed)
    words = ["".join(chance.choices(SYLLABLES, k=chance.choice((1, 2, 2, 3, 3, 4)))) for _ in range(20_000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    total, heaped = 0.0, []
    for weight in weights:
        total += weight
        heaped.append(total)

    def draw(k: int) -> list[str]:
        return chance.choices(words, cum_weights=heaped, k=k)

    templates = [draw(chance.randint(6, 11)) for _ in range(max(count // 100, 1))]
    texts: list[str] = []
    known: set[int] = set()
    while len(texts) < count:
        kind = chance.random()
        if texts and kind < 0.1:
            text = _near(chance.choice(texts), chance, draw)
        else:
            sentence = list(chance.choice(templates)) if kind < 0.4 else draw(chance.randint(5, 11))
            if kind < 0.4:
                for word in draw(2):
                    sentence[chance.randrange(len(sentence))] = word
            text = " ".join(sentence).capitalize() + chance.choice(".?!")
        # No text twice: equal ones are found by hash, and would make all sides look better.
        if (name := zlib.crc32(text.casefold().encode())) not in known:
            known.add(name)
            texts.append(text)
    return texts


def _near(text: str, chance: random.Random, draw: Any) -> str:
    kind = chance.randrange(4)
    if kind == 0:
        return text.upper().rstrip(".?!").replace(" ", ", ", 1) + "!!"
    if kind == 1:
        place = chance.randrange(len(text))
        return text[:place] + chance.choice("abcdefgh") + text[place + 1 :]
    if kind == 2:
        return f"{text} {draw(1)[0]}"
    return f"{' '.join(draw(5))}. {text} {' '.join(draw(5))}"


class Batches:
    """A list as the product's `Texts`."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[list[str]]:
        for begin in range(0, len(self._texts), 10_000):
            yield self._texts[begin : begin + 10_000]


def find_ours(texts: list[str], threshold: float) -> tuple[set[tuple[int, int]], NDArray[np.int64] | None]:
    """Pairs and clusters of reglaj."""
    from reglaj.core.console import RichConsole
    from reglaj.curation.near_duplicates import MinHashMatcher
    from reglaj.data.config import NearDuplicatesConfig

    found = MinHashMatcher(NearDuplicatesConfig(threshold=threshold)).find(Batches(texts), RichConsole())
    return {(int(a), int(b)) for a, b in found.pairs}, found.cluster


def find_datasketch(texts: list[str], threshold: float) -> tuple[set[tuple[int, int]], None]:
    """What datasketch's index answers, in the form of its documentation: insert each, query each."""
    from datasketch import MinHash, MinHashLSH

    from reglaj.data.folding import fold

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    signatures = []
    for row, text in enumerate(texts):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([shingle.encode() for shingle in shingles_of(fold(text))])
        index.insert(row, signature)
        signatures.append(signature)
    return {(other, row) for row in range(len(texts)) for other in index.query(signatures[row]) if other < row}, None


SIDES = {"reglaj": find_ours, "datasketch": find_datasketch}


def shingles_of(folded: str) -> set[str]:
    """5 characters in a row."""
    return {folded[place : place + 5] for place in range(len(folded) - 4)}


def run_here(side: str, count: int, threshold: float, *, judged: bool) -> dict[str, Any]:
    """One side in this process: seconds, peak memory; recall and precision where `judged`."""
    texts = make_texts(count)
    held = _memory("VmRSS")
    start, busy = time.perf_counter(), time.process_time()
    pairs, cluster = SIDES[side](texts, threshold)
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - busy
    result: dict[str, Any] = {
        "side": side,
        "rows": count,
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor_seconds, 2),
        "peak_bytes": _memory("VmHWM"),
        "bytes_before": held,
        "pairs": len(pairs),
    }
    return result | (judge(texts, pairs, cluster, threshold) if judged else {})


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def judge(
    texts: list[str], pairs: set[tuple[int, int]], cluster: NDArray[np.int64] | None, threshold: float
) -> dict[str, Any]:
    """Against brute force on a sample of rows.

    recall: of the true pairs, those that are pairs; together: those that are in one cluster. precision: of the pairs
    that are told, those truly at or above the threshold, or equal but for case and punctuation.
    """
    import numpy as np
    from scipy.sparse import csr_array

    from reglaj.data.folding import fold

    sample = sorted(random.Random(1).sample(range(len(texts)), min(SAMPLE, len(texts))))
    numbers: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        columns += sorted(numbers.setdefault(shingle, len(numbers)) for shingle in shingles_of(fold(text)))
        ends.append(len(columns))
    sets = csr_array((np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(texts), len(numbers)))
    both = (sets[sample] @ sets.T).tocoo()
    rows, others = np.array(sample)[both.coords[0]], both.coords[1]
    sizes = np.diff(ends)
    is_near = (both.data >= threshold * (sizes[rows] + sizes[others] - both.data) - 1e-9) & (rows != others)
    rows, others = rows[is_near].tolist(), others[is_near].tolist()
    true = {(min(pair), max(pair)) for pair in zip(rows, others, strict=True)}
    asked = set(sample)
    told = {pair for pair in pairs if pair[0] in asked or pair[1] in asked}
    wrong = [pair for pair in told - true if _bare(texts[pair[0]]) != _bare(texts[pair[1]])]
    judged = {
        "true_pairs": len(true),
        "recall": round(len(true & told) / max(len(true), 1), 5),
        "told_pairs": len(told),
        "precision": round(1 - len(wrong) / max(len(told), 1), 5),
    }
    if cluster is not None:
        together = sum(cluster[a] == cluster[b] for a, b in true)
        judged["together"] = round(together / max(len(true), 1), 5)
    return judged


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def run_alone(side: str, count: int, options: argparse.Namespace, *, judged: bool) -> dict[str, Any]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--rows", str(count), "--threshold", str(options.threshold)]
    command += ["--judged"] if judged else []
    print(f"{side}: {count:,} texts", file=sys.stderr)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Measure and print; or be one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="texts of our side alone")
    parser.add_argument("--both", type=int, default=50_000, help="texts of both sides")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--side", choices=list(SIDES), help="run this side here and print its figures")
    parser.add_argument("--judged", action="store_true", help="with --side: count recall and precision too")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_here(options.side, options.rows, options.threshold, judged=options.judged)))
        return
    runs = [run_alone(side, options.both, options, judged=True) for side in SIDES]
    runs.append(run_alone("reglaj", options.rows, options, judged=False))
    figures = {
        "threshold": options.threshold,
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "ratio": round(runs[1]["seconds"] / runs[0]["seconds"], 1),
        "processor_ratio": round(runs[1]["processor_seconds"] / runs[0]["processor_seconds"], 1),
        "runs": runs,
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
