"""Sections on rows that belong together: the split, the leakage gate, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, folded, joined, table, tag, with_code
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.quality_plots import Bar, bars, quote, quotes
from reglaj.evaluation.report.words import count, number, percent, plural

_PARTS = ("train", "validation", "test")
_POLICIES = {
    "repair": "`repair`: what would leak is kept together or left out of the earlier part.",
    "stop": "`stop`: nothing is trained while something leaks.",
    "report": "`report`: leaks are shown here and stay in the data.",
}
_SIZES_SHOWN = 12
_CLUSTERS_SHOWN = 5
_TEXTS_SHOWN = 6


def split(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """How the parts were made, why, and what the gate between them found."""
    chosen: Mapping[str, Any] = data.get("split") or {}
    leakage: Mapping[str, Any] = data.get("leakage") or {}
    if not chosen and not leakage:
        return None
    kind = chosen.get("kind")
    body: list[Any] = [tag("p", with_code(str(chosen["why"])), class_="said-split")] if chosen.get("why") else []
    parts = {part: data.get(part) or 0 for part in _PARTS}
    total = sum(parts.values())
    if total:
        pieces = [(n, f"p{i}") for i, n in enumerate(parts.values(), start=1)]
        legend = [
            (f"box p{i}", f"{part} {count(n)} ({percent(n / total)})") for i, (part, n) in enumerate(parts.items(), 1)
        ]
        plot = bars([Bar(name="records", pieces=pieces, value=count(total))], alternative="Records of each part")
        body.append(figure(plot, "", legend))
    if leakage:
        body += _gate(leakage)
    lead = f"The split is of the kind {kind}." if kind else "The leakage gate."
    return Block(anchor="split", title="The split and its gate", lead=lead, body=joined(body))


def _gate(leakage: Mapping[str, Any]) -> list[Any]:
    policy = str(leakage.get("policy") or "")
    found = [one for one in leakage.get("found") or [] if one.get("count")]
    told = with_code(_POLICIES.get(policy, policy))
    if not found:
        return [tag("h3", "The leakage gate found nothing"), tag("p", told)]
    rows = [
        [
            _sentence_start(str(one.get("what") or _plain(one.get("kind", "")))),
            exact(one["count"], count(one["count"])),
            with_code(_plain(one.get("fate") or "")),
        ]
        for one in found
    ]
    shown = table(["what", "records", "what became of it"], rows, caption="Found between the parts", numeric=(1,))
    details = [
        folded(
            f"Examples: {one.get('what') or _plain(one.get('kind', ''))}", quotes([_leak(e) for e in one["examples"]])
        )
        for one in found
        if one.get("examples")
    ]
    return [tag("h3", "The leakage gate"), tag("p", told), tag("div", shown, class_="gate narrow-table"), *details]


def _leak(example: Any) -> Any:
    """An example of the gate, with the place that it leaks into beside its own."""
    if not isinstance(example, Mapping) or not example.get("other"):
        return example
    rest = {key: value for key, value in example.items() if key not in ("other", "note")}
    return {**rest, "note": f"beside {example['other']}"}


def _sentence_start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(name: Any) -> str:
    text = str(name)
    return text if " " in text else text.replace("_", " ")


def clusters(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """Texts that are nearly the same, their clusters by size, and texts that lie inside others."""
    values: Mapping[str, Any] = {**(data.get("near_duplicates") or {}), **(quality.get("clusters") or {})}
    duplicates: Mapping[str, Any] = quality.get("duplicates") or {}
    if not values and not duplicates:
        return None
    contained: Mapping[str, Any] = values.get("contained") or {}
    body = [_sizes(values.get("sizes") or {}), *_largest(values.get("largest") or [])]
    if contained.get("count"):
        told = (
            f"{plural(contained['count'], 'text lies', 'texts lie')} inside another text; these are shown, not joined."
        )
        body += [tag("h3", "One text inside another"), tag("p", told), quotes((contained.get("examples") or [])[:4])]
    semantic = values.get("semantic")
    if semantic:
        body += _semantic(semantic)
    return Block(
        anchor="near-duplicates",
        title="Near-duplicates",
        lead=_clusters_told(values, duplicates),
        body=joined(body),
    )


def _clusters_told(values: Mapping[str, Any], duplicates: Mapping[str, Any]) -> str:
    told = []
    if values:
        threshold = values.get("threshold")
        alike = (
            f" share {percent(threshold, 0)} or more of their character 5-grams"
            if threshold
            else " are nearly the same"
        )
        clusters_, records = values.get("clusters") or 0, values.get("records") or 0
        told.append(
            f"{plural(records, 'record')} in {plural(clusters_, 'cluster')} of texts that{alike}."
            if clusters_
            else f"No two texts{alike}."
        )
    for key, one, many in (
        (
            "exact",
            "record repeats another exactly and was left out",
            "records repeat another exactly and were left out",
        ),
        ("contradictory", "text stands under different labels", "texts stand under different labels"),
    ):
        if duplicates.get(key):
            told.append(f"{plural(duplicates[key], one, many)}.")
    return " ".join(told) or "No records repeat each other."


def _sizes(sizes: Mapping[str, int]) -> Markup:
    """Clusters by size; beyond a dozen sizes the largest ones together."""
    ordered = sorted((int(size), n) for size, n in sizes.items() if n)
    if not ordered:
        return joined([])
    shown, rest = ordered[:_SIZES_SHOWN], ordered[_SIZES_SHOWN:]
    rows = [_size_row(f"{count(size)} records", n) for size, n in shown]
    if rest:
        rows.append(_size_row(f"{count(rest[0][0])} to {count(rest[-1][0])} records", sum(n for _, n in rest)))
    return figure(bars(rows, alternative="Clusters by size"), "clusters by how many records they join")


def _size_row(name: str, n: int) -> Bar:
    return Bar(name=name, pieces=[(n, "")], value=exact(n, count(n)))


def _largest(largest: Sequence[Mapping[str, Any]]) -> list[Markup]:
    if not largest:
        return []
    drawn = [_cluster(one) for one in largest]
    rest = drawn[_CLUSTERS_SHOWN:]
    more = [folded(plural(len(rest), "more cluster"), *rest)] if rest else []
    told = "If the largest cluster joins what does not belong together, raise `data.near_duplicates.threshold`."
    return [tag("h3", "The largest clusters"), tag("p", with_code(told)), *drawn[:_CLUSTERS_SHOWN], *more]


def _cluster(one: Mapping[str, Any]) -> Markup:
    texts = one.get("texts") or []
    shown = [tag("li", quote(text) if isinstance(text, str) else quotes([text])) for text in texts[:_TEXTS_SHOWN]]
    size = one.get("size") or len(texts)
    title = plural(size, "record")
    if not shown:
        title += ", not quoted"
    elif size > len(shown):
        title += f", {count(len(shown))} of them:"
    return tag("div", tag("p", title, class_="caption"), tag("ul", *shown, class_="quotes") if shown else "")


def _semantic(values: Mapping[str, Any]) -> list[Any]:
    """Texts that mean the same by their embeddings: figures in a sentence, pairs as quotes."""
    facts = [
        f"{_plain(key)} {count(value) if isinstance(value, int) else number(value, 2)}"
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    told = "By embeddings; shown, never joined nor dropped."
    if facts:
        told += f" {', '.join(facts).capitalize()}."
    body: list[Any] = [tag("h3", "Alike in meaning"), tag("p", told)]
    largest = [_cluster(one) for one in (values.get("largest") or [])[:_CLUSTERS_SHOWN]]
    return [*body, *largest, quotes((values.get("examples") or [])[:_TEXTS_SHOWN])]
