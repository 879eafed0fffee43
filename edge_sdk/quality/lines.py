"""Which pictures stand for the original line and which for the new one, and who may see their truth."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import ConfigError, DatasetError, TruthWithheld
from edge_sdk.quality.parts import SHARES, dealt, halves
from edge_sdk.quality.pictures import picture_size, read_mask
from edge_sdk.quality.samples import Box, Dataset, Sample, withheld

__all__ = ["DEFAULT_GAP", "Line", "Lines", "Truth", "lines_of"]

DEFAULT_GAP = "lamp"
"""What makes the new line where a set has one domain only."""


@dataclass(frozen=True)
class Truth:
    """What is known of one picture."""

    healthy: bool | None
    """``None``: the label is no truth at all."""
    mask: npt.NDArray[np.uint8] | None
    """``(H, W)``, 0 healthy, ``k + 1`` class ``k``; ``None`` where the map is not known."""
    known: bool
    """Whether ``mask`` is truth everywhere."""
    class_id: int | None = None
    """Of the picture's label; ``None`` of a healthy or ignored one."""


@dataclass(frozen=True)
class Line:
    """The pictures of one line, by part.

    Of the original line every part but test carries truth.  The new line's ``train`` is there to
    adapt to without labels, ``mentor`` is what its station streams and operators are asked about.
    """

    name: str
    gap: str | None
    """Transform that makes this line's pictures out of the files; ``None``: the files as they are."""
    train: tuple[Sample, ...]
    validate: tuple[Sample, ...]
    mentor: tuple[Sample, ...]
    test: tuple[Sample, ...]
    domains: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    empty_mask: str = "unknown"
    withheld: frozenset[str] = frozenset()
    """Names of the pictures whose truth is not handed out."""
    drawn: Mapping[str, tuple[Box, ...]] = field(default_factory=dict, repr=False)
    """Boxes by picture, of those whose truth is handed out."""

    def part(self, name: str) -> tuple[Sample, ...]:
        """``train``, ``validate``, ``mentor`` or ``test``.

        Raises:
            ConfigError: There is no such part.
        """
        if name not in ("train", "validate", "mentor", "test"):
            raise ConfigError(f"no part named {name}; there are train, validate, mentor and test")
        found: tuple[Sample, ...] = getattr(self, name)
        return found

    def truth(self, sample: Sample) -> Truth:
        """What is known of a picture.

        A healthy picture is known to be healthy everywhere.  A defective one without a mask has an
        unknown map, unless the set says that an empty mask is healthy; so has one whose mask is blank.

        Raises:
            TruthWithheld: The picture is of the part test, and this is no evaluation.
            DatasetError: The mask cannot be read or contradicts picture or label.
        """
        self._check_shown(sample)
        if sample.healthy is None:
            return Truth(healthy=None, mask=None, known=False)
        size = picture_size(sample.path)
        mask = read_mask(sample, size, classes=self.classes)
        if sample.healthy:
            return Truth(healthy=True, mask=np.zeros(size, np.uint8), known=True)
        class_id = self.classes.index(sample.label) if sample.label in self.classes else None
        if mask is None and self.empty_mask == "healthy":
            mask = np.zeros(size, np.uint8)
        elif mask is not None and not mask.any():
            mask = None
        return Truth(healthy=False, mask=mask, known=mask is not None, class_id=class_id)

    def boxes(self, sample: Sample) -> tuple[Box, ...] | None:
        """The boxes drawn on a picture; none on a healthy one; ``None`` where nobody has drawn any.

        Raises:
            TruthWithheld: The picture is of the part test, and this is no evaluation.
            DatasetError: A box is of a class that no picture is labelled with.
        """
        self._check_shown(sample)
        found = self.drawn.get(sample.image)
        if found is None:
            return () if sample.healthy else None
        for box in found:
            if box.label not in self.classes:
                raise DatasetError(
                    f"{sample.image} has a box of class {box.label!r}, but no picture is labelled so "
                    f"({', '.join(self.classes)}); spell it the same in labels.csv and boxes.csv"
                )
        return found

    def _check_shown(self, sample: Sample) -> None:
        if sample.image in self.withheld:
            raise TruthWithheld(
                f"the truth of {sample.image} is withheld, since the picture is in the part test; "
                "only an evaluation may ask (evaluating=True)"
            )


