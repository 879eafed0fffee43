"""A trunk with a scorer's head: the network that a scorer's checkpoint names and export traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from edge_sdk.errors import ConfigError
from training.networks.cellnet import trunk_of
from training.networks.timm_trunk import TimmTrunk
from training.scorers.embedding import TAPS, Stages, averaged
from training.scorers.gaussian import GaussianHead
from training.scorers.patchcore import PatchCoreHead
from training.scorers.rim import Rim
from training.scorers.stfpm import StudentHead
from training.scorers.supersimple import SuperSimpleHead

__all__ = ["FACTORY", "METHODS", "NoveltyOutputs", "ScorerNetwork", "scorer_network"]

FACTORY = "training.scorers.network:scorer_network"
METHODS = ("gaussian", "patchcore", "stfpm", "supersimple")


class NoveltyOutputs(NamedTuple):
    """What the network gives, in the order and by the names of the exported graph."""

    novelty: Tensor
    """``(N, 1, h, w)`` distances, unbounded, around 1 on normals."""
    feature: Tensor
    """``(N, F)``, the mean of the last stage looked at over its positions."""


class ScorerNetwork(nn.Module):
    """``(N, 3, H, W)`` float32 to ``NoveltyOutputs``; its trunk is not trained.

    Args:
        stages: The trunk's.
        head: From their maps, and the student's if there is one, to distances.
        student: A second trunk, which the head compares with the first.
        rim: What evens out distances at the border; without it they stay as the head gives them.
        smooth: Distances are averaged over 3 x 3 cells, before the border is evened out: a defect covers more than a
            cell, chance does not, and a picture is judged by its highest place.
    """

    keep_float: tuple[str, ...]
    """The trunks alone are rounded to INT8: a whitening enlarges what rounding does to the directions in which normals
    hardly vary, and the nearest neighbour is a small difference of large numbers."""
    keep_float_first: tuple[str, ...]
    """What leads to the first map looked at: what is rounded there goes on into all others.  On magnetic tiles (seed
    100) the error of a normal's score fell from 0.08 to 0.03 inter-quartile ranges, and no later stage lowered it."""
    float_because: str = ""
    """Why nothing at all is rounded, and what to do where that is too slow; empty where something is."""

    def __init__(
        self,
        stages: Stages,
        head: nn.Module,
        student: Stages | None = None,
        *,
        rim: Rim | None = None,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self.stages = stages
        self.head = head
        self.student = student
        self.rim = rim
        self.smooth = smooth
        # what is named must have a weight in the graph
        kept = ("head",) if rim is None else ("head", "rim")
        self.keep_float = kept
        if isinstance(head, SuperSimpleHead):
            self.keep_float = ("stages", *kept)
            self.float_because = (
                "supersimple is trained to tell noise from good parts, and takes the rounding of its trunk for noise; "
                "where a station needs INT8's pace, take another method, e.g. gaussian"
            )
        trunks = ("stages",) if student is None else ("stages", "student")
        self.keep_float_first = tuple(f"{name}.trunk.{part}" for name in trunks for part in stages.first_parts())
        self.requires_grad_(False)
        self.eval()

    def forward(self, frame: Tensor) -> NoveltyOutputs:
        maps = self.stages(frame)
        novelty = self.head(maps) if self.student is None else self.head(maps, self.student(frame))
        novelty = averaged(novelty) if self.smooth else novelty
        novelty = novelty if self.rim is None else self.rim(novelty)
        return NoveltyOutputs(novelty, maps[-1].mean((2, 3)))

    @property
    def stride(self) -> int:
        """Pixels of the input a cell."""
        head: Any = self.head
        return int(head.stride if self.student is not None else head.joined.stride)

    def train(self, mode: bool = True) -> ScorerNetwork:
        """A scorer keeps its trunk's statistics, whatever is asked."""
        super().train(False)
        return self


def scorer_network(
    *,
    method: Literal["gaussian", "patchcore", "stfpm", "supersimple"],
    height: int,
    width_px: int,
    trunk: str = "mobilenetv2",
    width: float = 0.25,
    stages: int | None = None,
    taps: Sequence[int] | None = None,
    stride: int = 8,
    rank: int = 100,
    rim: bool = False,
    smooth: bool = False,
    **options: Any,
) -> ScorerNetwork:
    """The factory that a scorer's checkpoint names.

    Args:
        method: One of ``METHODS``.
        height: Of the network's input, pixels, a multiple of the coarsest stage's stride.
        width_px: Of the network's input.
        trunk: ``resnet18``, ``mobilenetv2``, or ``timm:`` and a name of timm's.
        width: Of a ResNet-18, times the paper's channels.
        stages: How many stages the trunk has, where a checkpoint lends it; those up to stride 16 without it.
        taps: Which stages are looked at, from 0.
        stride: Pixels a cell.
        rank: Dimensions of the projected feature; nothing to ``stfpm``.
        rim: Distances at the border are evened out, see ``training.scorers.rim``; checkpoints of before do not.
        smooth: Distances are averaged over 3 x 3 cells; checkpoints of before do not.
        options: Of the method: ``covariance``, or ``bank`` and ``fade``; checkpoints of before do not fade.

    Raises:
        ConfigError: There is no such trunk, method or stage, or the input does not suit the stages.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no scorer named {method!r}; give {', '.join(METHODS)}")
    own = trunk_of(trunk, width=width, stages=stages)
    below = Stages(own, tuple(taps or (own.taps if isinstance(own, TimmTrunk) else TAPS[trunk])))
    coarsest = max((*below.strides, stride))
    if height % coarsest or width_px % coarsest:
        raise ConfigError(f"the network's input is {width_px} x {height}; give multiples of {coarsest} px")
    grid = (height // stride, width_px // stride)
    # as far as the zeros beside the picture reach into the coarsest map
    even = Rim(grid, 2 * coarsest // stride) if rim else None
    if method == "stfpm":
        head = StudentHead(below.channels, below.strides, stride=stride)
        student = Stages(trunk_of(trunk, width=width, stages=stages), below.taps)
        return ScorerNetwork(below, head, student, rim=even, smooth=smooth)
    total = sum(below.channels)
    if not 1 <= rank <= total:
        raise ConfigError(f"rank is {rank}, but the stages looked at have {total} channels; give 1 to {total}")
    common: dict[str, Any] = {"stride": stride, "rank": rank, **options}
    if method == "gaussian":
        head_of: nn.Module = GaussianHead(below.channels, below.strides, grid=grid, **common)
    elif method == "supersimple":
        head_of = SuperSimpleHead(below.channels, below.strides, **common)
    else:
        head_of = PatchCoreHead(below.channels, below.strides, **common)
    return ScorerNetwork(below, head_of, rim=even, smooth=smooth)
