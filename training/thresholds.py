"""A line's thresholds, as training asks for them; the work is done in ``edge_sdk.quality.thresholds``."""

from __future__ import annotations

from edge_sdk.quality.thresholds import (
    ALPHA,
    BAND,
    LEAST,
    VALIDATE,
    calibrated_band,
    enough_for,
    fixed_band,
    missing,
)

__all__ = ["ALPHA", "BAND", "LEAST", "VALIDATE", "calibrated_band", "enough_for", "fixed_band", "missing"]
