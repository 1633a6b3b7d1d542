"""A tokenizer's chat template as a function from turns to text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

# For tokenizers without a template of their own: plain text, and the end token that the model already has, so that the
# vocabulary need not grow. One newline, never two: some tokenizers read "\n\n" in one piece with what follows.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '### ' + (message['role'] | capitalize) + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)
# A template that writes today's date would give other tokens tomorrow. This is the day that Llama 3.1's own template
# takes where it is told none.
PINNED_DAY = date(2024, 7, 26)
_FORMAT = re.compile(r"""strftime_now\(\s*(?:"([^"]*)"|'([^']*)')\s*\)""")


class TemplateRaised(Exception):
    """The template refused the turns; the text is what it said."""


class TemplateText:
    """Renders turns with the template of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        own = tokenizer.chat_template
        named: Mapping[str, str] = own if isinstance(own, Mapping) else {"default": own}
        self.text = named.get("default") or next(iter(named.values()))
        self._plain = pin_date(self.text)
        self._with_tools = pin_date(named["tool_use"]) if "tool_use" in named else self._plain
        self.source = json.dumps(dict(named), sort_keys=True, ensure_ascii=False)

    def render(
        self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), *, prompt: bool = False
    ) -> str:
        """The text of the turns; `prompt` adds what the template writes to make the model answer.

        Raises `TemplateRaised`: a template is somebody else's program, so whatever it raises counts.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                list(turns),
                tools=list(tools) or None,
                chat_template=self._with_tools if tools else self._plain,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        except ImportError:
            raise
        except Exception as error:
            raise TemplateRaised(f"{type(error).__name__}: {error}") from error
        return str(text)

    @property
    def has_date(self) -> bool:
        """Whether the template asks for today's date."""
        return "strftime_now" in self.source


def pin_date(template: str) -> str:
    """The template with today's date replaced by `PINNED_DAY`, so that equal turns give equal tokens on every day."""
    if "strftime_now" not in template:
        return template
    formats = sorted({double or single for double, single in _FORMAT.findall(template)})
    branches = "".join(
        f"{{%- if format == {json.dumps(text)} -%}}{PINNED_DAY.strftime(text)}{{%- else -%}}" for text in formats
    )
    body = branches + PINNED_DAY.strftime("%d %b %Y") + "{%- endif -%}" * len(formats)
    return f"{{%- macro strftime_now(format) -%}}{body}{{%- endmacro -%}}" + template
