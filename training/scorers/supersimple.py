"""Two small heads on a frozen trunk, taught by noise in feature space and by the defects that there are.

With ``a(p)`` in R^d the adapted feature of a place, a linear map of the standardised stages that is trained too, each
step doubles its pictures: the second half is ``a + m eps`` with ``eps`` Gaussian and ``m`` 1 where Perlin noise exceeds
``PERLIN``, never on a known defect.  Of ``a`` and ``|a| / sqrt(d)`` the segmentation head makes ``S(p)``, the
classification head ``C``, both log-odds.  With ``y(p)`` 1 where noise was added or a defect is, and ``T = 1/2``,

    L = mean_{y=0} max(0, S + T) + mean_{y=1} max(0, T - S) + focal(S, y) + focal(C, max_p y)
    focal(x, y) = mean -(1 - q)^4 log q,   q = sigmoid(x) where y is 1, sigmoid(-x) where it is 0

Of a defective picture without a mask no place is known: it teaches ``C`` alone.  One with a mask is shown mirrored too,
down, across and both; a mirrored part may be no good one, so the places of its defect alone count there, and ``C``
does not hear of it.  Without any defect the classification head passes no gradient to what is below it.  The map is

    N(p) = softplus(z) / log 2,   z = (S(p) + g C - mu) / sigma

with ``mu`` and ``sigma`` of ``S + g C`` on good parts, and ``g`` 1 where defects taught, else 0: the product of both
heads' odds where the second has seen more than noise.

The paper scores pictures by ``C`` and places by ``S``; here a picture's score is its highest place, as of every scorer.
The paper adapts features from random weights and adds noise of 0.015; here ``a`` begins as the whitening of the good
parts, so that the noise is as large as they vary in every direction, and its length stands beside it, so that nothing
need be learned to know their Gaussian distance.  Widths are a tenth of the paper's, as the trunk's are.  Left out are
the smoothing of the map and, where there are defects, their weights by distance.

Reference:
    Rolih, Fucka and Skocaj, SuperSimpleNet: unifying unsupervised and supervised learning for fast and reliable
    surface defect detection, ICPR 2024, section III.  Focal: Lin et al., Focal loss for dense object detection, ICCV
    2017, eq. 4.  Noise: Perlin, An image synthesizer, SIGGRAPH 1985, with the fade of 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.arrays import Floats
from training.fitting import Terms, fit
from training.scorers.embedding import Joined
from training.scorers.gaussian import orthogonal, whitening

if TYPE_CHECKING:
    from training.train import Progress

__all__ = ["ITERATIONS", "SuperSimpleHead", "Taught", "fit_supersimple", "focal", "perlin", "truncated"]

ITERATIONS = 200
"""Steps."""
BATCH = 8
"""Pictures a step, doubled by those with noise."""
RATE = 4e-3
DECAY = 1e-5
NOISE = 1.0
"""Standard deviation of the noise; an adapted feature's is 1 at the beginning."""
PERLIN = 0.2
"""Above which Perlin noise, in [-1, 1], becomes an anomaly."""
MARGIN = 0.5
"""T."""
TINY = 1e-4
"""Under the root of a length."""
GAMMA = 4.0
HIDDEN = 128
"""Channels of the segmentation head."""
WATCHED = 32
"""Channels of the classification head."""


class SuperSimpleHead(nn.Module):
    """Stages of a trunk to ``N``, ``(N, 1, h, w)``; no branch depends on the data.

    Args:
        channels: Of each stage.
        strides: Of each stage.
        stride: Of the grid.
        rank: d.
    """

    middle: Tensor
    """mu."""
    inverse_spread: Tensor
    """1 / sigma."""
    heard: Tensor
    """g."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, stride: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.joined = Joined(channels, strides, stride=stride, width=rank)
        self.judge = _Judge(rank)
        self.register_buffer("middle", torch.zeros(1, 1, 1, 1))
        self.register_buffer("inverse_spread", torch.ones(1, 1, 1, 1))
        self.register_buffer("heard", torch.zeros(1, 1, 1, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        places, picture = self.judge(self.joined(maps))
        z = (places + picture * self.heard - self.middle) * self.inverse_spread
        found: Tensor = F.softplus(z) / float(np.log(2))
        return found


class _Judge(nn.Module):
    """Adapted features ``(N, d, h, w)`` to ``S`` ``(N, 1, h, w)`` and ``C`` ``(N, 1, 1, 1)``.

    Args:
        rank: d.  Both heads see the length of ``a`` as one channel more.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.places = nn.Sequential(
            nn.Conv2d(rank + 1, HIDDEN, 1, bias=False), nn.BatchNorm2d(HIDDEN), nn.ReLU(), nn.Conv2d(HIDDEN, 1, 1)
        )
        self.watch = nn.Sequential(
            nn.Conv2d(rank + 2, WATCHED, 5, padding=2, bias=False), nn.BatchNorm2d(WATCHED), nn.ReLU()
        )
        self.picture = nn.Conv2d(2 * WATCHED + 2, 1, 1)

    def forward(self, adapted: Tensor, *, apart: bool = False) -> tuple[Tensor, Tensor]:
        """``apart``: the picture's judgement passes no gradient to the rest."""
        adapted = torch.cat([adapted, length(adapted)], dim=1)
        places: Tensor = self.places(adapted)
        below, seen = (adapted.detach(), places.detach()) if apart else (adapted, places)
        watched = self.watch(torch.cat([below, seen], dim=1))
        pooled = [one(x) for x in (watched, seen) for one in (_mean, _highest)]
        picture: Tensor = self.picture(torch.cat(pooled, dim=1))
        return places, picture


