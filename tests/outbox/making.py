"""Records for the outbox's tests, small and without a picture that anyone decodes."""

from __future__ import annotations

from datetime import datetime, timezone

from edge_sdk.documents import sha256_hex
from edge_sdk.records import ItemHeader, Part, Record

BOOT = "00000001-0123456789ab"


def record(
    seq: int = 0,
    *,
    value: float = 0.5,
    stratum: str = "uncertain",
    body: bytes | None = None,
    size: int = 100,
    boot: str = BOOT,
    probability: float = 1.0,
    captured_at: datetime = datetime(2026, 11, 21, 10, tzinfo=timezone.utc),
) -> Record:
    """A record of which ``body``, or ``size`` bytes that follow from ``seq``, are the picture."""
    if body is None:
        body = (f"{boot} {seq} ".encode() * (size // 8 + 1))[:size]
    return Record(
        ItemHeader(
            station="press-3",
            camera="left",
            boot_id=boot,
            seq=seq,
            captured_at=captured_at,
            model="0" * 64,
            reason="control" if stratum == "control" else "uncertain",
            stratum=stratum,
            value=value,
            inclusion_probability=probability,
            verdict="uncertain",
            thresholds={},
            detections=(),
            questions=(),
            parts=(Part(role="frame", type="image/png", bytes=len(body), sha256=sha256_hex(body)),),
        ),
        {"frame": body},
    )
