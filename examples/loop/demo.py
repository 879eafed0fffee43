"""The stages of the whole loop, each a few commands that a user would type.

Everything that is found goes from stage to stage as plain JSON, so that a run can be taken up again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import PARTS, Dataset, Lines, lines_of, load_dataset
from examples.loop.line import ProductionLine
from examples.loop.processes import Job, Processes

__all__ = ["Demo", "Settings"]

STRATEGY = "masked+omnia"
"""How the answers are learnt from: they carry truth, and so does what the deployed model is sure is healthy."""
TRAININGS = (STRATEGY, "unmasked", "full-labels")


@dataclass(frozen=True)
class Settings:
    """What the user asked for."""

    data: tuple[Path, ...]
    out: Path
    seed: int = 0
    quick: bool = False
    trunk: str = "auto"
    gap: str | None = None
    original: str | None = None
    new: tuple[str, ...] = ()
    interactive: bool = False
    resume: bool = False

    def told(self) -> dict[str, Any]:
        """What a kept result hangs on."""
        digest = load_dataset(*self.data).digest
        return {"data": digest, "seed": self.seed, "quick": self.quick, "trunk": self.trunk, "gap": self.gap,
                "original": self.original, "new": self.new, "strategy": STRATEGY}  # fmt: skip


@dataclass
class Demo:
    """One run of the loop."""

    settings: Settings
    run: Processes
    _line: ProductionLine | None = None

    # -- what is where

    @property
    def out(self) -> Path:
        """Everything is written below it."""
        return self.settings.out

    @property
    def pictures(self) -> Path:
        """The new line's pictures, a folder a part."""
        return self.out / "pictures"

    @property
    def name(self) -> str:
        """Of the bundles and the station."""
        word = self.settings.data[0].resolve().name.lower()
        return "".join(letter if letter.isalnum() else "-" for letter in word).strip("-")[:40] or "line"

    @property
    def line(self) -> ProductionLine:
        """The new line, with its station and its hub."""
        if self._line is None:
            self._line = ProductionLine(
                self.run,
                self.out,
                self.lines()[1].new[0],
                name=self.name,
                trust=self.out / "keys" / "release.pub",
            )
        return self._line

    def data_words(self) -> list[str]:
        """The options that name the pictures and the lines."""
        words: list[str] = []
        for root in self.settings.data:
            words += ["--data", str(root)]
        if self.settings.original:
            words += ["--original", self.settings.original]
        for new in self.settings.new:
            words += ["--new", new]
        if self.settings.gap:
            words += ["--gap", self.settings.gap]
        return words

    def training(self, name: str, *words: object) -> Job:
        """A command of ``python -m training``."""
        return Job(name, "-m", "training", *words, "--json")

    def learning(self, name: str, *words: object) -> Job:
        """A training, which may be cut short."""
        quick = ["--quick"] if self.settings.quick else []
        words = (*words, *self.data_words(), "--seed", self.settings.seed, "--threads", 1, *quick)
        return self.training(name, *words)

    def evaluation(self, model: str) -> Job:
        """Figures of a checkpoint on both lines; ``model`` is its folder below ``out``."""
        words = [
            "evaluate",
            self.out / model,
            *self.data_words(),
            "--seed",
            self.settings.seed,
            "--threads",
            1,
        ]
        return self.training(f"evaluate-{Path(model).name}", *words, "--out", self.out / "evaluated" / model)

    def lines(self, *, evaluating: bool = False) -> tuple[Dataset, Lines]:
        """The set and its lines, dealt as training deals them."""
        settings = self.settings
        dataset = load_dataset(*settings.data)
        return dataset, lines_of(
            dataset, original=settings.original, new=settings.new or None, gap=settings.gap,
            seed=settings.seed, evaluating=evaluating,
        )  # fmt: skip

    # -- before the line

    def data(self) -> dict[str, Any]:
        """Read the pictures and deal them."""
        dataset, lines = self.lines()
        old, new = lines.original, lines.new[0]
        behind = {"lamp": "under another lamp", "stains": "with harmless stains"}
        words = " ".join(
            behind.get(gap, f"behind the gap {gap}") for gap in (new.gap or "").split("+") if gap
        )
        return {
            "name": dataset.title,
            "pictures": len(dataset.samples),
            "licence": dataset.licence,
            "sha256": dataset.digest,
            "original": "the parts as photographed" if new.gap else ", ".join(old.domains),
            "new": f"the same {words}" if new.gap else ", ".join(new.domains),
            "notes": list(lines.notes),
            "train": len(old.train),
            "mentor": len(new.mentor),
            "test": len(new.test),
        }

    def train(self) -> dict[str, Any]:
        """Train the model of the original line, and beside it one without jitter."""
        trunk = ["--trunk", self.settings.trunk]
        found = self.run.run_all(
            [
                self.learning("train", "train", "--out", self.out / "source", *trunk),
                self.learning("train-plain", "train", "--out", self.out / "plain", *trunk, "--no-jitter"),
            ]
        )
        return {"loss": found[0]["loss_last"], "loss_plain": found[1]["loss_last"]}

    def drop(self) -> dict[str, Any]:
        """What the new line costs a model that has never seen it."""
        found = self.run.run_all([self.evaluation("source"), self.evaluation("plain")])
        return {"source": found[0], "plain": found[1]}

    def adapt(self) -> dict[str, Any]:
        """Adapt to the new line's unlabelled pictures; the rules that see no label choose how."""
        said = self.run.run(
            self.learning("adapt", "adapt", self.out / "source", "--out", self.out / "adapted")
        )
        decision = said["decision"]
        names = [f"adapted/methods/{method}" for method in decision["facts"]]
        figures = self.run.run_all([self.evaluation(name) for name in names])
        methods = [
            {"method": method, "ap_new": found["new"]["ap"], "facts": _in_words(facts)}
            for (method, facts), found in zip(decision["facts"].items(), figures, strict=True)
        ]
        chosen = dict(zip(decision["facts"], figures, strict=True))[decision["method"]]
        return {"figures": chosen, "decision": decision, "methods": methods}

    def export(self) -> dict[str, Any]:
        """Write the adapted model as ONNX, and the pictures that calibration and the line show."""
        _, lines = self.lines()
        if not lines.new[0].mentor:
            raise DatasetError(
                "the new line has no picture left for its station to look at (part mentor); add pictures, "
                "or choose another seed"
            )
        jobs = [self._onnx("adapted")]
        for part in (part for part in PARTS if lines.new[0].part(part)):
            words = [
                "pictures",
                *self.data_words(),
                "--seed",
                self.settings.seed,
                "--line",
                "new",
                "--part",
                part,
            ]
            jobs.append(self.training(f"pictures-{part}", *words, "--out", self.pictures / part))
        found = self.run.run_all(jobs)[0]
        held = self.pictures / "held-out"
        shutil.rmtree(held, ignore_errors=True)
        for part in ("validate", "mentor"):
            (held / part).mkdir(parents=True)
            for path in sorted((self.pictures / part / "images").glob("*.png")):
                shutil.copy2(path, held / part / path.name)
        parity = max((row["greatest_difference"] for row in found.get("parity", [])), default=0.0)
        return {"nodes": found.get("nodes"), "parity": parity}

    def int8(self, model: str) -> dict[str, Any]:
        """Choose ranges, write the INT8 graphs, and compare them with FP32 on held-out pictures."""
        folder = self.out / "model" / model
        graph = folder / "model.onnx"
        pictures = self.pictures
        words = ["ranges", graph, "--pictures", pictures / "train", "--out", folder, "--json"]
        self.run.run(Job(f"ranges-{model}", "-m", "calibration", *words))
        words = ["render", graph, "--ranges", folder / "ranges.json", "--out", folder, "--json"]
        self.run.run(Job(f"render-{model}", "-m", "calibration", *words))
        words = ["report", graph, "--int8", folder / "model.cpu.onnx", "--pictures", pictures / "held-out"]
        found = self.run.run(Job(f"int8-{model}", "-m", "calibration", *words, "--out", folder, "--json"))
        return {
            "agreement": found["cells_agreement"],
            "verdicts_agreement": found["agreement"],
            "flips": found["flips"],
            "sqnr_db": found["sqnr_db"],
            "speedup": found["speedup"],
            "pictures": found["n"],
            "accepted": found["accepted"],
        }

    def bundle(self, model: str, version: int) -> dict[str, Any]:
        """Pack and sign what the station needs."""
        keys = self.out / "keys"
        if not (keys / "release.pem").exists():
            self.run.run(Job("keys", "-m", "export", "keys", "--out", keys, "--json"))
        words = ["pack", self.out / "model" / model, "--ckpt", self.out / model, "--line", "new"]
        words += ["--golden", self.pictures / "held-out", "--name", self.name, "--version", version]
        words += ["--key", keys / "release.pem", "--out", self.out / "bundles", "--json"]
        found = self.run.run(Job(f"pack-{model}", "-m", "export", *words))
        return {
            "bundle": found["bundle"],
            "id": found["id"],
            "graphs": found["graphs"],
            "left_out": found["left_out"],
            "golden_frames": found["golden_frames"],
        }

    def _onnx(self, model: str) -> Job:
        words = ["onnx", self.out / model, "--line", "new", "--out", self.out / "model" / model, "--json"]
        return Job(f"onnx-{model}", "-m", "export", *words)

    # -- after the operator

    def retrain(self) -> dict[str, Any]:
        """Teach the model what was answered; beside it the two controls."""
        mentored = self.out / "mentored"
        words = ["export", "--data", self.out / "hub", "--out", mentored, "--include-recent", "--json"]
        export = self.run.run(Job("mentored", "-m", "mentoring", *words))
        self.run.run_all(
            [
                self.learning(
                    f"retrain-{strategy}", "retrain", self.out / "adapted", "--mentored", mentored,
                    "--out", self.out / strategy, "--strategy", strategy,
                )
                for strategy in TRAININGS
            ]
        )  # fmt: skip
        self.line.watch()
        found = self.run.run_all([self.evaluation(strategy) for strategy in TRAININGS])
        self.line.watch()
        return {"mark": export["mark"], **dict(zip(TRAININGS, found, strict=True))}

    def second(self) -> dict[str, Any]:
        """Export, quantise and pack the retrained model as the first one was."""
        self.run.run(self._onnx(STRATEGY))
        int8 = self.int8(STRATEGY)
        self.line.watch()
        return {"int8": int8, **self.bundle(STRATEGY, 2)}


def _in_words(facts: dict[str, float]) -> dict[str, float | str]:
    """What the rules looked at, as the page's table names it."""
    shares = {
        "positive_rate_new": "pictures with an alarm",
        "positive_rate_original": "on the original line",
        "unsure_new": "unsure cells",
    }
    distances = {"score_distance": "scores off by", "feature_distance": "features off by"}
    found: dict[str, float | str] = {
        words: f"{100 * facts[name]:.0f} %" for name, words in shares.items() if name in facts
    }
    found.update({words: facts[name] for name, words in distances.items() if name in facts})
    return found