class Taught:
    """What a training draws from: features of good parts, and of defects with what is known of them.

    Args:
        good: ``(n, D, h, w)`` of ``joined_maps``, standardised, n at least 1.
        defects: ``(m, D, h, w)`` likewise, m may be 0.
        masks: ``(m, h, w)`` 1 where a defect is.
        known: ``(m, h, w)`` 1 where somebody knows whether one is.
        whole: ``(m,)`` whether the picture is as the line shows it, not mirrored.
    """

    def __init__(self, good: Tensor, defects: Tensor, masks: Tensor, known: Tensor, whole: Tensor) -> None:
        self.good, self.defects, self.masks, self.known, self.whole = good, defects, masks, known, whole

    def drawn(self, chance: np.random.Generator) -> Drawn:
        """Of a step; half are defects where there are."""
        part = min(BATCH // 2, len(self.defects))
        bad = chance.choice(len(self.defects), part, replace=False) if part else np.zeros(0, int)
        good = chance.choice(len(self.good), min(BATCH - part, len(self.good)), replace=False)
        plain = torch.zeros(len(good), *self.good.shape[2:])
        return Drawn(
            torch.cat([self.good[good], self.defects[bad]]),
            torch.cat([plain, self.masks[bad]]),
            torch.cat([torch.ones_like(plain), self.known[bad]]),
            torch.arange(len(good) + part) >= len(good),
            torch.cat([torch.ones(len(good), dtype=torch.bool), self.whole[bad]]),
        )


class Drawn(NamedTuple):
    """The b pictures of a step."""

    rows: Tensor
    """``(b, D, h, w)`` features."""
    masks: Tensor
    """``(b, h, w)``."""
    known: Tensor
    """``(b, h, w)``."""
    defective: Tensor
    """``(b,)``."""
    whole: Tensor
    """``(b,)``."""


def truncated(places: Tensor, anomalous: Tensor, known: Tensor) -> Tensor:
    """``mean_{y=0} max(0, S + T) + mean_{y=1} max(0, T - S)``; of a kind that no place is of, 0.

    Args:
        places: ``(N, 1, h, w)`` S.
        anomalous: ``(N, 1, h, w)`` in {0, 1}.
        known: ``(N, 1, h, w)`` in {0, 1}; what is not known counts for nothing.
    """
    bad, good = anomalous * known, (1 - anomalous) * known
    off_good = (F.relu(places + MARGIN) * good).sum() / good.sum().clamp(min=1)
    off_bad = (F.relu(MARGIN - places) * bad).sum() / bad.sum().clamp(min=1)
    return off_good + off_bad


def focal(logits: Tensor, anomalous: Tensor, known: Tensor) -> Tensor:
    """``mean -(1 - q)^4 log q`` over what is known; 0 where nothing is.  Shapes agree."""
    signed = torch.where(anomalous > 0, logits, -logits)
    loss = -F.logsigmoid(signed) * torch.sigmoid(-signed).pow(GAMMA)
    return (loss * known).sum() / known.sum().clamp(min=1)


def perlin(shape: tuple[int, int], cells: tuple[int, int], chance: np.random.Generator) -> Floats:
    """Gradient noise of unit gradients, about in [-1, 1], 0 at the corners of its cells.

    Args:
        shape: ``(h, w)``.
        cells: How many of them down and across, at least 1.
        chance: Draws the gradients.
    """
    angles = chance.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    slopes = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    y, x = ((np.arange(side) + 0.5) * count / side for side, count in zip(shape, cells, strict=True))
    row, column = y.astype(int), x.astype(int)
    v, u = np.meshgrid(y - row, x - column, indexing="ij")

    def corner(down: int, across: int) -> Floats:
        slope = slopes[np.ix_(row + down, column + across)]
        return np.asarray(slope[..., 0] * (v - down) + slope[..., 1] * (u - across))

    fade_v, fade_u = (t * t * t * (t * (t * 6 - 15) + 10) for t in (v, u))
    above = corner(0, 0) * (1 - fade_u) + corner(0, 1) * fade_u
    below = corner(1, 0) * (1 - fade_u) + corner(1, 1) * fade_u
    return np.asarray(2**0.5 * (above * (1 - fade_v) + below * fade_v), np.float32)


def spots(count: int, shape: tuple[int, int], chance: np.random.Generator) -> Tensor:
    """``(count, h, w)`` in {0, 1}: where noise is added; cells are powers of two, drawn for each side."""
    most = [max(1, int(np.log2(side))) for side in shape]
    found = [
        perlin(shape, (2 ** int(chance.integers(most[0])), 2 ** int(chance.integers(most[1]))), chance) > PERLIN
        for _ in range(count)
    ]
    return torch.from_numpy(np.stack(found).astype(np.float32))


def fit_supersimple(
    head: SuperSimpleHead,
    taught: Taught,
    mean: Tensor,
    scale: Tensor,
    *,
    iterations: int | None,
    seed: int,
    resume: Path | None,
    told: str,
    progress: Progress,
) -> None:
    """Train the head, and measure what is usual.

    Args:
        head: To fill.
        taught: What it learns from.
        mean: ``(D,)`` that features were centred about.
        scale: ``(D,)`` that they were multiplied by then.
        iterations: Steps; ``ITERATIONS`` if not given.
        seed: Of weights, batches and noise.
        resume: File that keeps the state of a training under way.
        told: What is trained on what, see ``fit``.
        progress: Told of every step.
    """
    width = len(scale)
    shape = (int(taught.good.shape[2]), int(taught.good.shape[3]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = _Judge(head.rank)
        adapt = nn.Conv2d(width, head.rank, 1)
    with torch.no_grad():
        q = orthogonal(width, head.rank, seed=seed)
        square = torch.zeros(head.rank, head.rank, dtype=torch.float64)
        for piece in torch.split(taught.good, BATCH):
            rows = piece.permute(0, 2, 3, 1).reshape(-1, width).double() @ q
            square += rows.T @ rows
        places = len(taught.good) * shape[0] * shape[1]
        white = whitening(square / places) @ q.T
        adapt.weight.copy_(white.float()[:, :, None, None])
        assert adapt.bias is not None
        adapt.bias.zero_()
    network = nn.ModuleDict({"adapt": adapt, "judge": judge})
    chance = np.random.default_rng([seed, 23])

    def losses(done: float) -> Terms:
        rows, masks, known, defective, whole = taught.drawn(chance)
        adapted = adapt(rows)
        # where nothing is known any place may be a defect: noise there would be called by two names
        where = spots(len(rows), shape, chance) * (1 - masks) * known
        noise = torch.from_numpy(chance.normal(0, NOISE, tuple(adapted.shape)).astype(np.float32))
        both = torch.cat([adapted, adapted + noise * where[:, None]])
        bad = torch.cat([masks, torch.maximum(masks, where)])[:, None]
        sure = torch.cat([known, known])[:, None]
        places, picture = judge(both, apart=not len(taught.defects))
        shown = torch.maximum(bad.amax((2, 3)), defective.repeat(2)[:, None].to(bad.dtype))
        return {
            "l1": truncated(places, bad, sure),
            "focal": focal(places, bad, sure),
            "picture": focal(picture[:, :, 0, 0], shown, whole.repeat(2)[:, None].to(bad.dtype)),
        }

    fit(
        {"network": network},
        losses,
        iterations=iterations or ITERATIONS,
        rate=RATE,
        weight_decay=DECAY,
        averaging=0.0,
        chance=chance,
        resume=resume,
        told=told,
        progress=lambda step, steps, terms: progress("fit supersimple", step, steps, terms),
        measure_every=0,
    )
    with torch.no_grad():
        weight = adapt.weight[:, :, 0, 0].double() * scale.double()[None]
        head.joined.set_linear(weight.float(), (adapt.bias.double() - weight @ mean.double()).float())
        head.judge.load_state_dict(judge.state_dict())
        head.heard.fill_(1.0 if len(taught.defects) else 0.0)
        said = []
        for rows in torch.split(taught.good, BATCH):
            places, picture = judge(adapt(rows))
            said.append(places + picture * head.heard)
        normal = torch.cat(said)
        head.middle.fill_(float(normal.mean()))
        head.inverse_spread.fill_(1 / max(float(normal.std(correction=0)), 1e-3))


def length(adapted: Tensor) -> Tensor:
    """``(N, 1, h, w)``: ``|a| / sqrt(d)``."""
    found: Tensor = (adapted * adapted).mean(dim=1, keepdim=True).add(TINY).sqrt()
    return found


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _highest(x: Tensor) -> Tensor:
    return x.amax((2, 3), keepdim=True)
