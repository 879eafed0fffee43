"""Q2: what INT8 for TensorRT leaves of trained networks' outputs, beside other quantisers that TensorRT accepts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import PeerError, python_of, why_missing
from benchmarks.quantisation.noise import Heard, Lead, lead, rounded
from benchmarks.results import Chart, Result, Steps, Value

__all__ = ["MINUTES", "NEEDS", "SUITE", "TITLE", "musts_of", "rows_of", "run"]

TITLE = "INT8 for TensorRT against FP32 and other quantisers"
SUITE = "quantisation"
MINUTES = 25.0
NEEDS = (
    "torch",
    "onnxscript",
    "onnxruntime",
    "cv2",
    "../shared/data/neu_steel",
    "../shared/data/magnetic_tile",
)

SEEDS = (2, 3, 4, 5, 6)
FEWER = (2, 3)
"""Of the networks whose lead is beyond doubt, or in no must: a U-Net, and a ResNet-18 that hardly learns."""
CALIBRATED = 256
"""Pictures that every quantiser is given, as many as ``calibration ranges`` takes, or all that there are."""
HELD_OUT = 192
EPOCHS = 4
"""Of the fine-tuning, where a network is fine-tuned too."""
THREE = ("resnet18", "hswish", "unet")
"""Networks that the musts are about."""
MAIN = ("resnet18", "hswish")
"""Networks of all seeds, that are fine-tuned too."""
SKIPPED = 5
"""Layers of the U-Net's skip list at most."""
DEFAULT, SKIP, AS_MANY = (
    "ours, default",
    f"ours, {SKIPPED} layers in float",
    "ours, as many layers in float as ModelOpt",
)
TRAINED = "ours, default, then trained (QAT)"
PEERS = ("onnxruntime", "ModelOpt")
"""What the peers' rows begin with."""


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from benchmarks import machine
    from benchmarks.quantisation.nets import NETS, small

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    nets = [small(net) if quick else net for net in NETS.values()]
    seeds = (100,) if quick else SEEDS
    counts = (16, 12) if quick else (CALIBRATED, HELD_OUT)
    drawn = {net.name: tuple(seed for seed in seeds if quick or net.name in MAIN or seed in FEWER) for net in nets}
    progress.expect(sum(map(len, drawn.values())))
    found = {
        net.name: [
            progress.step(f"{net.title}, seed {seed}", partial(_step, net, seed, counts)) for seed in drawn[net.name]
        ]
        for net in nets
    }
    rows = [row for net in nets for row in rows_of(net.title, found[net.name])]
    return Result(
        rows=rows,
        musts={} if quick else musts_of(found),
        notes=[
            "SQNR of the cells over all held-out pictures, graph as written (reference session); mean over seeds",
            "lead_db: our rendering less the row's, paired, 95 % by bootstrap over groups of pictures; ours is the "
            f"default, of the U-Net the one with at most {SKIPPED} layers in float",
            "every quantiser is given the same pictures; ours chooses rule and layers in float on a fifth of them",
            "the best peer of a seed is chosen on the other seeds, among all that TensorRT accepts; beside it "
            "stands the lead over the one peer that is best over all seeds, which nobody could name beforehand",
            f"{TRAINED}: python -m export qat with {EPOCHS} epochs on the same pictures; in no lead and no must",
            "onnxruntime: quantize_static, symmetric int8, zero point 0, per channel, bias in float; rounding what "
            "weights multiply and both inputs of Add, unless its row says otherwise; no layer in float by default",
            "ModelOpt: int8 on the CPU, what is not int8 in FP32; with its own layers in float and exclusions",
            "rules, and what is not equalised: with the default's layers in float, so that this alone differs",
            "agreement: top class as FP32; of the U-Net the share of pixels, since all its pictures are defective",
            "slim networks for a CPU: ResNet-18 of a quarter of the width, a U-Net of four levels from 8 channels on",
        ],
        settings={
            "seeds": {name: list(each) for name, each in drawn.items()},
            "given": counts[0],
            "held_out": counts[1],
            "nets": {net.name: {"iterations": net.iterations, "side_px": net.side_px, "batch": net.batch,
                                "rate": net.rate, "crop_px": net.crop_px, "data": net.folder.name} for net in nets},
            "threads": 1,
        },
        data={name: machine.data_digest(folder) for name, folder in {n.folder.name: n.folder for n in nets}.items()},
        packages=("onnxscript",),
        chart=Chart("sqnr_db", "dB"),
    )  # fmt: skip


