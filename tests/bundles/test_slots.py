from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.bundles import Bundle, Slots, open_bundle
from edge_sdk.errors import BundleDamaged, BundleError, BundleUntrusted
from tests.bundles.making import Parts, put_folder, put_tar, seal


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    return Slots(tmp_path / "bundles")


@pytest.fixture
def shipped(tmp_path: Path, plain: Parts) -> Callable[[str], Path]:
    """Writes version N of the bundle as it is shipped."""

    def write(version: str) -> Path:
        parts = {**plain, "card.md": f"# version {version}\n".encode()}
        return put_tar(seal(parts, version=version), tmp_path / f"press-3-{version}.bundle")

    return write


def judging(slots: Slots) -> Bundle:
    """What a station finds when it starts now."""
    return open_bundle(slots.link, trust="unsigned")


def test_a_bundle_is_installed_beside_the_one_that_judges_and_then_activated(
    slots: Slots, shipped: Callable[[str], Path]
) -> None:
    first = slots.install(shipped("1"), trust="unsigned")
    assert (first.name, first.state, first.title, first.current) == ("a", "installed", "press-3-1", False)
    assert slots.current() is None
    assert slots.activate(first).state == "activated"
    second = slots.install(shipped("2"), trust="unsigned")
    assert second.name == "b"
    assert judging(slots).title == "press-3-1"
    assert slots.activate("b").current
    assert judging(slots).title == "press-3-2"
    assert judging(slots).root == second.path
    assert second.bundle == judging(slots).id


def test_a_folder_is_installed_alike(slots: Slots, plain: Parts, tmp_path: Path) -> None:
    slots.activate(slots.install(put_folder(plain, tmp_path / "b"), trust="unsigned"))
    shutil.rmtree(tmp_path / "b")
    assert judging(slots).title == "press-3-1"


def test_rolling_back_returns_to_the_bundle_before_and_marks_the_one_left(
    slots: Slots, shipped: Callable[[str], Path]
) -> None:
    for version in ("1", "2"):
        slots.activate(slots.install(shipped(version), trust="unsigned"))
    assert slots.roll_back(why="p99 over the budget").title == "press-3-1"
    assert judging(slots).title == "press-3-1"
    assert (slots.idle().state, slots.idle().why) == ("bad", "p99 over the budget")
    with pytest.raises(BundleError) as caught:
        slots.activate("b")
    assert str(caught.value) == (
        "slot b holds press-3-2, which is bad (p99 over the budget); install another bundle"
    )


def test_there_is_no_way_back_to_what_never_judged(slots: Slots, shipped: Callable[[str], Path]) -> None:
    sentences = []

    def refused() -> None:
        with pytest.raises(BundleError) as caught:
            slots.roll_back()
        sentences.append(str(caught.value))

    slots.root.mkdir()
    refused()
    slots.activate(slots.install(shipped("1"), trust="unsigned"))
    refused()
    slots.install(shipped("2"), trust="unsigned")
    refused()
    slots.activate("b")
    slots.roll_back(why="worse")
    refused()
    end = "slot a goes on, install and activate a good bundle"
    assert sentences == [
        f"{slots.root} has no current bundle to roll back from; activate one",
        f"there is no bundle to go back to: slot b is empty; {end}",
        f"there is no bundle to go back to: slot b holds press-3-2, which has not judged yet; {end}",
        f"there is no bundle to go back to: slot b holds press-3-2, which is bad (worse); {end}",
    ]
    assert judging(slots).title == "press-3-1"


def test_a_bundle_that_did_well_is_marked_and_stays_good(
    slots: Slots, shipped: Callable[[str], Path]
) -> None:
    slot = slots.activate(slots.install(shipped("1"), trust="unsigned"))
    slots.mark(slot, "good")
    current = slots.current()
    assert current is not None
    assert current.state == "good"
    assert slots.activate("a").state == "good"
    slots.activate(slots.install(shipped("2"), trust="unsigned"))
    assert slots.roll_back().state == "good"


def test_a_damaged_or_foreign_bundle_touches_neither_slot(
    slots: Slots, shipped: Callable[[str], Path], tmp_path: Path, plain: Parts, trust: list[Path]
) -> None:
    for version in ("1", "2"):
        slots.activate(slots.install(shipped(version), trust="unsigned"))
    before = slots.both()
    damaged = put_folder({**plain, "card.md": b"# press-4\n"}, tmp_path / "damaged")
    with pytest.raises(BundleDamaged):
        slots.install(damaged, trust="unsigned")
    with pytest.raises(BundleUntrusted):
        slots.install(shipped("3"), trust=trust)
    with pytest.raises(BundleError, match="is the path right"):
        slots.install(tmp_path / "nothing.bundle", trust="unsigned")
    assert slots.both() == before
    assert slots.roll_back().title == "press-3-1"


def test_a_slot_that_was_damaged_on_disk_is_written_anew_and_never_skipped(
    slots: Slots, shipped: Callable[[str], Path]
) -> None:
    slot = slots.install(shipped("1"), trust="unsigned")
    (slot.path / "card.md").write_bytes(b"# damaged \n")
    slots.activate(slots.install(shipped("1"), trust="unsigned"))
    assert judging(slots).title == "press-3-1"


