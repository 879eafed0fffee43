"""Train, adapt, retrain and evaluate as four calls on a ``Config``: what the commands do, for notebooks and programs.

    from training.api import Config, adapt, evaluate, train

    config = Config(data="pictures", gap="lamp", trunk="slim")
    source = train(config)
    adapted = adapt(config, source)
    print(evaluate(adapted.chosen, config).figures)

The modules of the same names hold the work itself, on data sets and lines that one has made oneself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Dataset, Lines
from training import adapt as _adapt
from training import evaluate as _evaluate
from training import retrain as _retrain
from training import train as _train
from training.adapt import Adaptation
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.config import Config, config_of
from training.data.boxes import BoxViews
from training.data.views import Views
from training.detector import FACTORY as DETECTOR
from training.detector import train_detector
from training.detector_evaluate import evaluate_detector
from training.detector_retrain import SHIPPED_FOR_BOXES, retrain_detector
from training.evaluate import Evaluation
from training.recipe import Recipe
from training.retrain import Mentored, read_mentored
from training.scorers.evaluate import evaluate_scorer
from training.scorers.network import FACTORY as SCORER
from training.strategies import SHIPPED, SHIPPED_WITH_FLAGS
from training.taught import teaching_no_tile
from training.team import Team, at_work
from training.train import Progress, quiet

__all__ = [
    "Adaptation",
    "Checkpoint",
    "Config",
    "Evaluation",
    "Recipe",
    "adapt",
    "adapt_all",
    "config_of",
    "evaluate",
    "load_checkpoint",
    "retrain",
    "save_checkpoint",
    "shipped_for",
    "train",
    "working",
]

Model = Checkpoint | Path | str
"""A checkpoint, or its folder."""
Tell = Callable[[str], None]


def _nobody(sentence: str) -> None:
    """Nobody is told."""


def train(
    config: Config, *, resume: Path | None = None, progress: Progress = quiet, tell: Tell = _nobody
) -> Checkpoint:
    """Train for the original line.

    Args:
        config: Data, roles, recipe and device.
        resume: File that keeps the state of a training under way; one that is there is gone on from.
        progress: Told of every step.
        tell: Told what was assumed about the pictures, a sentence each.

    Raises:
        ConfigError: Data, roles or device are not there.
        DatasetError: The pictures do not allow it.
    """
    with working(config):
        recipe = config.recipe()
        dataset, lines = config.lines(seed=recipe.seed)
        _say(lines, tell)
        if recipe.head == "anchors":
            return train_detector(dataset, lines, recipe, resume=resume, progress=progress)
        return _train.train(dataset, lines, recipe, resume=resume, progress=progress)


def adapt(
    config: Config,
    source: Model | None = None,
    *,
    resume: Path | None = None,
    progress: Progress = quiet,
    tell: Tell = _nobody,
) -> Adaptation:
    """Adapt to one new line without labels; the label-free rules decide whether and how, unless a method is named.

    Args:
        config: ``line`` says which new line, where there are several.
        source: Model of the original line; without it one is trained first.
        resume: As in ``train``.
        progress: Told of every step.
        tell: As in ``train``.

    Raises:
        ConfigError: There are several new lines and none is named.
    """
    with working(config):
        base = train(config, resume=resume, progress=progress) if source is None else _loaded(source)
        _check_cells(base)
        dataset, lines, recipe = _on(base, config, tell)
        names = [one.name for one in lines.new]
        if config.line is None and len(names) > 1:
            raise ConfigError(f"there are {len(names)} new lines ({', '.join(names)}); name one: line={names[0]!r}")
        return _adapted(base, dataset, lines, recipe, config, config.line or names[0], resume, progress)


def adapt_all(
    config: Config, source: Model, *, resume: Path | None = None, progress: Progress = quiet, tell: Tell = _nobody
) -> dict[str, Adaptation]:
    """Adapt to every new line, or to the one that is named; each from the source, so each has an engine of its own.

    Returns:
        By line.
    """
    with working(config):
        base = _loaded(source)
        _check_cells(base)
        dataset, lines, recipe = _on(base, config, tell)
        names = [one.name for one in lines.new] if config.line is None else [config.line]
        return {
            name: _adapted(base, dataset, lines, recipe, config, name, _beside(resume, name, names), progress)
            for name in names
        }


def retrain(
    config: Config,
    baseline: Model,
    *,
    mentored: Mentored | Views | BoxViews | Path | str | None = None,
    resume: Path | None = None,
    progress: Progress = quiet,
    tell: Tell = _nobody,
) -> Checkpoint:
    """Train on with operators' answers, as ``config.strategy`` says.

    Args:
        config: ``line`` says which line was mentored, ``new`` without it.
        baseline: The deployed model that they were asked about.
        mentored: The folder that a hub exported, what is read from it, or pictures with what is known of
            them; without it ``config.mentored``.
        resume: As in ``train``.
        progress: Told of every step.
        tell: As in ``train``.

    Raises:
        DatasetError: The strategy needs answers, and there are none.
    """
    with working(config):
        base = _loaded(baseline)
        if base.factory == SCORER:
            raise ConfigError(
                "the checkpoint is a scorer of good parts, which learns from no answers; train a model of cells on the "
                "answered pictures: python -m training train"
            )
        _, lines, recipe = _on(base, config, tell)
        given = config.mentored if mentored is None else mentored
        taught = read_mentored(Path(given)) if isinstance(given, (str, Path)) else given
        if isinstance(taught, Mentored) and (untaught := teaching_no_tile(base, taught)):
            tell(
                f"{untaught} pictures were confirmed as a whole, and nothing says in which of their tiles the defect "
                "is: they teach nothing; answer the questions about places where there are any"
            )
        if base.factory == DETECTOR:
            return retrain_detector(
                base,
                lines,
                recipe,
                mentored=taught,  # type: ignore[arg-type]  # what a detector is taught by is its caller's to know
                strategy=config.strategy or shipped_for(base, taught),
                name=config.line or "new",
                resume=resume,
                progress=progress,
            )
        return _retrain.retrain(
            base,
            lines,
            recipe,
            mentored=taught,  # type: ignore[arg-type]  # as above
            strategy=config.strategy or shipped_for(base, taught),
            name=config.line or "new",
            resume=resume,
            progress=progress,
        )


def evaluate(model: Model, data: Config | Path | str, *, progress: Progress = quiet) -> Evaluation:
    """Judge the test pictures of all lines, each with its own statistics.

    Args:
        model: A checkpoint, or its folder.
        data: Config, or a folder of pictures; roles and parts are those of the checkpoint's training where
            none are named.
        progress: Told of every picture.
    """
    config = data if isinstance(data, Config) else Config(data=(Path(data),))
    with working(config):
        base = _loaded(model)
        if base.factory == SCORER:
            return Evaluation({"original": evaluate_scorer(base, config.data, progress=progress)}, {})
        _, lines, _ = _on(base, config, evaluating=True)
        if base.factory == DETECTOR:
            return Evaluation(evaluate_detector(base, lines, progress=progress), {})
        return _evaluate.evaluate(base, lines, progress=progress)


def shipped_for(model: Checkpoint, taught: object = None) -> str:
    """The strategy that ``retrain`` takes where nobody names one; what a line flagged healthy is taken at its word."""
    if model.factory == DETECTOR:
        return SHIPPED_FOR_BOXES
    flagged = isinstance(taught, Mentored) and any(row.header.reason == "healthy" for row in taught.rows)
    return SHIPPED_WITH_FLAGS if flagged else SHIPPED


@contextmanager
def working(config: Config) -> Iterator[Team]:
    """On the device and with the threads of a config, and under ``torchrun`` with the other processes."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    with at_work(config.device, dtype=config.dtype) as together:
        yield together


