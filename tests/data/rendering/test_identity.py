"""The renderer's identity, golden prompts, and how tokens are shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.chat_templates import SHAPES, tokenizer_for
from tests.data.rendering.conversations import TALKS, TOKENIZERS, WITH_TOOL, renderer_for, talk

from reglaj.data.rendering import Renderer, check_golden, golden_prompts, spans


def test_the_identity_changes_with_all_that_changes_tokens():
    tokenizer = tokenizer_for(SHAPES["llama3"])
    first = Renderer(tokenizer).identity()
    others = [Renderer(tokenizer, on="last_answer"), Renderer(tokenizer, on="all")]
    others.append(Renderer(tokenizer_for(SHAPES["llama3"], adds_beginning=True)))
    larger = tokenizer_for(SHAPES["llama3"])
    larger.add_tokens(["anothertoken"])
    others.append(Renderer(larger))
    template = tokenizer_for(SHAPES["llama3"])
    template.chat_template += " "
    others.append(Renderer(template))
    marked = tokenizer_for(SHAPES["llama3"])
    marked.eos_token = "<|end_of_text|>"
    others.append(Renderer(marked))
    found = {first, *(renderer.identity() for renderer in others)}
    assert len(found) == len(others) + 1 and all(len(text) == 64 for text in found)


def test_the_identity_does_not_hang_on_what_was_tokenised_last(tmp_path: Path):
    tokenizer = tokenizer_for(SHAPES["gemma"])
    renderer = Renderer(tokenizer)
    first = renderer.identity()
    tokenizer(["a", "some longer text"], truncation=True, max_length=3, padding="max_length")
    assert renderer.identity() == first
    tokenizer.save_pretrained(tmp_path)
    code = (
        "import sys; from transformers import AutoTokenizer; from reglaj.data.rendering import Renderer;"
        "print(Renderer(AutoTokenizer.from_pretrained(sys.argv[1])).identity())"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == first, "another process, and the saved tokenizer"


def test_truncation_that_somebody_asked_for_does_not_reach_the_tokens():
    tokenizer = tokenizer_for(SHAPES["gemma"])
    renderer = Renderer(tokenizer)
    tokenizer("a longer text than that", truncation=True, max_length=2)
    assert renderer.render(TALKS["Romanian"]) == renderer_for("gemma")[0].render(TALKS["Romanian"])


@pytest.mark.parametrize("shape", [*SHAPES, "tools", "tools_with_ids", "no_end", "qwen3"])
def test_golden_prompts_come_back_from_json_and_tell_what_differs(shape: str):
    renderer, _ = renderer_for(shape)
    prompts = json.loads(json.dumps(golden_prompts(renderer)))
    assert len(prompts) == 6 and all(prompt["ids"] for prompt in prompts)
    assert any("ș" in str(prompt["messages"]) for prompt in prompts) and any(prompt["tools"] for prompt in prompts)
    assert check_golden(renderer, prompts) == []
    prompts[2]["ids"][4] += 1
    prompts[3]["ids"].append(7)
    told = check_golden(renderer, prompts)
    assert (
        len(told) == 2
        and "golden prompt 3" in told[0]
        and "from token 4 on" in told[0]
        and "golden prompt 4" in told[1]
    )
    other = Renderer(tokenizer_for(SHAPES["gemma" if shape != "gemma" else "llama3"]))
    assert len(check_golden(other, prompts)) >= 5


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_is_shown_is_the_text(kind: str):
    for shape in SHAPES:
        renderer, tokenizer = renderer_for(shape, kind)
        for conversation in (*TALKS.values(), WITH_TOOL):
            rendered = renderer.render(conversation)
            pieces = spans(tokenizer, rendered)
            assert "".join(text for text, _ in pieces) == tokenizer.decode(rendered.ids)
            assert "\ufffd" not in "".join(text for text, _ in pieces)
            assert [flag for _, flag in pieces] == [bool(place % 2) for place in range(len(pieces))]


def test_the_largest_token_is_known():
    renderer, tokenizer = renderer_for("chatml")
    assert renderer.largest_id == len(tokenizer) - 1
    grown = tokenizer_for(SHAPES["chatml"])
    grown.add_tokens(["one", "more"])
    assert Renderer(grown).largest_id == len(tokenizer) + 1


def test_importing_the_room_loads_no_library():
    code = (
        "import sys, reglaj.data.rendering as r; r.Renderer;"
        "print([m for m in ('torch', 'transformers', 'jinja2', 'tokenizers') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_prompt_with_history_is_read_like_its_conversation():
    renderer, _ = renderer_for("smollm2")
    whole = renderer.render(talk("a", "b", "c", "d"))
    assert whole.ids[: len(renderer.prompt(talk("a", "b", "c")))] == renderer.prompt(talk("a", "b", "c"))
