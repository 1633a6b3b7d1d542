"""The task chat from recipe to answers: what is saved opens elsewhere, and what cannot be learnt from is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import write_model
from tests.tiny_chat import CHATML, write_chat_model, write_conversations

import reglaj
from reglaj.core.errors import UserError

TURNS = [{"role": "user", "content": "unde este cardul meu"}]
TRAIN = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    write_chat_model(folder / "model")
    write_conversations(folder / "rows.jsonl", 60)
    return folder


def recipe_for(place: Path, method: Any = "lora", **sections: Any) -> dict[str, Any]:
    return {
        "name": "talk",
        "task": "chat",
        "model": str(sections.pop("model", place / "model")),
        "data": {"sources": [{"path": str(place / "rows.jsonl")}], **sections.pop("data", {})},
        "method": method,
        "train": {**TRAIN, **sections.pop("train", {})},
        "evaluate": {"generate_rows": 2, "max_new_tokens": 8, "bootstrap_samples": 100, "few_shot_examples": 1},
    }


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, reglaj.Run]:
    return {m: reglaj.train(recipe_for(place, m), runs=place / "runs") for m in ("lora", "full")}


def our_logits(run: reglaj.Run, ids: torch.Tensor) -> torch.Tensor:
    model = reglaj.load(run.path)._assembled.learner.backbone
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def test_the_adapter_opens_in_plain_peft_with_equal_logits(runs: dict[str, reglaj.Run], place: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = runs["lora"].path / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    base = AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32)
    untouched = base(**ids).logits.detach()
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    assert model.peft_config["default"].task_type == "CAUSAL_LM"
    with torch.no_grad():
        theirs = model(**ids).logits
    torch.testing.assert_close(our_logits(runs["lora"], ids["input_ids"]), theirs, rtol=1e-5, atol=1e-5)
    assert (theirs - untouched).abs().max() > 1e-3, "the adapter does something"


def test_full_weights_open_in_plain_transformers_with_the_template(runs: dict[str, reglaj.Run], place: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = runs["full"].path / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == CHATML
    ids = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        theirs = model(**ids).logits
    torch.testing.assert_close(our_logits(runs["full"], ids["input_ids"]), theirs, rtol=1e-5, atol=1e-5)


def test_a_model_without_a_template_is_saved_with_the_one_it_got(place: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_chat_model(tmp_path / "plain", template=None)
    run = reglaj.train(recipe_for(place, model=tmp_path / "plain"), runs=tmp_path / "runs")
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    assert tokenizer.chat_template
    assert any("no chat template" in note for note in run.report["data"]["notes"])
    golden = json.loads((run.path / "model" / "golden_prompts.json").read_text(encoding="utf-8"))
    assert any(prompt["ids"] for prompt in golden)


def test_a_loaded_run_answers_texts_and_conversations(runs: dict[str, reglaj.Run]) -> None:
    model = reglaj.load(runs["lora"].path)
    text, turns, nothing = model.predict(["unde este cardul meu", TURNS, " "])
    assert text["prediction"] == turns["prediction"]
    assert text["ended"] in ("end", "length")
    assert "error" in nothing


def test_a_changed_template_is_refused(place: Path, tmp_path: Path) -> None:
    run = reglaj.train(recipe_for(place, train={"max_steps": 1}), runs=tmp_path / "runs")
    file = run.path / "model" / "chat_template.jinja"
    file.write_text(file.read_text().replace("message['role'] +", "message['role'] + ':' +"))
    manifest = json.loads((run.path / "manifest.json").read_text())
    del manifest["files"]["model/chat_template.jinja"]  # even where nothing watches over the file itself
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="other tokens"):
        reglaj.load(run.path)


def test_a_new_file_is_scored_and_its_broken_rows_are_counted(runs: dict[str, reglaj.Run], tmp_path: Path) -> None:
    file = write_conversations(tmp_path / "new.jsonl", 8, seed=5)
    with file.open("a") as more:
        more.write(json.dumps({"prompt": "where", "completion": ""}) + "\n")
        more.write(json.dumps({"prompt": "where " * 400, "completion": "there"}) + "\n")
    answer = reglaj.evaluate(runs["lora"].path, data=file)
    assert answer["data"] == {"read": 10, "test": 8, "dropped": {"broken_turns": 1, "too_long": 1}}
    assert answer["test"]["rows"] == 8


def test_predictions_of_a_file_keep_order_and_name_what_was_refused(
    runs: dict[str, reglaj.Run], tmp_path: Path
) -> None:
    from reglaj.pipelines.predict import predict_file

    with (tmp_path / "in.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["prompt"], ["where is my card"], [""], ["banii"]])
    counts = predict_file(runs["lora"].path, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (counts["answered"], counts["refused"]) == (2, 1)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["line"] for row in rows] == ["2", "3", "4"]
    assert rows[1]["error"] and not rows[0]["error"]


def test_messages_as_json_texts_in_a_csv_are_read_and_said(place: Path, tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["messages"])
        for number in range(20):
            turns = [{"role": "user", "content": f"card {number}"}, {"role": "assistant", "content": "on its way"}]
            table.writerow([json.dumps(turns)])
    recipe = recipe_for(place, data={"sources": [{"path": str(tmp_path / "rows.csv")}]})
    data = reglaj.prepare_data(recipe, runs=tmp_path / "runs")["data"]
    assert data["read"] == 20 and not data["dropped"]
    assert any("read as JSON" in note for note in data["notes"])


def rows_of(tmp_path: Path, turns: list[Any]) -> dict[str, Any]:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": one}, ensure_ascii=False) + "\n" for one in turns))
    return {"sources": [{"path": str(file)}]}


def exchange(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


BROKEN = {
    "an unknown role": ([{"role": "bot", "content": "a"}, {"role": "assistant", "content": "b"}], "broken_turns"),
    "two users in a row": ([TURNS[0], *exchange("a", "b")], "broken_turns"),
    "an empty answer": (exchange("a", " "), "broken_turns"),
    "ends with the user": ([*exchange("a", "b"), TURNS[0]], "broken_turns"),
    "no answer at all": (TURNS, "no_supervised_token"),
    "the end token inside": (exchange("a", "b<|im_end|>c"), "broken_turns"),
    "longer than the context": (exchange("where " * 300, "there"), "too_long"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_conversations_are_counted_and_named(name: str, place: Path, tmp_path: Path) -> None:
    turns, bucket = BROKEN[name]
    good = [exchange(f"card {number}", "on its way") for number in range(20)]
    found = reglaj.prepare_data(recipe_for(place, data=rows_of(tmp_path, [*good, turns])), runs=tmp_path / "runs")
    assert found["data"]["dropped"] == {bucket: 1}
    reject = json.loads((Path(found["folder"]) / "rejects.jsonl").read_text())
    assert (reject["line"], reject["bucket"]) == (21, bucket)
    assert len(reject["reason"]) > 15


@pytest.mark.parametrize("name", BROKEN)
def test_nothing_to_train_on_is_an_error_of_the_users(name: str, place: Path, tmp_path: Path) -> None:
    turns, bucket = BROKEN[name]
    with pytest.raises(UserError, match=bucket):
        reglaj.train(recipe_for(place, data=rows_of(tmp_path, [turns] * 9)), runs=tmp_path / "runs")


def test_half_a_surrogate_pair_is_unreadable(place: Path, tmp_path: Path) -> None:
    data = rows_of(tmp_path, [exchange(f"card {number}", "on its way") for number in range(20)])
    with Path(data["sources"][0]["path"]).open("a") as file:
        file.write('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\\ud800"}]}\n')
    assert reglaj.prepare_data(recipe_for(place, data=data), runs=tmp_path / "runs")["data"]["dropped"] == {
        "unreadable": 1
    }


def test_models_that_cannot_answer_are_refused(place: Path, tmp_path: Path) -> None:
    encoder = write_model(tmp_path / "bert")
    with pytest.raises(UserError, match="is an encoder"):
        reglaj.train(recipe_for(place, model=encoder), runs=tmp_path / "runs")
    with pytest.raises(UserError, match="nothing would learn"):
        reglaj.train(recipe_for(place, "linear-probe"), runs=tmp_path / "runs")


def test_a_vocabulary_that_grew_is_refused(place: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = write_chat_model(tmp_path / "grown")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="resize_token_embeddings"):
        reglaj.train(recipe_for(place, model=folder), runs=tmp_path / "runs")


def test_a_template_that_raises_is_named(place: Path, tmp_path: Path) -> None:
    folder = write_chat_model(tmp_path / "raising", template="{{ raise_exception('never') }}")
    with pytest.raises(UserError, match="template"):
        reglaj.train(recipe_for(place, model=folder), runs=tmp_path / "runs")


def test_system_prompts_that_a_template_loses_are_counted(place: Path, tmp_path: Path) -> None:
    losing = CHATML.replace(
        "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
    )
    folder = write_chat_model(tmp_path / "losing", template=losing)
    rows = [[{"role": "system", "content": "be brief"}, *exchange(f"card {n}", "on its way")] for n in range(20)]
    data = reglaj.prepare_data(recipe_for(place, model=folder, data=rows_of(tmp_path, rows)), runs=tmp_path / "runs")
    assert data["data"]["rendering"]["dropped_system_prompts"] == 20
    assert any("20 system prompts are lost" in note for note in data["data"]["notes"])


def test_the_mask_of_tool_calls_and_of_romanian_is_shown(place: Path, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "gaseste_card", "arguments": {"oras": "Iași"}}}
    rows = [
        [
            {"role": "user", "content": f"Unde este cardul {number}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": '{"stare": "în drum"}'},
            {"role": "assistant", "content": "Cardul este în drum și ajunge mâine."},
        ]
        for number in range(20)
    ]
    recipe = recipe_for(place, data=rows_of(tmp_path, rows))
    recipe["data"]["near_duplicates"] = None  # the numbers alone tell these questions apart
    shown = reglaj.prepare_data(recipe, runs=tmp_path / "runs", show=1, quality=False)["shown"]
    learnt = [text for text, is_learnt in shown[0] if is_learnt]
    assert len(learnt) == 2
    assert "gaseste_card" in learnt[0] and "Iași" in learnt[0] and learnt[0].endswith("<|im_end|>")
    assert learnt[1] == "Cardul este în drum și ajunge mâine.<|im_end|>"
    assert any("în drum" in text and "stare" in text for text, is_learnt in shown[0] if not is_learnt)
