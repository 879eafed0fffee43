"""The recipe that trains the networks which INT8 is judged on: on hot-rolled steel and on magnetic tiles, seeded.

    parts = parts_of(NETS["resnet18"], load_dataset(NETS["resnet18"].folder), seed=0)
    network = trained(NETS["resnet18"], parts.training, parts.classes, seed=0)

Steel is judged by its six defects, and three of those are segmented; tiles are judged healthy or defective.  Each takes
less than a minute of one core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.quantisation.networks import depthwise, resnet18, unet
from edge_sdk.arrays import Array, Floats, Image
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, Sample, deal, read_image, read_mask
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask, fitted
from edge_sdk.vision.preprocess import normalised as normalised_picture
from training.fitting import Terms, fit

__all__ = ["NETS", "SHARES", "Net", "Parts", "inputs_of", "parts_of", "small", "trained", "truth_of"]

SHARED = machine.ROOT.parent / "shared" / "data"
SHARES = (0.4, 0.3, 0.3)
"""Of a set's groups: trained on, calibrated on, and held out, which nothing but the figures sees."""

JUDGED = ("healthy", "defective")
"""What pictures are told apart by in a set that has healthy ones; in one that has none, by the kind of their defect."""
RARE = 5.0
"""What a defective pixel counts over a healthy one: they are few."""


@dataclass(frozen=True)
class Net:
    """One network, its pictures, and how long it is trained."""

    name: str
    title: str
    folder: Path
    """Of the set."""
    task: Literal["classify", "segment"]
    make: Callable[[Sequence[str]], nn.Module]
    """From the classes to the untrained network."""
    iterations: int
    side_px: int = 128
    """Of the square input."""
    crop_px: int | None = None
    """Training looks at squares of this side instead, three of four around a defect."""
    batch: int = 16
    rate: float = 2e-3

    @property
    def spec(self) -> PreprocessSpec:
        """What every picture goes through, in training, calibration and judging."""
        return PreprocessSpec(width=self.side_px, height=self.side_px)

    def knows(self, sample: Sample) -> bool:
        """Whether there is something to learn from a picture: a label, or of what is segmented a mask or no defect."""
        return (
            bool(sample.label) if self.task == "classify" else sample.mask is not None or bool(sample.healthy)
        )


NETS: Mapping[str, Net] = {
    net.name: net
    for net in (
        Net("resnet18", "ResNet-18", SHARED / "neu_steel", "classify",
            lambda classes: resnet18(classes=len(classes)), iterations=300, side_px=96),
        Net("hswish", "depthwise h-swish SE net", SHARED / "neu_steel", "classify",
            lambda classes: depthwise(classes=len(classes)), iterations=220, side_px=96, rate=4e-3),
        Net("unet", "U-Net", SHARED / "neu_steel", "segment",
            lambda _: unet(), iterations=450, rate=4e-3, crop_px=64, batch=8),
        Net("tile", "ResNet-18 on tiles", SHARED / "magnetic_tile", "classify",
            lambda classes: resnet18(classes=len(classes)), iterations=300),
    )
}  # fmt: skip


def small(net: Net) -> Net:
    """The same, trained for a moment on small pictures, for quick runs and tests."""
    return replace(net, iterations=12, side_px=64, crop_px=net.crop_px and 48, batch=8)


@dataclass(frozen=True)
class Parts:
    """Who sees what; no group is in two of them."""

    classes: tuple[str, ...]
    training: tuple[Sample, ...]
    calibrating: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


def parts_of(dataset: Dataset, *, seed: int) -> Parts:
    """Deal a set by whole groups; pictures of which nobody knows what they show are left out.

    Args:
        dataset: As read.
        seed: Of the dealing.
    """
    training, calibrating, held_out = SHARES
    part = deal(dataset, seed=seed, shares=(training, 0, calibrating, held_out), honour_split=False)
    known = [one for one in dataset.samples if one.healthy or (one.healthy is False and one.label)]
    lists = {
        name: tuple(one for one in known if part[one.image] == name) for name in ("train", "mentor", "test")
    }
    classes = JUDGED if any(one.healthy for one in known) else dataset.classes
    return Parts(classes, lists["train"], lists["mentor"], lists["test"])