def test_a_slot_is_not_installed_into_itself(slots: Slots, shipped: Callable[[str], Path]) -> None:
    slot = slots.install(shipped("1"), trust="unsigned")
    with pytest.raises(BundleError) as caught:
        slots.install(slot.path, trust="unsigned")
    assert str(caught.value) == f"{slot.path} is slot a itself; activate it, or give another bundle"
    assert slots.activate("a").title == "press-3-1"


def test_activating_what_is_not_there_is_one_clear_sentence(slots: Slots) -> None:
    slots.root.mkdir()
    with pytest.raises(BundleError, match="slot a is empty; install a bundle first"):
        slots.activate("a")
    with pytest.raises(BundleError, match="there is no slot 'c'; give a or b"):
        slots.activate("c")


def test_two_installers_do_not_work_at_once(slots: Slots, shipped: Callable[[str], Path]) -> None:
    bundle = shipped("1")
    slots.root.mkdir()
    with (slots.root / "slots.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BundleError) as caught:
            slots.install(bundle, trust="unsigned")
    assert str(caught.value) == (
        f"another process is installing or activating a bundle in {slots.root}; try again when it is done"
    )
    assert slots.install(bundle, trust="unsigned").state == "installed"


def test_a_current_that_somebody_made_by_hand_is_one_clear_sentence(slots: Slots) -> None:
    (slots.root / "current").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"current is no link to a slot \(Invalid argument\); move it away"):
        slots.current()
    (slots.root / "current").rmdir()
    (slots.root / "current").symlink_to("/opt/press-3")
    with pytest.raises(BundleError, match="current leads to /opt/press-3, not to slot a or b; move it away"):
        slots.current()


def test_a_full_disk_leaves_the_bundle_that_judges(
    slots: Slots, shipped: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    slots.activate(slots.install(shipped("1"), trust="unsigned"))
    bundle = shipped("2")
    with monkeypatch.context() as patch:

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(BundleError) as caught:
            slots.install(bundle, trust="unsigned")
    assert str(caught.value) == (
        f"{slots.root} cannot be written (No space left on device); make room on its disk, mind its rights, "
        "and do it again"
    )
    assert judging(slots).title == "press-3-1"
    slots.activate(slots.install(bundle, trust="unsigned"))
    assert judging(slots).title == "press-3-2"


def test_lost_notes_do_not_stop_the_bundle_that_judges(slots: Slots, shipped: Callable[[str], Path]) -> None:
    for version in ("1", "2"):
        slots.activate(slots.install(shipped(version), trust="unsigned"))
    (slots.root / "slots.json").write_bytes(b"{torn")
    current = slots.current()
    assert current is not None
    assert (current.name, current.state) == ("b", "activated")
    assert slots.idle().state == "empty", "of the other slot nothing is believed"
    slots.activate(slots.install(shipped("3"), trust="unsigned"))
    assert judging(slots).title == "press-3-3"


class PowerCut(BaseException):
    """The power fails: nothing is caught, nothing is tidied."""


STEPS = ("replace", "symlink", "fsync", "unlink", "mkdir", "rmdir", "open")


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[list[int]]:
    """Let so many changes reach the disk and none after them; the list counts them."""
    done = [0]

    def failing(real: Callable[..., Any], *, opening: bool) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if opening and not (len(arguments) > 1 and arguments[1] & os.O_CREAT):
                return real(*arguments, **named)
            if done[0] >= after:
                raise PowerCut
            done[0] += 1
            return real(*arguments, **named)

        return step

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, failing(getattr(os, name), opening=name == "open"))
        yield done


def changes(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    with power_cut(monkeypatch, 10**6) as done:
        work()
    return done[0]


def test_the_power_may_fail_between_any_two_steps(
    tmp_path: Path, shipped: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Install, activate and roll back, cut after each change of the disk in turn."""
    versions = {version: shipped(version) for version in ("1", "2", "3")}

    def prepared(name: str) -> Slots:
        slots = Slots(tmp_path / name)
        for version in ("1", "2"):
            slots.activate(slots.install(versions[version], trust="unsigned"))
        return slots

    def install_and_activate(slots: Slots) -> None:
        slots.activate(slots.install(versions["3"], trust="unsigned"))

    def roll_back(slots: Slots) -> None:
        slots.roll_back(why="worse")

    for name, work, may_judge in (
        ("install", install_and_activate, {"press-3-2", "press-3-3"}),
        ("back", roll_back, {"press-3-2", "press-3-1"}),
    ):
        whole = prepared(f"{name}-whole")
        steps = changes(monkeypatch, lambda work=work, whole=whole: work(whole))  # type: ignore[misc]
        assert steps > 5
        seen = set()
        for after in range(steps):
            slots = prepared(f"{name}-{after}")
            with power_cut(monkeypatch, after), pytest.raises(PowerCut):
                work(slots)
            # The machine starts again: a whole bundle judges, and nobody trusts a half one.
            fresh = Slots(slots.root)
            title = judging(fresh).title
            seen.add(title)
            assert title in may_judge, f"{name} cut after {after} of {steps}"
            idle = fresh.idle()
            if idle.state in ("installed", "activated", "good"):
                assert open_bundle(idle.path, trust="unsigned").title == idle.title
            # And the work can be done again, to its end.
            fresh.activate(fresh.install(versions["3"], trust="unsigned"))
            assert judging(fresh).title == "press-3-3"
            shutil.rmtree(slots.root)
        assert seen == may_judge, "the cuts came before and after the swap"
