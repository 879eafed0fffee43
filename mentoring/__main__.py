"""``python -m mentoring``."""

from __future__ import annotations

from mentoring.cli import main

if __name__ == "__main__":
    main()
