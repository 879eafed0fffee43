"""Two places for bundles and one link that says which of them judges.

    bundles/
    ├── a/            a bundle's files
    ├── b/
    ├── current -> a  swapped by one rename: at every instant it leads to a whole bundle
    ├── slots.json    what is known of either slot
    └── slots.lock    held while somebody installs or activates

Power may fail between any two steps.  ``current`` is the truth, ``slots.json`` what is remembered; a
slot is named ``installed`` only after its files were read back from the disk and hashed again, and a
slot that was being written is never taken for one that was.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from edge_sdk.bundles.archive import Bundle, Trust, open_bundle, verify_bundle
from edge_sdk.documents import Tolerant, canonical_json, read_json, write_atomic
from edge_sdk.errors import BundleError, EdgeError, FormatError

__all__ = ["Slot", "Slots"]

log = logging.getLogger(__name__)

SlotState = Literal["empty", "installing", "installed", "activated", "good", "bad"]
NAMES = ("a", "b")
LINK = "current"


class _Remembered(Tolerant):
    """Of one slot."""

    state: SlotState = "empty"
    bundle: str = ""
    title: str = ""
    why: str = ""


class _Document(Tolerant):
    """``slots.json``."""

    schema_: Literal["slots/1"] = Field("slots/1", alias="schema")
    slots: dict[str, _Remembered] = Field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """One of the two places."""

    name: str
    """``a`` or ``b``."""
    path: Path
    state: SlotState
    """``empty`` · ``installing`` (not usable) · ``installed`` (never judged) · ``activated`` · ``good``
    (marked so after a healthy while) · ``bad`` (rolled back from)."""
    bundle: str
    """Id of the bundle in it, or empty."""
    title: str
    """``NAME-VERSION`` of the bundle in it, or empty."""
    why: str
    """Why it is bad."""
    current: bool
    """Whether ``current`` leads to it."""


class Slots:
    """The bundles of a station.

    Args:
        root: The folder of the two slots; made when something is installed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def link(self) -> Path:
        """What a station names as its bundle."""
        return self.root / LINK

    def both(self) -> tuple[Slot, Slot]:
        """The two slots as they are now."""
        document = self._read()
        a, b = (self._slot(name, document) for name in NAMES)
        return a, b

    def current(self) -> Slot | None:
        """The slot that judges, or ``None`` before the first activation."""
        return next((slot for slot in self.both() if slot.current), None)

    def idle(self) -> Slot:
        """The slot that the next bundle goes into."""
        return next(slot for slot in self.both() if not slot.current)

    def install(self, bundle: Path, *, trust: Trust) -> Slot:
        """Verify a bundle, write it into the idle slot, and verify what the disk then holds.

        The slot that judges is not touched.  Nothing is skipped because a bundle was there before: a
        slot may look whole and not be.

        Args:
            bundle: A ``.bundle`` tar or a folder.
            trust: As for ``open_bundle``.

        Returns:
            The slot, ``installed``.

        Raises:
            BundleError: The bundle is missing, damaged or not trusted, and neither slot was touched; or
                the disk is full, and the idle slot is empty.
        """
        verify_bundle(bundle, trust=trust)
        self._make_root()
        with self._locked():
            slot = self.idle()
            if bundle.resolve() == slot.path.resolve():
                raise BundleError(f"{bundle} is slot {slot.name} itself; activate it, or give another bundle")
            self._remember(slot.name, _Remembered(state="installing"))
            try:
                found = self._write(bundle, slot, trust)
            except (OSError, EdgeError):
                self._empty(slot)
                raise
            self._remember(slot.name, _Remembered(state="installed", bundle=found.id, title=found.title))
        log.info("bundle installed", extra={"slot": slot.name, "bundle": found.title})
        return self._slot(slot.name, self._read())

    def activate(self, slot: Slot | str) -> Slot:
        """Let a slot judge, by one rename; the other one keeps its bundle.

        Raises:
            BundleError: There is no such slot, or nothing whole or only a bad bundle is in it.
        """
        name = slot if isinstance(slot, str) else slot.name
        with self._locked():
            found = self._usable(name)
            self._point_to(name)
            remembered = self._read().slots.get(name, _Remembered())
            if found.state == "installed":
                self._remember(name, remembered.model_copy(update={"state": "activated"}))
        log.info("bundle activated", extra={"slot": name, "bundle": found.title})
        return self._slot(name, self._read())

    def roll_back(self, *, why: str = "rolled back") -> Slot:
        """Go back to the bundle that judged before; the one that is left is marked bad.

        Raises:
            BundleError: There is no bundle to go back to; the current one stays.
        """
        with self._locked():
            left = self.current()
            if left is None:
                raise BundleError(f"{self.root} has no current bundle to roll back from; activate one")
            other = self.idle()
            if other.state not in ("activated", "good"):
                holds = {
                    "empty": "is empty",
                    "installing": "holds a bundle whose installation was cut off",
                    "installed": f"holds {other.title}, which has not judged yet",
                    "bad": f"holds {other.title}, which is bad ({other.why})",
                }[other.state]
                raise BundleError(
                    f"there is no bundle to go back to: slot {other.name} {holds}; slot {left.name} goes on, "
                    "install and activate a good bundle"
                )
            self._mark(left, "bad", why)
            self._point_to(other.name)
        log.warning("rolled back", extra={"slot": other.name, "bundle": other.title, "reason": why})
        return self._slot(other.name, self._read())

    def mark(self, slot: Slot, state: Literal["good", "bad"], *, why: str = "") -> None:
        """Remember that a slot's bundle did well, or must not judge again.

        Raises:
            BundleError: Somebody else is installing or activating.
        """
        with self._locked():
            self._mark(slot, state, why)

    def _mark(self, slot: Slot, state: Literal["good", "bad"], why: str) -> None:
        remembered = self._read().slots.get(slot.name, _Remembered())
        self._remember(
            slot.name, remembered.model_copy(update={"state": state, "why": why if state == "bad" else ""})
        )

    def _usable(self, name: str) -> Slot:
        if name not in NAMES:
            raise BundleError(f"there is no slot {name!r}; give a or b")
        slot = self._slot(name, self._read())
        if slot.state in ("empty", "installing"):
            cut = "'s installation was cut off" if slot.state == "installing" else " is empty"
            raise BundleError(f"slot {name}{cut}; install a bundle first")
        if slot.state == "bad":
            raise BundleError(
                f"slot {name} holds {slot.title}, which is bad ({slot.why}); install another bundle"
            )
        return slot

    def _write(self, bundle: Path, slot: Slot, trust: Trust) -> Bundle:
        with suppress(FileNotFoundError):
            shutil.rmtree(slot.path)
        slot.path.mkdir()
        first = open_bundle(bundle, trust=trust, unpack_to=slot.path)
        for folder, _, files in os.walk(slot.path, topdown=False):
            for file in files:
                _forget_cached(Path(folder, file))
            _sync_folder(Path(folder))
        _sync_folder(self.root)
        found = open_bundle(slot.path, trust=trust)
        if found.id != first.id:
            raise BundleError(
                f"slot {slot.name} holds another bundle than was written; does another process write to it?"
            )
        return found

    def _empty(self, slot: Slot) -> None:
        shutil.rmtree(slot.path, ignore_errors=True)
        with suppress(OSError):
            self._remember(slot.name, _Remembered())

    def _point_to(self, name: str) -> None:
        fresh = self.root / f".{LINK}.new"
        with suppress(FileNotFoundError):
            os.unlink(fresh)
        fresh.symlink_to(name)
        os.replace(fresh, self.link)
        _sync_folder(self.root)

    def _slot(self, name: str, document: _Document) -> Slot:
        remembered = document.slots.get(name, _Remembered())
        current = self._target() == name
        state = remembered.state
        if current and state in ("empty", "installed"):
            # The power failed between the rename and the note of it, or the note was lost.
            state = "activated"
        path = self.root / name
        return Slot(name, path, state, remembered.bundle, remembered.title, remembered.why, current)

    def _target(self) -> str | None:
        try:
            target = str(self.link.readlink())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BundleError(
                f"{self.link} is no link to a slot ({error.strerror}); move it away and activate a bundle again"
            ) from error
        name = target.rstrip("/")
        if name not in NAMES:
            raise BundleError(
                f"{self.link} leads to {target}, not to slot a or b; move it away and activate a bundle"
            )
        return name

    def _read(self) -> _Document:
        path = self.root / "slots.json"
        if not path.exists():
            return _Document()
        try:
            return read_json(path, _Document)
        except FormatError as error:
            # The link still says which slot judges; of the other nothing is believed.
            log.warning("slots.json is damaged and begun anew", extra={"reason": str(error)})
            return _Document()

    def _remember(self, name: str, remembered: _Remembered) -> None:
        slots = {**self._read().slots, name: remembered}
        write_atomic(self.root / "slots.json", canonical_json(_Document(schema="slots/1", slots=slots)))

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(f"{self.root} cannot be made ({error.strerror}); is the path right?") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            handle = os.open(self.root / "slots.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BundleError(f"{self.root} holds no slots that can be changed ({error.strerror})") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BundleError(
                    f"another process is installing or activating a bundle in {self.root}; try again when it is done"
                ) from None
            yield
        except OSError as error:
            raise BundleError(
                f"{self.root} cannot be written ({error.strerror}); make room on its disk, mind its rights, "
                "and do it again"
            ) from error
        finally:
            os.close(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _forget_cached(path: Path) -> None:
    """Let the next read come from the disk and not from memory."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
