"""Chat templates as they were published, written down as text, and tokenizers that carry their special tokens.

`SHAPES` are the well-behaved ones; `ODD` holds what else is out there: templates that rewrite earlier turns, that know
no generation prompt, that end nothing, that ask for the date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.tiny_chat import CORPUS, chat_tokenizer


@dataclass(frozen=True)
class Shape:
    """A template, the special tokens it uses, and what it makes of an answer's text."""

    template: str
    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    end: str = ""
    written: Callable[[str], str] = field(default=lambda content: content)


CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}" + _ALTERNATE + "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n"
    "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_HEADERS = ("<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_S = ("<unk>", "<s>", "</s>")

SHAPES: dict[str, Shape] = {
    "chatml": Shape(CHATML, _IM, "<|im_end|>", None, "<|im_end|>"),
    "llama3": Shape(LLAMA3, _HEADERS, "<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>", str.strip),
    "mistral": Shape(MISTRAL, _S, "</s>", "<s>", "</s>", lambda content: f" {content}"),
    "gemma": Shape(
        GEMMA,
        ("<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "<bos>",
        "<end_of_turn>",
        str.strip,
    ),
    "zephyr": Shape(ZEPHYR, _S, "</s>", "<s>", "</s>"),
    "smollm2": Shape(SMOLLM2, _IM, "<|im_end|>", "<|im_start|>", "<|im_end|>"),
}

# Shortened from the published ones to what makes them odd.
QWEN3 = (
    "{%- set last = namespace(query=0) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{%- set last.query = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
    "{%- if loop.index0 > last.query %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{{- m.content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
THINKING_PROMPT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% set content = m['content'].split('</think>')[-1] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# The system prompt stands in front of the last question, wherever that is.
SYSTEM_LAST = (
    "{{- bos_token }}{%- set system = '' %}{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] + '\n\n' %}{%- set messages = messages[1:] %}{%- endif %}"
    "{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{%- for m in messages %}{%- if m['role'] == 'user' %}"
    "{{- '[INST] ' + (system if m == users[-1] else '') + m['content'] + '[/INST]' }}"
    "{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
# Mistral 7B v0.3: only where the question is the last turn, so no finished conversation shows it.
SYSTEM_IN_PROMPTS = (
    "{{- bos_token }}{%- set system = '' %}{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] + '\n\n' %}{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for m in messages %}{%- if m['role'] == 'user' %}"
    "{{- '[INST] ' + (system if loop.last else '') + m['content'] + '[/INST]' }}"
    "{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
NO_GENERATION_PROMPT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
)
NO_END = (
    "{% for m in messages %}{% if m['role'] == 'user' %}Human: {{ m['content'] }}\n\nAssistant:"
    "{% else %} {{ m['content'] }}\n\n{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] in ('user', 'assistant') %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Phi-3 does: a finished conversation has one more token at its very end.
CLOSED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
# As in gpt-oss: the last answer ends with another token than the ones before it.
OTHER_LAST_END = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% else %}{{ '<|im_end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DATED = (
    "{%- if strftime_now is defined %}{{- '<|im_start|>system\nToday: ' + strftime_now('%Y-%m-%d') + ' or '"
    " + strftime_now(\"%d %b %Y\") + '<|im_end|>\n' }}{%- endif %}"
) + CHATML
# The native tool calls of Qwen 2.5, shortened.
TOOLS = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}{%- if messages[0].role == 'system' %}"
    "{{- messages[0].content + '\n\n' }}{%- endif %}{{- '<tools>' }}"
    "{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}{{- '\n</tools><|im_end|>\n' }}"
    "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- endif %}{%- for m in messages %}{%- if m.role == 'system' and loop.first %}"
    "{%- elif m.role == 'assistant' and m.tool_calls %}{{- '<|im_start|>assistant' }}"
    "{%- if m.content %}{{- '\n' + m.content }}{%- endif %}{%- for call in m.tool_calls %}"
    '{{- \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' + (call.function.arguments | tojson)'
    " + '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
# Arguments joined as text and ids of nine characters, as several published templates demand.
TOOLS_WITH_IDS = (
    "{{ bos_token }}{% if tools %}{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% elif m.tool_calls is defined %}{% for call in m.tool_calls %}"
    "{% if call.id is not defined or call.id | length != 9 %}{{ raise_exception('Tool call IDs should be 9 long!') }}"
    '{% endif %}{{ \'[TOOL_CALLS] {"name": "\' + call.function.name + \'", "arguments": \' + call.function.arguments'
    " + ', \"id\": \"' + call.id + '\"}' }}{% endfor %}{{ eos_token }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS] ' + m.tool_call_id + ' ' + m.content + '[/TOOL_RESULTS]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
)
TOOLS_AS_TEXT = TOOLS.replace("(call.function.arguments | tojson)", "call.function.arguments | string")

ODD: dict[str, Shape] = {
    "qwen3": Shape(QWEN3, _IM, "<|im_end|>", None, "<|im_end|>"),
    "thinking_prompt": Shape(THINKING_PROMPT, _IM, "<|im_end|>", None, "<|im_end|>"),
    "system_last": Shape(SYSTEM_LAST, _S, "</s>", "<s>", "</s>", lambda content: f" {content}"),
    "system_in_prompts": Shape(SYSTEM_IN_PROMPTS, _S, "</s>", "<s>", "</s>", lambda content: f" {content}"),
    "no_generation_prompt": Shape(NO_GENERATION_PROMPT, _IM, "<|im_end|>", None, "<|im_end|>"),
    "no_end": Shape(NO_END, _IM, "<|endoftext|>", None, "<|endoftext|>", lambda content: f" {content}"),
    "no_system": Shape(NO_SYSTEM, _IM, "<|im_end|>", None, "<|im_end|>"),
    "closed": Shape(CLOSED, _IM, "<|endoftext|>", None, "<|im_end|>"),
    "other_last_end": Shape(OTHER_LAST_END, _IM, "<|endoftext|>", None, "<|endoftext|>"),
    "dated": Shape(DATED, _IM, "<|im_end|>", None, "<|im_end|>"),
    "tools": Shape(TOOLS, _IM, "<|im_end|>", None, "<|im_end|>"),
    "tools_as_text": Shape(TOOLS_AS_TEXT, _IM, "<|im_end|>", None, "<|im_end|>"),
    "tools_with_ids": Shape(TOOLS_WITH_IDS, _S, "</s>", "<s>", "</s>", lambda content: f" {content}"),
}


def tokenizer_for(shape: Shape, *, adds_beginning: bool = False) -> Any:
    """A byte-level tokenizer with the shape's special tokens.

    adds_beginning: like that of Llama 3 or Gemma it puts its beginning token in front of every text by itself.
    """
    tokenizer = chat_tokenizer(shape.template, list(shape.special), shape.eos)
    return _with_beginning(tokenizer, shape, adds_beginning)


def _with_beginning(tokenizer: Any, shape: Shape, adds_beginning: bool) -> Any:
    if shape.bos is not None:
        tokenizer.bos_token = shape.bos
    if adds_beginning:
        from tokenizers.processors import TemplateProcessing

        number = tokenizer.convert_tokens_to_ids(shape.bos)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{shape.bos} $A", special_tokens=[(shape.bos, number)]
        )
    return tokenizer


@cache
def _sentencepiece_model() -> tuple[dict[str, int], list[tuple[str, str]]]:
    from tokenizers import Tokenizer, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    tokenizer.train_from_iterator([f" {text}\n answer\n\n" for text in CORPUS] * 4, trainer)
    import json

    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def sentencepiece_tokenizer(shape: Shape, kind: str, *, adds_beginning: bool = False) -> Any:
    """A tokenizer as those that came from SentencePiece: "▁" for spaces, bytes for what it does not know.

    kind: `legacy` puts a space in front of every piece between special tokens (Llama 2, Mistral), `first` only in
    front of the text (Gemma never: `never`), `metaspace` is legacy by the pre-tokenizer's own means.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces, merges = _sentencepiece_model()
    names = [*shape.special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=shape.special[0], fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        scheme = "always" if kind == "metaspace" else kind
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind != "never":
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in shape.special])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=shape.eos, unk_token=shape.special[0], pad_token=shape.special[0]
    )
    fast.chat_template = shape.template
    return _with_beginning(fast, shape, adds_beginning)
