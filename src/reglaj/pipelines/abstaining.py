"""Answers that are withheld because the model is not sure enough of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reglaj.core.errors import user_error

if TYPE_CHECKING:
    from reglaj.pipelines.assemble import Assembled


def threshold_of(assembled: Assembled, abstain_below: float | None, target_error: float | None) -> float | None:
    """The probability below which nothing is answered; None where everything is. Raises `UserError`.

    abstain_below: that probability itself. target_error: the share of the given answers that may be wrong, shown on
    validation with the recipe's `evaluate.confidence`.
    """
    if abstain_below is None and target_error is None:
        return None
    if abstain_below is not None and target_error is not None:
        raise user_error(
            "both --abstain-below and --target-error",
            allowed="one of them",
            why="each of them says from which probability on there is an answer",
            remedy="leave one out",
        )
    name, value = ("--abstain-below", abstain_below) if target_error is None else ("--target-error", target_error)
    assert value is not None
    if not 0 < value < 1:
        raise user_error(
            f"{name} {value:g}",
            allowed="a number above 0 and below 1",
            why="it is a probability" if target_error is None else "it is the share of answers that may be wrong",
            remedy=f"write {name} {value / 100:g}"
            if 1 <= value < 100
            else "0.8 withholds what is less than 80% sure"
            if target_error is None
            else "0.05 lets one answer in twenty be wrong",
        )
    task = assembled.task
    if not task.says_how_sure:
        raise user_error(
            f"{name} for the task {task.name}",
            allowed="tasks whose answers have a probability, such as classify",
            why="nothing says how sure an answer is",
            remedy="leave the option out",
        )
    if target_error is None:
        return abstain_below
    return task.sure_enough(target_error, assembled.recipe.evaluate.confidence)


def withheld(answer: dict[str, Any], threshold: float) -> dict[str, Any]:
    """The answer with its `confidence` and whether the model `abstained`: then `prediction` is None."""
    if "error" in answer:
        return answer
    sure = answer["probabilities"][answer["prediction"]]
    is_withheld = sure < threshold
    given = None if is_withheld else answer["prediction"]
    return {**answer, "prediction": given, "confidence": sure, "abstained": is_withheld}