def _loaded(model: Model) -> Checkpoint:
    return model if isinstance(model, Checkpoint) else load_checkpoint(Path(model))


def _on(
    base: Checkpoint, config: Config, tell: Tell = _nobody, *, evaluating: bool = False
) -> tuple[Dataset, Lines, Recipe]:
    """Pictures and recipe as the checkpoint remembers them, except for what was asked for."""
    recipe = config.recipe(base.recipe)
    dataset, lines = config.lines(base.data, seed=recipe.seed, evaluating=evaluating)
    lines = _in_classes_of(base, dataset, lines)
    _say(lines, tell)
    return dataset, lines, recipe


def _in_classes_of(base: Checkpoint, dataset: Dataset, lines: Lines) -> Lines:
    """The lines with the model's classes, of which a folder may show some only; of one class, any defect is meant."""
    strange = sorted(set(dataset.classes) - set(base.classes))
    if not strange or len(base.classes) == len(dataset.classes) == 1:
        names = dataset.classes if strange else base.classes
        new = tuple(replace(line, classes=names) for line in lines.new)
        return replace(lines, original=replace(lines.original, classes=names), new=new)
    raise DatasetError(
        f"{dataset.root} has pictures labelled {', '.join(strange)}, but the model knows {', '.join(base.classes)}; "
        "train one that knows them too, or list them under ignore in dataset.yaml"
    )


def _say(lines: Lines, tell: Tell) -> None:
    for note in lines.notes:
        tell(note)


def _check_cells(base: Checkpoint) -> None:
    if base.factory == SCORER:
        raise ConfigError(
            "the checkpoint is a scorer of good parts, which is not adapted; fit one on the new line's good parts: "
            "python -m training commission"
        )
    if base.factory == DETECTOR:
        raise ConfigError(
            "the checkpoint is a detector, which is not adapted without labels; let operators answer its boxes and "
            "retrain it"
        )


def _adapted(
    base: Checkpoint,
    dataset: Dataset,
    lines: Lines,
    recipe: Recipe,
    config: Config,
    name: str,
    resume: Path | None,
    progress: Progress,
) -> Adaptation:
    return _adapt.adapt(
        base, dataset, lines, recipe, methods=config.methods, name=name, resume=resume, progress=progress
    )


def _beside(resume: Path | None, name: str, names: list[str]) -> Path | None:
    if resume is None or len(names) == 1:
        return resume
    return resume.with_name(f"{resume.stem}.{name}{resume.suffix}")
