"""What was learnt, as far as it can be looked at: the words next to a learnt prompt, or how far weights were moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, folded, joined, table, tag
from reglaj.evaluation.report.plan import Block, Document
from reglaj.evaluation.report.plots import Axis, Series, line_chart
from reglaj.evaluation.report.words import count, number, percent, plural

_SHOWN = 12
"""Virtual tokens that are shown at once; the others lie under a click."""
_AT_A_WORD = 0.9
"""Cosine from which on a virtual token is called a word: neighbours among words lie at 0.6 to 0.8."""
_ABOVE_CHANCE = 0.05
"""Cosine above that of a random direction up to which a nearest word is called chance."""


def learnt(document: Document) -> Block | None:
    """A learnt prompt beside the vocabulary, or the change of the weights by layer."""
    facts = document.report.get("learnt") or {}
    if facts.get("virtual_tokens"):
        lead = " ".join(prompt_sentences(facts))
        return Block(anchor="learnt", title="What was learnt", lead=lead, body=_prompt(facts))
    if facts.get("updates", {}).get("layers"):
        lead = " ".join(update_sentences(facts["updates"]))
        return Block(anchor="learnt", title="What was learnt", lead=lead, body=_updates(facts["updates"]))
    return None


def learnt_sentences(document: Document) -> list[str]:
    """What the section says, in words, for the model card."""
    facts = document.report.get("learnt") or {}
    if facts.get("virtual_tokens"):
        return prompt_sentences(facts)
    return update_sentences(facts["updates"]) if facts.get("updates", {}).get("layers") else []


def prompt_sentences(facts: Mapping[str, Any]) -> list[str]:
    """How many virtual tokens there are, how near they lie to words and what that says."""
    tokens = facts["virtual_tokens"]
    nearest = [token["words"][0]["cosine"] for token in tokens]
    middle, chance, neighbour = median(nearest), facts["random_cosine"], facts["neighbour_cosine"]
    told = [
        f"{plural(len(tokens), 'learnt vector')} {'stands' if len(tokens) == 1 else 'stand'} before each text, where "
        "words would stand. Below are the words of the vocabulary that lie nearest to each.",
        f"The nearest word lies at a cosine of {number(middle, 2)} (the median); a direction drawn at random comes as "
        f"near as {number(chance, 2)}, and a word's own nearest neighbour lies at {number(neighbour, 2)}.",
    ]
    at_words = sum(cosine >= _AT_A_WORD for cosine in nearest)
    if at_words:
        told.append(
            f"{count(at_words)} of {count(len(tokens))} lie at a word (from {number(_AT_A_WORD, 1)} on), as those do "
            "that have hardly left the word they began at."
        )
    if middle < chance + _ABOVE_CHANCE:
        told.append("At least half lie no nearer than chance: the words beside those say nothing about the prompt.")
    told.append(
        "Even near words are seldom an instruction: prompts that solve a task as well can lie next to any text "
        "(Khashabi et al. 2022, arXiv:2112.08348)."
    )
    norms = [token["norm"] / facts["word_norm"] for token in tokens] if facts["word_norm"] else []
    if norms:
        told.append(
            f"Their norms are {number(min(norms), 2)} to {number(max(norms), 2)} times the mean norm of a word: what "
            "lies far from 1 is nothing that the model has read before."
        )
    return told


def _prompt(facts: Mapping[str, Any]) -> Markup:
    tokens = list(enumerate(facts["virtual_tokens"], start=1))
    caption = "Nearest words by cosine"
    shown = _token_table(tokens[:_SHOWN], facts["word_norm"], caption)
    if len(tokens) <= _SHOWN:
        return shown
    rest = tokens[_SHOWN:]
    more = _token_table(rest, facts["word_norm"], f"{caption}, the other virtual tokens")
    return joined([shown, folded(f"The other {plural(len(rest), 'virtual token')}", more)])


def _token_table(tokens: Sequence[tuple[int, Mapping[str, Any]]], word_norm: float, caption: str) -> Markup:
    rows = []
    for place, token in tokens:
        first, *others = token["words"]
        rows.append(
            [
                joined([tag("span", f"{place} ", class_="quiet"), tag("code", first["text"])]),
                exact(first["cosine"], number(first["cosine"], 2)),
                exact(token["norm"], number(token["norm"], 2)),
                tag("div", *(joined([tag("code", word["text"]), " "]) for word in others), class_="near"),
            ]
        )
    caption += f" (the mean norm of a word is {number(word_norm, 2)})"
    return table(["nearest word", "cosine", "norm", "then"], rows, caption=caption, numeric=(1, 2))


def update_sentences(updates: Mapping[str, Any]) -> list[str]:
    """How far the weights were moved, where most, and what that does not say."""
    layers = updates["layers"]
    least, most = (pick(layers, key=lambda one: one["change"]) for pick in (min, max))
    told = [
        f"How large the update is beside the weights that it stands on, as the ratio of their Frobenius norms: "
        f"{percent(least['change'])} to {percent(most['change'])} by layer, the most in {_layer_name(most, layers)}."
    ]
    ranks = [one["rank"] for one in layers if "rank" in one]
    if ranks and len(set(ranks)) > 1:
        told.append(f"The ranks that were left, of all matrices of a layer together, are {min(ranks)} to {max(ranks)}.")
    told.append("A large change is not a large effect: a small one in a direction that matters can decide.")
    return told


def _layer_name(one: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> str:
    stacks = {layer["stack"] for layer in layers}
    return f"layer {one['layer']}" + (f" of {one['stack']}" if len(stacks) > 1 else "")


def _updates(updates: Mapping[str, Any]) -> Markup:
    plots = [_by_layer(updates["layers"], "change", "update / weight", lambda v: percent(v, 0 if v >= 0.1 else 1))]
    ranks = [one.get("rank") for one in updates["layers"]]
    has_ranks = None not in ranks
    if has_ranks and len(set(ranks)) > 1:
        plots.append(_by_layer(updates["layers"], "rank", "ranks of a layer", count))
    headings = ["matrix", "of them", "update / weight", *(["mean rank"] if has_ranks else [])]
    rows = [
        [
            tag("code", kind["kind"]),
            exact(kind["modules"], count(kind["modules"])),
            exact(kind["change"], percent(kind["change"])),
            *([exact(kind["rank"], number(kind["rank"], 1))] if has_ranks else []),
        ]
        for kind in updates["kinds"]
    ]
    kinds = table(headings, rows, caption="By kind of matrix, all layers together", numeric=range(1, len(headings)))
    return joined([tag("div", *plots, class_="pair"), kinds])


def _whole(value: float) -> str:
    """Nothing where a tick lies between two layers."""
    return count(value) if value == int(value) else ""


def _by_layer(layers: Sequence[Mapping[str, Any]], key: str, title: str, write: Any) -> Markup:
    """A line for each stack of layers."""
    stacks = list(dict.fromkeys(one["stack"] for one in layers))
    kinds = ("", "second")
    series = [
        Series(points=[(one["layer"], one[key]) for one in layers if one["stack"] == stack], kind=kind, has_dots=True)
        for stack, kind in zip(stacks, kinds, strict=False)
    ]
    legend = [(kind, stack) for stack, kind in zip(stacks, kinds, strict=False)] if len(stacks) > 1 else []
    values = [one[key] for one in layers]
    told = f"{title} by layer: {write(min(values))} to {write(max(values))}"
    chart = line_chart(series, x=Axis(title="layer", write=_whole), y=Axis(title=title, write=write), alternative=told)
    return figure(chart, "", legend)