@dataclass(frozen=True)
class Lines:
    """The original line and one or more new ones."""

    original: Line
    new: tuple[Line, ...]
    notes: tuple[str, ...]
    """What was chosen, ignored or filled up, one sentence each: to be shown."""

    def line(self, name: str) -> Line:
        """A line by its name.

        Raises:
            ConfigError: There is no such line.
        """
        for line in (self.original, *self.new):
            if line.name == name:
                return line
        names = ", ".join(line.name for line in (self.original, *self.new))
        raise ConfigError(f"no line named {name}; there are {names}")


def lines_of(
    dataset: Dataset,
    *,
    original: str | Sequence[str] | None = None,
    new: Sequence[str] | None = None,
    gap: str | None = None,
    gap_on: str = "new",
    seed: int = 0,
    evaluating: bool = False,
    shares: Sequence[float] = SHARES,
    fold: tuple[int, int] | None = None,
) -> Lines:
    """Give every domain its role and deal its pictures into parts.

    Without ``original`` and ``new`` the set's own roles count, else the domain with most labelled
    pictures is the original line and the next one the new; of one domain, the new line is the same
    domain behind ``gap``.  Then train is halved between the lines, mentor belongs to the new one, and
    validate and test are shown by both, so that a comparison is paired.

    Args:
        dataset: As read.
        original: Domains of the original line, a list or separated by commas.
        new: One entry a new line, domains separated by commas.
        gap: Transform that makes the new line out of the original domains.
        gap_on: ``new``: the new line stands behind the gap; ``original``: the original line does, and the new one
            shows the files as they are.  The colour-gap paper tells its direction both ways.
        seed: Of the dealing.
        evaluating: Hand out the truth of the part test.  Training never does.
        shares: Of train, validate, mentor and test.
        fold: ``(k, K)`` for cross-fitting.

    Raises:
        ConfigError: A domain is unknown or has two roles, ``new`` and ``gap`` are both given, or ``gap_on`` names
            no line.
        DatasetError: The original line has no defect, or nothing that shows what healthy looks like.
    """
    if gap_on not in ("new", "original"):
        raise ConfigError(f"gap_on is {gap_on!r}; give new or original, the line that stands behind the gap")
    old, news, gap, how = _roles(
        dataset, _split_commas(original), [_split_commas(one) for one in new or ()], gap
    )
    _check_trainable(dataset, old)
    parts, notes = dealt(dataset, seed=seed, shares=shares, fold=fold)
    hidden = frozenset() if evaluating else frozenset(name for name, part in parts.items() if part == "test")

    def line(name: str, domains: tuple[str, ...], behind: str | None) -> Line:
        by_part: dict[str, list[Sample]] = {"train": [], "validate": [], "mentor": [], "test": []}
        for sample in dataset.samples:
            part = parts[sample.image]
            # a picture without a truth can be streamed and adapted to, and nothing else
            useful = sample.healthy is not None or (name != "original" and part in ("train", "mentor"))
            if sample.domain in domains and useful:
                by_part[part].append(withheld(sample) if sample.image in hidden else sample)
        return Line(
            name=name,
            gap=behind,
            domains=domains,
            classes=dataset.classes,
            empty_mask=dataset.empty_mask,
            withheld=hidden,
            drawn={image: boxes for image, boxes in dataset.boxes.items() if image not in hidden},
            **{part: tuple(samples) for part, samples in by_part.items()},
        )

    behind = {gap_on: gap}
    first = line("original", old, behind.get("original"))
    if gap is None:
        names = ["new"] + [f"new{number}" for number in range(2, len(news) + 1)]
        others = [line(name, domains, None) for name, domains in zip(names, news, strict=False)]
    else:
        second = line("new", old, behind.get("new"))
        kept, given = halves(second.train, seed=seed)
        if {s.unit for s in kept} & {s.unit for s in given}:
            notes = (
                *notes,
                "train has too few groups to halve, so both lines have pictures of one group (never the same)",
            )
        first = replace(first, train=tuple(s for s in kept if s.healthy is not None), mentor=())
        others = [replace(second, train=given)]
    if gap is not None and gap_on == "original":
        how = f"original line: {', '.join(old)} behind the gap {gap}; new line: the same pictures as they are"
    return Lines(original=first, new=tuple(others), notes=(how, *dataset.notes, *notes))


