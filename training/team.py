"""The processes that share one training, and the device each computes on.

Alone, a process is a team of one on the CPU, and nothing here costs anything.  Under ``torchrun`` Lightning
Fabric joins the processes.  Every one of them draws the same batches and computes the same loss; what takes
the time is dealt out: the variations of the pictures, and the trunk, forwards and backwards.  Each process
works on every ``size``-th picture, the normalisations share their statistics, and the trunk hands out the
features of all.  So whatever stands above the trunk (heads, losses that are normalised over the batch,
discriminators, alignments) sees the global batch and needs to know nothing of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from calibration.devices import check_device
from edge_sdk.arrays import Image
from edge_sdk.errors import ConfigError

__all__ = ["Team", "at_work", "carried", "dealt", "device_of", "joined_norm", "team"]

Anything = TypeVar("Anything")


@dataclass(frozen=True, eq=False)
class Team:
    """This process among those that train together."""

    device: torch.device
    """Where this one computes; what is kept is brought back to the CPU."""
    rank: int = 0
    size: int = 1
    dtype: torch.dtype = torch.float32
    """What numbers are computed in; what is kept is single precision."""
    fabric: Any = None
    """Lightning Fabric, which carries everything between the processes; ``None`` alone."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def placed(self, tensor: Tensor) -> Tensor:
        """A tensor where this process computes, and as it computes."""
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)

    def own(self, count: int) -> slice:
        """Which of ``count`` rows this process works on."""
        return slice(self.rank, count, self.size)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes; the tensor stays as it is, and no gradient flows."""
        if self.size == 1:
            return tensor
        found: Tensor = self.fabric.all_reduce(tensor.detach().clone(), reduce_op="sum")
        return found

    def told(self, value: Anything) -> Anything:
        """What the first process has, in all of them."""
        if self.size == 1:
            return value
        found: Anything = self.fabric.broadcast(value)
        return found

    def averaged(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the processes, carried as one."""
        given = list(tensors)
        if self.size == 1 or not given:
            return given
        flat = self.total(torch.cat([tensor.reshape(-1) for tensor in given])) / self.size
        pieces = torch.split(flat, [tensor.numel() for tensor in given])
        return [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, given, strict=True)]

    def pictures(self, shape: tuple[int, ...], made: Callable[[int], Image]) -> Image:
        """A batch of pictures, each made by one process and seen by all.

        Args:
            shape: ``(N, H, W, 3)`` of the batch.
            made: From a place in the batch to ``(H, W, 3)`` uint8.
        """
        whole = np.zeros(shape, np.uint8)
        for n in range(len(whole))[self.own(len(whole))]:
            whole[n] = made(n)
        if self.size == 1:
            return whole
        return np.asarray(self.total(torch.from_numpy(whole).to(self.device)).cpu().numpy())


_ALONE = Team(torch.device("cpu"))
_NOW: ContextVar[Team] = ContextVar("team")


def team() -> Team:
    """The team that this process works in; alone on the CPU unless ``at_work`` says otherwise."""
    return _NOW.get(_ALONE)


@contextmanager
def at_work(device: str = "cpu", *, dtype: torch.dtype = torch.float32) -> Iterator[Team]:
    """Compute on a device, and under ``torchrun`` together with the other processes.

    Within the work of several processes another call changes nothing.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:1``; of several processes each takes a GPU of its own.
        dtype: What to compute in.

    Raises:
        ConfigError: The device is not there.
    """
    if team().size > 1:
        yield team()
        return
    size = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if size == 1:
        found = Team(device_of(device), dtype=dtype)
    else:
        found = _joined(device, size, dtype)
    token = _NOW.set(found)
    try:
        yield found
    finally:
        _NOW.reset(token)
        if size > 1:
            torch.distributed.destroy_process_group()


def device_of(name: str) -> torch.device:
    """A device that is there, by its name.

    Raises:
        ConfigError: There is no such kind of device, or not here.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.device(check_device(name, gpus=gpus))


def _joined(device: str, size: int, dtype: torch.dtype) -> Team:
    """All processes of ``torchrun``, in one team."""
    from lightning_fabric import Fabric

    if ":" in device:
        raise ConfigError(f"device is {device}, but {size} processes train together; give cuda, and each takes its own")
    device_of(device)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if device == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"{here} processes train together here, but there are {torch.cuda.device_count()} GPUs; "
            "start as many processes as GPUs (--nproc-per-node)"
        )
    fabric = Fabric(accelerator=device, devices=here, num_nodes=size // here, strategy="ddp")
    fabric.launch()
    return Team(fabric.device, fabric.global_rank, fabric.world_size, dtype, fabric)


@contextmanager
def carried(network: nn.Module) -> Iterator[torch.device]:
    """The network on the team's device for a while, to judge there; one that is there already stays."""
    was, there = next(network.parameters()).device, team().device
    network.to(there)
    try:
        yield there
    finally:
        network.to(was)


