"""Which opening of the outbox a record comes from.

Wall clocks step back, and some boards wake up in 1970: what came first is told by the number of the
opening and a count within it, never by the time.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from edge_sdk.outbox.disk import Disk, write_durably

__all__ = ["next_boot"]


def next_boot(file: Path, *, latest: str, disk: Disk) -> str:
    """An id that sorts after all earlier ones: eight digits, a hyphen, twelve random hex digits.

    Args:
        file: Holds the last number given out.
        latest: The greatest boot id among the items, for when the file is lost.
        disk: Writes the file.
    """
    numbers = [0]
    with suppress(OSError, ValueError):
        numbers.append(int(file.read_text(encoding="ascii")))
    if found := re.match(r"\d{8}(?=-)", latest):
        numbers.append(int(found[0]))
    number = max(numbers) + 1
    with suppress(OSError):  # on a full disk the number still follows from the items
        write_durably(disk, file, f"{number}\n".encode())
    return f"{number:08d}-{secrets.token_hex(6)}"
