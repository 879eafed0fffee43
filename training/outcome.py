"""What a command leaves in its folder: the checkpoint, ``figures.json`` for scripts, ``page.html`` for people."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from edge_sdk.documents import write_atomic
from training.adapt import Adaptation
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import Config
from training.evaluate import Evaluation, save_arrays
from training.health import write_health
from training.interpolation import BORNE, in_words
from training.normals import Transfer
from training.page import Page, Table, write_page
from training.progress import Curves
from training.recipe import WEIGHTS_VARIABLE, pretrained_weights
from training.shots import worst
from training.train import Progress

__all__ = [
    "Work",
    "figures_in_words",
    "write_adapted",
    "write_evaluated",
    "write_retrained",
    "write_trained",
    "write_transferred",
]

NAMES = {"source": "left as it was", "adabn": "by AdaBN", "dann": "by DANN", "adda": "by ADDA", "mmd": "by MMD",
         "coral": "by CORAL"}  # fmt: skip
"""Of methods, as a sentence says them."""
MEASURES = ("ap", "ap_low", "ap_high", "auroc", "precision", "recall", "n", "unit")


@dataclass
class Work:
    """A command under way."""

    config: Config
    progress: Progress
    curves: Curves
    first: bool
    """Whether this process writes and shows."""
    say: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def tell(self, sentence: str) -> None:
        """Show what was assumed, once, and keep it for the page."""
        if self.first and sentence not in self.notes:
            self.say(sentence)
            self.notes.append(sentence)


def write_trained(found: Checkpoint, out: Path, work: Work) -> None:
    """Of ``train``."""
    first, last = found.figures["loss_first"], found.figures["loss_last"]
    title = f"Trained to tell {_listed(found.classes)} on {_original(found)}: loss {first:.3g} → {last:.3g}"
    figures = {"classes": list(found.classes), "trunk": found.arguments.get("trunk"), **found.figures}
    if (found.recipe.get("trunk"), found.recipe.get("start")) == ("auto", None) and pretrained_weights() is None:
        work.tell(
            "no trunk is named and the ImageNet weights of MobileNetV2 are not here, so a thin trunk learns from "
            f"scratch; name their file in {WEIGHTS_VARIABLE}"
        )
    save_checkpoint(found, out)
    _write(out, "train", title, figures, found, work)


def write_adapted(base: Checkpoint, found: Mapping[str, Adaptation], out: Path, work: Work) -> dict[str, Any]:
    """Of ``adapt``: a checkpoint that knows every line adapted to, each line's methods and health panel.

    Of an only line the methods are in ``out/methods`` and the panel is ``out/health.html``, of several both
    have a folder a line.

    Returns:
        ``lines``, by name the decisions, in the first process with the panel's verdict under ``health``; of an
        only line ``decision`` beside it.
    """
    said: dict[str, Any] = {"lines": {name: one.decision.document() for name, one in found.items()}}
    only = len(found) == 1
    if only:
        said = {"decision": next(iter(said["lines"].values())), **said}
    if not work.first:
        return said
    whole = next(iter(found.values())).chosen if only else _of_all(base, found)
    save_checkpoint(whole, out)
    words, notes = [], []
    for name, one in found.items():
        for method, checkpoint in one.methods.items():
            save_checkpoint(checkpoint, out / "methods" / (method if only else f"{name}/{method}"))
        verdict = write_health(one, out if only else out / "health" / name, name=name).verdict
        said["lines"][name] = {**said["lines"][name], "health": {"verdict": verdict.word, "why": verdict.why}}
        method = one.decision.method
        words.append(f"{name} {NAMES.get(method, 'by ' + method)}, {verdict.word}")
        place = "health.html" if only else f"health/{name}/health.html"
        notes.append(f"Line {name}: {verdict.why} ({place})")
    tables = tuple(_decision_table(name, one) for name, one in found.items())
    work.notes += notes
    _write(out, "adapt", f"Adapted without a label: line {'; line '.join(words)}", said, whole, work, tables)
    return said


def _of_all(base: Checkpoint, found: Mapping[str, Adaptation]) -> Checkpoint:
    """The source with all lines: what a method changed of its weights becomes the line's own."""
    weights = base.network.state_dict()
    for name, one in found.items():
        own = {
            key: tensor.detach().clone()
            for key, tensor in one.chosen.network.state_dict().items()
            if tensor.is_floating_point() and not torch.equal(tensor, weights[key])
        }
        state = one.chosen.line(name)
        base = base.with_line(name, replace(state, statistics={**own, **state.statistics}))
    return base


def write_retrained(found: Checkpoint, strategy: str, counts: Mapping[str, int], out: Path, work: Work) -> None:
    """Of ``retrain``."""
    words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    title = f"Retrained by {strategy}{': ' if words else ''}{words}"
    save_checkpoint(found, out)
    held = {name: found.figures[name] for name in BORNE if name in found.figures}
    said = {"strategy": strategy, "answers": dict(counts), **held}
    if held:
        work.notes.append(in_words(**held))
    _write(out, "retrain", title, said, found, work)


