"""Standard output: whole lines, honest tables, one JSON document."""

from __future__ import annotations

import pytest

from reglaj.cli.figures import bytes_text, duration, interval, read_report, share
from reglaj.cli.page import Page, one_line, print_json, printable


def test_figures_are_short():
    assert [bytes_text(n) for n in (12, 3_400, 5_600_000, 7_890_000_000)] == ["12 bytes", "3.4 kB", "5.6 MB", "7.9 GB"]
    assert [duration(s) for s in (3.4, 150, 9_000)] == ["3 s", "2 min", "2.5 h"]
    assert [share(v) for v in (0.004, 0.95, 1)] == ["0.4%", "95%", "100%"]
    assert interval({"value": 0.9, "low": 0.85, "high": 0.9312}) == "0.900 [0.850, 0.931]"


def test_text_is_shown_without_effect_on_the_terminal():
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\nc"
    assert one_line("a\n b" + "x" * 300, limit=20) == "a bxxxxxxxxxxxxxx..."


def test_a_table_keeps_every_cell_whole_and_takes_no_markup(capsys):
    Page().table(["name", "n"], [["[red]x[/red]", "1"], ["y" * 150, "20"]], right=("n",))
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out and "y" * 150 in out


def test_json_has_no_nan(capsys):
    print_json({"ț": [1, None]})
    assert capsys.readouterr().out == '{\n "ț": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError):
        print_json(float("nan"))


def figure(value: float, **more) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, **more}


def test_a_report_shows_model_baselines_differences_rows_and_the_next_step(capsys):
    report = {
        "run": "runs/tickets-001",
        "task": "classify",
        "method": "lora",
        "confidence": 0.95,
        "data": {
            "read": 1100,
            "train": 800,
            "validation": 100,
            "test": 100,
            "dropped": {"exact_duplicate": 90, "ragged": 10},
        },
        "test": {"accuracy": figure(0.9), "macro_f1": figure(0.8), "per_class": {}, "confusion_matrix": []},
        "baselines": {"majority": {"accuracy": figure(0.3, difference=figure(0.6, p=0.001)), "macro_f1": figure(0.1)}},
        "training": {"steps": 500, "best_step": 400, "stopped": "early"},
        "cost": {"train_seconds": 12.0, "trainable_parameters": 12345, "peak_memory_bytes": 1_000_000_000},
        "notes": ["small test part"],
    }
    read_report(Page(), report)
    out = capsys.readouterr().out
    for expected in (
        "0.900 [0.890, 0.910]",
        "+0.600 [+0.590, +0.610]",
        "0.001",
        "macro-F1",
        "1,100",
        "90 exact_duplicate, 10 ragged",
        "reglaj predict runs/tickets-001",
        "note: small test part",
    ):
        assert expected in out
    assert "per class" not in out


def test_a_report_without_baselines_is_a_report(capsys):
    read_report(Page(), {"run": "runs/a-001", "task": "classify", "method": "full", "test": {"accuracy": figure(0.9)}})
    assert "0.900" in capsys.readouterr().out


def test_a_chat_says_which_way_is_better_and_how_to_talk_to_it(capsys):
    compared = {"loss": figure(3.4, difference=figure(-0.4, p=0.002)), "rouge_l": figure(0.1)}
    report = {
        "run": "runs/support-001",
        "task": "chat",
        "method": "lora",
        "test": {
            "loss": figure(3.0),
            "perplexity": figure(20.1),
            "rouge_l": figure(0.2),
            "chrf": figure(0.3),
            "rows": 60,
        },
        "baselines": {"untuned": compared},
    }
    read_report(Page(), report)
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if "ROUGE-L" in line)
    assert "loss (lower is better)" in heading and "perplexity (lower is better)" in heading
    assert "model minus it (loss)" in heading
    untuned = next(line for line in lines if line.startswith("untuned"))
    assert "3.400 [3.390, 3.410]" in untuned and "-0.400 [-0.410, -0.390]" in untuned and "0.002" in untuned
    assert "chrF  0.300 [0.290, 0.310]" in lines
    assert "chat     reglaj chat runs/support-001" in lines
    assert "predict  reglaj predict runs/support-001 'a question of yours'" in lines
