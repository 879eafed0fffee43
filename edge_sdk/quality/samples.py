"""The nouns of a labelled set of pictures: one picture, and the set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError, TruthWithheld

__all__ = ["DEFAULT_HEALTHY", "Box", "Dataset", "Sample", "require_masks", "withheld"]

DEFAULT_HEALTHY = ("good", "normal", "free", "functional", "ok", "healthy")
"""Labels that mean "no defect" where a set does not say; compared without regard to case."""


@dataclass(frozen=True)
class Sample:
    """One picture and what is said of it."""

    path: Path
    """Of the picture."""
    image: str
    """Its name in the set, a POSIX path; unique, and what every random choice is keyed by."""
    label: str
    """As written; empty where nothing is said."""
    mask: Path | None = None
    """8-bit, 0 healthy, 255 or class id defective, size of the picture."""
    domain: str = ""
    group: str | None = None
    """Pictures of one part share a group, and a group is never torn apart."""
    split: str | None = None
    """``train``, ``test`` or nothing."""
    probability: float | None = None
    """Of a defect, as annotated, in [0, 1]."""
    healthy: bool | None = None
    """``None``: the label is no truth at all (ignored, or nothing is said)."""
    bits: int = 16
    """How many bits of a 16-bit picture are used; an 8-bit picture has 8 whatever stands here."""

    @property
    def unit(self) -> str:
        """What is dealt as a whole: the group, or the picture alone."""
        return self.image if self.group is None else self.group


class _Withheld(Sample):
    """A picture whose truth raises when it is asked for."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("label", "mask", "probability", "healthy"):
            raise TruthWithheld(
                f"the truth of {object.__getattribute__(self, 'image')} is withheld, since the picture "
                "is in the part test; only an evaluation may ask (evaluating=True)"
            )
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        return f"Sample({self.image!r}, truth withheld)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sample) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)


def withheld(sample: Sample) -> Sample:
    """The same picture, of which label, mask, probability and healthy raise ``TruthWithheld``."""
    return _Withheld(
        path=sample.path,
        image=sample.image,
        label="",
        domain=sample.domain,
        group=sample.group,
        split=sample.split,
        bits=sample.bits,
    )


@dataclass(frozen=True)
class Box:
    """A drawn rectangle in picture pixels; right and bottom lie outside."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Dataset:
    """A labelled set of pictures, read but not yet dealt into parts."""

    root: Path
    """Of the (first) folder."""
    title: str
    licence: str
    samples: tuple[Sample, ...]
    """Sorted by name."""
    classes: tuple[str, ...]
    """The labels that are defects, sorted; a class's id in a mask is its place + 1."""
    healthy_labels: tuple[str, ...]
    empty_mask: str = "unknown"
    """What a *defective* picture without a mask is: ``unknown`` or ``healthy``."""
    roles: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """``original`` and ``new`` to lists of domains, as the set itself proposes them."""
    notes: tuple[str, ...] = ()
    """What was assumed while reading, one sentence each."""
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    """From ``boxes.csv``: a picture's name to its rectangles."""

    @property
    def domains(self) -> tuple[str, ...]:
        """All domains, sorted."""
        return tuple(sorted({sample.domain for sample in self.samples}))

    @property
    def has_masks(self) -> bool:
        """Whether any picture has a mask: figures are then of cells, else of pictures."""
        return any(sample.mask is not None for sample in self.samples)

    def class_id(self, label: str) -> int | None:
        """Place of a label among ``classes``; ``None`` for a healthy or ignored one."""
        return self.classes.index(label) if label in self.classes else None

    @cached_property
    def digest(self) -> str:
        """sha256 over the sorted list of (name, sha256) of pictures and masks, and what is said of them."""
        whole = hashlib.sha256()
        for sample in sorted(self.samples, key=lambda one: one.image):
            mask = "" if sample.mask is None else sha256_file(sample.mask)
            said = (sample.label, sample.domain, sample.group, sample.split, sample.healthy)
            whole.update(f"{sample.image}\t{sha256_file(sample.path)}\t{mask}\t{said}\n".encode())
            if sample.image in self.boxes:
                whole.update(f"{self.boxes[sample.image]}\n".encode())
        return whole.hexdigest()


def require_masks(dataset: Dataset) -> None:
    """Refuse a set of which a defective picture has no mask.

    Raises:
        DatasetError: Names the first such picture and how many there are.
    """
    bare = [sample for sample in dataset.samples if sample.healthy is False and sample.mask is None]
    if bare and dataset.empty_mask != "healthy":
        raise DatasetError(
            f"{bare[0].path} is defective and has no mask (as have {len(bare)} in all), but the recipe says "
            "`masks: required`; draw the masks, or say `masks: optional` to train on the picture's maximum"
        )
