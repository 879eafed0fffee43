"""Q3: how much faster INT8 is on a CPU: our rendering against FP32 in ONNX Runtime, and what else there is beside it.

Stated before the figures were taken:

- **Networks**: ResNet-18 at 224, a U-Net at 256 and a depthwise one with h-swish and squeeze-and-excite at 224.  Random
  weights, batch norms that have seen pictures, drawn pictures: time does not mind.  What INT8 loses is stated all the
  same, so that no speed is bought with nonsense.
- **Time**: one picture, one thread.  Rounds of every form in turn; in each round a form runs once for nothing, so that
  the caches are its own, and then a few times, of which the median counts.  Blocks of rounds begin with new sessions
  and a new process of the peer.
- **Speed-up**: FP32's median over that of the form, of the processor time of the process, which other
  processes on the machine disturb least; the interval draws rounds.  By the clock it stands beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation.scorers_time import ratio_of_medians
from benchmarks.asking import Asked
from benchmarks.peers import python_of, why_missing
from benchmarks.quantisation.speed_graphs import FP32, NAMES, OURS, SIDES, Graphs, graphs_of
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.arrays import Array, Floats
from edge_sdk.errors import EdgeError

__all__ = ["MINUTES", "NEEDS", "SUITE", "TITLE", "WORKER", "agreement", "rows_of", "run", "times_of"]

TITLE = "INT8 against FP32 on a CPU, one thread"
SUITE = "quantisation"
MINUTES = 8.0
NEEDS = ("torch", "onnxscript", "onnxruntime", "cv2")

CALIBRATED, JUDGED = 64, 32
BLOCKS, ROUNDS, RUNS = 3, 30, 3
WORKER = Path(__file__).with_name("openvino_worker.py")
OPENVINO = "OpenVINO, FP32"
OPENVINO_DEFAULT = "OpenVINO, at its default precision"
NNCF = "OpenVINO, INT8 by NNCF"
OPENVINO_OURS = "OpenVINO with ours"
MUSTS = {"Q3.resnet18_speedup": "resnet18", "Q3.unet_speedup": "unet"}

Clock = Callable[[int], dict[str, list[float]]]
"""Milliseconds ``wall`` and ``cpu`` of so many runs."""


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    from calibration.report import cpu_instructions, cpu_name

    python = python_of("openvino")
    sides = dict.fromkeys(SIDES, 64) if quick else SIDES
    blocks, rounds = (2, 3) if quick else (BLOCKS, ROUNDS)
    calibrated, judged = (8, 4) if quick else (CALIBRATED, JUDGED)
    progress.expect(len(sides))
    found = {
        net: progress.step(
            f"{NAMES[net]}, {side}²",
            partial(
                _measured, net, python,
                side=side, calibrated=calibrated, judged=judged, blocks=blocks, rounds=rounds,
            ),
        )
        for net, side in sides.items()
    }  # fmt: skip
    rows = [row for net, facts in found.items() for row in rows_of(f"{NAMES[net]}, {sides[net]}²", facts)]
    if python is None:
        rows.append({"name": NNCF, "skipped": why_missing("openvino")})
    musts = {key: _speedup(found[net]["times"], OURS) for key, net in MUSTS.items()}
    return Result(
        rows=rows,
        musts={} if quick else musts,
        notes=[
            f"INT8 instructions of this {cpu_name()}: {', '.join(cpu_instructions()) or 'none'}",
            "speedup, low, high: of the processor time of the process, on one thread the time on a core of one's own; "
            "wall_speedup: by the clock, while other processes shared the machine",
            "sqnr_db and agreement (share of values on FP32's side of FP32's median) of the first output on "
            f"{judged} pictures that calibrated nothing, of networks with random weights; of trained ones see Q2",
            "ours for TensorRT runs slower than FP32 here, which is why there are two renderings; a form with speedup "
            "below 1 is one that pack and report refuse, for FP32 is shipped in its place",
            "quantize_static: preprocessed as its documentation says, at its defaults (int8, weights per tensor) and "
            "with uint8 activations and weights per channel",
            *(
                []
                if python is None
                else [
                    "OpenVINO: latency hint, one stream; whatever is not INT8 in float32, except at its default, which "
                    f"is {found['unet']['precision']} here; NNCF by nncf.quantize at its defaults, on the same pictures"
                ]
            ),
        ],
        settings={
            "sides_px": dict(sides),
            "calibrated": calibrated,
            "choosing": calibrated // 4,
            "rule": {net: facts["rule"] for net, facts in found.items()},
            "threads": 1,
            "blocks": blocks,
            "rounds": rounds,
            "runs_a_round": RUNS,
            "peer": found["unet"]["versions"],
        },
        packages=("onnxscript",),
        chart=Chart("speedup", "times FP32"),
    )


def rows_of(name: str, facts: Mapping[str, Any]) -> list[dict[str, object]]:
    """A row a form, of what ``run`` measured of a network."""
    rows: list[dict[str, object]] = []
    for form, kinds in facts["times"].items():
        speedup = _speedup(facts["times"], form)
        blocks = [
            float(np.median(before) / np.median(after))
            for before, after in zip(facts["times"][FP32]["cpu"], kinds["cpu"], strict=True)
        ]
        rows.append(
            {
                "name": f"{name}: {form}",
                "speedup": speedup.value,
                **({} if form == FP32 else {"low": speedup.low, "high": speedup.high}),
                "wall_speedup": _speedup(facts["times"], form, kind="wall").value,
                "cpu_ms": round(float(np.median(np.concatenate(kinds["cpu"]))), 2),
                "wall_ms": round(float(np.median(np.concatenate(kinds["wall"]))), 2),
                "blocks": [round(one, 3) for one in blocks],
                **facts["quality"][form],
            }
        )
    return rows


def times_of(forms: Mapping[str, Clock], *, rounds: int, runs: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of every form in every round, all in turn; the order is turned about from round to round.

    Returns:
        By form, ``wall`` and ``cpu``: of each round the median.
    """
    found: dict[str, dict[str, list[float]]] = {form: {"wall": [], "cpu": []} for form in forms}
    for number in range(rounds):
        for form in list(forms)[:: -1 if number % 2 else 1]:
            for kind, took in forms[form](runs).items():
                found[form][kind].append(round(float(np.median(took)), 4))
    return found


