"""Where records wait for the hub: chosen, kept through power cuts, and uploaded by a process of its own."""

from __future__ import annotations

from edge_sdk.outbox.mentor import Mentor
from edge_sdk.outbox.store import Item, Outbox, OutboxCounts, RecordId, look

__all__ = ["Item", "Mentor", "Outbox", "OutboxCounts", "RecordId", "look"]
