"""`new` on conversations: the format is recognised and named, what is not plain is asked, classify keeps its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.tables import public

from reglaj.core.errors import UserError
from reglaj.pipelines.new import Proposal, propose, write_recipe
from reglaj.pipelines.recipe import load_recipe

ASKED = ("Unde este coletul", "Cum îmi schimb parola", "De ce nu merge cardul", "Where is my parcel", "Who are you")


def question(number: int) -> str:
    return f"{ASKED[number % 5]} cu numărul {number}?"


def answer(number: int) -> str:
    return f"Răspunsul la întrebarea {number} este lung de câteva cuvinte."


def write_json(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    return path


def write_table(path: Path, columns: dict[str, list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def pairs(path: Path, first: str, second: str, rows: int = 60, **others: list[str]) -> Path:
    columns = {first: [question(i) for i in range(rows)], second: [answer(i) for i in range(rows)]}
    return write_table(path, columns | others)


def openai(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": question(number)}, {"role": "assistant", "content": answer(number)}]


def sharegpt(number: int) -> list[dict[str, str]]:
    return [{"from": "human", "value": question(number)}, {"from": "gpt", "value": answer(number)}]


def proposal_of(file: Path, **options: Any) -> Proposal:
    proposal = propose([file], folder=file.parent, **options)
    output = file.parent / "recipe.yaml"
    write_recipe(proposal, output)
    recipe = load_recipe(output)
    assert recipe.task == proposal.task and recipe.data.sources[0].columns == proposal.columns
    return proposal


def problems_of(file: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        propose([file], *arguments, folder=file.parent, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("prompt", "completion"),
        ("question", "answer"),
        ("query", "response"),
        ("input", "output"),
        ("Întrebare", "Răspuns"),
        ("intrebari", "raspunsuri"),
    ],
)
def test_two_columns_are_question_and_answer_by_name(first: str, second: str, tmp_path: Path) -> None:
    proposal = proposal_of(pairs(tmp_path / "faq.csv", first, second))
    assert proposal.task == "chat" and proposal.model == "starter:smollm2"
    assert proposal.columns == {"prompt": first, "completion": second}
    assert f"the format: a prompt and its answer in `{first}` and `{second}`" in proposal.why


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("instruction", "input", "output"), {"instruction": "instruction", "output": "output", "input": "input"}),
        (("instruction", "input", "response"), {"instruction": "instruction", "output": "response", "input": "input"}),
        (
            ("instruction", "context", "response"),
            {"instruction": "instruction", "output": "response", "input": "context"},
        ),
        (
            ("instrucțiune", "intrare", "ieșire"),
            {"instruction": "instrucțiune", "output": "ieșire", "input": "intrare"},
        ),
    ],
)
def test_alpaca_with_mostly_empty_inputs(names: tuple[str, str, str], columns: dict[str, str], tmp_path: Path) -> None:
    records = [dict(zip(names, (question(i), "x" if i == 7 else "", answer(i)), strict=True)) for i in range(60)]
    proposal = proposal_of(write_json(tmp_path / "a.json", records))
    assert (proposal.task, proposal.columns) == ("chat", columns)
    assert any(line.startswith("the format: Alpaca in") and "inputs in" in line for line in proposal.why)


def test_instructions_without_inputs(tmp_path: Path) -> None:
    proposal = proposal_of(pairs(tmp_path / "a.csv", "instruction", "response"))
    assert proposal.columns == {"instruction": "instruction", "output": "response"}


@pytest.mark.parametrize("column", ["messages", "dialog", "conversation", "date_brute"])
def test_openai_messages_under_any_name(column: str, tmp_path: Path) -> None:
    proposal = proposal_of(write_json(tmp_path / "a.json", [{column: openai(i), "id": str(i)} for i in range(60)]))
    assert (proposal.task, proposal.columns) == ("chat", {"messages": column})
    assert f"the format: OpenAI turns in `{column}`: 2.0 turns on average" in proposal.why
    assert "not read: `id`" in proposal.why


def test_sharegpt_turns_with_tools_and_system_prompts(tmp_path: Path) -> None:
    tools = '[{"name": "find", "parameters": {}}]'
    records = [{"conversations": sharegpt(i) * 2, "tools": tools, "system": "Fii scurt."} for i in range(60)]
    proposal = proposal_of(write_json(tmp_path / "a.json", records))
    assert proposal.columns == {"conversations": "conversations", "system": "system", "tools": "tools"}
    found = "4.0 turns on average, system prompts in `system`, tools in `tools`"
    assert f"the format: ShareGPT turns in `conversations`: {found}" in proposal.why


def test_turns_as_json_in_a_table(tmp_path: Path) -> None:
    proposal = proposal_of(write_table(tmp_path / "a.csv", {"messages": [json.dumps(openai(i)) for i in range(60)]}))
    assert (proposal.task, proposal.columns) == ("chat", {"messages": "messages"})


def test_a_label_beside_a_conversation_changes_nothing(tmp_path: Path) -> None:
    records = [{"messages": openai(i), "label": str(i % 2)} for i in range(60)]
    assert proposal_of(write_json(tmp_path / "a.json", records)).task == "chat"


@pytest.mark.parametrize(
    ("text", "label"), [("question", "answer"), ("message", "response"), ("întrebare", "categorie"), ("text", "label")]
)
def test_repeating_answers_are_labels(text: str, label: str, tmp_path: Path) -> None:
    file = write_table(
        tmp_path / "a.csv",
        {text: [question(i) for i in range(60)], label: ["da" if i % 3 else "nu" for i in range(60)]},
    )
    proposal = proposal_of(file)
    assert (proposal.task, proposal.columns) == ("classify", {"text": text, "label": label})


def test_the_very_names_of_the_roles_mean_a_chat(tmp_path: Path) -> None:
    file = write_table(
        tmp_path / "a.csv", {"prompt": [question(i) for i in range(60)], "completion": ["da", "nu", "poate"] * 20}
    )
    proposal = proposal_of(file)
    assert proposal.task == "chat"
    assert any("the task classify would be possible too" in line for line in proposal.why)


def test_where_two_tasks_are_plain_the_user_is_asked(tmp_path: Path) -> None:
    file = pairs(tmp_path / "a.csv", "question", "answer", label=["a", "b", "c"] * 20)
    message = problems_of(file)
    assert "suit several tasks: chat, classify" in message and "--task chat" in message
    assert proposal_of(file, task="chat").columns == {"prompt": "question", "completion": "answer"}
    assert proposal_of(file, task="classify").columns == {"text": "question", "label": "label"}
    assert proposal_of(file, columns={"prompt": "question"}).task == "chat", "only one task has that role"


def test_two_questions_are_asked_about(tmp_path: Path) -> None:
    file = pairs(tmp_path / "a.csv", "question", "answer", query=[f"{question(i)} Da?" for i in range(60)])
    message = problems_of(file)
    assert "`question`" in message and "`query`" in message and "--column prompt=question" in message
    assert proposal_of(file, columns={"prompt": "query"}).columns == {"prompt": "query", "completion": "answer"}


def test_two_layouts_are_asked_about(tmp_path: Path) -> None:
    records = [{"messages": openai(i), "question": question(i), "answer": answer(i)} for i in range(60)]
    file = write_json(tmp_path / "a.json", records)
    message = problems_of(file)
    assert "suit several layouts of chat" in message and "--column prompt=question" in message
    assert proposal_of(file, columns={"messages": "messages"}).columns == {"messages": "messages"}


def test_texts_without_known_names_are_not_guessed(tmp_path: Path) -> None:
    file = pairs(tmp_path / "a.csv", "a", "b")
    message = problems_of(file, "chat")
    assert "prompt_completion (prompt, completion)" in message and "--column ROLE=COLUMN" in message
    found = proposal_of(file, columns={"prompt": "a", "completion": "b"})
    assert (found.task, found.columns) == ("chat", {"prompt": "a", "completion": "b"})


def test_what_was_chosen_is_checked(tmp_path: Path) -> None:
    file = pairs(tmp_path / "a.csv", "question", "answer")
    assert "did you mean 'question'?" in problems_of(file, columns={"prompt": "quetion"})
    assert "the roles prompt, output together" in problems_of(file, columns={"prompt": "question", "output": "answer"})
    assert "has no promt" in problems_of(file, columns={"promt": "question"})


def test_conversations_without_answers_are_refused_with_the_reason(tmp_path: Path) -> None:
    file = write_json(
        tmp_path / "a.json", [{"conversations": sharegpt(i)[:1], "chosen": {"from": "gpt"}} for i in range(60)]
    )
    assert "`conversations` holds ShareGPT turns, and no conversation ends with an answer" in problems_of(file)


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        (
            "llamafactory_demo/alpaca_en_demo.json",
            {"instruction": "instruction", "output": "output", "input": "input"},
            "Alpaca in `instruction` and `output`: inputs in `input`",
        ),
        (
            "llamafactory_demo/glaive_toolcall_en_demo.json",
            {"conversations": "conversations", "tools": "tools"},
            "ShareGPT turns in `conversations`: 6.4 turns on average, tools in `tools`",
        ),
        ("llamafactory_demo/kto_en_demo.json", {"messages": "messages"}, "OpenAI turns in `messages`: 3.2 turns"),
        (
            "gpteacher/Roleplay/roleplay-simple-deduped-roleplay-instruct.json",
            {"instruction": "instruction", "output": "response", "input": "input"},
            "Alpaca in `instruction` and `response`",
        ),
        ("medquad/qa.jsonl", {"prompt": "question", "completion": "answer"}, "a prompt and its answer in `question`"),
    ],
)
def test_public_data_are_recognised(name: str, columns: dict[str, str], words: str, tmp_path: Path) -> None:
    proposal = propose([public(name)], folder=tmp_path)
    assert (proposal.task, proposal.columns) == ("chat", columns)
    assert any(line.startswith("the format: ") and words in line for line in proposal.why)


def test_public_preferences_are_no_conversations_to_learn_from(tmp_path: Path) -> None:
    file = public("llamafactory_demo/dpo_en_demo.json")
    with pytest.raises(UserError, match="no conversation ends with an answer"):
        propose([file], folder=tmp_path)
