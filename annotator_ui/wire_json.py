"""JSON in, strictly: no NaN, no doubled key, no nesting that exhausts the stack; Flask answers 400."""

import json
from typing import Any

from flask.json.provider import DefaultJSONProvider


class StrictJson(DefaultJSONProvider):
    """Flask's provider with the tolerant corners of Python's parser closed."""

    sort_keys = False
    # What must not be said is caught here and not in the browser, whose parser refuses NaN.
    ensure_ascii = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parses `s`; raises ValueError for everything that is not strict JSON."""
        try:
            return json.loads(s, parse_constant=_no_constant, object_pairs_hook=_no_doubles, **kwargs)
        except RecursionError:
            raise ValueError("nested too deep") from None

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Refuses to write NaN or an infinity: readers of JSON do."""
        return super().dumps(obj, allow_nan=False, **kwargs)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a key twice")
    return found
