"""How long a picture takes, ours and the peer's in turn, so that all see the same machine: for E5."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.adaptation.scorers_fold import KNOWING, Parts, fold_of
from benchmarks.adaptation.scorers_peer import METHODS, RATIO, frames_file
from benchmarks.asking import Asked
from edge_sdk.vision.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from edge_sdk.arrays import Floats
    from training.scorers.fitting import ScorerRecipe

__all__ = ["DEFAULTS", "DEFAULT_RATIO", "ratio_of_medians", "times_of"]

DEFAULTS = "defaults"
"""anomalib's PatchCore as it comes, among the peer's methods."""
DEFAULT_RATIO = 0.1
"""Of its bank."""
WARM_UP = 2

Times = dict[str, dict[str, list[float]]]
"""``torch``, ``onnx``, ``int8`` and ``peer``: by scorer, milliseconds of each round."""


def times_of(
    recipes: Mapping[str, ScorerRecipe],
    graphs: Path,
    parts: Parts,
    spec: PreprocessSpec,
    *,
    seed: int,
    peer: Asked | None,
    laps: int,
) -> Times:
    """Milliseconds of one picture, rounds of everything in turn.

    Args:
        recipes: Of the scorers, by name.
        graphs: What ``fold_of`` left there, a folder a scorer; fitted again where it is missing.
        parts: Of the set that they were fitted on.
        spec: Of the networks' input.
        seed: Of what the peer draws by lot.
        peer: Running, or ``None``.
        laps: Rounds that count.
    """
    with tempfile.TemporaryDirectory() as name:
        frames = frames_file(Path(name), parts.fits, spec)
        frame: Floats = np.array(np.load(frames, mmap_mode="r")[:1])
        runs: dict[tuple[str, str], Callable[[], float]] = {}
        for scorer, recipe in recipes.items():
            if not (graphs / scorer / "model.onnx").exists():
                fold_of(parts, recipe, defects=parts.known if scorer == KNOWING else (), keep=graphs / scorer)
            runs |= {(form, scorer): _clocked(run, frame) for form, run in _forms(graphs / scorer).items()}
        if peer is not None:
            told: dict[str, dict[str, Any]] = {
                "padim": {},
                "patchcore": {"ratio": RATIO},
                "stfpm": {"shown": 1},
                DEFAULTS: {"pictures": len(parts.fits), "ratio": DEFAULT_RATIO},
            }
            for method in (*METHODS, DEFAULTS):
                peer.ask("fit", name=method, method=method, frames=str(frames), seed=seed, **told[method])
                runs["peer", method] = _asked(peer, method, frames)
        found: Times = {}
        for lap in range(WARM_UP + laps):
            for (form, scorer), run in runs.items():
                took = run()
                if lap >= WARM_UP:
                    found.setdefault(form, {}).setdefault(scorer, []).append(round(took, 3))
    return found


def ratio_of_medians(
    above: Sequence[float], below: Sequence[float], *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Median over median, and its 95 % percentile interval where rounds are drawn, of both the same."""
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(a), (rounds, len(a)))
    ratios = np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(np.median(a) / np.median(b)), float(low), float(high)


def _forms(folder: Path) -> dict[str, Callable[[Floats], object]]:
    import torch

    from calibration.sessions import open_session
    from training.checkpoint import load_checkpoint
    from training.scorers.distances import scorer_of

    network = scorer_of(load_checkpoint(folder / "checkpoint"))

    def in_torch(frame: Floats) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(frame))

    return {
        "torch": in_torch,
        "onnx": open_session(folder / "model.onnx").run,
        "int8": open_session(folder / "model.cpu.onnx").run,
    }


def _clocked(run: Callable[[Floats], object], frame: Floats) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        run(frame)
        return 1e3 * (time.perf_counter() - start)

    return once


def _asked(peer: Asked, method: str, frames: Path) -> Callable[[], float]:
    def once() -> float:
        return float(peer.ask("time", name=method, frames=str(frames))["ms"])

    return once
