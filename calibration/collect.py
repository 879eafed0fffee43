"""Run a graph on pictures and watch its tensors, one picture at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from onnx import ModelProto, TensorProto, helper

from calibration.graphs import Graph
from calibration.observers import Histogram, Observer
from calibration.placement import observed_tensors
from calibration.ranges import PictureEntry, RangeTable, table_of
from calibration.scales import Rule
from calibration.sessions import open_session
from edge_sdk.arrays import Floats
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError, FormatError, RangeError
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess

__all__ = ["check_size", "frames_of", "histograms_of", "ranges_from_pictures"]


def ranges_from_pictures(
    graph: Graph,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    rule: Rule = "mse",
    threads: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> RangeTable:
    """The range table of a graph from pictures.

    Args:
        graph: FP32.
        samples: Typical pictures, 64 or more for ranges that no longer move.
        spec: What the network was trained with.
        rule: How ranges are chosen.
        threads: Of the runtime.
        progress: Called after each picture.

    Raises:
        DatasetError: There is no picture, or one cannot be read.
        RangeError: A picture makes a tensor NaN or infinite; both are named.
        FormatError: The graph takes another size, or has nothing to quantise.
    """
    if not samples:
        raise DatasetError("there is no picture to calibrate on; give a folder with at least one, better 256")
    check_size(graph, spec)
    named = ((sample.image, frame) for sample, frame in frames_of(samples, spec))
    found = histograms_of(graph, named, threads=threads, progress=progress)
    return table_of(
        found,
        graph=graph,
        spec=spec,
        pictures=[PictureEntry(name=sample.image, sha256=sha256_file(sample.path)) for sample in samples],
        rule=rule,
    )


def histograms_of(
    graph: Graph,
    frames: Iterable[tuple[str, Floats]],
    *,
    threads: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Histogram]:
    """Watch the tensors that either INT8 layout may round.

    Args:
        graph: FP32.
        frames: Name and ``(N, 3, H, W)`` network input; the batches change nothing.
        threads: Of the runtime.
        progress: Called after each batch.
    """
    tensors = observed_tensors(graph)
    if not tensors:
        raise FormatError(
            "the graph has no Conv, Gemm or MatMul with fixed weights; there is nothing to quantise"
        )
    session = open_session(_watched(graph, tensors), threads=threads, frugal=True)
    observers = {name: Observer(name) for name in tensors}
    inputs = set(graph.inputs)
    for name, frame in frames:
        made = session.run(frame)
        for tensor, observer in observers.items():
            try:
                observer.see(frame if tensor in inputs else made[tensor])
            except RangeError as error:
                raise RangeError(f"picture {name}: {error}; is the checkpoint sound?") from error
        progress()
    return {name: observer.histogram() for name, observer in observers.items()}


def frames_of(samples: Iterable[Sample], spec: PreprocessSpec) -> Iterator[tuple[Sample, Floats]]:
    """Each sample with its network input ``(1, 3, H, W)``."""
    for sample in samples:
        yield sample, preprocess(read_image(sample), spec)


def check_size(graph: Graph, spec: PreprocessSpec) -> None:
    """Refuse a preprocessing that makes frames of another size than the graph takes.

    Raises:
        FormatError: Names both sizes.
    """
    dims = graph.model.graph.input[0].type.tensor_type.shape.dim
    wanted = [dim.dim_value for dim in dims[1:]]
    given = [3, spec.height, spec.width]
    if len(dims) != 4 or any(want not in (0, give) for want, give in zip(wanted, given, strict=True)):
        shown = " x ".join(str(want) for want in wanted)
        raise FormatError(
            f"the graph takes {shown} but the preprocessing makes 3 x {spec.height} x {spec.width}; "
            "give the preprocess.json that was exported with it"
        )


def _watched(graph: Graph, tensors: Iterable[str]) -> ModelProto:
    """The graph with the tensors among its outputs."""
    model = ModelProto()
    model.CopyFrom(graph.model)
    there = {*graph.outputs, *graph.inputs}
    for name in tensors:
        if name not in there:
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model