def _step(net: Any, seed: int, counts: tuple[int, int]) -> dict[str, Any]:
    """Train, export, and let everybody quantise."""
    import numpy as np

    from benchmarks.quantisation.judging import judged, ours_of
    from benchmarks.quantisation.nets import inputs_of, parts_of, trained
    from benchmarks.quantisation.quantisers import ORT, floats_of, modelopt_graphs, ort_graph
    from calibration.graphs import load_graph
    from calibration.pictures import balanced
    from edge_sdk.quality.datasets import load_dataset
    from export.exporting import graph_bytes
    from export.graph import onnx_from_torch

    parts = parts_of(load_dataset(net.folder), seed=seed)
    network = trained(net, parts.training, parts.classes, seed=seed)
    given, held_out = (
        balanced([one for one in part if net.knows(one)], most)
        for part, most in zip((parts.calibrating, parts.held_out), counts, strict=True)
    )
    frames = np.concatenate([inputs_of(net, one) for one in given])
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edge-sdk-renderings-") as folder:
        work, path = Path(folder), Path(folder) / "model.onnx"
        path.write_bytes(graph_bytes(onnx_from_torch(network, net.spec)))
        models = {
            name: ort_graph(path, frames, work, method=method, operations=operations)
            for name, (method, operations) in ORT.items()
        }
        python = python_of("modelopt")
        versions: dict[str, str] = {}
        as_many = None
        if python is None:
            skipped = {f"ModelOpt, {method}": why_missing("modelopt") for method in ("max", "entropy")}
        else:
            try:
                made, versions = modelopt_graphs(python, path, frames, work)
                models |= {f"ModelOpt, {method}": model for method, model in made.items()}
                as_many = len(floats_of(made["max"]))
            except PeerError as error:
                skipped = {f"ModelOpt, {method}": str(error) for method in ("max", "entropy")}
        graph = load_graph(path)
    ours, said = ours_of(net, graph, given, as_many, epochs=EPOCHS if net.name in MAIN else 0)
    facts = judged(net, graph, {**ours, **models}, held_out, parts.classes)
    return {**facts, "skipped": skipped, "versions": versions, "said": said}


def rows_of(title: str, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The rows of one net.

    Args:
        title: Of the net.
        runs: What each seed's step kept.
    """
    heard = _heard(runs)
    mine = heard[_stated(title)]
    rows: list[dict[str, object]] = [
        {
            "name": f"{title}, FP32",
            "score": [one["score"] for one in runs],
            "held_out": [len(r["groups"]) for r in runs],
        }
    ]
    for name, each in heard.items():
        found = lead(mine, each)
        rows.append({
            "name": f"{title}, {name}",
            "sqnr_db": rounded(sum(one.db for one in each) / len(each)),
            "each_db": [rounded(one.db) for one in each],
            "agreement": rounded(sum(one.agreed.mean() for one in each) / len(each)),
            "lead_db": rounded(found.db), "low": rounded(found.low), "high": rounded(found.high),
            "score": [run["renderings"][name]["score"] for run in runs],
            "in_float": [run["renderings"][name]["floats"] for run in runs],
            "roundings": [run["renderings"][name]["roundings"] for run in runs],
            **({"refused": why} if (why := _refused(runs, name)) else {}),
        })  # fmt: skip
    rows += [{"name": f"{title}, {name}", "skipped": why} for name, why in runs[0]["skipped"].items()]
    rows.append({"name": f"{title}: what was chosen", "said": [run["said"] for run in runs]})
    if _accepted(runs):
        peers, found = best_peer(runs, mine)
        rows.append({"name": f"{title}: ours less the best peer", "peers": peers, "lead_db": rounded(found.db),
                     "low": rounded(found.low), "high": rounded(found.high),
                     "each_db": [rounded(one) for one in found.each]})  # fmt: skip
        same = max(_accepted(runs), key=lambda name: sum(one.db for one in heard[name]))
        always = lead(mine, heard[same])
        rows.append({"name": f"{title}: ours less {same}, the best over all seeds", "lead_db": rounded(always.db),
                     "low": rounded(always.low), "high": rounded(always.high),
                     "each_db": [rounded(one) for one in always.each]})  # fmt: skip
    return rows


def musts_of(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Value]:
    """By net what each seed kept."""
    leads = {
        name: best_peer(runs, _heard(runs)[SKIP if name == "unet" else DEFAULT])[1]
        for name, runs in ((name, found[name]) for name in THREE)
    }
    resnet = _heard(found["resnet18"])[DEFAULT]
    stated = [_heard(found[name])[DEFAULT] for name in THREE]
    agreements = [sum(one.agreed.mean() for one in each) / len(each) for each in stated]
    return {
        "Q2.agreement": Value(rounded(min(agreements))),
        "Q2.hswish_minus_best_peer_db": _value(leads["hswish"]),
        "Q2.resnet18_db": Value(rounded(sum(one.db for one in resnet) / len(resnet))),
        "Q2.resnet18_minus_best_peer_db": _value(leads["resnet18"]),
        "Q2.unet_skip_minus_best_peer_db": _value(leads["unet"]),
    }


def best_peer(runs: Sequence[Mapping[str, Any]], mine: Sequence[Heard]) -> tuple[list[str], Lead]:
    """Of every seed the peer that is best on the others, and how far ours is ahead of it."""
    heard, names = _heard(runs), _accepted(runs)
    chosen = []
    for seed in range(len(runs)):
        others = [n for n in range(len(runs)) if n != seed] or [seed]
        chosen.append(max(names, key=lambda name: sum(heard[name][n].db for n in others)))
    return chosen, lead(mine, [heard[name][seed] for seed, name in enumerate(chosen)])


def _accepted(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The peers that TensorRT would take in every seed."""
    peers = [name for name in runs[0]["renderings"] if name.startswith(PEERS)]
    return [name for name in peers if not _refused(runs, name)]


def _refused(runs: Sequence[Mapping[str, Any]], name: str) -> str | None:
    return next(
        (run["renderings"][name]["refused"] for run in runs if run["renderings"][name]["refused"]), None
    )


def _heard(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Heard]]:
    names = [name for name in runs[0]["renderings"] if all(name in run["renderings"] for run in runs)]
    return {name: [Heard.of(run["renderings"][name], run["groups"]) for run in runs] for name in names}


def _stated(title: str) -> str:
    return SKIP if title == "U-Net" else DEFAULT


def _value(found: Lead) -> Value:
    return Value(rounded(found.db), rounded(found.low), rounded(found.high))
