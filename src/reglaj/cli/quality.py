"""What a terminal shows of the quality of data: findings first, then the split, the gate and the clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.cli.figures import share
from reglaj.cli.page import Page, one_line

_MARKS = {"act": "!! act ", "look": " ? look"}
_EXAMPLES_SHOWN = 2


def read_quality(page: Page, data: Mapping[str, Any], quality: Mapping[str, Any]) -> None:
    """Findings with what to do, what matters most at the top; nothing where nothing was looked at."""
    findings = quality.get("findings") or []
    for one in findings:
        if one["level"] in _MARKS:
            _finding(page, one)
    fine = [str(one["id"]).replace("_", " ") for one in findings if one["level"] not in _MARKS]
    if fine:
        page.line(f"   fine  {', '.join(fine)}")
    if findings:
        page.line()
    about = [*_split(data), *_gate(data), *_clusters(data)]
    if about:
        page.pairs(about)
        page.line()


def _finding(page: Page, one: Mapping[str, Any]) -> None:
    part = f" ({share(one['share'])})" if one.get("share") else ""
    page.line(f"{_MARKS[one['level']]}  {one_line(str(one['title']))}{part}")
    if one.get("do"):
        page.line(f"         do: {one_line(str(one['do']), 400)}")
    for example in (one.get("examples") or [])[:_EXAMPLES_SHOWN]:
        page.line(f"         - {_example(example)}")


def _example(example: Any) -> str:
    if not isinstance(example, Mapping):
        return one_line(str(example), 100)
    if example.get("part") == "test":
        return "a row of the sealed test part"
    told = repr(one_line(str(example.get("text", "")), 90))
    if example.get("label") is not None:
        told += f", label {one_line(str(example['label']), 60)}"
    if example.get("note"):
        told += f": {one_line(str(example['note']), 90)}"
    if example.get("source") and example.get("line"):
        told += f" [{one_line(str(example['source']), 60)}:{example['line']}]"
    return told


def _split(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    split = data.get("split") or {}
    return [("split", one_line(str(split["why"]), 400))] if split.get("why") else []


def _gate(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The policy, and what was found between the parts."""
    leakage = data.get("leakage")
    if not leakage:
        return []
    found = [one for one in leakage.get("found") or [] if one.get("count")]
    told = "; ".join(
        f"{one['count']:,} {one.get('what') or str(one['kind']).replace('_', ' ')}"
        + (f" ({one['fate']})" if one.get("fate") else "")
        for one in found
    )
    return [("leakage", one_line(f"{leakage.get('policy') or 'repair'}: {told or 'nothing found'}", 600))]


def _clusters(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    near = data.get("near_duplicates")
    if not near or "records" not in near:
        return []
    clusters = near.get("clusters", 0)
    told = f"{near['records']:,} records in {clusters:,} cluster{'' if clusters == 1 else 's'}"
    told += f" (similarity {near['threshold']} or more)" if near.get("threshold") else ""
    largest = max((int(size) for size, n in (near.get("sizes") or {}).items() if n), default=0)
    told += f", the largest of {largest:,}" if largest else ""
    contained = (near.get("contained") or {}).get("count")
    return [("near-duplicates", told + (f"; {contained:,} inside another text" if contained else ""))]