Domains = tuple[str, ...]


def _split_commas(given: str | Sequence[str] | None) -> Domains:
    words = [given] if isinstance(given, str) else list(given or ())
    return tuple(part.strip() for word in words for part in word.split(",") if part.strip())


def _roles(
    dataset: Dataset, original: Domains, new: Sequence[Domains], gap: str | None
) -> tuple[Domains, list[Domains], str | None, str]:
    """Domains of the original line, of each new line, the gap if any, and the sentence that says so."""
    news = [one for one in new if one]
    if news and gap:
        raise ConfigError(
            f"--new {','.join(news[0])} and --gap {gap} both make the new line; give one of the two"
        )
    said = "as asked"
    if not original:
        if "original" in dataset.roles:
            original, said = dataset.roles["original"][0], "as the set proposes"
        else:
            original, said = (_by_labels(dataset, ())[0],), "it has most labelled pictures"
        original = (
            tuple(domain for domain in original if domain not in {d for one in news for d in one}) or original
        )
    if not news and not gap:
        proposed = [one for one in dataset.roles.get("new", ()) if not set(one) & set(original)]
        rest = _by_labels(dataset, original)
        news = list(proposed) or ([(rest[0],)] if rest else [])
        gap = None if news else DEFAULT_GAP
    for domain in (*original, *(domain for one in news for domain in one)):
        _check_domain(dataset, domain)
    used: dict[str, str] = {}
    for name, domains in [
        ("the original line", original),
        *((f"new line {n + 1}", d) for n, d in enumerate(news)),
    ]:
        for domain in domains:
            if used.setdefault(domain, name) != name:
                raise ConfigError(
                    f"domain {domain} is given to {used[domain]} and to {name}; give it to one of the two"
                )
    second = f"the same pictures behind the gap {gap}" if gap else "; ".join(", ".join(one) for one in news)
    return original, news, gap, f"original line: {', '.join(original)} ({said}); new line: {second}"


def _by_labels(dataset: Dataset, without: Iterable[str]) -> list[str]:
    """Domains by number of labelled pictures, most first; of equals in order of name."""
    left = [domain for domain in dataset.domains if domain not in set(without)]
    labelled = {
        domain: sum(s.healthy is not None for s in dataset.samples if s.domain == domain) for domain in left
    }
    return sorted(left, key=lambda domain: (-labelled[domain], domain))


def _check_domain(dataset: Dataset, domain: str) -> None:
    if domain not in dataset.domains:
        near = difflib.get_close_matches(domain, dataset.domains, 1, 0.5)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(dataset.domains)}"
        raise ConfigError(f"{dataset.root} has no domain named {domain}; {advice}")


def _check_trainable(dataset: Dataset, original: Domains) -> None:
    samples = [sample for sample in dataset.samples if sample.domain in original]
    labels = ", ".join(sorted({sample.label for sample in samples if sample.label})) or "none"
    if not any(sample.healthy is False for sample in samples):
        raise DatasetError(
            f"{dataset.root} has no defective picture on the original line (labels: {labels}); label some, "
            "or say in dataset.yaml which labels are healthy"
        )
    if not any(sample.healthy or sample.mask or sample.image in dataset.boxes for sample in samples):
        raise DatasetError(
            f"{dataset.root} has neither a healthy picture nor a mask on the original line "
            f"(labels: {labels}), so nothing shows what healthy looks like; add some, or say in dataset.yaml "
            "which labels are healthy"
        )