@contextmanager
def dealt(modules: Iterable[nn.Module], together: Team) -> Iterator[None]:
    """While it lasts, the modules' trunks work on this process's rows and hand out those of all.

    Gradients of parameters are then to be averaged over the processes: those of the trunk come out
    ``size`` times as large as this process's share, those above it are the same everywhere.

    Args:
        modules: Of which those with a ``trunk``, ``(N, …)`` to ``(N, …)``, are dealt; the others are worked on
            by all alike.
        together: A team of one changes nothing.
    """
    trunks = [trunk for module in modules if isinstance(trunk := getattr(module, "trunk", None), nn.Module)]
    if together.size == 1:
        trunks = []
    changed: list[nn.Module] = []

    def share(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        module.__dict__["forward"] = forward
        changed.append(module)

    for trunk in trunks:
        share(trunk, partial(_dealt_forward, trunk.forward, together))
        for norm in trunk.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                share(norm, partial(joined_norm, norm, together))
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _dealt_forward(forward: Callable[[Tensor], Tensor], together: Team, frame: Tensor) -> Tensor:
    found: Tensor = _Whole.apply(forward(frame[together.own(len(frame))]), len(frame), together)  # type: ignore[no-untyped-call]
    return found


class _Whole(torch.autograd.Function):
    """This process's rows to the rows of all; backwards its own, ``size`` times, to be averaged."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int, together: Team) -> Tensor:
        ctx.together = together
        whole = rows.new_zeros((count, *rows.shape[1:]))
        whole[together.own(count)] = rows
        return together.total(whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.together.own(len(gradient))] * ctx.together.size, None, None


class _Total(torch.autograd.Function):
    """The sum over the processes; backwards, since each one's loss hangs on it, the sum too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, together: Team) -> Tensor:
        ctx.together = together
        return together.total(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.together.total(gradient.contiguous()), None


def joined_norm(norm: nn.modules.batchnorm._BatchNorm, together: Team, x: Tensor) -> Tensor:
    """A batch normalisation by the statistics of all processes' rows, on any device, with gradient.

    Of ``n_r`` values a channel with mean ``m_r`` and squared deviations ``s_r`` in process r:
    ``m = sum_r n_r m_r / n`` and ``n var = sum_r s_r + n_r (m_r - m)^2``, which loses no digits where the
    mean is large, as a sum of squares would.  ``torch.nn.SyncBatchNorm`` does the same, on GPUs only.

    Args:
        norm: Its weights are used and its running statistics moved, as its own ``forward`` does.
        together: All must call it.
        x: ``(n, C, …)``, this process's rows; n may be 0.

    Reference:
        Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    if not norm.training:
        found: Tensor = type(norm).forward(norm, x)
        return found
    places = [n for n in range(x.dim()) if n != 1]
    count = x.numel() // x.shape[1]
    here = x.sum(places) / max(count, 1)
    shape = (1, -1) + (1,) * (x.dim() - 2)
    spread = ((x - here.reshape(shape)) ** 2).sum(places)
    rows = torch.stack([torch.full_like(here, float(count)), here, spread])[None]
    before = rows.new_zeros((together.rank, *rows.shape[1:]))
    after = rows.new_zeros((together.size - together.rank - 1, *rows.shape[1:]))
    told: Tensor = _Total.apply(torch.cat([before, rows, after]), together)  # type: ignore[no-untyped-call]
    counts, means, spreads = told.unbind(1)
    whole = counts.sum(0)
    mean = (counts * means).sum(0) / whole
    squares = (spreads + counts * (means - mean) ** 2).sum(0)
    _move(norm, mean.detach(), squares.detach() / (whole - 1).clamp(min=1))
    scale = torch.rsqrt(squares / whole + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    moved = (x - mean.reshape(shape)) * scale.reshape(shape)
    return moved if norm.bias is None else moved + norm.bias.reshape(shape)


def _move(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """The running statistics, a step on; without a momentum they are the plain mean over batches."""
    if norm.running_mean is None or norm.running_var is None:
        return
    with torch.no_grad():
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked or 1) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(variance, share)


