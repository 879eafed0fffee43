"""Pretraining of a trunk on pictures without labels, best of a related defect set.

What comes out is a file of the trunk's weights that ``train --start FILE`` goes on from.  CoRe learns by contrast and
by restoration; the other objectives are what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.arrays import Array, Bools, Image
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import deal, read_image
from edge_sdk.quality.layouts import read_folder
from edge_sdk.vision.preprocess import PreprocessSpec, fitted
from training.data.streams import jittered
from training.data.views import normalised
from training.fitting import Terms, fit
from training.losses.pretraining import (
    contrast_of_views,
    masked_restoration,
    restoration,
    similarity_of_views,
)
from training.networks.mobilenet import MobileNetV2
from training.networks.resnet import ResNet18
from training.recipe import Recipe
from training.statistics import estimated
from training.team import team
from training.train import Progress, quiet
from training.trunk_file import save_trunk
from training.trunks import start_of_pretraining

__all__ = ["LEAST", "OBJECTIVES", "Objective", "Pretrained", "pictures_of", "pretrain"]

Objective = Literal["core", "contrastive", "restorative", "simsiam", "masked"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
ROW = 128
"""Width of what views are compared by."""
LAMBDA, FADED = 0.3, 0.5
"""Weight of CoRe's contrast at first, and the share of the steps after which there is none left, so that the trunk
ends with what restoring hidden patches needs; ours, tried on three seeds from 100 on."""
LEAST = 8
"""Pictures: views of fewer tell each other apart by anything."""
CROP = (0.5, 1.0)
"""Share of a picture's side that a view shows: smaller ones lose the defect."""
CUTOUT = 0.12
"""Side of what is cut out of a distorted view, share of its side: below most defects' size."""
SHUFFLED = 8
"""Pixels of a block whose pixels are shuffled."""
PATCH, HIDDEN = 16, 0.5
"""Pixels of a masked patch's side, and the share of patches."""

@dataclass(frozen=True, eq=False)
class Pretrained:
    """A trunk that has seen pictures, and how."""

    trunk: ResNet18 | MobileNetV2
    arguments: Mapping[str, Any]
    """``trunk``, ``width`` and ``stages`` among others, as the network's factory takes them."""
    objective: str
    pictures: int
    digest: str
    """sha256 of the pictures."""
    history: tuple[Mapping[str, float], ...]

    def save(self, path: Path) -> None:
        """Write what ``train --start`` goes on from."""
        facts = {"objective": self.objective, "pictures": str(self.pictures), "digest": self.digest}
        own = self.arguments
        save_trunk(self.trunk, path, name=own["trunk"], width=own["width"], stages=own["stages"], told=facts)


