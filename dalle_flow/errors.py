"""Every error this package raises on purpose: one tree, a code per class.

    DalleFlowError
    |-- UsageError            the caller asked for something that is not possible (CLI exit code 2)
    |   |-- OptionError         an option: unknown, of the wrong type, or out of range
    |   |-- UnknownNameError    no executor, model or file kind of that name
    |   `-- PictureError        a picture that cannot be read, or is not allowed
    `-- FailureError          the request was fine, doing it was not (CLI exit code 1)
        |-- WeightsError        weights: missing, of another model, damaged, or unsafe
        |-- FetchError          a download failed or gave something else than promised
        |-- StorageError        a file or folder could not be read or written
        `-- ReplayError         a recipe cannot be replayed here

A message says what was wrong, the value, what is allowed and how to cure it.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class DalleFlowError(Exception):
    """Base of all; `code` is for machines, `field` names the input that caused it."""

    code = "error"

    def __init__(self, message: str, *, field: str | None = None):
        super().__init__(message)
        self.message = message
        self.field = field


class UsageError(DalleFlowError):
    code = "usage"


class OptionError(UsageError):
    code = "option"


class UnknownNameError(UsageError):
    code = "unknown_name"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> "UnknownNameError":
        """An error for `name`, with the nearest known name when there is one, and all of them."""
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        return cls(f"no {kind} named {name!r}{guess} Known: {', '.join(names) or 'none'}.", field=kind)


class PictureError(UsageError):
    code = "picture"


class FailureError(DalleFlowError):
    code = "failure"


class WeightsError(FailureError):
    code = "weights"


class FetchError(FailureError):
    code = "fetch"


class StorageError(FailureError):
    code = "storage"


class ReplayError(FailureError):
    code = "replay"
