"""The whole loop on real pictures, as separate programs over the loopback network.

Trains a model on one line, shows what a new line costs it, adapts it without a label, exports and quantises
it, signs a bundle, runs it in a station on a video of the new line, uploads what it was unsure of, answers as
an operator would, retrains, and brings the better model into the running station.

    python examples/whole_loop.py                           on the hazelnuts beside this file
    python examples/whole_loop.py --quick                   the same stages, smaller
    python examples/whole_loop.py --data DIR                on your own pictures: labels.csv, or MVTec's folders
    python examples/whole_loop.py --data OLD NEW            on two folders, the second being the new line
    python examples/whole_loop.py --interactive             you are the operator

Writes report.html and report.json into --out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the pieces lie beside this file, wherever it is called from
# ruff: noqa: E402

from edge_sdk.documents import canonical_json, write_atomic
from edge_sdk.errors import ConfigError, EdgeError
from examples.loop.demo import STRATEGY, Demo, Settings
from examples.loop.gather import extras_of, report_of
from examples.loop.normals import commissioned
from examples.loop.page import render
from examples.loop.processes import ChildFailedError, Processes
from examples.loop.schema import DemoReport
from examples.loop.stages import Stages
from examples.loop.words import headline, shown

HAZELNUT = ROOT / "examples" / "data" / "hazelnut"
SEED = 0
GAP = "stains+lamp"
"""Of the shipped hazelnuts: a changed lamp, and harmless stains that look like defects."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        description="Run the whole loop on real pictures.",
        epilog="example: python examples/whole_loop.py --quick",
    )
    found.add_argument(
        "--data", type=Path, nargs="+", metavar="DIR", default=[HAZELNUT],
        help="one folder of pictures, or two of which the second is the new line; default: hazelnuts",
    )  # fmt: skip
    found.add_argument("--original", metavar="D1,D2", help="domains of the original line")
    found.add_argument("--new", metavar="D3,D4", action="append", help="domains of the new line")
    found.add_argument("--gap", metavar="NAME", help="makes the new line out of the original one, e.g. lamp")
    found.add_argument(
        "--trunk", choices=("auto", "slim", "mobilenetv2"),
        help="default: slim for the hazelnuts; else auto, which takes ImageNet weights where there are some",
    )  # fmt: skip
    found.add_argument("--out", type=Path, metavar="DIR", help="default: build/demo, quick: build/demo-quick")
    found.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"default: {SEED}")
    found.add_argument("--quick", action="store_true", help="shorter trainings")
    found.add_argument("--interactive", action="store_true", help="open the page and wait for your answers")
    found.add_argument("--resume", action="store_true", help="keep the stages that an earlier run finished")
    found.add_argument("--json", action="store_true", help="print report.json on stdout")
    return found


def settings_of(asked: argparse.Namespace) -> Settings:
    """What was asked for, with its defaults filled in.

    Raises:
        ConfigError: The output folder is in use for something else.
    """
    out = asked.out or ROOT / "build" / ("demo-quick" if asked.quick else "demo")
    if out.exists() and any(out.iterdir()) and not (out / "logs").is_dir():
        raise ConfigError(f"{out} holds something that no demo wrote; give another --out, or an empty folder")
    shipped = [path.resolve() for path in asked.data] == [HAZELNUT]
    gap = asked.gap or (GAP if shipped and not asked.new else None)
    return Settings(
        data=tuple(asked.data), out=out, seed=asked.seed, quick=asked.quick, gap=gap,
        trunk=asked.trunk or ("slim" if shipped else "auto"),
        original=asked.original, new=tuple(asked.new or ()), interactive=asked.interactive, resume=asked.resume,
    )  # fmt: skip


def loop(settings: Settings) -> DemoReport:
    """Run every stage; the report is written when this returns."""
    began = time.monotonic()
    told = settings.told()
    if not settings.resume:
        shutil.rmtree(settings.out, ignore_errors=True)
    settings.out.mkdir(parents=True, exist_ok=True)
    with Processes(settings.out / "logs") as run:
        demo = Demo(settings, run)
        stages = Stages(settings.out / "stages", told, count=14, resume=settings.resume)
        found = _all_stages(demo, stages)
        report = stages("report", lambda: _written(demo, found, stages, began), lambda told: told["title"])
    return DemoReport.model_validate(report["report"])


