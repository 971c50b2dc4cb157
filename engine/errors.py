"""The few domain errors. Each carries one sentence that tells the caller what may be done about it."""


class MaskloopError(Exception):
    """Base of every failure a person can meet; `str(error)` is fit to be shown to them."""


class BadInput(MaskloopError):
    """The given file, value or prompt is wrong; the sentence says what to change."""


class NotFound(MaskloopError):
    """The named thing does not exist, or is not the caller's to see."""


class Conflict(MaskloopError):
    """The state moved on: an expired lease, a newer version, a key used twice."""


class Refused(MaskloopError):
    """A rule forbids it: role, policy, gate, limit."""


class Unavailable(MaskloopError):
    """Something the engine needs is missing or down: database, broker, disk, model file."""
