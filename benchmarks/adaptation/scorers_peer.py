"""The asking side of anomalib: its models on our pictures, in a process and an environment of their own, for E5."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation.scorers_fold import Parts, located
from benchmarks.asking import Asked
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess

__all__ = ["METHODS", "RATIO", "anomalib", "frames_file", "peer_fold"]

METHODS = ("padim", "patchcore", "stfpm")
RATIO = 0.01
"""Of patchcore's bank: a tenth of anomalib's, whose coreset takes minutes a set here; the paper states both."""
WORKER = Path(__file__).with_name("anomalib_worker.py")


def anomalib(python: Path, weights: Path) -> Asked:
    """Its process, with our trunk.

    Args:
        python: Interpreter of the peer's environment.
        weights: Of the trunk.

    Raises:
        PeerError: It does not say hello.
    """
    return Asked(python, WORKER, name="anomalib", weights=str(weights))


def peer_fold(peer: Asked, parts: Parts, spec: PreprocessSpec, *, seed: int, shown: int) -> dict[str, Any]:
    """Every method of the peer, fitted and judged on the pictures that ours were.

    Args:
        peer: Running.
        parts: The pictures.
        spec: What our network's input is made by; theirs is the same.
        seed: Of what is drawn by lot.
        shown: Pictures that a training sees.

    Returns:
        By method ``scores``, ``figures``, ``mb``.
    """
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits, judged = (frames_file(folder, one, spec) for one in (parts.fits, parts.judged))
        told: dict[str, dict[str, Any]] = {"patchcore": {"ratio": RATIO}, "stfpm": {"shown": shown}}
        for method in METHODS:
            made = peer.ask("fit", name=method, method=method, frames=str(fits), seed=seed, **told.get(method, {}))
            out = folder / "found.npz"
            peer.ask("judge", name=method, frames=str(judged), out=str(out))
            with np.load(out) as arrays:
                scores, maps = arrays["scores"], arrays["maps"]
            found[method] = {
                "scores": [float(f"{one:.7g}") for one in scores],
                "figures": located(maps, parts.judged, spec),
                "mb": made["mb"],
            }
    return found


def frames_file(folder: Path, samples: Sequence[Sample], spec: PreprocessSpec) -> Path:
    """What the network is given of pictures, ``(N, 3, H, W)`` float32, as a file."""
    path = folder / f"frames-{len(list(folder.iterdir()))}.npy"
    shape = (len(samples), 3, spec.height, spec.width)
    frames = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for n, one in enumerate(samples):
        frames[n] = preprocess(read_image(one), spec)[0]
    frames.flush()
    return path
