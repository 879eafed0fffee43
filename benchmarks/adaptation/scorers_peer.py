"""The asking side of anomalib: its models on our pictures, in a process and an environment of their own, for E5."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from benchmarks.adaptation.scorers_fold import Parts, located
from benchmarks.peers import PeerError
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess

__all__ = ["METHODS", "RATIO", "Peer", "frames_file", "peer_fold"]

METHODS = ("padim", "patchcore", "stfpm")
RATIO = 0.01
"""Of patchcore's bank: a tenth of anomalib's, whose coreset takes minutes a set here; the paper states both."""
WORKER = Path(__file__).with_name("anomalib_worker.py")


class Peer:
    """The process; used with ``with``.

    Args:
        python: Interpreter of the peer's environment.
        weights: Of the trunk.
    """

    def __init__(self, python: Path, weights: Path) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        # -P: the worker's own folder hides no module of the peer's
        self._process = subprocess.Popen(
            [str(python), "-P", "-W", "ignore", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        )
        try:
            self.versions: dict[str, str] = self.ask("hello", weights=str(weights))
        except PeerError:
            self.close()
            raise

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let it end, and wait for that."""
        stdin, stdout = self._pipes()
        with suppress(BrokenPipeError):
            stdin.close()
        stdout.close()
        self._process.wait()
        self._said.close()

    def ask(self, what: str, **options: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            PeerError: The peer refused, or died; the last thing it said.
        """
        stdin, stdout = self._pipes()
        try:
            stdin.write(json.dumps({"do": what, **options}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()
            raise PeerError(f"anomalib ended while asked to {what} ({said[-1] if said else 'without a word'})")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise PeerError(f"anomalib could not {what}: {found['error']}")
        return found

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def peer_fold(peer: Peer, parts: Parts, spec: PreprocessSpec, *, seed: int, shown: int) -> dict[str, Any]:
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
