"""Q5: how many nodes a network has after export; every spare one is a kernel that somebody launches."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Any

from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["MINUTES", "NEEDS", "SUITE", "TITLE", "network_of", "run"]

TITLE = "Nodes of the exported graph"
SUITE = "quantisation"
MINUTES = 1.5
NEEDS = ("torch", "onnxscript", "onnxruntime")

SIDES = {"resnet18": 224, "unet": 256}
NAMES = {"resnet18": "ResNet-18 with a cell head", "unet": "U-Net with four levels"}


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    progress.expect(len(SIDES) * 2)
    rows: list[dict[str, object]] = []
    nodes: dict[str, int] = {}
    for net, full in SIDES.items():
        # the number of nodes does not depend on the size
        side = 64 if quick else full
        ours = progress.step(f"ours {net}", partial(_ours, net, side))
        other = progress.step(f"torchscript {net}", partial(_torchscript, net, side))
        nodes[net] = int(ours["nodes"])
        rows.append({"name": f"{NAMES[net]}, ours", **ours})
        rows.append({"name": f"{NAMES[net]}, torch's TorchScript exporter", **other})
    return Result(
        rows=rows,
        musts={
            "Q5.nodes_resnet18": Value(nodes["resnet18"]),
            "Q5.nodes_unet": Value(nodes["unet"]),
        },
        notes=[
            "ours: opset 19 checked, metadata stripped, compared with torch at batch 1, 2 and 5; "
            "greatest_difference is over all outputs and batches",
            "random weights with random statistics of the batch norms, so that folding them has something to do",
        ],
        settings={"side_px": {net: 64 if quick else side for net, side in SIDES.items()}, "opset": 19},
        packages=("torch", "onnx", "onnxscript"),
        chart=Chart("nodes", "nodes"),
    )


def _ours(net: str, side: int) -> dict[str, Any]:
    from export.exporting import graph_bytes
    from export.graph import onnx_from_torch
    from export.parity import check_parity

    network, spec = network_of(net), PreprocessSpec(width=side, height=side)
    first, second = (onnx_from_torch(network, spec) for _ in range(2))
    rows = check_parity(network, first, spec)
    return {
        "nodes": len(first.graph.node),
        "bytes": len(graph_bytes(first)),
        "greatest_difference": max(row.greatest_difference for row in rows),
        "same_bytes_twice": graph_bytes(first) == graph_bytes(second),
    }


def _torchscript(net: str, side: int) -> dict[str, Any]:
    import io

    import onnx
    import torch

    from export.graph import Named, outputs_of

    network = network_of(net)
    names = tuple(outputs_of(network, PreprocessSpec(width=side, height=side)))
    file = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Named(network, names).eval(),
            (torch.zeros(2, 3, side, side),),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=19,
            input_names=["frame"],
            output_names=list(names),
            dynamic_axes={name: {0: "N"} for name in ("frame", *names)},
        )
    return {
        "nodes": len(onnx.load_model_from_string(file.getvalue()).graph.node),
        "bytes": len(file.getvalue()),
    }


def network_of(net: str) -> Any:
    """A network with weights and statistics that are neither 0 nor 1."""
    import torch

    from benchmarks.quantisation.networks import UNet
    from training.networks.cellnet import cell_network

    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = cell_network(classes=1, width=1.0, stages=4) if net == "resnet18" else UNet()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()