def trained(
    net: Net,
    samples: Sequence[Sample],
    classes: Sequence[str],
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> nn.Module:
    """Train a network from scratch.

    Args:
        net: Of ``NETS``.
        samples: To train on; with masks where ``net`` segments.
        classes: K names, as ``parts_of`` found them.
        seed: Of weights and batches; equal seeds give equal weights on one machine.
        progress: Told of every step.

    Returns:
        In evaluation mode, on the CPU.

    Raises:
        DatasetError: There is no picture of which the truth is known.
    """
    torch.manual_seed(seed)
    network = net.make(classes)
    chance = np.random.default_rng([seed, 31])
    known = [(sample, truth) for sample in samples if (truth := truth_of(net, sample, classes)) is not None]
    if not known:
        raise DatasetError(
            f"none of the {len(samples)} pictures says what {net.title} learns; give labels or masks"
        )
    images = np.stack([fitted(read_image(sample), net.spec) for sample, _ in known])
    truths = np.stack([truth for _, truth in known])
    draw = _squares if net.crop_px else _whole

    def losses(_: float) -> Terms:
        shown, wanted = draw(net, images, truths, chance)
        return _terms(net, network(torch.from_numpy(shown)), wanted)

    fit(
        {"network": network},
        losses,
        iterations=net.iterations,
        rate=net.rate,
        weight_decay=0.01,
        averaging=0,
        chance=chance,
        progress=lambda done, of, _: progress(done, of),
        measure_every=0,
    )
    return network.eval()


def inputs_of(net: Net, sample: Sample) -> Floats:
    """``(1, 3, H, W)``, as the network takes it."""
    return normalised_picture(fitted(read_image(sample), net.spec), net.spec)


def truth_of(net: Net, sample: Sample, classes: Sequence[str]) -> Array | None:
    """What there is to learn: the class's number, or ``(H, W)`` the share of each input pixel that is defective.

    Returns:
        ``None`` where nobody knows.
    """
    if net.task == "classify":
        kind = JUDGED[not sample.healthy] if tuple(classes) == JUDGED else sample.label
        return np.array(list(classes).index(kind), np.int64) if kind in classes else None
    image = read_image(sample)
    mask = read_mask(sample, (image.shape[0], image.shape[1]))
    if mask is None:
        return np.zeros((net.side_px, net.side_px), np.float32) if sample.healthy else None
    return cells_of_mask(mask, net.spec, (net.side_px, net.side_px))


def _whole(net: Net, images: Image, truths: Array, chance: np.random.Generator) -> tuple[Floats, Tensor]:
    """A batch of whole pictures, turned and mirrored."""
    chosen = chance.integers(len(images), size=net.batch)
    shown = [normalised_picture(_turned(images[n], *_way(chance)), net.spec) for n in chosen]
    return np.concatenate(shown), torch.from_numpy(truths[chosen])


def _squares(net: Net, images: Image, truths: Array, chance: np.random.Generator) -> tuple[Floats, Tensor]:
    """A batch of squares out of pictures, three of four around a defective pixel, turned and mirrored."""
    side = net.crop_px or net.side_px
    spec = replace(net.spec, width=side, height=side)
    defective = np.flatnonzero(truths.max(axis=(1, 2)) > 0)
    shown, wanted = [], []
    for number in range(net.batch):
        around = number % 4 and len(defective)
        n = int(chance.choice(defective)) if around else int(chance.integers(len(images)))
        most = net.side_px - side
        top, left = (int(one) for one in chance.integers(most + 1, size=2))
        if around:
            rows, columns = np.nonzero(truths[n])
            at = int(chance.integers(len(rows)))
            top, left = (
                int(np.clip(one - chance.integers(side), 0, most)) for one in (rows[at], columns[at])
            )
        turns, mirrored = _way(chance)
        here = slice(top, top + side), slice(left, left + side)
        shown.append(normalised_picture(_turned(images[n][here], turns, mirrored), spec))
        wanted.append(_turned(truths[n][here], turns, mirrored))
    return np.concatenate(shown), torch.from_numpy(np.stack(wanted))


def _way(chance: np.random.Generator) -> tuple[int, bool]:
    return int(chance.integers(4)), bool(chance.integers(2))


def _turned(image: Array, turns: int, mirrored: bool) -> Array:
    found = np.rot90(image, turns)
    return np.ascontiguousarray(found[:, ::-1] if mirrored else found)


def _terms(net: Net, outputs: object, wanted: Tensor) -> Terms:
    cells = outputs["cells"] if isinstance(outputs, dict) else outputs.cells  # type: ignore[attr-defined]
    if net.task == "classify":
        return {"class": nn.functional.cross_entropy(cells[:, :, 0, 0], wanted, label_smoothing=0.05)}
    logits = cells[:, 0]
    sure = torch.sigmoid(logits)
    overlap = (2 * (sure * wanted).sum() + 1) / (sure.sum() + wanted.sum() + 1)
    pixels = nn.functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=torch.tensor(RARE))
    return {"pixels": pixels, "dice": 1 - overlap}
