"""One registry per plug-in room: a name leads to exactly one thing, and a wrong name to the nearest right one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from reglaj.core.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one room.

    kind: how error messages call an entry, such as `method`.
    package: the room whose modules register themselves when imported; they are imported at the
        first look-up, so that naming a room costs nothing. Outside packages join through the
        entry-point group of the package's name (`reglaj.methods`).
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that puts a class or function under `name`; the second of a name is refused."""

        def put(thing: T) -> T:
            if name in self._entries and self._entries[name] is not thing:
                raise RuntimeError(f"two {self.kind}s are called {name!r}")
            self._entries[name] = thing
            return thing

        return put

    def get(self, name: str, *, where: str = "") -> T:
        """The entry under `name`. Raises `UserError` that names the nearest known one."""
        self._discover()
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries, where=where)
        return self._entries[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # first, so that a plug-in may ask the registry while it loads
        room = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(room.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for entry in entry_points(group=self.package):
            entry.load()