def write_transferred(found: Transfer, out: Path, name: str, said: Mapping[str, Any], work: Work) -> None:
    """Of ``transfer``; of several methods each is in ``out/methods``."""
    save_checkpoint(found.chosen, out)
    if len(found.methods) > 1:
        for method, checkpoint in found.methods.items():
            save_checkpoint(checkpoint, out / "methods" / method)
    tables: tuple[Table, ...] = ()
    if found.choice is not None:
        rows = tuple((f"{m} ✓" if m == found.method else m, score) for m, score in found.choice.auroc.items())
        tables = (Table("What the audit saw", ("method", "AUROC"), rows, found.choice.why),)
    title = f"Line {name} from {said['normals']} normals, by {found.method}"
    _write(out, "transfer", title, said, found.chosen, work, tables)


def write_evaluated(found: Evaluation, model: Checkpoint, out: Path, work: Work) -> None:
    """Of ``evaluate``: also ``evaluation.json``, the figures alone, and the arrays they were computed from."""
    figures = {name: dict(one) for name, one in found.figures.items()}
    save_arrays(found, out)
    write_atomic(out / "evaluation.json", json.dumps(figures, indent=1).encode() + b"\n")
    table = Table(
        "Figures of the test pictures",
        ("line", "AP", "from", "to", "AUROC", "precision", "recall", "pictures", "by"),
        tuple((name, *(one[measure] for measure in MEASURES)) for name, one in figures.items()),
        "AP with its 95 % bootstrap interval over groups; precision and recall at the decision boundary.",
    )
    shots = {
        name: worst(one, model.lines.get(name, model.line("original")).thresholds)
        for name, one in found.judged.items()
    }
    said = {
        "lines": figures,
        "worst": {
            name: [{"image": s.name, "what": s.what, "confidence": round(s.confidence, 4)} for s in some]
            for name, some in shots.items()
        },
    }
    known = [f"{one['ap']:.2f} on the line {name}" for name, one in figures.items() if one["ap"] is not None]
    title = f"Average precision {', '.join(known)}" if known else "Nothing to measure on these pictures"
    page = Page(title, "evaluate", _facts(model, work), tuple(work.notes), {}, (table,), shots)
    _write_files(out, page, "evaluate", said, work)


def figures_in_words(line: str, figures: Mapping[str, Any]) -> str:
    """One line's figures as a sentence."""
    if figures["ap"] is None:
        return f"{line}: {figures['n']} pictures, nothing to measure on them"
    low, high = figures["ap_low"], figures["ap_high"]
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    left_out = figures.get("left_out")
    seen = f"; {left_out} pictures that the model was made of are left out" if left_out else ""
    strange = f"; {figures['strange']}" if figures.get("strange") else ""
    return (
        f"{line}: AP {figures['ap']:.3f}{interval}, precision {figures['precision']:.2f}, "
        f"recall {figures['recall']:.2f} ({figures['unit']} of {figures['n']} pictures{seen}){strange}"
    )


def _write(
    out: Path,
    command: str,
    title: str,
    figures: Mapping[str, Any],
    checkpoint: Checkpoint,
    work: Work,
    tables: tuple[Table, ...] = (),
) -> None:
    curves = work.curves.document()
    page = Page(title, command, _facts(checkpoint, work), tuple(work.notes), curves, tables)
    _write_files(out, page, command, {**figures, "curves": curves}, work)


def _write_files(out: Path, page: Page, command: str, figures: Mapping[str, Any], work: Work) -> None:
    """Both, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    said = {"command": command, **figures, "took_s": round(time.monotonic() - work.began, 1)}
    write_atomic(out / "figures.json", json.dumps(said, indent=1, ensure_ascii=False).encode() + b"\n")
    write_page(page, out / "page.html")


def _facts(checkpoint: Checkpoint, work: Work) -> dict[str, Any]:
    data, recipe, spec = checkpoint.data, checkpoint.recipe, checkpoint.preprocess
    new = data.get("gap") and f"the same behind the gap {data['gap']}"
    return {
        "pictures": ", ".join(str(path) for path in work.config.data),
        "trained on": f"{data.get('root')}, {data.get('pictures')} pictures",
        "original line": _original(checkpoint),
        "new line": new or "; ".join(", ".join(one) for one in data.get("new", ())) or "none",
        "classes": ", ".join(checkpoint.classes),
        "network": f"{checkpoint.arguments.get('trunk', '?')}, input {spec.width} × {spec.height}, "
        f"cells of {checkpoint.cell_px} pixels",
        "recipe": ", ".join(f"{name} {value}" for name, value in recipe.items()),
        "device": work.config.device,
        "lines known": ", ".join(f"{name} ({state.method})" for name, state in checkpoint.lines.items()),
        "took": f"{time.monotonic() - work.began:.0f} s",
    }


def _original(checkpoint: Checkpoint) -> str:
    return ", ".join(checkpoint.data.get("original", ())) or "the original line"


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _decision_table(line: str, found: Adaptation) -> Table:
    decision = found.decision
    facts = {method: asdict(one) for method, one in decision.facts.items()}
    heads = tuple(name.replace("_", " ") for name in next(iter(facts.values()), {}))
    rows = tuple(
        (f"{method} ✓" if method == decision.method else method, *one.values()) for method, one in facts.items()
    )
    return Table(f"What the rules saw on the line {line}", ("method", *heads), rows, decision.why)
