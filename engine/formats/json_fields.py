"""Reads single fields of a JSON record. Every reader raises BadInput that names the record and the field."""

import math
from collections.abc import Set
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from engine.errors import BadInput
from engine.formats.json_stream import check_plain

Box = tuple[float, float, float, float]
_MOST_CHARACTERS = 4096


def name_of(kind: str, record: object, position: int) -> str:
    """How messages call a record: by its id where it has one, else by its place in the file."""
    if isinstance(record, dict) and type(record.get("id")) is int and abs(record["id"]) < 2**63:
        return f"{kind} {record['id']}"
    return f"{kind} at position {position}"


def record_of(value: object, name: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise BadInput(f"{name}: it is {type(value).__name__}, not an object with fields")
    return value


def id_of(fields: dict[str, Any], key: str, name: str) -> int:
    """A whole number from 0 that fits a database's 64 bits."""
    value = fields.get(key)
    if type(value) is not int or not 0 <= value < 2**63:
        raise BadInput(f"{name}: {key} has to be a whole number from 0 to 2^63 - 1")
    return value


def text_of(fields: dict[str, Any], key: str, name: str) -> str:
    """Text of at least one character."""
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip() or len(value) > _MOST_CHARACTERS:
        raise BadInput(f"{name}: {key} has to be text of 1 to {_MOST_CHARACTERS} characters")
    check_plain(value, f"{name}: {key}")
    return value


def file_name_of(fields: dict[str, Any], key: str, name: str) -> str:
    """A relative path that stays below its folder, on every system."""
    value = text_of(fields, key, name)
    leaves = any(
        path.is_absolute() or path.drive or path.root or ".." in path.parts
        for path in (PurePosixPath(value), PureWindowsPath(value))
    )
    if leaves or not value.isprintable():
        raise BadInput(f"{name}: {key} {ascii(value)[:80]} leaves its folder or is no file name")
    return value


def number_of(fields: dict[str, Any], key: str, name: str) -> float | None:
    """A finite number, or None where the field is missing or null."""
    value = fields.get(key)
    if value is None:
        return None
    if not _is_number(value):
        raise BadInput(f"{name}: {key} has to be a finite number")
    return float(value) if isinstance(value, float) else int(value)


def box_of(fields: dict[str, Any], key: str, name: str) -> Box | None:
    """Four finite numbers, or None where the field is missing or null."""
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise BadInput(f"{name}: {key} has to be four finite numbers, x, y, width, height")
    return (value[0], value[1], value[2], value[3])


def flag_of(fields: dict[str, Any], key: str, name: str) -> int:
    """0 or 1; 0 where the field is missing or null."""
    value = fields.get(key)
    if value is None:
        return 0
    if value not in (0, 1) or isinstance(value, float):
        raise BadInput(f"{name}: {key} has to be 0 or 1")
    return int(value)


def mapping_of(fields: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """Free fields of somebody's own; {} where they are missing or null."""
    value = fields.get(key)
    if value is None:
        return {}
    check_plain(value, f"{name}: {key}")
    return record_of(value, f"{name}: {key}")


def extra_of(fields: dict[str, Any], official: Set[str], name: str) -> dict[str, Any]:
    """The fields that the format does not define."""
    extra = {key: value for key, value in fields.items() if key not in official}
    if extra:
        check_plain(extra, f"{name}: it")
    return extra


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
