"""Strict JSON, read a piece at a time, so that a file larger than memory can be walked through.

The standard library's scanner does the parsing; this adds what it leaves out. Refused: NaN and Infinity, a
key twice in one object, text that is not UTF-8, a record without end; by `check_plain` also numbers beyond
floats and nesting past MAX_DEPTH.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from engine.errors import BadInput

MAX_DEPTH = 32
MAX_RECORD_CHARACTERS = 64 * 2**20
MAX_FILE_BYTES = 4 * 2**30
_CHUNK_CHARACTERS = 2**20
_BLANKS = " \t\n\r"


class JsonStream:
    """A cursor over one JSON text; every failure is a BadInput that names the file."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._text, self._at, self._n_dropped, self._ended = "", 0, 0, False
        self._decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)

    def peek(self) -> str:
        """The next character that is not blank, left unread; "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANKS:
                    return self._text[self._at]
                self._at += 1
            if not self._read_more():
                return ""

    def take(self, wanted: str) -> None:
        """Reads one character, which has to be one of `wanted`."""
        found = self.peek()
        if not found or found not in wanted:
            raise self._refuse(f"has {found or 'its end'!r} where one of {wanted!r} is expected")
        self._at += 1

    def value(self) -> Any:
        """Reads one whole value. A value that reaches the end of what is loaded may go on: more is loaded."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._ended or self._is_final(error):
                    place = self._n_dropped + error.pos
                    raise self._refuse(f"is not JSON at character {place}: {error.msg}") from None
            except RecursionError:
                raise self._refuse(f"is nested deeper than {MAX_DEPTH} levels") from None
            except ValueError as error:  # a number of thousands of digits
                raise self._refuse(f"has a number that cannot be read: {error}") from None
            except BadInput as error:
                raise self._refuse(str(error)) from None
            self._read_more()

    def keys(self) -> Iterator[str]:
        """Walks through an object; the caller reads the value of each key before it asks for the next."""
        self.take("{")
        seen: set[str] = set()
        while self.peek() != "}":
            if seen:
                self.take(",")
            if self.peek() != '"':
                raise self._refuse("has an object whose key is not text in double quotes")
            key = str(self.value())
            if key in seen:
                raise self._refuse(f"has the key {key[:80]!r} twice")
            seen.add(key)
            self.take(":")
            yield key
        self.take("}")

    def elements(self) -> Iterator[Any]:
        """Walks through an array, one whole value at a time."""
        self.take("[")
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self.take(",")
                yield self.value()
        self.take("]")

    def end(self) -> None:
        """Nothing but blanks may follow."""
        if self.peek():
            raise self._refuse("goes on after its JSON value has ended")

    def _read_more(self) -> bool:
        """Loads as much again as is waiting to be read, at least one chunk."""
        waiting = len(self._text) - self._at
        if waiting > MAX_RECORD_CHARACTERS:
            raise self._refuse(f"has a record longer than {MAX_RECORD_CHARACTERS} characters")
        try:
            more = self._file.read(max(waiting, _CHUNK_CHARACTERS))
        except UnicodeDecodeError:
            raise self._refuse("is not UTF-8 text") from None
        self._n_dropped += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        self._ended = not more
        return bool(more)

    def _is_final(self, error: json.JSONDecodeError) -> bool:
        """True where more text cannot help: the scanner stopped well before the end of what is loaded."""
        return not error.msg.startswith("Unterminated") and error.pos < len(self._text) - 16

    def _refuse(self, reason: str) -> BadInput:
        return BadInput(f"{self._name} {reason}")


def check_file(path: Path, max_bytes: int) -> None:
    """Raises BadInput unless `path` is a file of at most `max_bytes`."""
    if not path.is_file():
        raise BadInput(f"{path} is not a file: give the path of a JSON file")
    if path.stat().st_size > max_bytes:
        raise BadInput(f"{path.name} has {path.stat().st_size} bytes, more than {max_bytes}: split it")


def check_plain(value: object, what: str, depth: int = 0) -> None:
    """Raises BadInput if free-form JSON holds what would not survive a round trip, or nests too deeply."""
    if depth > MAX_DEPTH:
        raise BadInput(f"{what} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value, what)
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{what} has a number that is not finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise BadInput(f"{what} has a whole number of more than 64 bits")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key, what)
            check_plain(inner, what, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_plain(inner, what, depth + 1)


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise BadInput(f"{what} has a key that is not text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"{what} has half of a character (a lone surrogate)") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadInput(f"has the key {twice[:80]!r} twice in one object")
    return record


def _refuse_constant(constant: str) -> float:
    raise BadInput(f"has {constant}, which is not JSON: write a number or null")
