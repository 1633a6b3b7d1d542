"""Findings about what the ledger counts: leakage, contradictions, duplicates, balance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.curation.findings import Finding, Level, Sections, Shown, as_example, level_of


def account_findings(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    """Of everything that the ledger counts. report: of the data folder."""
    checks = (_leakage, _contradictory, _near_duplicates, _duplicates, _balance)
    return [one for check in checks for one in check(sections, report, shown)]


def _leakage(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    leakage = report.get("leakage")
    if not leakage:
        return []
    policy, kinds = leakage.get("policy"), [one for one in leakage.get("found", []) if one.get("count")]
    # A record may leak in several ways: the kinds are counted by themselves, the records once.
    count = leakage.get("records", max((one["count"] for one in kinds), default=0))
    if not count:
        return [Finding(id="leakage", level="fine", title="no leakage between train, validation and test")]
    is_left = policy == "report"
    told = "; ".join(f"{one['count']:,} {one['kind']}: {one.get('fate') or 'left as it is'}" for one in kinds)
    return [
        Finding(
            id="leakage",
            level="act" if is_left else "look",
            title=f"{count:,} records leak between parts"
            if is_left
            else f"{count:,} leaking records were found between parts, and repaired",
            count=count,
            share=count / max(1, report["read"]),
            why=f"a figure on rows that resemble what was learnt is worth less than none ({told})",
            do="set data.leakage=repair" if is_left else "nothing: data.leakage has done it",
            examples=[as_example(one) for kind in kinds for one in kind.get("examples", [])[:4]],
        )
    ]


def _contradictory(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    if not sections["labels"]:
        return []
    count = int(report.get("contradictory_texts") or 0)
    dropped = report.get("dropped", {}).get("contradictory_label", 0)
    if not count:
        return [Finding(id="contradictory", level="fine", title="no text occurs under different labels")]
    fate = f"all of their {dropped:,} records are dropped" if dropped else "one record per label is kept"
    return [
        Finding(
            id="contradictory",
            level="look" if dropped else "act",
            title=f"{count:,} texts occur under different labels",
            count=count,
            share=(dropped or count) / max(1, report["read"]),
            why=f"no model can learn both; {fate}",
            do="decide on one label in the file"
            + ("" if dropped else "; data.contradictory_labels=drop leaves them out"),
            examples=shown.get("contradictory", []),
        )
    ]


def _near_duplicates(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    clusters = sections["clusters"]
    if not clusters or clusters.get("clusters") is None:
        return []
    count, share = clusters["records"], clusters["records"] / max(1, report["read"])
    contained, semantic = clusters.get("contained") or {}, clusters.get("semantic")
    found = [Finding(id="near_duplicates", level="fine", title="no near-duplicates")]
    if count:
        largest = clusters.get("largest", [])
        found = [
            Finding(
                id="near_duplicates",
                level=level_of(count, share, many=0.5),
                title=f"{count:,} records nearly repeat others, in {clusters['clusters']:,} clusters",
                count=count,
                share=share,
                why="they say little more than one of them, and must not lie in two parts: clusters stay whole",
                do="look at the largest: if they are one template filled in, more variety teaches more",
                examples=[as_example({"text": text, "note": f"cluster of {one['size']}"})
                          for one in largest[:5] for text in one["texts"][:2]],
            )
        ]  # fmt: skip
    if contained.get("count"):
        pairs = [one for one in contained.get("examples", []) if isinstance(one, Mapping)]
        found.append(
            Finding(
                id="contained",
                level="look",
                title=f"{contained['count']:,} texts lie inside others",
                count=contained["count"],
                share=contained["count"] / max(1, report["read"]),
                why="often the same text with a sentence added, which similarity of the whole does not see",
                do="look whether the longer ones are quotes or copies",
                examples=[
                    as_example(
                        {"text": str(one.get("inner", "")), "note": f"inside: {str(one.get('outer', ''))[:120]}"}
                    )
                    for one in pairs
                ],
            )
        )
    if semantic:
        found.append(_semantic(semantic, sections))
    return found


def _semantic(semantic: Mapping[str, Any], sections: Sections) -> Finding:
    count = semantic["pairs"]
    return Finding(
        id="semantic",
        level="look" if count else "fine",
        title=f"{count:,}{' or more' if semantic['capped'] else ''} pairs say the same in other words",
        count=count,
        share=min(1.0, count / max(1, sections["looked_at"]["rows"])),
        why=f"their embeddings have a cosine similarity of {semantic['threshold']:g} or more",
        do="look; data.near_duplicates.semantic sets from where on, and changes no row" if count else "",
        examples=[
            as_example({"text": one["texts"][0], "note": f"{one['similarity']:.2f}: {one['texts'][1]}"})
            for one in semantic["examples"]
        ],
    )


def _duplicates(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    count = sections["duplicates"]["exact"]
    share = count / max(1, report["read"])
    title = f"{count:,} records repeat another exactly" if count else "no record repeats another exactly"
    why = "the first of each is kept, the others are dropped" if count else ""
    return [
        Finding(
            id="duplicates", level="look" if share >= 0.05 else "fine", title=title, count=count, share=share, why=why
        )
    ]


def _balance(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    labels = sections["labels"]
    if not labels:
        return []
    counts: dict[str, int] = labels["train"]
    ratio, majority = labels["imbalance_ratio"], labels["majority_share"]
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    level: Level = "act" if ratio >= 10 else "look" if ratio >= 3 else "fine"
    few = sorted((count, name) for name, count in counts.items() if count < 10)
    found = [
        Finding(
            id="imbalance",
            level=level,
            title=f"the most frequent label has {ratio:.3g} times the rows of the rarest",
            count=counts[largest],
            share=majority if level != "fine" else 0.0,
            why=f"{largest!r} has {counts[largest]:,} rows, {smallest!r} {counts[smallest]:,}: answering that always"
            f" is right in {majority:.0%}",
            do="judge by macro_f1; try train.class_weights=balanced or train.sampling=balanced"
            if level != "fine"
            else "",
        )
    ]
    if few:
        rows = sum(count for count, _ in few)
        told = ", ".join(f"{name!r} {count}" for count, name in few[:8])
        found.append(
            Finding(
                id="few_rows",
                level="act",
                title=f"{len(few):,} labels have fewer than 10 rows to learn from",
                count=len(few),
                share=rows / max(1, sum(counts.values())),
                why=f"too few to learn, and too few in the test to measure: {told}",
                do="collect more, join them with a label they belong to, or data.exclude_labels",
            )
        )
    return found
