"""The one renderer: conversations become token ids and loss masks here, for training, evaluation and serving alike.

A chat template turns turns into text; what of that text is an answer is found by rendering the conversation up to each
answer, never by searching for tokens. Nothing here imports transformers: a tokenizer is handed in.
"""

from reglaj.data.rendering.facts import TemplateFacts
from reglaj.data.rendering.golden import check_golden, golden_prompts
from reglaj.data.rendering.rendered import Fit, Rendered, spans
from reglaj.data.rendering.renderer import RENDERER_VERSION, Renderer
from reglaj.data.rendering.template import DEFAULT_TEMPLATE

__all__ = [
    "DEFAULT_TEMPLATE",
    "RENDERER_VERSION",
    "Fit",
    "Rendered",
    "Renderer",
    "TemplateFacts",
    "check_golden",
    "golden_prompts",
    "spans",
]
