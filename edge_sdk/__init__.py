"""edge-sdk: visual inspection at the edge, and the loop that keeps a model good.

    from edge_sdk import Station, Verdict

    with Station.open("station.yaml") as station:
        for inspection in station:
            plc.send(inspection.frame.index, reject=inspection.verdict is not Verdict.PASSED)

Importing this package loads no engine and starts nothing; each name is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_sdk.cameras import Camera
    from edge_sdk.detections import Detections, Question
    from edge_sdk.errors import BundleError, CameraError, ConfigError, EdgeError, EndOfFrames
    from edge_sdk.frames import Frame
    from edge_sdk.inspections import Inspection, Timing, Verdict
    from edge_sdk.station import Station

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Camera",
    "CameraError",
    "ConfigError",
    "Detections",
    "EdgeError",
    "EndOfFrames",
    "Frame",
    "Inspection",
    "Question",
    "Station",
    "Timing",
    "Verdict",
    "__version__",
]

_HOMES = {
    "BundleError": "edge_sdk.errors",
    "Camera": "edge_sdk.cameras",
    "CameraError": "edge_sdk.errors",
    "ConfigError": "edge_sdk.errors",
    "Detections": "edge_sdk.detections",
    "EdgeError": "edge_sdk.errors",
    "EndOfFrames": "edge_sdk.errors",
    "Frame": "edge_sdk.frames",
    "Inspection": "edge_sdk.inspections",
    "Question": "edge_sdk.detections",
    "Station": "edge_sdk.station",
    "Timing": "edge_sdk.inspections",
    "Verdict": "edge_sdk.inspections",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"edge_sdk has no {name!r}; it has {', '.join(sorted(_HOMES))}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
