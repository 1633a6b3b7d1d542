"""`new`: what it finds, what it refuses to guess, and that the recipe it writes is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reglaj.core.config import Config, parse_yaml
from reglaj.core.errors import UserError
from reglaj.data.config import DataConfig, SplitConfig
from reglaj.evaluation.config import EvaluateConfig
from reglaj.methods import METHODS
from reglaj.pipelines.commented import comment, scalar
from reglaj.pipelines.new import check_output, propose, write_recipe
from reglaj.pipelines.recipe import KEYS, load_recipe
from reglaj.tasks import TASKS
from reglaj.training.config import EarlyStoppingConfig, TrainConfig

PUBLIC = Path(__file__).parents[2].parent / "shared" / "data"


def table(path: Path, header: str, rows: int = 60, second: str = "card refund login") -> Path:
    """A CSV of long different texts in its first column and few values in the others."""
    columns = header.count(",")
    values = second.split()
    lines = [header]
    for i in range(rows):
        cells = ",".join(values[(i + column) % len(values)] for column in range(columns))
        lines.append(f"unde este cardul meu numărul {i} din coletul {i * 7},{cells}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems_of(*arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        propose(*arguments, **options)
    return str(caught.value)


def test_the_columns_are_found_and_explained(tmp_path):
    proposal = propose([table(tmp_path / "tickets.csv", "mesaj,intenție")], folder=tmp_path)
    assert proposal.task == "classify"
    assert proposal.columns == {"text": "mesaj", "label": "intenție"}
    assert any("`mesaj` holds texts of" in line and "nearly all different" in line for line in proposal.why)
    assert any("`intenție` has 3 different values, each 20 times on average" in line for line in proposal.why)


def test_the_recipe_loads_without_editing_and_finds_its_files(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes").mkdir()
    first = table(tmp_path / "data" / "ianuarie 2024.csv", "mesaj,categorie")
    second = table(tmp_path / "data" / "februarie.csv", "mesaj,categorie")
    output = tmp_path / "recipes" / "recipe.yaml"
    write_recipe(propose([first, second], model="some/model", folder=output.parent), output)
    recipe = load_recipe(output)
    assert recipe.name == "ianuarie-2024"
    assert recipe.model == "some/model"
    assert [(recipe.folder / source.path).resolve() for source in recipe.data.sources] == [first, second]
    assert all(source.columns == {"text": "mesaj", "label": "categorie"} for source in recipe.data.sources)
    # What is commented out is the default, and what is written out is too.
    assert recipe.train == TrainConfig() and recipe.evaluate == EvaluateConfig()
    assert recipe.data.split == SplitConfig()
    assert recipe.method == METHODS.get(recipe.method.name).config_type()


def sections() -> dict[str, type[Config]]:
    method = METHODS.get(TASKS.get("classify").default_method).config_type
    return {
        "data": DataConfig,
        "data.split": SplitConfig,
        "train": TrainConfig,
        "train.early_stopping": EarlyStoppingConfig,
        "evaluate": EvaluateConfig,
        "method": method,
    }


def test_the_recipe_has_every_key_and_uncommenting_changes_nothing(tmp_path):
    text = propose([table(tmp_path / "tickets.csv", "mesaj,categorie")], folder=tmp_path).recipe
    named = {"train": TrainConfig, "evaluate": EvaluateConfig, "data.split": SplitConfig, "data": DataConfig}
    for name, section in named.items():
        for key in section.model_fields:
            is_read = f"{name}.{key}" not in TASKS.get("classify").unread
            assert bool(re.search(rf"^ *(# )?{key}:", text, re.MULTILINE)) == is_read, key
    keys = "|".join(key for section in sections().values() for key in section.model_fields)
    uncommented = re.sub(rf"^( +)# ((?:{keys}): .*)$", r"\1\2", text, flags=re.MULTILINE)
    assert uncommented.count("\n") == text.count("\n") and uncommented != text
    for name, words in (("plain.yaml", text), ("full.yaml", uncommented)):
        (tmp_path / name).write_text(words, encoding="utf-8")
    assert load_recipe(tmp_path / "plain.yaml") == load_recipe(tmp_path / "full.yaml")


def test_top_level_keys_are_all_there(tmp_path):
    text = propose([table(tmp_path / "tickets.csv", "mesaj,categorie")], folder=tmp_path).recipe
    assert set(parse_yaml(text, where="")) == set(KEYS)


@pytest.mark.parametrize("section", sections())
def test_every_key_of_a_recipe_says_what_it_means(section):
    fields = sections()[section].model_fields.items()
    undocumented = [key for key, field in fields if not field.description and key != "name"]  # a method's own name
    assert not undocumented


def test_two_equally_good_columns_are_not_guessed(tmp_path):
    file = table(tmp_path / "t.csv", "message,queue,priority", second="a b c d")
    message = problems_of([file], folder=tmp_path)
    assert "2 columns are equally good" in message
    assert "`queue`" in message and "`priority`" in message
    assert "--label queue" in message
    assert propose([file], columns={"label": "priority"}, folder=tmp_path).columns["label"] == "priority"


def test_what_was_chosen_is_checked(tmp_path):
    file = table(tmp_path / "t.csv", "message,queue,priority")
    assert "did you mean 'queue'?" in problems_of([file], columns={"label": "quue"}, folder=tmp_path)
    assert "learns nothing" in problems_of([file], columns={"label": "queue", "text": "queue"}, folder=tmp_path)
    assert "has no tokens" in problems_of([file], columns={"tokens": "queue"}, folder=tmp_path)
    assert "did you mean 'classify'?" in problems_of([file], "clasify", folder=tmp_path)


def test_where_nothing_fits_every_column_says_why(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("id,text\n" + "".join(f"{i},the text with the number {i}\n" for i in range(50)), encoding="utf-8")
    message = problems_of([file], folder=tmp_path)
    assert "looks like a label" in message
    assert "`id`" in message and "hardly repeat" in message


def test_several_files_must_share_their_columns(tmp_path):
    first = table(tmp_path / "a.csv", "message,intent")
    second = table(tmp_path / "b.csv", "mesaj,intenție")
    assert "no column in common" in problems_of([first, second], folder=tmp_path)


def test_a_recipe_is_not_overwritten(tmp_path):
    output = tmp_path / "recipe.yaml"
    check_output(output)
    output.write_text("task: classify\n")
    check_output(output, force=True)
    with pytest.raises(UserError, match="--force"):
        check_output(output)


def test_a_recipe_needs_a_place(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        check_output(tmp_path / "none" / "recipe.yaml")
    with pytest.raises(UserError, match="is a folder"):
        check_output(tmp_path, force=True)


@pytest.mark.parametrize(
    "text", ["no", "1e5", "true", "null", "007", "2024-01-02", "a: b", "# x", "'", '"', "é\n", "[x", ""]
)
def test_names_of_columns_and_files_stay_texts(text):
    assert parse_yaml(f"key: {scalar(text)}", where="") == {"key": text}
    assert parse_yaml(f"key: {scalar([text])}", where="") == {"key": [text]}
    assert parse_yaml(f"key: {scalar({'a': text})}", where="") == {"key": {"a": text}}


def test_nothing_of_a_file_ends_a_comment():
    assert comment("a\nb: c\r\x85\u2028d \x1b[0m") == ["# a b: c d [0m"]


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("banking77/train.csv", {"text": "text", "label": "category"}),
        ("hate_davidson/labeled_data.csv", {"text": "tweet", "label": "class"}),
        ("pubmedqa/ori_pqal.json", {"text": "QUESTION", "label": "final_decision"}),
        ("medquad/qa.jsonl", {"text": "question", "label": "type"}),
    ],
)
def test_public_data_are_recognised(file, columns, tmp_path):
    if not (PUBLIC / file).is_file():
        pytest.skip(f"shared/data/{file} is not beside this checkout")
    output = tmp_path / "recipe.yaml"
    # medquad has answers too, and is a chat unless it is asked otherwise (see test_new_chat.py).
    proposal = propose([PUBLIC / file], "classify" if file.startswith("medquad") else None, folder=tmp_path)
    write_recipe(proposal, output)
    assert proposal.columns == columns
    assert load_recipe(output).data.sources[0].columns == columns


def test_advisories_have_no_label_and_the_refusal_says_why(tmp_path):
    file = PUBLIC / "rustsec" / "advisories.jsonl"
    if not file.is_file():
        pytest.skip("shared/data/rustsec is not beside this checkout")
    message = problems_of([file], folder=tmp_path)
    assert "`categories` holds lists" in message
    assert propose([file], columns={"label": "informational"}, folder=tmp_path).columns["text"] == "description"
