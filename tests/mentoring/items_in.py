"""Put an item into a hub, in one line."""

from __future__ import annotations

from mentoring.hub import Hub

__all__ = ["bring"]


def bring(hub: Hub, item: tuple[str, bytes], *, digest: str | None = None) -> str:
    """Hand the item over as the HTTP shell does; ``new`` or ``known``."""
    with hub.store.receive(digest or item[0]) as arrival:
        for start in range(0, len(item[1]), 65536):
            arrival.write(item[1][start : start + 65536])
        return arrival.finish()
