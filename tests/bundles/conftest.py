from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles.making import Key, Parts, bundle_parts, seal


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """The files of a bundle that nobody signed."""
    return bundle_parts(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="session")
def key() -> Key:
    return Key()


@pytest.fixture(scope="session")
def signed(plain: Parts, key: Key) -> Parts:
    """The files of the same bundle, signed."""
    return seal(plain, key=key)


@pytest.fixture
def trust(tmp_path: Path, key: Key) -> list[Path]:
    return [key.write(tmp_path / "release.pub")]
