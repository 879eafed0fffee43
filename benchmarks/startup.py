"""R4: how long until a station is there: imports, ``--help``, and the first verdict of a fresh process.

Every figure is the wall time of a fresh interpreter, rounds interleaved.  What other programs do on the machine
can only add to it, so the best round is the figure and the median stands beside it.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.documents import canonical_json, sha256_file
from edge_sdk.errors import EdgeError
from edge_sdk.manifest import ClassThresholds, FileEntry, Manifest, PostprocessSpec, manifest_bytes
from edge_sdk.quality.gates import Gates
from edge_sdk.runners import open_runner
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess

__all__ = ["MINUTES", "NEEDS", "SUITE", "TITLE", "run"]

TITLE = "Start of a station: imports, help, first verdict"
SUITE = "runtime"
MINUTES = 2.0
NEEDS = ("onnx", "onnxruntime", "cv2")

SIDE, CELL, GOLDEN = 224, 32, 32
TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
IMPORTS = {
    "import edge_sdk": "import edge_sdk",
    "import numpy, cv2, onnxruntime": "import numpy, cv2, onnxruntime",
    "Station with cv2 and onnxruntime": "from edge_sdk import Station; import cv2, onnxruntime",
}
PEERS = {"ultralytics": "from ultralytics import YOLO", "anomalib": "import anomalib.deploy"}


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    rounds = 3 if quick else 15
    peers = {name: text for name, text in PEERS.items() if importlib.util.find_spec(name) is not None}
    with tempfile.TemporaryDirectory(prefix="edge-sdk-startup-") as made:
        station = _station(Path(made))
        proof = list(Path(made).glob("bundle/engines/*/proof.json"))
        if proof:
            raise EdgeError("the bundle was proved before the first start was timed; begin anew")
        measures: dict[str, Callable[[], float]] = {
            "bare interpreter": lambda: _process_s("-c", "pass"),
            "edge-sdk --help": lambda: _process_s("-m", "edge_sdk", "--help"),
            **{name: _importing(text) for name, text in {**IMPORTS, **peers}.items()},
            "first verdict, bundle proved before": lambda: _first_verdict_s(station),
            "first verdict, golden frames proved": lambda: _first_verdict_s(station, forget=True),
        }
        progress.expect(rounds)
        times: dict[str, list[float]] = {name: [] for name in measures}
        _first_verdict_s(station)  # the disk's cache is warm for everybody alike
        for number in range(rounds):
            order = list(measures) if number % 2 else list(reversed(measures))
            round_s = progress.step(f"round {number}", partial(_round, measures, order))
            for name, seconds in round_s.items():
                times[name].append(seconds)
    best = {name: min(found) for name, found in times.items()}
    rows: list[dict[str, object]] = [
        {"name": name, "best_s": round(min(found), 4), "median_s": round(statistics.median(found), 4)}
        for name, found in times.items()
    ]
    rows += [{"name": name, "skipped": "not installed here"} for name in PEERS if name not in peers]
    return Result(
        rows=rows,
        musts={
            "R4.import_s": Value(round(best["Station with cv2 and onnxruntime"], 4)),
            "R4.help_s": Value(round(best["edge-sdk --help"] - best["bare interpreter"], 4)),
            "R4.first_verdict_s": Value(round(best["first verdict, bundle proved before"], 4)),
        },
        notes=[
            "imports are timed inside the process, the rest from its start to the end or to the verdict's line",
            f"the model has the shape of a ResNet-18, random weights, {SIDE} x {SIDE}; {GOLDEN} golden frames",
            "a bundle is proved on its golden frames when it is activated and where machine or versions changed; "
            "every start hashes every byte",
        ],
        settings={"rounds": rounds, "engine_threads": 1, "model_side_px": SIDE, "golden_frames": GOLDEN},
        packages=("pydantic", "pyyaml"),
        chart=Chart("best_s", "s"),
    )


def _round(measures: Mapping[str, Callable[[], float]], order: Sequence[str]) -> dict[str, float]:
    return {name: measures[name]() for name in order}


def _importing(text: str) -> Callable[[], float]:
    return lambda: float(_output("-c", TIMED.format(text)))


def _output(*words: str) -> str:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def _process_s(*words: str) -> float:
    began = time.perf_counter()
    _output(*words)
    return time.perf_counter() - began


def _first_verdict_s(station: Path, *, forget: bool = False) -> float:
    """From the start of ``edge-sdk run`` to its first verdict on stderr."""
    if forget:
        for proof in station.parent.glob("bundle/engines/*/proof.json"):
            proof.unlink()
    command = [sys.executable, "-m", "edge_sdk", "run", str(station), "--frames", "1", "--verdicts"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        took_s = time.perf_counter() - began
        process.stderr.read()
    if process.returncode or "camera 0: " not in line:
        raise EdgeError(f"edge-sdk run ended with {process.returncode} and said {line!r}")
    return took_s


def _station(folder: Path) -> Path:
    """A station with a bundle of a ResNet-18's size and a folder of pictures; its ``station.yaml``."""
    import cv2

    bundle, pictures = folder / "bundle", folder / "pictures"
    for each in (bundle / "model", bundle / "golden", pictures):
        each.mkdir(parents=True)
    spec = PreprocessSpec(width=SIDE, height=SIDE)
    _trunk(bundle / "model/model.onnx")
    frames = np.stack([drawn_picture(seed=seed) for seed in range(GOLDEN)])
    runner = open_runner(bundle / "model/model.onnx")
    cells = np.concatenate([runner.infer({"frame": preprocess(frame, spec)})["cells"] for frame in frames])
    runner.close()
    np.savez(bundle / "golden/frames.npz", frames=frames)
    np.savez(bundle / "golden/expected.npz", cells=cells)
    roles = {
        "golden/expected.npz": "golden-expected",
        "golden/frames.npz": "golden-frames",
        "model/model.onnx": "fp32",
    }
    manifest = Manifest(
        name="startup",
        version="1",
        created_at=datetime(2026, 11, 21, tzinfo=timezone.utc),
        line="drawn",
        classes=("defect",),
        thresholds=(ClassThresholds(class_name="defect", boundary=0.5, pass_below=0.3, defective_from=0.9),),
        preprocess=spec,
        postprocess=PostprocessSpec(cell_px=CELL),
        files=tuple(
            FileEntry(
                path=path, bytes=(bundle / path).stat().st_size, sha256=sha256_file(bundle / path), role=role
            )
            for path, role in roles.items()
        ),
        golden=Gates(),
    )
    (bundle / "manifest.json").write_bytes(manifest_bytes(manifest))
    for number in range(4):
        cv2.imwrite(str(pictures / f"{number}.png"), drawn_picture(480, 640, seed=100 + number))
    settings = {
        "station": "startup",
        "bundle": "./bundle",
        "trust": "unsigned",
        "camera": {"uri": "file:pictures", "pace": "max"},
    }
    path = folder / "station.yaml"
    path.write_bytes(canonical_json(settings))
    return path


