"""``python -m edge_sdk`` is ``edge-sdk``."""

from __future__ import annotations

import sys

from edge_sdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
