"""Which parameters learn: one file per method, all of them registered here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.registry import Registry

if TYPE_CHECKING:
    from reglaj.methods.base import Method

METHODS: Registry[type[Method]] = Registry("method", "reglaj.methods")
