"""A hub in a temporary folder, by a clock that tests turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_sdk.clock import FakeClock
from mentoring.hub import Hub
from tests.mentoring.items import drawn_item


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(tmp_path: Path, clock: FakeClock) -> Iterator[Hub]:
    with Hub(tmp_path / "hub", clock=clock) as opened:
        yield opened


@pytest.fixture(scope="session")
def drawn() -> list[tuple[str, bytes]]:
    """Eight items with two questions each."""
    return [drawn_item(number) for number in range(8)]