def _all_stages(demo: Demo, stages: Stages) -> dict[str, Any]:
    line = demo.line
    found: dict[str, Any] = {}

    def stage(name: str, work: Any, tell: Any, *, live: bool = False) -> None:
        found[name] = stages(name, work, tell, only_with="swap" if live else None)

    stage("data", demo.data, lambda d: f"{d['pictures']} pictures, {d['original']} → {d['new']}")
    stage("train", demo.train, lambda d: "with jitter, and without beside it")
    stage(
        "drop", demo.drop, lambda d: f"AP {_way(d['source'])} on the new line (no jitter: {_way(d['plain'])})"
    )
    stage("good parts", lambda: commissioned(demo), _found_strange)
    stage(
        "adapt", demo.adapt, lambda d: f"{d['decision']['method']}: AP {_new(d['figures'])} on the new line"
    )
    stage("export", demo.export, lambda d: f"{d['nodes']} nodes, at most {d['parity']:.1g} from torch")
    stage("int8", lambda: demo.int8("adapted"), lambda d: f"{100 * d['agreement']:.2f} % of cells as FP32")
    stage("bundle", lambda: demo.bundle("adapted", 1), lambda d: f"{Path(d['bundle']).name}, signed")
    stage(
        "line", lambda: line.start(found["bundle"]["bundle"]),
        lambda d: f"{d['frames']} frames through the station, {d['put']} in the outbox", live=True,
    )  # fmt: skip
    stage(
        "answers", lambda: line.answers(found["line"], interactive=demo.settings.interactive),
        lambda d: ", ".join(f"{count} {name}" for name, count in d["answers"].items()), live=True,
    )  # fmt: skip
    stage(
        "retrain", demo.retrain,
        lambda d: f"AP {_new(d[STRATEGY])} (unmasked {_new(d['unmasked'])}, full labels {_new(d['full-labels'])})",
        live=True,
    )  # fmt: skip
    stage("bundle 2", demo.second, lambda d: f"{Path(d['bundle']).name}, signed", live=True)
    stage(
        "swap", lambda: line.swap(found["bundle 2"]["bundle"]),
        lambda d: f"{d['summary']['station']['frames_in']} frames, all with an outcome; {d['at_hub']} items at the hub",
        live=True,
    )  # fmt: skip
    return found


def _way(figures: dict[str, Any]) -> str:
    return f"{shown(figures['original']['ap'])} → {shown(figures['new']['ap'])}"


def _found_strange(told: dict[str, Any]) -> str:
    if "bundle" not in told:
        return str(told["left_out"])
    return (
        f"commissioned from {told['parts']}: {told['found']} of {told['defective']} defective and {told['stopped']} of "
        f"{told['good']} good test pictures stopped"
    )


def _new(figures: dict[str, Any]) -> str:
    return shown(figures["new"]["ap"])


def _written(demo: Demo, found: dict[str, Any], stages: Stages, began: float) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html``."""
    took_s = max(time.monotonic() - began, sum(stage.took_s for stage in stages.done))
    report = report_of(demo, found, stages.done, took_s)
    write_atomic(demo.out / "report.json", canonical_json(report) + b"\n")
    write_atomic(demo.out / "report.html", render(report, extras_of(demo, found)).encode())
    return {"title": headline(report).title, "report": report.model_dump(mode="json", by_alias=True)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 it worked, 1 it did not, 2 it was asked wrongly."""
    asked = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        settings = settings_of(asked)
        report = loop(settings)
    except ChildFailedError as error:
        for line in error.tail:
            print(f"    | {line}", file=sys.stderr)
        print(error, file=sys.stderr)
        return error.exit_code
    except EdgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        print(f"{named}{error.strerror or error}; is there room, and may it be written?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; --resume goes on from here", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - told in one line, in full in a file
        trace = Path(tempfile.gettempdir()) / f"whole-loop-error-{os.getpid()}.txt"
        trace.write_text(traceback.format_exc(), encoding="utf-8")
        print(
            f"unexpected {type(error).__name__}: {error} (in full: {trace}); please report it",
            file=sys.stderr,
        )
        return 1
    print(f"\n{headline(report).title}.\n{settings.out / 'report.html'}", file=sys.stderr)
    if asked.json:
        print(canonical_json(report).decode())
    return 0


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
