"""The base of every method's section; a method's own keys are in its own file."""

from __future__ import annotations

from reglaj.core.config import Config


class MethodConfig(Config):
    """Which parameters learn."""

    name: str
    """A registered method, see `reglaj methods`."""
