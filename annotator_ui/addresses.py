"""What an address may carry: row ids that fit the database, names without control characters."""

from flask import Flask
from werkzeug.routing import IntegerConverter, UnicodeConverter, ValidationError


class RowIdConverter(IntegerConverter):
    """A positive 64-bit integer; anything else is an unknown address, never a database error."""

    def __init__(self, map: object) -> None:  # noqa: A002 (werkzeug's name)
        super().__init__(map, min=1, max=2**63 - 1)  # type: ignore[arg-type]  # werkzeug passes its Map


class PrintableConverter(UnicodeConverter):
    """One path segment that a database can store."""

    def to_python(self, value: str) -> str:
        if not value.isprintable() or len(value) > 200:
            raise ValidationError
        return value


def read_addresses(app: Flask) -> None:
    """Makes <row:...> and <printable:...> known to the routes of `app`."""
    app.url_map.converters |= {"row": RowIdConverter, "printable": PrintableConverter}
