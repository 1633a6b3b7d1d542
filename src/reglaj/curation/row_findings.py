"""Findings about what stands in the rows: label errors, lengths, languages, encodings, boilerplate, outliers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.curation.findings import Finding, Sections, Shown, level_of
from reglaj.data.languages import UNSURE

_ENOUGH = 0.5
"""Share of the way from always the same label to no mistake that a probe must go, for its word to count."""


def row_findings(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    """Of everything that was seen in the rows. report: of the data folder."""
    checks = (_label_errors, _truncation, _languages, _encodings, _boilerplate, _outliers, _many_answers, _difficulty)
    return [one for check in checks for one in check(sections, report, shown)]


def _label_errors(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    found = sections["label_errors"]
    if not found:
        return []
    if not found["flagged"]:
        return [Finding(id="label_errors", level="fine", title=f"no label of {found['checked']:,} looks wrong")]
    reached = sections["difficulty"]
    is_weak = (reached["value"] - reached["majority"]) < _ENOUGH * (1 - reached["majority"])
    level = level_of(found["flagged"], found["share"])
    doubt = (
        f"; but the probe is right in {reached['value']:.0%} only, so it may be its own mistake: read before you drop"
        if is_weak
        else ""
    )
    return [
        Finding(
            id="label_errors",
            level="look" if is_weak else level,
            title=f"{found['flagged']:,} labels {'may be' if is_weak else 'are likely'} wrong",
            count=found["flagged"],
            share=found["share"],
            why=f"rows that say nearly the same have another label: the model would learn both{doubt}",
            do="correct them in the file, the first ones first; data.clean.label_errors=drop leaves them out",
            examples=shown.get("label_errors", []),
        )
    ]


def _truncation(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    return [_cut_or_dropped(role, section, report, shown) for role, section in sections["tokens"].items()]


def _cut_or_dropped(role: str, section: Sections, report: Mapping[str, Any], shown: Shown) -> Finding:
    cut, dropped, context = section["cut"], section["dropped"], section["context"]
    count, share = cut + dropped, max(section["cut_share"], dropped / max(1, report["read"]))
    if not count:
        return Finding(id="truncation", level="fine", title=f"every {role} fits into {context:,} tokens")
    fates = [f"{cut:,} are cut at the end: {section['lost_tokens']:,} tokens are never read"] if cut else []
    fates += [f"{dropped:,} are left out whole"] if dropped else []
    more = "raise train.max_tokens as far as the model reads, or take a model that reads more"
    return Finding(
        id="truncation",
        level=level_of(count, share, many=0.05),
        title=f"{count:,} texts are longer than {context:,} tokens",
        count=count,
        share=share,
        why="; ".join(fates),
        do=f"{more}; data.too_long keeps what fits" if dropped else more,
        examples=shown.get("truncation", []),
    )


def _languages(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    known = [one for one in sections["languages"] if one["language"] != UNSURE]
    if not known:
        title = "the texts are too short or too mixed to tell their language"
        return [Finding(id="languages", level="look", title=title, why="no language was sure for any text")]
    first, others = known[0], known[1:]
    count = sum(one["count"] for one in others)
    share = count / max(1, sections["languages_checked"])
    if not count:
        return [Finding(id="languages", level="fine", title=f"all texts are in {first['name']}, or too short to say")]
    told = ", ".join(f"{one['name']} {one['count']:,}" for one in others[:6])
    return [
        Finding(
            id="languages",
            level="look",
            title=f"{count:,} texts are not in {first['name']}",
            count=count,
            share=share,
            why=f"a model that has seen little of a language learns little from a few rows of it ({told})",
            do=f"data.clean.languages=[{first['language']}] leaves them out",
            examples=shown.get("languages", []),
        )
    ]


def _encodings(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    found = sections["encodings"]
    count = found["repairable"] + found["lost"]
    if not count:
        mended = found["repaired_texts"]
        told = f"{mended:,} texts with a broken encoding were mended" if found["repaired"] else "no broken encoding"
        return [Finding(id="encodings", level="fine", title=told)]
    return [
        Finding(
            id="encodings",
            level="act" if found["repairable"] else "look",
            title=f"{count:,} texts were decoded with the wrong encoding",
            count=count,
            share=count / max(1, sections["looked_at"]["rows"]),
            why=f"{found['repairable']:,} can be mended; in {found['lost']:,} characters are lost for good: the model"
            " would learn words that nobody writes",
            do="data.clean.encodings=repair mends them; better, read the file again as what it was",
            examples=shown.get("encodings", []),
        )
    ]


def _boilerplate(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    found = sections["boilerplate"]
    count, share = found["rows"], found["rows"] / max(1, sections["looked_at"]["rows"])
    if not count:
        return [Finding(id="boilerplate", level="fine", title="no row is mostly markup, signs or repeated lines")]
    words = {
        "markup": "mostly markup",
        "symbols": "mostly signs or addresses",
        "repeated_lines": "lines of many others",
    }
    told = ", ".join(f"{number:,} {words[kind]}" for kind, number in found["kinds"].items() if number)
    return [
        Finding(
            id="boilerplate",
            level=level_of(count, share),
            title=f"{count:,} rows are boilerplate or markup",
            count=count,
            share=share,
            why=f"there is little in them to learn from: {told}",
            do="take the markup out of the file; data.clean.boilerplate=drop leaves the rows out",
            examples=shown.get("boilerplate", []),
        )
    ]


def _outliers(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    found = sections["outliers"]
    if not found:
        return []
    count = found["flagged"]
    title = f"{count:,} texts are unlike all others" if count else "no text is unlike all others"
    return [
        Finding(
            id="outliers",
            level="look" if count else "fine",
            title=title,
            count=count,
            share=count / max(1, found["checked"]),
            why="rows that came in by mistake are among them, and rare cases that are worth keeping" if count else "",
            do="read them; data.clean.outliers=drop leaves them out" if count else "",
            examples=shown.get("outliers", []),
        )
    ]


def _many_answers(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    found = sections["many_answers"]
    if found is None:
        return []
    if not found["prompts"]:
        return [Finding(id="many_answers", level="fine", title="no prompt is answered in several ways")]
    return [
        Finding(
            id="many_answers",
            level="look",
            title=f"{found['prompts']:,} prompts are answered in several ways",
            count=found["records"],
            share=found["records"] / max(1, sections["looked_at"]["rows"]),
            why="the model learns a mixture of the answers: fine for variants, harmful where one is wrong",
            do="keep the best answer of each in the file",
            examples=shown.get("many_answers", []),
        )
    ]


def _difficulty(sections: Sections, report: Mapping[str, Any], shown: Shown) -> list[Finding]:
    found = sections["difficulty"]
    if not found:
        return []
    is_blind = found["low"] <= found["majority"]
    return [
        Finding(
            id="difficulty",
            level="look" if is_blind else "fine",
            title=f"a linear probe on frozen embeddings reaches {found['value']:.2f} ({found['low']:.2f} to "
            f"{found['high']:.2f}), always the same label {found['majority']:.2f}",
            why=found["note"],
            do="look at the labels before you train" if is_blind else "",
        )
    ]
