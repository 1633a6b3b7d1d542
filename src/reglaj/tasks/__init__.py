"""What the model learns to do: one file per task, all of them registered here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.registry import Registry

if TYPE_CHECKING:
    from reglaj.tasks.base import Task

TASKS: Registry[type[Task]] = Registry("task", "reglaj.tasks")
