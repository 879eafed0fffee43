"""The distance of each place to the nearest of a bank of normal features, as a convolution and a minimum.

With ``e(p)`` in R^d the feature of a place, standardised, centred and projected, and the bank ``m_1 ... m_B``:

    D(p) = sqrt(min_b |e(p) - m_b|^2 / d),   |e - m|^2 = |e|^2 + (-2 m . e + |m|^2)

The bracket is a 1x1 convolution with the weights ``-2 m_b`` and the bias ``|m_b|^2``, so the nearest neighbour is exact
and there is no loop, no TopK and no table of distances.  The bank is a greedy coreset, the normal farthest from all
chosen so far, found on a random projection; of very many normals a random sample of bounded size is looked at.  Each
keeps the number of the part that it is of, so that what good parts look like to a bank that does not know them can be
asked of the parts that fitted it.

The paper's reweighting of a picture's score by the neighbours of its nearest neighbour is left out: a picture's score
is its highest place.

Reference:
    Roth, Pemula, Zepeda, Schoelkopf, Brox and Gehler, Towards total recall in industrial anomaly detection, CVPR 2022,
    section 3.2 and algorithm 1 (coreset), eq. 6 (score).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edge_sdk.errors import RangeError
from training.scorers.embedding import Joined
from training.scorers.gaussian import orthogonal

__all__ = ["PatchCoreFit", "PatchCoreHead", "greedy_coreset"]

POOL = 200_000
"""Normal places that the coreset is chosen from, at most (80 MB of rank 100); of more a part is taken by lot."""
SHADOW = 32
"""Dimensions of the random projection that the coreset is chosen on (the paper: 128 of 1024)."""
PIECE = 16_384
"""Places that are projected at a time: all at once would be, in double precision, twice the pool."""
FLOOR = 1e-4
"""Under the root, so that rounding of a distance near 0 is not enlarged."""
Told = Callable[[int, int], None]


class PatchCoreHead(nn.Module):
    """Stages of a trunk to ``D``, ``(N, 1, h, w)``; no branch depends on the data.

    Args:
        channels: Of each stage.
        strides: Of each stage.
        stride: Of the grid.
        rank: d.
        bank: B.
        fade: What lies beside the picture counts as the middle of all normals, see ``Joined``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        stride: int,
        rank: int,
        bank: int,
        fade: bool = False,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.joined = Joined(channels, strides, stride=stride, width=rank, fade=fade)
        self.bank = nn.Conv2d(rank, bank, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        e: Tensor = self.joined(maps)
        # over the outermost of two axes: as one of four the same minimum takes ONNX Runtime several times as long
        outermost = self.bank(e).transpose(0, 1).reshape(self.bank.out_channels, -1)
        nearest = outermost.amin(dim=0).reshape(-1, 1, *e.shape[2:])
        squared = (e * e).sum(dim=1, keepdim=True) + nearest
        found: Tensor = (squared.clamp(min=0) + FLOOR).sqrt()
        return found

    def set_bank(self, normals: Tensor) -> None:
        """``(B, d)`` features in the space of ``e``."""
        with torch.no_grad():
            assert self.bank.bias is not None
            self.bank.weight.copy_(-2 * normals[:, :, None, None])
            self.bank.bias.copy_((normals * normals).sum(dim=1))

    @contextmanager
    def without(self, which: Tensor) -> Iterator[None]:
        """While it lasts none of the features that ``which``, ``(B,)`` bool, tells is anything's nearest."""
        assert self.bank.bias is not None
        before = self.bank.bias.detach().clone()
        with torch.no_grad():
            self.bank.bias.masked_fill_(which, torch.inf)
        try:
            yield
        finally:
            with torch.no_grad():
                self.bank.bias.copy_(before)


class PatchCoreFit:
    """A bounded sample of normal places, then its coreset.

    Args:
        head: To fill.
        scale: ``(D,)`` one over each channel's standard deviation.
        mean: ``(D,)`` of the channels, about which features are centred.
        seed: Of the projections, the sample and the first of the bank.
    """

    def __init__(self, head: PatchCoreHead, scale: Tensor, mean: Tensor, *, seed: int) -> None:
        self._head, self._seed = head, seed
        weight = orthogonal(len(scale), head.rank, seed=seed).T / head.rank**0.5 * scale.double()[None]
        head.joined.set_linear(weight.float(), (-weight @ mean.double()).float())
        self._chance = torch.Generator().manual_seed(seed)
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        """Lots, places, numbers."""

    def see(self, rows: Tensor, parts: Tensor) -> None:
        """Normals, ``(n, d)`` as the head's ``joined`` gives places, and ``(n,)`` the part's number of each."""
        self._kept.append((torch.rand(len(rows), generator=self._chance), rows, parts))
        if sum(len(lots) for lots, _, _ in self._kept) > POOL + POOL // 4:
            self._kept = [self._drawn()]

    def _drawn(self) -> tuple[Tensor, Tensor, Tensor]:
        """Each place has drawn a lot, and the lowest stay: a uniform sample of all seen so far."""
        lots, rows, parts = (torch.cat(column) for column in zip(*self._kept, strict=True))
        order = torch.argsort(lots)[:POOL]
        return lots[order], rows[order], parts[order]

    def finish(self, told: Told = lambda done, count: None) -> Tensor:
        """Choose the bank and put it into the head.

        Args:
            told: How many are chosen, and of how many, now and then.

        Returns:
            ``(B,)`` the number of the part that each feature of the bank is of.

        Raises:
            RangeError: Nothing was seen.
        """
        if not any(len(lots) for lots, _, _ in self._kept):
            raise RangeError("no normal was seen; give at least one picture of a good part")
        _, rows, parts = self._drawn()
        self._kept = []
        bank = self._head.bank.out_channels
        chosen = greedy_coreset(rows, bank, seed=self._seed, told=told)
        # fewer places than the bank holds: some stand in it twice, which no minimum minds
        chosen = chosen[torch.arange(bank) % len(chosen)]
        self._head.set_bank(rows[chosen])
        return parts[chosen]


def greedy_coreset(rows: Tensor, count: int, *, seed: int, told: Told = lambda done, count: None) -> Tensor:
    """Which rows to keep so that none of the others is far from all of them.

    Beginning with a random row, the one farthest from those chosen is added, distances being taken on a random
    orthogonal projection.

    Args:
        rows: ``(n, d)``, n at least 1.
        count: How many to keep.
        seed: Of the projection and the first row.
        told: How many are chosen, and of how many, now and then.

    Returns:
        ``(min(count, n),)`` places in the order in which they were chosen.
    """
    n, count = len(rows), min(count, len(rows))
    shadow = orthogonal(rows.shape[1], SHADOW, seed=seed)
    small = torch.cat([(some.double() @ shadow).float() for some in torch.split(rows, PIECE)])
    lengths = (small * small).sum(dim=1)
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(n, (1,), generator=generator))
    chosen = [first]
    near = torch.full((n,), float("inf"))
    for done in range(1, count):
        last = small[chosen[-1]]
        distance = torch.addmv(lengths, small, last, alpha=-2).add_(lengths[chosen[-1]])
        torch.minimum(near, distance, out=near)
        near[chosen[-1]] = -1
        chosen.append(int(near.argmax()))
        if done % 100 == 0 or done + 1 == count:
            told(done + 1, count)
    return torch.tensor(chosen)
