"""A JSON document read piece by piece: one element is in memory, not the document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from reglaj.core.errors import UserError, user_error
from reglaj.data.reading.json_values import DECODER

_PIECE_CHARACTERS = 1 << 18
# An element that is not complete after this many characters is taken to be broken.
_MAX_ELEMENT_CHARACTERS = 1 << 26
_SPACE = re.compile(r"[ \t\r\n]*")
# `12` at the end of a piece may be the beginning of `123`.
_MAY_GO_ON = frozenset("0123456789.eE+-")


class JsonStream:
    """A cursor over the text of one document. `line` is the physical line (1-based) of the cursor."""

    def __init__(self, text: TextIO, name: str) -> None:
        self._text = text
        self._name = name
        self._buffer = ""
        self._place = 0
        self._ended = False
        self._line = 1
        self._counted = 0

    @property
    def line(self) -> int:
        """The line of the cursor."""
        self._line += self._buffer.count("\n", self._counted, self._place)
        self._counted = self._place
        return self._line

    def peek(self) -> str:
        """The next character that is no white space, or "" at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._place)
            assert match is not None
            self._place = match.end()
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        """Step over one of the characters in `expected`. Raises `UserError` when another one is there."""
        found = self.peek()
        if not found or found not in expected:
            wanted = " or ".join(repr(char) for char in expected)
            here = f"found {found!r}" if found else "the file ends"
            raise self.broken(f"expected {wanted}, {here}")
        self._place += 1

    def value(self) -> Any:
        """The value at the cursor, whole; the cursor moves behind it."""
        first = self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._place)
            except (ValueError, RecursionError) as error:
                # A piece of the document may end inside the value; only more text tells that from a broken one.
                if isinstance(error, RecursionError) or not self._can_grow() or not self._more():
                    raise self.broken(_why(error), getattr(error, "pos", self._place)) from error
                continue
            if end == len(self._buffer) and first in _MAY_GO_ON and self._more():
                continue
            self._place = end
            return value

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Line and value of each element of the array at the cursor."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            self.peek()
            line = self.line
            yield line, self.value()
            if self._next("]"):
                return

    def members(self) -> Iterator[tuple[int, str]]:
        """Line and key of each member of the object at the cursor; the caller takes the value before the next one."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            if self.peek() != '"':
                raise self.broken("a key in double quotes is missing")
            line = self.line
            key = self.value()
            self.take(":")
            yield line, key
            if self._next("}"):
                return

    def skip(self) -> None:
        """Step over the value at the cursor without keeping it."""
        if self.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def end(self) -> None:
        """Nothing but white space may follow."""
        if self.peek():
            raise self.broken("the document has ended, and something follows")

    def _next(self, closing: str) -> bool:
        """Step over a comma or the `closing` bracket; whether it was the latter."""
        is_last = self.peek() == closing
        self.take("," + closing)
        return is_last

    def _can_grow(self) -> bool:
        return len(self._buffer) - self._place < _MAX_ELEMENT_CHARACTERS

    def _more(self) -> bool:
        """Read on, dropping what lies behind the cursor; doubling keeps long elements linear."""
        if self._ended:
            return False
        self._line = self.line
        piece = self._text.read(max(_PIECE_CHARACTERS, len(self._buffer) - self._place))
        self._ended = not piece
        self._buffer = self._buffer[self._place :] + piece
        self._place = self._counted = 0
        return bool(piece)

    def broken(self, why: str, place: int | None = None) -> UserError:
        """The error for a document that cannot be understood from here on."""
        here = self._place if place is None else place
        line = self.line + self._buffer.count("\n", self._place, here)
        return user_error(
            f"{self._name!r} is broken JSON at line {line:,}: {why}",
            allowed="one whole JSON document (or JSON Lines, where a broken line is lost by itself)",
            why="what follows cannot be told apart from what is broken",
            remedy="mend the file, or write it as JSON Lines",
            where=f"{self._name}, line {line}",
        )


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
