"""The page on the quality of a data set: `report.html` of a data folder. It reads no rows; it shows what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reglaj.core.files import write_text
from reglaj.evaluation.report.ledger import rows_account
from reglaj.evaluation.report.markup import Markup, exact, joined
from reglaj.evaluation.report.page import Sheet, render_sheet, tile
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.quality_findings import checks_told, findings, headline, verdict
from reglaj.evaluation.report.quality_groups import clusters, split
from reglaj.evaluation.report.quality_labels import balance, difficulty, label_errors
from reglaj.evaluation.report.quality_rows import odd_rows
from reglaj.evaluation.report.quality_style import QUALITY_STYLE
from reglaj.evaluation.report.quality_texts import encodings, languages, lengths
from reglaj.evaluation.report.words import count, percent, plural

QUALITY_PAGE = "report.html"
_SECTIONS = (split, balance, label_errors, difficulty, clusters, odd_rows, lengths, languages, encodings)


def write_quality_page(
    folder: Path,
    data_report: Mapping[str, Any],
    quality: Mapping[str, Any],
    *,
    name: str = "",
    facts: Sequence[str] = (),
) -> Path:
    """Write report.html into an existing data folder, whole or not at all, and return its path.

    data_report: the document of the folder's report.json. quality: that of quality.json; every key of it may be
    missing, and then its section is. name: what the data are called; facts: task, model and the like, for the top.
    Raises `EnvironmentFault` when the disk refuses.
    """
    path = folder / QUALITY_PAGE
    write_text(path, render_quality(data_report, quality, name=name, facts=facts))
    return path


def render_quality(
    data: Mapping[str, Any], quality: Mapping[str, Any], *, name: str = "", facts: Sequence[str] = ()
) -> str:
    """The whole page, as `write_quality_page` writes it."""
    sheet = Sheet(
        kind="data quality report",
        name=name or "data",
        facts=facts,
        headline=headline(data, quality),
        verdict=verdict(quality),
        tiles=_tiles(data, quality),
        closing=_closing(quality),
        style=QUALITY_STYLE,
    )
    blocks = [_rows(data), *(make(data, quality) for make in _SECTIONS)]
    drawn = [block for block in blocks if block is not None]
    first = findings(quality, {block.anchor for block in drawn})
    return render_sheet(sheet, [first, *drawn] if first else drawn)


def _rows(data: Mapping[str, Any]) -> Block | None:
    if "read" not in data:
        return None
    notes = [str(note) for note in data.get("notes") or []]
    return rows_account(data, notes, "sealed until the final evaluation; nothing of them is quoted on this page")


def _tiles(data: Mapping[str, Any], quality: Mapping[str, Any]) -> list[Markup]:
    tiles = []
    if "read" in data:
        gone = sum((data.get("dropped") or {}).values())
        told = f"{count(data['read'])} read, {count(gone)} dropped"
        tiles.append(tile("Records kept", exact(data["read"] - gone, count(data["read"] - gone)), told))
    near: Mapping[str, Any] = {**(data.get("near_duplicates") or {}), **(quality.get("clusters") or {})}
    if "records" in near:
        told = f"in {plural(near.get('clusters') or 0, 'cluster')}"
        tiles.append(tile("Nearly the same", exact(near["records"], count(near["records"])), told))
    errors: Mapping[str, Any] = quality.get("label_errors") or {}
    if errors.get("checked"):
        share = (errors.get("flagged") or 0) / errors["checked"]
        tiles.append(tile("Labels that look wrong", percent(share), f"{count(errors.get('flagged') or 0)} records"))
    tokens: Mapping[str, Any] = quality.get("tokens") or {}
    cuts = [values for values in tokens.values() if values.get("context") is not None and values.get("cut") is not None]
    if cuts:
        worst = max(cuts, key=lambda values: values["cut"])
        tiles.append(tile("Longer than the context", exact(worst["cut"], count(worst["cut"])), _context(worst)))
    guess: Mapping[str, Any] = quality.get("difficulty") or {}
    if guess.get("value") is not None:
        tiles.append(tile("First guess", exact(guess["value"], percent(guess["value"])), _guess(guess)))
    return tiles


def _context(values: Mapping[str, Any]) -> str:
    told = f"texts over {count(values['context'])} tokens"
    return f"{told}; {count(values['dropped'])} more were dropped" if values.get("dropped") else told


def _guess(values: Mapping[str, Any]) -> str:
    told = f"{str(values.get('metric', 'accuracy')).replace('_', ' ')} of a linear probe"
    return f"{told}; always one label: {percent(values['majority'])}" if values.get("majority") is not None else told


def _closing(quality: Mapping[str, Any]) -> Markup:
    told = [f"{sentence} " for sentence in checks_told(quality)]
    told.append(
        "The figures of this page stand in report.json and quality.json beside it. It quotes rows of the data: "
    )
    told.append("handle it as you handle them. Nothing on it was fetched from a network.")
    return joined(told)
