"""What a runner is to everyone else, and the one place that turns a model's file into one.

The station, the golden-frame proof, calibration's report and the benchmarks all execute graphs
through this protocol; a vendor's runtime is imported when its runner opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_sdk.arrays import Array
from edge_sdk.errors import RunnerError

__all__ = ["OPENERS", "Runner", "TensorSpec", "check_feeds", "check_results", "open_runner"]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph."""

    name: str
    dtype: str
    """As numpy names it: ``float32``, ``uint8``."""
    shape: tuple[int | None, ...]
    """``None`` takes any length: the batch."""


class Runner(Protocol):
    """A model that is ready to judge.  For one thread at a time; ``close`` may be called twice."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives."""
        ...

    def infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Execute the graph once.

        Args:
            feeds: An array for every input by its name, of its type and shape.

        Returns:
            An array for every output by its name, free of NaN and infinity.  The caller may keep it.

        Raises:
            RunnerError: An input is missing, unknown, or of another shape or type; an output is not
                finite; the engine failed; or the runner is closed.
        """
        ...

    def close(self) -> None:
        """Give the engine's memory back."""
        ...


Opener = Callable[[Path, int], Runner]
"""From a file and a number of threads to a runner."""


def _ort(path: Path, threads: int) -> Runner:
    from edge_sdk.runners.ort import OrtRunner

    return OrtRunner(path, threads=threads)


OPENERS: dict[str, Opener] = {".onnx": _ort}
"""What executes a file, by its suffix."""


def open_runner(path: Path, *, threads: int = 1) -> Runner:
    """Open what executes a model's file.

    Args:
        path: A graph, ``model.onnx``.
        threads: CPU threads the engine may use, at least 1.

    Raises:
        RunnerError: The file is missing or damaged, or nothing here executes files of its kind.
        MissingPackage: The engine's package is not installed.
    """
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise RunnerError(f"nothing here executes {path.name}; give a file that ends in {', '.join(OPENERS)}")
    if not path.is_file():
        raise RunnerError(f"there is no model {path}; is the path right?")
    if threads < 1:
        raise RunnerError(f"threads is {threads}; give at least 1")
    return opener(path, threads)


def check_feeds(feeds: Mapping[str, Array], inputs: tuple[TensorSpec, ...]) -> None:
    """Refuse feeds that a graph does not take, with a sentence; a runner calls it before its engine.

    Raises:
        RunnerError: An input is missing, unknown, or of another shape or type.
    """
    for spec in inputs:
        if spec.name not in feeds:
            raise RunnerError(f"no input {spec.name!r} given; feed {_described(inputs)}")
        array = feeds[spec.name]
        if array.dtype != spec.dtype:
            raise RunnerError(f"input {spec.name!r} is {array.dtype}; give {spec.dtype}")
        fits = array.ndim == len(spec.shape) and all(
            length is None or length == found for length, found in zip(spec.shape, array.shape, strict=False)
        )
        if not fits:
            raise RunnerError(f"input {spec.name!r} is {array.shape}; give {_shape_text(spec.shape)}")
    if len(feeds) > len(inputs):
        unknown = next(name for name in feeds if all(name != spec.name for spec in inputs))
        raise RunnerError(f"there is no input {unknown!r}; feed {_described(inputs)}")


def check_results(results: Mapping[str, Array]) -> None:
    """Refuse outputs that are no numbers: a comparison with NaN is false, which would read as passed.

    Raises:
        RunnerError: An output holds NaN or infinity.
    """
    import numpy as np

    for name, array in results.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise RunnerError(
                f"{bad} of {array.size} values of output {name!r} are NaN or infinite; the model cannot judge this "
                "frame, prove the bundle again with edge-sdk doctor"
            )


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("N" if length is None else str(length) for length in shape) + ")"


def _described(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name!r} {_shape_text(spec.shape)} {spec.dtype}" for spec in specs)
