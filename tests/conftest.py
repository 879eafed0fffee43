"""What holds for every test: its closing lines, where its by-products go, and which process it runs in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import hypothesis.database
import pytest

from tests import requirements, sharing

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("MPLBACKEND", "Agg")
# Matplotlib and Debian's Chromium, whatever its profile is, would leave a folder in the home.
os.environ["XDG_CONFIG_HOME"] = str(Path(__file__).parent.parent / "build" / "config")

# The machine's load is no property of the code, so no example has a time limit; and the same code gets the
# same examples, so a run is no lottery.  `make test-search` looks for new ones, many times as long.
hypothesis.settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "search",
    hypothesis.settings.get_profile("house"),
    derandomize=False,
    max_examples=2000,
    print_blob=True,
    database=hypothesis.database.DirectoryBasedExampleDatabase(
        Path(__file__).parent.parent / "build" / "hypothesis"
    ),
)
hypothesis.settings.load_profile(os.environ.get("EDGE_SDK_EXAMPLES", "house"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one of several processes, the heavy files come first."""
    if hasattr(config, "workerinput"):
        sharing.by_weight(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Hand out whole shares, in the order in which they were put."""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return sharing.share(nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return Shares(config, log)  # type: ignore[arg-type]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """What one of several processes went without."""
    requirements.missed.update(map(tuple, getattr(node, "workeroutput", {}).get("missed", [])))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped for want of what, and the line that would end it."""
    if not requirements.missed:
        return
    counted = requirements.counted()
    each = ", ".join(f"{what} ({count})" for what, count in sorted(counted.items()))
    terminalreporter.write_line(f"{counted.total()} skipped because this machine lacks: {each}")
    if line := requirements.apt_line():
        terminalreporter.write_line(f"to run what Debian can bring: {line}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under ``EDGE_SDK_REQUIRE=all`` a run that skipped anything, for whatever reason, has failed."""
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["missed"] = sorted(requirements.missed)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not requirements.everything_required() or reporter is None:
        return
    if skipped := reporter.stats.get("skipped", []):
        reporter.write_line(f"\nEDGE_SDK_REQUIRE=all, but {len(skipped)} skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
