"""From a bundle on disk to a judge that has proved itself, and from a bundle file to the slot that judges.

The station loads its bundle here, at start and at every swap; ``edge-sdk activate`` installs one.

``bundle:`` in ``station.yaml`` is one of three things: ``bundles/current``, the link of two slots that
``activate`` fills and flips; a bundle's folder, used where it lies; or a ``.bundle`` file, unpacked to a
temporary folder at each start.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_sdk.bundles import Bundle, Slots, open_bundle, prove
from edge_sdk.bundles.archive import verify_bundle
from edge_sdk.bundles.slots import LINK
from edge_sdk.clock import Clock
from edge_sdk.config import StationConfig
from edge_sdk.documents import canonical_json, sha256_hex
from edge_sdk.errors import BundleError, ConfigError, EdgeError, GateError
from edge_sdk.judge import Judge
from edge_sdk.manifest import manifest_id
from edge_sdk.runners import Runner, open_runner
from edge_sdk.vision.preprocess import Adjustment

__all__ = ["activated", "judge_from"]

log = logging.getLogger(__name__)

RUNTIMES = ("onnxruntime", "numpy", "cv2")


def judge_from(path: Path, config: StationConfig, *, clock: Clock | None = None) -> Judge:
    """Verify a bundle, open its graph, prove it on the golden frames, and run it once.

    A proof is remembered beside the bundle, so the next start on the same machine with the same versions
    does not repeat it; every byte is hashed each time.

    Args:
        path: A folder, a link to one, or a ``.bundle`` file.
        config: Says whom to trust, which rendering to run and on how many threads.
        clock: For the judge's stamps.

    Raises:
        BundleError: It is missing, damaged, not trusted, or lacks the rendering.
        GateError: It failed on its golden frames; ``findings`` say how.
        RunnerError: The engine does not execute it.
        ConfigError: Frames are to overlap, and the bundle does not cut them into tiles.
    """
    if not path.exists() and path.name == LINK:
        raise BundleError(
            f"{path} leads to no bundle yet; install one: edge-sdk activate STATION.yaml NAME-VERSION.bundle"
        )
    # resolved once: the link may be flipped while the files are hashed
    bundle = open_bundle(path.resolve() if path.is_dir() else path, trust=config.trust)
    if config.camera.overlap_lines is not None and bundle.manifest.preprocess.tile_overlap_px is None:
        raise ConfigError(
            f"camera.overlap_lines is {config.camera.overlap_lines}, but {bundle.title} makes all of a frame fit its "
            "input, which longer frames would shrink; take a model of tiles (tile_overlap_px), or leave it out"
        )
    model, role = bundle.model(config.runner.platform)
    runner = open_runner(model, threads=config.runner.threads)
    try:
        _prove_once(bundle, runner, role, threads=config.runner.threads)
        # the golden frames are pictures of the line as the network knows it: they are proved on unadjusted
        judge = Judge(
            bundle.manifest, runner, model=bundle.id, rendering=role, clock=clock, adjust=_adjustment(config)
        )
        judge.warm_up()
    except BaseException:
        runner.close()
        raise
    return judge


def _adjustment(config: StationConfig) -> Adjustment | None:
    said = config.camera.adjust
    return None if said is None else Adjustment(said.gain, said.offset)


def activated(given: Path, config: StationConfig, *, talk: Callable[[str], None]) -> dict[str, Any]:
    """Verify, install and prove a bundle, then let it judge.

    Args:
        given: A ``.bundle`` file or a bundle's folder.
        config: Of the station; its ``bundle`` is the link of two slots.
        talk: Told of each step.

    Returns:
        ``model`` (the bundle's id), ``name``, ``slot``, ``was_active``.

    Raises:
        ConfigError: The station's bundle is a folder or file of its own, which nothing may replace.
        BundleError: The bundle is missing, damaged or not trusted; the active one stays.
        GateError: It failed on its golden frames; the active one stays.
    """
    home = config.bundle
    if home.name != LINK or (home.exists() and not home.is_symlink()):
        raise ConfigError(
            f"the station's bundle is {home}, which is used as it lies; "
            f"write bundle: ./bundles/{LINK} so that bundles can be activated"
        )
    manifest = verify_bundle(given, trust=config.trust)
    model, name = manifest_id(manifest), f"{manifest.name}-{manifest.version}"
    talk(f"{name}: every byte verified")
    slots = Slots(home.parent)
    current = slots.current()
    if current is not None and _holds(current.path, model, config):
        talk(f"{name} is active already")
        return {"model": model, "name": name, "slot": current.name, "was_active": True}
    slot = slots.install(given, trust=config.trust)
    talk(f"{name}: installed in slot {slot.name}")
    try:
        judge_from(slot.path, config).close()
    except EdgeError as error:
        slots.mark(slot, "bad", why=str(error))
        raise
    talk(f"{name}: proved on its golden frames")
    slots.activate(slot)
    return {"model": model, "name": name, "slot": slot.name, "was_active": False}


def _holds(path: Path, model: str, config: StationConfig) -> bool:
    with suppress(EdgeError):
        return open_bundle(path, trust=config.trust).id == model
    return False


def _prove_once(bundle: Bundle, runner: Runner, role: str, *, threads: int) -> None:
    """Prove a runner, unless this very combination was proved before."""
    key = sha256_hex(canonical_json({"bundle": bundle.id, "role": role, "threads": threads, **_machine()}))
    proof = bundle.root / "engines" / key[:16] / "proof.json"
    with suppress(OSError):
        if proof.read_bytes() == key.encode():
            return
    findings = prove(bundle, runner, against="graph" if role == "fp32" else "fp32")
    if findings:
        told = "; ".join(finding.sentence for finding in findings)
        raise GateError(
            f"{bundle.title} failed on its golden frames as {role}: {told}",
            findings=[finding.sentence for finding in findings],
        )
    with suppress(OSError):  # a folder that may not be written: proved again at the next start
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.write_bytes(key.encode())


def _machine() -> dict[str, str]:
    """What a proof is valid on."""
    import sys

    import cv2  # noqa: F401 - its resize is part of what is proved; the runner has imported its runtime

    versions = {name: str(getattr(sys.modules.get(name), "__version__", "")) for name in RUNTIMES}
    cpu = platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next(line for line in lines if line.lower().startswith(("model name", "cpu part"))).partition(
            ":"
        )[2]
    return {"cpu": cpu.strip(), **versions}
