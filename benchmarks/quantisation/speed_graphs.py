"""What Q3 times: networks with random weights, our renderings of them, and those of ONNX Runtime's quantiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export_nodes import network_of
from benchmarks.quantisation.quantisers import hushed
from edge_sdk.arrays import Floats
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["FP32", "GATED", "NAMES", "OURS", "SIDES", "Graphs", "graphs_of"]

GATED = "gated"
SIDES = {"resnet18": 224, "unet": 256, GATED: 224}
NAMES = {"resnet18": "ResNet-18", "unet": "U-Net", GATED: "depthwise, h-swish, SE"}
FP32, OURS = "FP32", "ours"
TENSORRT = "ours for TensorRT, on this CPU"
DEFAULTS, PER_CHANNEL = "onnxruntime's quantize_static", "onnxruntime's quantize_static, uint8, per channel"
SHOWN = 8
"""Pictures that the batch norms see."""


@dataclass(frozen=True)
class Graphs:
    """Files of one network, by form."""

    files: dict[str, Path]
    rule: str
    frames: Floats
    """``(N, 3, H, W)``: calibrated on nothing."""
    calibrating: Floats
    """``(M, 3, H, W)``: what peers are given, and ours was."""


def graphs_of(net: str, folder: Path, *, calibrated: int, judged: int, side: int) -> Graphs:
    """Write every form of a network, all calibrated on the same drawn pictures.

    Args:
        net: One of ``SIDES``.
        folder: Empty.
        calibrated: Pictures that calibrate; a quarter as many choose our rule.
        judged: Further pictures.
        side: Of the input, pixels.
    """
    from benchmarks.quantisation.calibrating import drawn_pictures
    from calibration.calibrating import calibrate
    from calibration.collect import frames_of
    from calibration.graphs import load_graph
    from calibration.pictures import pictures_in
    from calibration.qdq import host_architecture, qdq_from_onnx
    from export.exporting import graph_bytes
    from export.graph import onnx_from_torch

    spec = PreprocessSpec(width=side, height=side)
    choosing = calibrated // 4
    samples = pictures_in(drawn_pictures(folder, side, calibrated + choosing + judged))
    seen, held = samples[: calibrated + choosing], samples[calibrated + choosing :]

    def frames(of: Sequence[Sample]) -> Floats:
        return np.concatenate([frame for _, frame in frames_of(of, spec)])

    files = {FP32: folder / "model.onnx"}
    files[FP32].write_bytes(graph_bytes(onnx_from_torch(_network(net, frames(seen[:SHOWN])), spec)))
    graph = load_graph(files[FP32])
    table = calibrate(graph, seen, spec, most=calibrated)
    floats = tuple(layer.node for layer in table.float_layers)
    made = {
        OURS: qdq_from_onnx(graph, table, layout="onnxruntime", architecture=host_architecture()),
        TENSORRT: qdq_from_onnx(graph, table, layout="tensorrt", keep_float=floats),
    }
    for number, (form, model) in enumerate(made.items()):
        files[form] = folder / f"ours{number}.onnx"
        files[form].write_bytes(model.SerializeToString(deterministic=True))

    names = {entry.name for entry in table.pictures}
    calibrating = frames([one for one in seen if one.image in names])
    for form, more in {DEFAULTS: False, PER_CHANNEL: True}.items():
        files[form] = folder / f"quantised{int(more)}.onnx"
        _quantised(files[FP32], files[form], calibrating, unsigned=more)
    return Graphs(files, table.rule or "", frames(held), calibrating)


def _quantised(model: Path, out: Path, frames: Floats, *, unsigned: bool) -> None:
    """By ``quantize_static``, as its documentation says: preprocessed, then quantised."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._frames = iter(frames)

        def get_next(self) -> dict[str, Floats] | None:
            found = next(self._frames, None)
            return None if found is None else {"frame": found[None]}

    ready = out.with_suffix(".ready.onnx")
    options = {"activation_type": QuantType.QUInt8, "per_channel": True} if unsigned else {}
    with hushed():
        quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
        quantize_static(str(ready), str(out), Reader(), **options)


def _network(net: str, frames: Floats) -> Any:
    """With random weights, and batch norms that have seen frames, as a trained network's have: no signal dies away."""
    import torch

    from benchmarks.quantisation.networks import depthwise

    torch.manual_seed(0)
    network = depthwise(classes=4) if net == GATED else network_of(net)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all that is seen
    with torch.no_grad():
        network.train()(torch.from_numpy(frames))
    return network.eval()
