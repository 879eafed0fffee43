"""Bundles on a station: verified, installed in two slots, proved on their golden frames."""

from edge_sdk.bundles.archive import Bundle, Golden, open_bundle
from edge_sdk.bundles.proof import prove
from edge_sdk.bundles.slots import Slot, Slots

__all__ = ["Bundle", "Golden", "Slot", "Slots", "open_bundle", "prove"]
