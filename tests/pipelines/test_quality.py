"""The quality report end to end on planted faults, and `data.clean` doing what it says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_chat import write_chat_model

from reglaj.core.errors import UserError, environment_fault
from reglaj.curation.embeddings import Embedder, KeptEmbedder
from reglaj.pipelines import embedding
from reglaj.pipelines.data import prepare_data
from reglaj.pipelines.recipe import load_recipe

TOPICS = {
    "cards": ["card", "cardul", "lost", "pierdut"],
    "transfers": ["transfer", "payment", "late", "banii"],
    "fees": ["fee", "taxa", "refund", "cont"],
}
ENGLISH = "why is my {} not here and when will the {} arrive at last"
BROKEN = "când ajunge plata mea și unde este cardul pierdut".encode().decode("latin-1")
MARKUP = "<div class='a'><p>card</p></div>"
LONG = " ".join(f"please help my lost card {number}" for number in range(30))
FLIPPED = "lost card pierdut cardul number 9999"


def _rows(count: int = 180) -> list[dict[str, str]]:
    """Three labels that the words give away, one of them wrong; and one row each with every other fault."""
    chance = random.Random(0)
    rows = []
    for number in range(count):
        label = list(TOPICS)[number % 3]
        words = [chance.choice(TOPICS[label]) for _ in range(4)]
        rows.append({"text": f"{' '.join(words)} number {number}", "label": label})
    rows += [{"text": ENGLISH.format(word, word), "label": "cards"} for word in ("card", "cardul", "parcel", "letter")]
    rows += [{"text": text, "label": "cards"} for text in (BROKEN, MARKUP, LONG)]
    return [*rows, {"text": FLIPPED, "label": "fees"}]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _recipe(folder: Path, model: Path) -> dict[str, Any]:
    """With a small test part, and a seed that keeps the planted rows out of it."""
    sources = [{"path": str(_write(folder / "rows.jsonl", _rows()))}]
    split = {"validation": 0.05, "test": 0.05}
    return {"task": "classify", "model": str(model), "data": {"sources": sources, "split": split}}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Callable[[str], Path]) -> dict[str, Any]:
    return _recipe(tmp_path, tiny_model("bert"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> dict[str, Any]:
    """The report on the planted rows as they are, and `runs`, where it lies."""
    folder = tmp_path_factory.mktemp("planted")
    return {"quality": _report(_recipe(folder, tiny_model("bert")), folder / "runs"), "runs": folder / "runs"}


def _report(recipe: dict[str, Any], runs: Path, **keys: Any) -> dict[str, Any]:
    return prepare_data(recipe, runs=runs, **keys)["quality"]


def _finding(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in report["findings"] if one["id"] == name)


def test_planted_faults_are_found_with_their_place_and_what_to_do(planted):
    report = planted["quality"]
    encodings = _finding(report, "encodings")
    assert (encodings["level"], encodings["count"], report["encodings"]["repairable"]) == ("act", 1, 1)
    (example,) = encodings["examples"]
    assert example["line"] == 185 and example["source"].endswith("rows.jsonl") and "când" in example["note"]
    assert "data.clean.encodings=repair" in encodings["do"]
    assert [one["line"] for one in _finding(report, "boilerplate")["examples"]] == [186]
    assert report["boilerplate"]["kinds"] == {"markup": 1, "symbols": 0, "repeated_lines": 0}
    (tokens,) = report["tokens"].values()
    assert tokens["context"] == 64 and tokens["cut"] == 1 and tokens["max"] > 64
    assert sum(tokens["counts"]) == tokens["rows"] and len(tokens["edges"]) == len(tokens["counts"]) + 1
    assert [one["line"] for one in _finding(report, "truncation")["examples"]] == [187]
    flagged = [one["line"] for one in _finding(report, "label_errors")["examples"]]
    assert 188 in flagged and len(flagged) < 12
    assert report["difficulty"]["low"] > report["difficulty"]["majority"]
    assert {one["language"] for one in report["languages"]} >= {"en", "unsure"}


def test_findings_are_in_order_and_complete(planted):
    report = planted["quality"]
    levels = [one["level"] for one in report["findings"]]
    assert levels == sorted(levels, key=["act", "look", "fine"].index)
    ids = {one["id"] for one in report["findings"]}
    assert ids >= {"leakage", "contradictory", "label_errors", "duplicates", "truncation", "imbalance", "languages",
                   "encodings", "boilerplate", "outliers", "difficulty", "near_duplicates"}  # fmt: skip
    for one in report["findings"]:
        assert set(one) == {"id", "level", "title", "count", "share", "why", "do", "examples"}
        assert one["level"] == "fine" or one["why"]
        for example in one["examples"]:
            assert set(example) == {"text", "label", "note", "source", "line", "part"}
            assert example["part"] != "test" and len(example["text"]) <= 200


def _texts_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts_in(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts_in(inner)]
    return [value] if isinstance(value, str) else []


def test_nothing_of_the_test_is_quoted(recipe, tmp_path):
    import pyarrow.parquet as pq

    answer = prepare_data(recipe, runs=tmp_path / "runs", data__split__test=0.4, data__near_duplicates__semantic=0.5)
    sealed = pq.read_table(Path(answer["folder"]) / "test.parquet").column("text").to_pylist()
    said = "\n".join(_texts_in(answer["quality"]))
    assert len(sealed) > 50 and sum(len(one["examples"]) for one in answer["quality"]["findings"]) > 3
    assert [text for text in sealed if text[:60] in said] == []


def test_the_same_data_give_the_same_report_and_no_second_look(recipe, planted, tmp_path, monkeypatch):
    again = _report(recipe, tmp_path / "again")
    names = {str(tmp_path): "", str(planted["runs"].parent): ""}
    first, second = (json.dumps(report | {"seconds": None}) for report in (planted["quality"], again))
    for name, other in names.items():
        first, second = first.replace(name, other), second.replace(name, other)
    assert first == second
    monkeypatch.setattr(KeptEmbedder, "unit", lambda *_: pytest.fail("the report is there already"))
    assert _report(recipe, tmp_path / "again") == again


def test_another_split_embeds_only_what_was_sealed_before(recipe, tmp_path, monkeypatch):
    seen: list[str] = []
    unit = Embedder.unit

    def counted(self: Embedder, texts: list[str], *rest: Any) -> Any:
        seen.extend(texts)
        return unit(self, texts, *rest)

    monkeypatch.setattr(Embedder, "unit", counted)
    first = _report(recipe, tmp_path / "runs")
    assert len(seen) == first["looked_at"]["rows"]
    seen.clear()
    again = _report(recipe, tmp_path / "runs", data__split__seed=5)
    assert 0 < len(seen) < 0.1 * again["looked_at"]["rows"]


def test_without_a_model_the_rest_is_told(recipe, tmp_path, monkeypatch):
    def missing(*_: Any, **__: Any) -> Any:
        raise environment_fault("no network", allowed="one", why="it is off", remedy="wait")

    monkeypatch.setattr("reglaj.pipelines.quality.embedder_of", missing)
    report = _report(recipe, tmp_path / "runs")
    assert report["embedder"] is None and "no network" in report["embedder_note"]
    assert report["label_errors"] is report["outliers"] is report["difficulty"] is None
    assert _finding(report, "encodings")["count"] == 1


def test_semantic_pairs_are_reported_and_change_nothing(recipe, planted, tmp_path):
    plain = prepare_data(recipe, runs=planted["runs"])
    asked = prepare_data(recipe, runs=planted["runs"], data__near_duplicates__semantic=0.99)
    assert plain["quality"]["clusters"]["semantic"] is None
    semantic = asked["quality"]["clusters"]["semantic"]
    assert semantic["pairs"] > 0 and semantic["examples"][0]["similarity"] >= 0.99
    assert _finding(asked["quality"], "semantic")["count"] == semantic["pairs"]
    assert {part: plain["data"][part] for part in ("train", "validation", "test")} == {
        part: asked["data"][part] for part in ("train", "validation", "test")
    }


def _dropped(recipe: dict[str, Any], runs: Path, **keys: Any) -> dict[str, int]:
    return prepare_data(recipe, runs=runs, quality=False, **keys)["data"]["dropped"]


def test_clean_drops_what_the_report_finds_and_counts_it(recipe, planted):
    runs, report = planted["runs"], planted["quality"]
    dropped = _dropped(recipe, runs, data__clean={"boilerplate": "drop", "label_errors": "drop", "outliers": "drop"})
    assert dropped["boilerplate"] == report["boilerplate"]["rows"] == 1
    assert dropped["label_error"] == report["label_errors"]["flagged"]
    assert dropped.get("outlier", 0) <= report["outliers"]["flagged"]
    assert _dropped(recipe, runs, data__clean={"languages": ["ja"]})["other_language"] >= 4


def test_clean_mends_encodings_before_anything_is_counted(recipe, tmp_path):
    answer = prepare_data(recipe, runs=tmp_path / "runs", data__clean={"encodings": "repair"})
    assert answer["quality"]["encodings"]["repaired"] and answer["quality"]["encodings"]["repairable"] == 0
    assert answer["data"]["repaired_texts"] == answer["quality"]["encodings"]["repaired_texts"] == 1
    assert "1 texts with a broken encoding were mended" in answer["data"]["notes"]
    stored = "".join(path.read_bytes().decode("utf-8", "replace") for path in Path(answer["folder"]).glob("*.jsonl"))
    assert BROKEN not in stored


def test_outliers_are_dropped_and_never_those_of_the_test(recipe, tmp_path, tiny_model):
    rows = [{"text": f"my card is lost {number}", "label": ("cards", "fees")[number % 2]} for number in range(120)]
    rows += [{"text": "xyz qqq www zzz kkk vvv", "label": "cards"}]
    recipe["data"]["sources"] = [{"path": str(_write(tmp_path / "alike.jsonl", rows))}]
    runs, keys = tmp_path / "runs", {"data__near_duplicates": None}
    before = prepare_data(recipe, runs=runs, quality=False, **keys)["data"]
    after = prepare_data(recipe, runs=runs, quality=False, **keys, data__clean={"outliers": "drop"})["data"]
    assert after["dropped"]["outlier"] >= 1 and after["test"] == before["test"]
    assert after["test_hash"] == before["test_hash"]


def test_label_errors_are_refused_where_there_are_no_labels():
    chat = {"task": "chat", "data": {"sources": [{"path": "none.jsonl"}], "clean": {"label_errors": "drop"}}}
    with pytest.raises(UserError, match=r"(?s)data\.clean\.label_errors.*chat does not read it"):
        load_recipe(chat)


def test_prompts_with_many_answers_are_found_in_conversations(tmp_path, tiny_model, monkeypatch):
    model = write_chat_model(tmp_path / "model")
    monkeypatch.setattr(embedding, "DEFAULT", str(tiny_model("bert")))
    rows = [{"prompt": f"where is card {number}", "completion": f"it is number {number}"} for number in range(60)]
    rows += [{"prompt": "where is my card", "completion": answer} for answer in ("here", "there", "HERE")]
    rows += [{"prompt": "Where is  my card", "completion": "nobody knows"}]
    recipe = {"task": "chat", "model": str(model), "train": {"max_tokens": 64}}
    recipe["data"] = {"sources": [{"path": str(_write(tmp_path / "chat.jsonl", rows))}]}
    report = _report(recipe, tmp_path / "runs", data__near_duplicates=None, data__split__seed=1)
    assert report["labels"] is report["label_errors"] is report["difficulty"] is None
    (found,) = report["many_answers"]["examples"]
    assert found["answers"] == ["here", "there", "nobody knows"] and found["part"] in ("train", "validation")
    assert _finding(report, "many_answers")["count"] == report["many_answers"]["records"] == 4
    assert report["outliers"]["checked"] == report["looked_at"]["rows"]
