"""Everything edge-sdk raises on purpose.

Each error is also the builtin it is a kind of, so ``except ValueError`` keeps working.  A message is
one sentence: what is wrong with which value, then what to do.

    EdgeError
    ├── ConfigError (ValueError)          a setting is wrong: asked wrongly, exit code 2
    ├── ShapeError (ValueError)           an array has another shape than the function takes
    ├── RangeError (ValueError)           a number lies outside its range
    ├── DefectErased (ValueError)         a resize would hide the smallest defect that must be seen
    ├── FormatError (ValueError)          a document or file is damaged or of another version
    ├── DatasetError (ValueError)         a folder of pictures cannot be used as it is
    │   └── TruthWithheld                 a training process asked for the truth of a test picture
    ├── CameraError (OSError)
    │   ├── FrameTimeout (TimeoutError)   no frame within the time given
    │   ├── EndOfFrames                   a file or folder has been played to its end
    │   └── CameraLost                    the camera is gone; opening it again may help
    ├── RunnerError (RuntimeError)        the engine refused its model or its input
    ├── BundleError (ValueError)
    │   ├── BundleDamaged                 a file is missing, added or altered; ``member`` names it
    │   └── BundleUntrusted               not signed by a key that this station trusts
    ├── GateError (RuntimeError)          a model was refused; ``findings`` says by which gates
    ├── OutboxError (OSError)
    │   ├── OutboxBusy                    another process holds the lock
    │   └── OutboxFull                    no room, and nothing of less value to give up
    ├── StationBusy (RuntimeError)        another process runs this station
    ├── HubError (ConnectionError)        the hub cannot be reached
    │   └── HubRefused                    the hub answered no; ``status`` is its HTTP status
    └── MissingPackage (ImportError)      an optional package is needed here
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = [
    "BundleDamaged",
    "BundleError",
    "BundleUntrusted",
    "CameraError",
    "CameraLost",
    "ConfigError",
    "DatasetError",
    "DefectErased",
    "EdgeError",
    "EndOfFrames",
    "FormatError",
    "FrameTimeout",
    "GateError",
    "HubError",
    "HubRefused",
    "MissingPackage",
    "OutboxBusy",
    "OutboxError",
    "OutboxFull",
    "RangeError",
    "RunnerError",
    "ShapeError",
    "StationBusy",
    "TruthWithheld",
]


class EdgeError(Exception):
    """Base of everything raised on purpose."""

    exit_code = 1
    """What a command line that ends with this error returns."""


class ConfigError(EdgeError, ValueError):
    """A setting is wrong; ``path`` and ``line`` say where it was written, if in a file."""

    exit_code = 2

    def __init__(self, message: str, *, path: Path | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class ShapeError(EdgeError, ValueError):
    """An array has another shape or type than the function takes."""


class RangeError(EdgeError, ValueError):
    """A number lies outside the range that the function takes."""


class DefectErased(EdgeError, ValueError):
    """A resize would hide the smallest defect that must be seen.

    Args:
        message: The sentence.
        kept: What the resize leaves of its contrast, in [0, 1].
        priced: Gives the sentence with what would keep the defect and its price, which is measured there and then: for
            a workstation, not for a line that waits.
    """

    def __init__(self, message: str, *, kept: float, priced: Callable[[], str] | None = None) -> None:
        super().__init__(message)
        self.kept = kept
        self.priced = priced or (lambda: message)


class FormatError(EdgeError, ValueError):
    """A document or file is damaged, or was written by another version."""


class DatasetError(EdgeError, ValueError):
    """A folder of pictures cannot be used as it is."""


class TruthWithheld(DatasetError):
    """A training process asked for the truth of a picture of the part ``test``."""


class CameraError(EdgeError, OSError):
    """Base of what a camera raises."""


class FrameTimeout(CameraError, TimeoutError):
    """No frame came within the time given; the camera may still be well."""


class EndOfFrames(CameraError):
    """A file or folder has been played to its end."""


class CameraLost(CameraError):
    """The camera is gone; opening it again may help."""


class RunnerError(EdgeError, RuntimeError):
    """The engine refused its model or its input."""


class BundleError(EdgeError, ValueError):
    """A bundle cannot be used."""


class BundleDamaged(BundleError):
    """A file of a bundle is missing, added or altered; ``member`` is the first such file."""

    def __init__(self, message: str, *, member: str) -> None:
        super().__init__(message)
        self.member = member


class BundleUntrusted(BundleError):
    """A bundle bears no signature by a key that this station trusts."""


class GateError(EdgeError, RuntimeError):
    """A model was refused; ``findings`` are the sentences of the gates that refused it."""

    def __init__(self, message: str, *, findings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class OutboxError(EdgeError, OSError):
    """The outbox could not keep or hand out an item; nothing that it acknowledged is lost."""


class OutboxBusy(OutboxError):
    """Another process holds the outbox."""


class OutboxFull(OutboxError):
    """There is no room, and nothing of less value could be given up."""


class StationBusy(EdgeError, RuntimeError):
    """Another process runs this station."""


class HubError(EdgeError, ConnectionError):
    """The hub cannot be reached, or broke off."""


class HubRefused(HubError):
    """The hub answered with a refusal; ``status`` is the HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class MissingPackage(EdgeError, ImportError):
    """An optional package is needed here and is not installed."""