def agreement(wanted: Array, found: Array) -> float:
    """Share of values on the same side of the median of those that are wanted."""
    median = np.median(wanted)
    return float(((wanted > median) == (found > median)).mean())


def _measured(
    net: str, python: Path | None, *, side: int, calibrated: int, judged: int, blocks: int, rounds: int
) -> dict[str, Any]:
    """Times by form, kind and block; what each form loses; ``rule``, ``versions`` and ``precision``."""
    with tempfile.TemporaryDirectory(prefix="edge-sdk-speed-") as name:
        folder = Path(name)
        graphs = graphs_of(net, folder, calibrated=calibrated, judged=judged, side=side)
        shown, given = folder / "frames.npy", folder / "calibrating.npy"
        np.save(shown, graphs.frames)
        np.save(given, graphs.calibrating)
        times: dict[str, dict[str, list[list[float]]]] = {}
        quality: dict[str, dict[str, object]] = {}
        facts: dict[str, Any] = {"versions": {}, "precision": None}
        for block in range(blocks):
            with ExitStack() as stack:
                forms = {form: _clocked(path, graphs.frames[:1]) for form, path in graphs.files.items()}
                if python is not None:
                    peer = stack.enter_context(Asked(python, WORKER, name="OpenVINO"))
                    facts["versions"] = peer.versions
                    facts["precision"], more = _opened(peer, graphs, folder, given, first=block == 0)
                    forms |= {form: _asked(peer, form, shown) for form in more}
                    if block == 0:
                        quality |= {form: _lost(graphs, _answers(peer, form, folder, shown)) for form in more}
                for form, kinds in times_of(forms, rounds=rounds, runs=RUNS).items():
                    for kind, took in kinds.items():
                        times.setdefault(form, {"wall": [], "cpu": []})[kind].append(took)
        quality |= {form: _lost(graphs, _said(path, graphs.frames)) for form, path in graphs.files.items()}
        return {**facts, "times": times, "quality": quality, "rule": graphs.rule}


def _clocked(path: Path, frame: Floats) -> Clock:
    from calibration.sessions import open_session

    session = open_session(path)

    def take(runs: int) -> dict[str, list[float]]:
        wall, cpu = [], []
        for _ in range(1 + runs):
            start, used = time.perf_counter(), time.process_time()
            session.run(frame)
            cpu.append(1e3 * (time.process_time() - used))
            wall.append(1e3 * (time.perf_counter() - start))
        return {"wall": wall[1:], "cpu": cpu[1:]}

    return take


def _asked(peer: Asked, form: str, frames: Path) -> Clock:
    def take(runs: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = peer.ask("time", name=form, frames=str(frames), runs=runs)
        return found

    return take


def _opened(peer: Asked, graphs: Graphs, folder: Path, given: Path, *, first: bool) -> tuple[str, list[str]]:
    """Compile the peer's forms; its default precision, and the forms."""
    quantised = folder / "nncf.xml"
    if first:
        peer.ask("quantise", model=str(graphs.files[FP32]), frames=str(given), out=str(quantised))
    models = {OPENVINO: graphs.files[FP32], NNCF: quantised, OPENVINO_OURS: graphs.files[OURS]}
    for form, model in models.items():
        peer.ask("open", name=form, model=str(model), exact=True)
    default = peer.ask("open", name=OPENVINO_DEFAULT, model=str(graphs.files[FP32]), exact=False)
    return str(default["precision"]), [*models, OPENVINO_DEFAULT]


def _answers(peer: Asked, form: str, folder: Path, frames: Path) -> Floats:
    out = folder / "answers.npy"
    peer.ask("answers", name=form, frames=str(frames), out=str(out))
    found: Floats = np.load(out)
    return found


def _said(path: Path, frames: Floats) -> Floats:
    from calibration.sessions import open_session

    session = open_session(path)
    return np.concatenate([session.run(frames[n : n + 1])[session.outputs[0]] for n in range(len(frames))])


def _lost(graphs: Graphs, found: Floats) -> dict[str, object]:
    from edge_sdk.quality.measures import sqnr_db

    wanted = _said(graphs.files[FP32], graphs.frames)
    if found.shape != wanted.shape:
        raise EdgeError(f"a form answers {found.shape} where FP32 answers {wanted.shape}")
    decibels = sqnr_db(wanted, found)
    exact = {} if not np.isfinite(decibels) else {"sqnr_db": round(float(decibels), 1)}
    return {**exact, "agreement": round(agreement(wanted, found), 4)}


def _speedup(times: Mapping[str, Mapping[str, list[list[float]]]], form: str, *, kind: str = "cpu") -> Value:
    before, after = (np.concatenate(times[one][kind]) for one in (FP32, form))
    return Value(*(round(one, 3) for one in ratio_of_medians(list(before), list(after))))