def _trunk(path: Path) -> None:
    """A graph with the layers of a ResNet-18 down to stride 32, and one cell map."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, constants = [], []

    def conv(
        name: str, source: str, inputs: int, outputs: int, *, kernel: int, stride: int, relu: bool = True
    ) -> str:
        scale = float(np.sqrt(2 / (inputs * kernel * kernel)))
        weight = random.normal(0, scale, (outputs, inputs, kernel, kernel)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"{name}.weight"))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [source, f"{name}.weight"], [name], pads=pads, strides=[stride, stride])
        )
        if relu:
            nodes.append(helper.make_node("Relu", [name], [f"{name}.on"]))
        return f"{name}.on" if relu else name

    at = conv("stem", "frame", 3, 64, kernel=7, stride=2)
    nodes.append(
        helper.make_node("MaxPool", [at], ["pool"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    )
    at, width = "pool", 64
    for stage, outputs in enumerate((64, 128, 256, 512)):
        for block in range(2):
            name = f"layer{stage}.{block}"
            stride = 2 if stage and not block else 1
            inner = conv(f"{name}.a", at, width, outputs, kernel=3, stride=stride)
            inner = conv(f"{name}.b", inner, outputs, outputs, kernel=3, stride=1, relu=False)
            if stride != 1 or width != outputs:
                at = conv(f"{name}.skip", at, width, outputs, kernel=1, stride=stride, relu=False)
            nodes.append(helper.make_node("Add", [inner, at], [f"{name}.sum"]))
            nodes.append(helper.make_node("Relu", [f"{name}.sum"], [f"{name}.out"]))
            at, width = f"{name}.out", outputs
    conv("cells", at, width, 1, kernel=1, stride=1, relu=False)
    side = SIDE // CELL
    graph = helper.make_graph(
        nodes,
        "startup",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("cells", TensorProto.FLOAT, ["N", 1, side, side])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
