"""Run a graph on pictures and watch its tensors, one picture at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto

from calibration.equalising import equalised_name
from calibration.factors import Channels
from calibration.graphs import Graph
from calibration.kept import Kept
from calibration.observers import Histogram, Observer
from calibration.placement import observed_tensors
from calibration.ranges import PictureEntry, RangeTable, pictures_digest, spec_digest, table_of
from calibration.scales import Rule
from calibration.sessions import Session, open_session
from edge_sdk.arrays import Floats
from edge_sdk.documents import canonical_json, sha256_file, sha256_hex
from edge_sdk.errors import DatasetError, FormatError, RangeError
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, normalised
from edge_sdk.vision.tiles import pictures_of_frame

__all__ = ["channels_from_pictures", "check_size", "constant_tensors", "entries_of", "frames_of", "inputs_of",
           "ranges_from_pictures", "stacked"]  # fmt: skip

_FEW = 32
"""Pictures that tell how large channels are: a mean over pictures, which settles soon."""


def ranges_from_pictures(
    graph: Graph,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    rule: Rule = "mse",
    threads: int = 1,
    kept: Path | None = None,
    factors: Mapping[str, tuple[float, ...]] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> RangeTable:
    """The range table of a graph from pictures.

    Args:
        graph: FP32.
        samples: Typical pictures, 64 or more for ranges that no longer move.
        spec: What the network was trained with.
        rule: How ranges are chosen.
        threads: Of the runtime.
        kept: Where to keep what was seen, so that a calibration that was ended goes on from there; remove it once the
            table is written.
        factors: Of channels, by tensor; what they make of it is watched too.
        progress: Called after each picture.

    Raises:
        DatasetError: There is no picture, or one cannot be read.
        RangeError: A picture makes a tensor NaN or infinite; both are named.
        FormatError: The graph takes another size, or has nothing to quantise.
    """
    if not samples:
        raise DatasetError("there is no picture to calibrate on; give a folder with at least one, better 256")
    check_size(graph, spec)
    entries = entries_of(samples)
    same = f"{graph.digest} {spec_digest(spec)} {pictures_digest(entries)}"
    factors = factors or {}
    same += f" {sha256_hex(canonical_json(factors))}" if factors else ""
    held = None if kept is None else Kept(kept, same=same)
    found = _continued(graph, samples, spec, factors, held, threads, progress)
    return table_of(found, graph=graph, spec=spec, pictures=entries, rule=rule, factors=factors)


def channels_from_pictures(
    graph: Graph, samples: Sequence[Sample], spec: PreprocessSpec, tensors: Sequence[str], *, threads: int = 1
) -> dict[str, Channels]:
    """What the channels of some tensors hold on a few of the pictures, evenly chosen.

    Args:
        graph: FP32.
        samples: Typical pictures, one or more.
        spec: What the network was trained with.
        tensors: ``(N, C, H, W)`` each.
        threads: Of the runtime.

    Raises:
        DatasetError: A picture cannot be read.
        FormatError: The graph takes another size.
    """
    check_size(graph, spec)
    session = open_session(graph.model, watched=tensors, threads=threads, reference=True, frugal=True)
    found = {name: Channels() for name in tensors}
    count = min(_FEW, len(samples))
    for _, frame in frames_of([samples[n * len(samples) // count] for n in range(count)], spec):
        made = session.run(frame)
        for name, channels in found.items():
            channels.see(made[name])
    return found


def constant_tensors(table: RangeTable, graph: Graph) -> list[str]:
    """Tensors that were one and the same value on every picture: that part of the network is dead.

    Raises:
        RangeError: The graph's input is among them, so that nothing was calibrated.
    """
    dead = [name for name, row in table.tensors.items() if row.lo == row.hi]
    for name in graph.inputs:
        if name in dead:
            raise RangeError(
                f"every picture is one grey, {name} = {table.tensors[name].lo:g} throughout; that has no range: "
                "give pictures of parts"
            )
    return dead


def entries_of(samples: Iterable[Sample]) -> tuple[PictureEntry, ...]:
    """Names and digests, as a table keeps them."""
    return tuple(PictureEntry(name=sample.image, sha256=sha256_file(sample.path)) for sample in samples)


def _continued(
    graph: Graph,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    factors: Mapping[str, tuple[float, ...]],
    held: Kept | None,
    threads: int,
    progress: Callable[[], None],
) -> dict[str, Histogram]:
    """What the tensors that either INT8 layout may round were seen to be, from where an earlier run was ended."""
    session, empty = _watching(graph, factors, threads)
    channels = {
        equalised_name(name): (name, np.asarray(row, np.float32).reshape(1, -1, 1, 1)) for name, row in factors.items()
    }
    done, observers = (0, empty) if held is None else held.read(list(empty))
    for _ in range(done):
        progress()
    for number, sample in enumerate(samples[done:], done + 1):
        for frame in inputs_of(sample, spec):
            made = {**session.run(frame), graph.inputs[0]: frame}
            made |= {name: made[of] * row for name, (of, row) in channels.items()}
            _see(made, observers, sample.image)
        progress()
        if held is not None:
            held.keep(number, observers, now=number == len(samples))
    return {name: observer.histogram() for name, observer in observers.items()}


def _watching(graph: Graph, factors: Iterable[str], threads: int) -> tuple[Session, dict[str, Observer]]:
    tensors = observed_tensors(graph)
    if not tensors:
        raise FormatError(
            "the graph has no Conv, Gemm or MatMul with fixed weights; there is nothing to quantise"
        )
    # as it is written: the last level of optimising keeps every watched tensor twice, in two layouts
    session = open_session(graph.model, watched=tensors, threads=threads, reference=True, frugal=True)
    return session, {name: Observer(name) for name in (*tensors, *map(equalised_name, factors))}


def _see(made: Mapping[str, Floats], observers: Mapping[str, Observer], name: str) -> None:
    """Count what one frame makes; never a batch, which the runtime may sum in another order."""
    for tensor, observer in observers.items():
        try:
            observer.see(made[tensor])
        except RangeError as error:
            raise RangeError(f"picture {name}: {error}; is the checkpoint sound?") from error


def frames_of(samples: Iterable[Sample], spec: PreprocessSpec) -> Iterator[tuple[Sample, Floats]]:
    """Each sample with its network input ``(1, 3, H, W)``; of a picture that is cut into tiles with each of them."""
    for sample in samples:
        for frame in inputs_of(sample, spec):
            yield sample, frame


def inputs_of(sample: Sample, spec: PreprocessSpec) -> Iterator[Floats]:
    """The network inputs of one picture, ``(1, 3, H, W)`` each: one, or one a tile."""
    for _, picture in pictures_of_frame(read_image(sample), spec):
        yield normalised(picture, spec)


def stacked(rows: Mapping[str, Sequence[Floats]]) -> dict[str, Floats]:
    """Outputs of several pictures as one array each.

    Args:
        rows: Name to ``(1, …)`` a picture.

    Raises:
        DatasetError: The maps differ in size, as those of tiled pictures of several sizes do.
    """
    for name, values in rows.items():
        sizes = sorted({value.shape[1:] for value in values})
        if len(sizes) > 1:
            raise DatasetError(
                f"the pictures' {name} have {len(sizes)} sizes, {sizes[0]} and {sizes[-1]} among them: tiled pictures "
                "can be compared where all are of one size; give frames of one camera"
            )
    return {name: np.concatenate(values) for name, values in rows.items()}


def check_size(graph: Graph, spec: PreprocessSpec) -> None:
    """Refuse a preprocessing that makes frames of another size than the graph takes, or a graph that has its own.

    Raises:
        FormatError: Names both sizes, or the graph that is wanted.
    """
    taken = graph.model.graph.input[0].type.tensor_type
    if taken.elem_type == TensorProto.UINT8:
        raise FormatError("the graph takes uint8 pictures, its preprocessing is inside; give model.onnx, without it")
    dims = taken.shape.dim
    wanted = [dim.dim_value for dim in dims[1:]]
    given = [3, spec.height, spec.width]
    if len(dims) != 4 or any(want not in (0, give) for want, give in zip(wanted, given, strict=True)):
        shown = " x ".join(str(want) for want in wanted)
        raise FormatError(
            f"the graph takes {shown} but the preprocessing makes 3 x {spec.height} x {spec.width}; "
            "give the preprocess.json that was exported with it"
        )
