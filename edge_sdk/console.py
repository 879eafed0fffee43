"""What the command line says: data on stdout, talk on stderr, readable without colour."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_sdk.inspections import Inspection

__all__ = ["Talk", "ago", "outcomes_text", "say", "show", "status_text", "summary_text"]

LIVE_S = 0.25
"""Between two live lines on a terminal."""
REPORT_S = 10.0
"""Between two lines where stderr is no terminal."""


class Talk:
    """The lines on stderr while frames go by; none of it is worth a late verdict."""

    def __init__(self, *, every_frame: bool = False, timed: bool = True) -> None:
        self._every_frame = every_frame
        self._timed = timed
        self._live = sys.stderr.isatty() and not every_frame
        self._next_s = time.monotonic() + (LIVE_S if self._live else REPORT_S)
        self._open_line = False

    def about(self, inspection: Inspection, summary: Callable[[], Mapping[str, Any]]) -> None:
        """A frame was judged."""
        if self._every_frame:
            frame = inspection.frame
            why = f" ({inspection.reason})" if inspection.reason else ""
            say(f"{frame.camera} {frame.index}: {inspection.verdict.value}{why}")
            return
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + (LIVE_S if self._live else REPORT_S)
        counts = summary()["station"]
        speed = ""
        if self._timed and counts["fps"] is not None:
            speed = f", {counts['fps']:g} a second, p99 {counts['p99_ms']:g} ms"
        line = f"{counts['frames_in']} frames: {outcomes_text(counts)}{speed}"
        if self._live:
            sys.stderr.write(f"\r{line}\033[K")
            sys.stderr.flush()
            self._open_line = True
        else:
            say(line)

    def end(self) -> None:
        """Leave the live line."""
        if self._open_line:
            sys.stderr.write("\n")
            self._open_line = False


def say(line: str) -> None:
    """One line to the person."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def show(found: Mapping[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """The command's answer: for a script as one JSON object, for a person as text."""
    sys.stdout.write((json.dumps(found, ensure_ascii=False) if as_json else text()) + "\n")
    sys.stdout.flush()


def outcomes_text(counts: Mapping[str, Any]) -> str:
    """Outcomes in one line, with the reasons of frames that were not inspected."""
    words = " · ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts["outcomes"].items())
    why = ", ".join(f"{reason} {count}" for reason, count in counts["not_inspected_by"].items())
    return f"{words} ({why})" if why else words


def summary_text(name: str, found: Mapping[str, Any]) -> str:
    """A station's summary for a person."""
    counts = found["station"]
    lines = [f"{name}: {counts['frames_in']} frames", f"  {outcomes_text(counts)}"]
    if counts["p50_ms"] is not None:
        speed = "" if counts["fps"] is None else f" · {counts['fps']:g} frames a second"
        latency = f"p50 {counts['p50_ms']:g} ms, p99 {counts['p99_ms']:g} ms"
        lines.append(f"  capture to verdict {latency} · late {counts['late']}{speed}")
    if found["outbox"]:
        lines.append(f"  outbox: put {found['outbox'].get('put', 0)}")
    lines += [
        f"  swapped to {swap['name']} at {swap['at']}, {swap['frames_lost']} frames lost"
        for swap in found["swaps"]
    ]
    return "\n".join(lines)


def status_text(name: str, health: str, found: Mapping[str, Any]) -> str:
    """A station's status for a person."""
    if "station" not in found:
        return f"{name}: {health}"
    bundle = found.get("bundle") or {}
    title = f"{bundle.get('name')}-{bundle.get('version')}"
    lines = [f"{name}: {health}, bundle {title} ({str(found.get('model'))[:12]})"]
    lines += summary_text(name, {"outbox": {}, "swaps": [], **found}).splitlines()[1:]
    upload = found.get("upload")
    if upload:
        trouble = f", {upload['trouble']}" if upload["trouble"] else ""
        lines.append(f"  upload: {upload['uploaded']} sent, {upload['waiting']} waiting{trouble}")
    fault = (found["station"].get("camera") or {}).get("fault")
    if fault:
        lines.append(f"  camera fault: {fault}")
    drift = found.get("drift")
    if drift:
        since = f" (since {drift['since']})" if drift.get("since") else ""
        lines.append(f"  drift: {drift['state']}{since}; {drift['sentence']}")
    if found.get("refused"):
        lines.append(f"  refused bundle: {found['refused']['why']}")
    if (found["outbox"] or {}).get("degraded"):
        lines.append(f"  nothing can be kept: {found['outbox']['degraded']}")
    return "\n".join(lines)


def ago(seconds: float) -> str:
    """``"4 min"``: a time in the largest unit that it fills."""
    if seconds > 1e9:
        return "an unknown time"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
