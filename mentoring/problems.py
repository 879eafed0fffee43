"""What the hub refuses, each with the HTTP status that says the same.

EdgeError
└── RefusalError (ValueError)      base; ``status`` is its HTTP status
    ├── NotFound        404      no such item, picture or mark
    ├── NotSettled      409      the mark covers an answer that may still be taken back
    ├── TooLarge        413      more bytes or pixels than the hub takes
    ├── WrongKind       415      the bytes are no item, or its picture no PNG or JPEG
    ├── NotAcceptable   422      damaged, or at odds with what the hub knows
    ├── Busy            429      too many at once; ``retry_after_s`` says when to come again
    └── NoRoom          503      the disk refused
"""

from __future__ import annotations

from edge_sdk.errors import EdgeError

__all__ = [
    "Busy",
    "NoRoom",
    "NotAcceptable",
    "NotFound",
    "NotSettled",
    "RefusalError",
    "TooLarge",
    "WrongKind",
]


class RefusalError(EdgeError, ValueError):
    """The hub refuses, and says why in one sentence."""

    status = 400

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFound(RefusalError):
    """There is no such item, picture or mark."""

    status = 404


class NotSettled(RefusalError):
    """The mark covers an answer that its operator may still take back."""

    status = 409


class TooLarge(RefusalError):
    """More bytes or pixels than the hub takes."""

    status = 413


class WrongKind(RefusalError):
    """The bytes are no item, or its picture is neither PNG nor JPEG."""

    status = 415


class NotAcceptable(RefusalError):
    """Damaged, or at odds with what the hub knows."""

    status = 422


class Busy(RefusalError):
    """Too many at once."""

    status = 429


class NoRoom(RefusalError):
    """The disk refused; nothing was kept."""

    status = 503
