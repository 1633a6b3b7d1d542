"""reglaj: an organisation's own data in, a fine-tuned language model that it can trust out.

    import reglaj
    run = reglaj.train("recipe.yaml", train__epochs=3)
    reglaj.load(run.path).predict(["My card has not arrived"])

Names are loaded when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reglaj.pipelines.data import prepare_data
    from reglaj.pipelines.evaluate import evaluate
    from reglaj.pipelines.predict import Model, load
    from reglaj.pipelines.train import Run, train
    from reglaj.pipelines.verify import verify

__version__ = "0.1.0"
__all__ = ["Model", "Run", "evaluate", "load", "prepare_data", "train", "verify"]

_HOMES = {
    "Model": "reglaj.pipelines.predict",
    "Run": "reglaj.pipelines.train",
    "evaluate": "reglaj.pipelines.evaluate",
    "load": "reglaj.pipelines.predict",
    "prepare_data": "reglaj.pipelines.data",
    "train": "reglaj.pipelines.train",
    "verify": "reglaj.pipelines.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reglaj' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
