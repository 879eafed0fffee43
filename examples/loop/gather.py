"""From what the stages found to the report and the page."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_sdk.quality.datasets import Sample, read_picture
from examples.loop.demo import STRATEGY, Demo
from examples.loop.evaluated import Evaluated, compared, gain, plane
from examples.loop.normals import strange_parts
from examples.loop.page import Compared, PageExtras, Plane, QuestionShot
from examples.loop.schema import DemoReport, Stage
from examples.loop.words import NAMES

__all__ = ["extras_of", "report_of"]

SHOWN = 5
"""Test pictures on the page."""
SHIPPED = "Pictures of hazelnuts: Intel / anomalib, CC BY 4.0, scaled down."


def report_of(demo: Demo, found: dict[str, Any], stages: Sequence[Stage], took_s: float) -> DemoReport:
    """``report.json`` from the results of all stages.

    Args:
        demo: That ran.
        found: Each stage's result by its name.
        stages: With their times.
        took_s: The whole.
    """
    adapted, retrain, summary = found["adapt"], found["retrain"], found["swap"]["summary"]
    decision = adapted["decision"]
    station = summary["station"]
    swaps = summary["swaps"]
    return DemoReport.model_validate(
        {
            "schema": "demo/1",
            "data": found["data"],
            "seed": demo.settings.seed,
            "quick": demo.settings.quick,
            "took_s": round(took_s, 1),
            "stages": [stage.model_dump() for stage in stages],
            "source_only": found["drop"]["source"],
            "source_only_plain": found["drop"]["plain"],
            "adapted": {
                **adapted["figures"],
                "method": decision["method"],
                "why": _sentence(decision["why"]),
                "methods": adapted["methods"],
            },
            "retrained": {**retrain[STRATEGY], "strategy": STRATEGY},
            "retrained_unmasked": {**retrain["unmasked"], "strategy": "unmasked"},
            "full_labels": {**retrain["full-labels"], "strategy": "full-labels"},
            "gains": _gains(demo, decision["method"]),
            "good_parts": found["good parts"],
            "int8": {**found["int8"], "rendering": _rendering(found)},
            "station": {name: station[name] for name in
                        ("frames_in", "outcomes", "not_inspected_by", "fps", "p50_ms", "p99_ms")},
            "outbox": {
                "put": summary["outbox"]["put"],
                "uploaded": found["swap"]["uploaded"],
                "at_hub": found["swap"]["at_hub"],
            },
            "answers": found["answers"]["answers"],
            "swap": {
                "bundle": Path(found["bundle 2"]["bundle"]).stem,
                "frames_lost": sum(swap["frames_lost"] for swap in swaps),
            },
        }
    )  # fmt: skip


def _gains(demo: Demo, method: str) -> dict[str, Any]:
    """Of adaptation and of mentoring, on the same pictures."""
    source, adapted, mentored = _steps(demo, method)
    _, lines = demo.lines()
    units = {sample.image: sample.unit for sample in lines.new[0].test}
    found = {"adaptation": gain(source, adapted, units), "mentoring": gain(adapted, mentored, units)}
    return {name: one.model_dump() for name, one in found.items() if one is not None}


def _steps(demo: Demo, method: str) -> list[Evaluated]:
    """Before, adapted, after mentoring."""
    names = ("source", f"adapted/methods/{method}", STRATEGY)
    return [Evaluated(demo.out / name, demo.out / "evaluated" / name) for name in names]


def _sentence(why: str) -> str:
    """The rules' reason, with methods as their papers write them."""
    text = re.sub(rf"\b({'|'.join(NAMES)})\b", lambda found: NAMES[found[0]], why)
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _rendering(found: dict[str, Any]) -> str:
    """What the station ran: the INT8 graph for CPUs, unless a gate kept it out of the bundle."""
    left_out = found["bundle"]["left_out"].get("int8-cpu")
    return "int8-cpu" if left_out is None else f"int8-cpu (not run: {left_out})"


def extras_of(demo: Demo, found: dict[str, Any]) -> PageExtras:
    """Everything that the page shows beside the report."""
    questions = [
        QuestionShot(
            Path(kept["jpeg"]).read_bytes(),
            f"“Is this {kept['class']}?” The model was {100 * kept['confidence']:.0f} % sure. "
            + ("The operator confirmed it." if kept["answer"] == "confirm" else "It was a false alarm."),
        )
        for kept in found["answers"]["questions"]
    ]
    shipped = Path(__file__).parents[1] / "data"
    return PageExtras(
        compared=tuple(_compared(demo, found["adapt"]["decision"]["method"])),
        strange=strange_parts(demo, found["good parts"]),
        planes=tuple(_planes(demo)),
        latencies_ms=tuple(demo.line.latencies_ms()),
        questions=tuple(questions),
        asked_of=found["answers"]["asked_of"],
        command=_command(demo),
        versions=_versions(),
        attribution=SHIPPED if shipped in demo.settings.data[0].resolve().parents else "",
    )


def _command(demo: Demo) -> str:
    settings = demo.settings
    words = ["python examples/whole_loop.py", *(["--quick"] if settings.quick else [])]
    words += ["--data", " ".join(path.name for path in settings.data), "--seed", str(settings.seed)]
    return " ".join(words + (["--gap", settings.gap] if settings.gap else []))


def _versions() -> dict[str, str]:
    names = ("torch", "onnx", "onnxruntime", "opencv-python-headless", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _compared(demo: Demo, method: str) -> list[Compared]:
    """Test pictures of the new line before, adapted and after mentoring: mostly defective ones."""
    models = _steps(demo, method)
    _, lines = demo.lines(evaluating=True)
    line = lines.new[0]
    written = sorted((demo.out / "pictures" / "test" / "images").glob("*.png"))
    shown = list(zip(line.test, written, strict=True))
    bad = _one_of_each([pair for pair in shown if pair[0].healthy is False])
    good = [pair for pair in shown if pair[0].healthy]
    wanted = max(SHOWN - 2, SHOWN - len(good))
    chosen = [*bad[:wanted], *good[: SHOWN - len(bad[:wanted])]]
    return compared(models, line, [(sample, read_picture(path)) for sample, path in chosen])


def _one_of_each(pairs: list[tuple[Sample, Path]]) -> list[tuple[Sample, Path]]:
    """In order of name, but a picture of every class before the second of any."""
    seen: Counter[str] = Counter()
    ranked = []
    for pair in pairs:
        ranked.append((seen[pair[0].label], pair))
        seen[pair[0].label] += 1
    return [pair for _, pair in sorted(ranked, key=lambda one: one[0])]


def _planes(demo: Demo) -> list[Plane]:
    """Feature space before anything was done, and after mentoring."""
    titles = {"source": "Before", STRATEGY: "After mentoring"}
    found = [
        plane(title, demo.out / "evaluated" / name, seed=demo.settings.seed) for name, title in titles.items()
    ]
    return [one for one in found if one is not None]