def pretrain(
    images: Image,
    spec: PreprocessSpec,
    recipe: Recipe,
    *,
    objective: Objective = "core",
    scratch: bool = False,
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Pretrained:
    """Pretrain a trunk: the slim one unless the recipe names another, or a file to go on from.

    - ``masked``: half of the patches are hidden and restored.
    - ``core``: ``L = lambda(s) L_con + L_res``, ``lambda(s) = 0.3 max(0, 1 - 2 s)`` at the share s of the steps; both
      see the views with hidden patches, and L_res is that of ``masked``.
    - ``contrastive``: L_con alone, ``restorative``: restoration alone, both of views that are distorted a little.
    - ``simsiam``: similarity of such views, without negatives.

    Two views of a picture are crops of at least half its side, turned and under jittered light.  Distorted a little is
    blurred, noisy, with a square cut out that is smaller than most defects and pixels of small blocks shuffled.
    Restored is the view before that, by a decoder without skips, which would copy it.

    Args:
        images: ``(N, H, W, 3)`` uint8 at the network's size, at least ``LEAST``; no labels.
        spec: Of the network's input.
        recipe: Trunk, start, width, stages, iterations, batch, rate and seed.
        objective: One of ``OBJECTIVES``.
        scratch: As of ``training.trunks.start_of_pretraining``.
        resume: As in ``train``.
        progress: Told of every step.

    Raises:
        ConfigError: There is no such objective, several processes work together, or the weights to begin with are
            not there.
        DatasetError: There are too few pictures.

    Reference:
        CoRe: Wu, Li, Tian, Sun, Dong, Liao, Contrastive and restorative self-supervised learning for surface defect
        inspection, IEEE TIM 2023 (abstract; formulas after DiRA, Haghighi et al., CVPR 2022).
    """
    if objective not in OBJECTIVES:
        raise ConfigError(f"there is no objective named {objective!r}; give one of {', '.join(OBJECTIVES)}")
    if team().size > 1:
        raise ConfigError("pretrain works in one process; start it without torchrun")
    if len(images) < LEAST:
        raise DatasetError(f"{len(images)} pictures are too few to pretrain on; give {LEAST} or more, better 200")
    start = start_of_pretraining(recipe, scratch=scratch)
    trunk: Any = start.network(recipe.seed).trunk
    pretext = _Pretext(trunk)
    chance = np.random.default_rng([recipe.seed, 15])
    batch = min(recipe.batch, len(images))

    def losses(done: float) -> Terms:
        chosen = chance.permutation(len(images))[:batch]
        whole = np.stack([_view(images[n], chance) for n in (*chosen, *chosen)])  # two views of each
        if objective in ("core", "masked"):
            hidden = np.stack([_hidden(view, chance) for view in whole])
            seen = np.where(hidden[..., None], np.uint8(127), whole)
            where = torch.from_numpy(hidden[:, None].astype(np.float32))
            weight = LAMBDA * max(0.0, 1 - done / FADED) if objective == "core" else 0.0
            return pretext.uncovered(normalised(seen, spec), normalised(whole, spec), where, weight)
        seen = np.stack([_distorted(view, chance) for view in whole])
        return pretext.terms(normalised(seen, spec), normalised(whole, spec), objective)

    digest = sha256_hex(np.ascontiguousarray(images).tobytes())
    history = fit(
        {"network": pretext},
        losses,
        iterations=recipe.iterations,
        rate=recipe.rate,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=resume,
        told=f"pretrain {objective} {recipe.model_dump_json()} {digest}",
        progress=lambda step, steps, terms: progress("pretrain", step, steps, terms),
        measure_every=0,
    )
    pieces = [normalised(piece, spec) for piece in np.array_split(images, max(1, round(len(images) / 32)))]
    trunk.load_state_dict(estimated(trunk, pieces), strict=False)
    return Pretrained(trunk, start.arguments, objective, len(images), digest, tuple(history))


def pictures_of(folders: Sequence[Path], recipe: Recipe) -> tuple[Image, PreprocessSpec]:
    """All pictures of some sets but those of their parts test, as a square network's input sees them.

    Args:
        folders: A set each, as ``load_dataset`` takes it, or pictures and nothing else.
        recipe: Side of the input, and the seed that parts are dealt by.

    Raises:
        DatasetError: A folder holds no set.
    """
    half = (0.5, 0.5, 0.5)
    side = max(32, 32 * round(recipe.side_px / 32))
    spec = PreprocessSpec(width=side, height=side, mean=half, std=half)
    found = []
    for folder in folders:
        dataset = read_folder(folder, unlabelled=True)
        parts = deal(dataset, seed=recipe.seed)
        found += [fitted(read_image(one), spec) for one in dataset.samples if parts.get(one.image) != "test"]
    if not found:
        raise DatasetError("no picture is given to pretrain on; give one or more folders")
    return np.stack(found), spec


class _Pretext(nn.Module):
    """The trunk with what its objectives need above it, none of which is kept."""

    def __init__(self, trunk: ResNet18 | MobileNetV2) -> None:
        super().__init__()
        self.trunk = trunk
        width = trunk.channels
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, ROW))
        self.predictor = nn.Sequential(nn.Linear(ROW, ROW // 2), nn.ReLU(), nn.Linear(ROW // 2, ROW))
        layers: list[nn.Module] = []
        stride = trunk.stride
        while stride > 1:
            narrow = max(8, width // 2)
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, narrow, 3, 1, 1), nn.ReLU()]
            width, stride = narrow, stride // 2
        self.decoder = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, 1, 1))

    def uncovered(self, seen: Tensor, whole: Tensor, hidden: Tensor, weight: float) -> Terms:
        """Of 2B pictures with hidden places, second views after first ones; ``weight`` is the contrast's."""
        maps = self.trunk(seen)
        terms = {"restoration": masked_restoration(self.decoder(maps), whole, hidden)}
        if weight:
            terms["contrast"] = weight * contrast_of_views(*self.projector(maps.mean((2, 3))).chunk(2))
        return terms

    def terms(self, seen: Tensor, whole: Tensor, objective: str) -> Terms:
        """Of 2B pictures distorted a little, second views after first ones."""
        maps = self.trunk(seen)
        if objective == "restorative":
            return {"restoration": restoration(self.decoder(maps), whole)}
        one, other = self.projector(maps.mean((2, 3))).chunk(2)
        if objective == "simsiam":
            return {"simsiam": similarity_of_views(one, other, self.predictor(one), self.predictor(other))}
        return {"contrast": contrast_of_views(one, other)}


def _view(image: Image, chance: np.random.Generator) -> Image:
    """A crop at the picture's size, turned and under jittered light; no hue, where a colour is the defect."""
    height, width = image.shape[:2]
    share = chance.uniform(*CROP)
    rows, columns = max(2, round(height * share)), max(2, round(width * share))
    top, left = int(chance.integers(height - rows + 1)), int(chance.integers(width - columns + 1))
    view: Array = cv2.resize(image[top : top + rows, left : left + columns], (width, height))
    if chance.random() < 0.5:
        view = view[:, ::-1]
    if chance.random() < 0.5:
        view = view[::-1]
    return jittered(np.ascontiguousarray(view), chance, hue=0.0)


def _distorted(view: Image, chance: np.random.Generator) -> Image:
    found: Array = view.astype(np.float32)
    if chance.random() < 0.5:
        found = cv2.GaussianBlur(found, (0, 0), chance.uniform(0.4, 1.0))
    found = found + chance.normal(0, chance.uniform(0, 10), found.shape)
    side = max(2, round(CUTOUT * min(view.shape[:2])))
    top, left = (int(chance.integers(length - side + 1)) for length in view.shape[:2])
    found[top : top + side, left : left + side] = chance.uniform(0, 255)
    for _ in range(4):
        top, left = (int(chance.integers(length - SHUFFLED + 1)) for length in view.shape[:2])
        block = found[top : top + SHUFFLED, left : left + SHUFFLED].reshape(-1, 3)
        found[top : top + SHUFFLED, left : left + SHUFFLED] = chance.permutation(block).reshape(SHUFFLED, SHUFFLED, 3)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def _hidden(view: Image, chance: np.random.Generator) -> Bools:
    """``(H, W)``: half of the patches."""
    rows, columns = (-(-length // PATCH) for length in view.shape[:2])
    some = chance.permutation(rows * columns) < HIDDEN * rows * columns
    whole = np.kron(some.reshape(rows, columns), np.ones((PATCH, PATCH), bool))
    return np.asarray(whole[: view.shape[0], : view.shape[1]], bool)
