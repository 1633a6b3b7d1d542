"""What a classifier says to texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reglaj.core.console import Console

if TYPE_CHECKING:
    from reglaj.tasks.classify_calibration import Calibration
    from reglaj.training.learner import Learner


def answer_texts(
    labels: list[str],
    calibration: Calibration | None,
    learner: Learner,
    tokenizer: Any,
    texts: list[str],
    max_tokens: int,
    console: Console,
) -> list[dict[str, Any]]:
    """An answer for each text, in order: `prediction` with `probabilities`, or the `error` that refused it."""
    from reglaj.models.encoding import encode_texts
    from reglaj.tasks.classify_calibration import served

    answers: list[dict[str, Any]] = [{"input": text, "error": _refusal(text)} for text in texts]
    answered = [i for i, answer in enumerate(answers) if answer["error"] is None]
    if not answered:
        return answers
    rows, cut = encode_texts(tokenizer, [texts[i] for i in answered], max_tokens)
    said = served(calibration, learner.scores(rows, console, "predicting"))
    for i, number, row in zip(answered, said.classes.tolist(), said.probabilities, strict=True):
        answers[i] = {
            "input": texts[i],
            "prediction": labels[number],
            "probabilities": {label: float(p) for label, p in zip(labels, row, strict=True)},
        }
    for place in cut:  # longer than the context: answered from its beginning, and said
        answers[answered[place]]["cut"] = True
    return answers


def _refusal(text: Any) -> str | None:
    """Why a text cannot be answered, or None."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return "empty text"
    if not isinstance(text, str):
        return "not a text"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "not a text: it holds half a surrogate pair"
    return None
