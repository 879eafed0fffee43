"""Fine-tuning with fake quantisation: the int8 graph learns to answer as the FP32 graph does, without any label.

One loop over pictures, resumable after each epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from calibration.collect import inputs_of
from edge_sdk.arrays import Floats
from edge_sdk.documents import write_atomic
from edge_sdk.errors import RangeError
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec
from export.trainable import FakeQuantised, TorchGraph

__all__ = ["Plan", "noise_to_signal", "rate_at", "tune"]

_WARM = 0.1
"""Share of the training in which the rate rises."""


@dataclass(frozen=True)
class Plan:
    """How long, how fast, and in which order."""

    epochs: int = 10
    rate: float = 3e-4
    """Highest, of Adam, in units of each tensor's own size."""
    batch: int = 8
    seed: int = 0


def noise_to_signal(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    r"""The loss: the outputs' noise over their signal, ``sum_o |y_o - t_o|^2 / |t_o|^2``.

    It is what SQNR is the logarithm of, so each output counts alike, whatever its unit.

    Args:
        outputs: y, of the graph that rounds.
        wanted: t, of the FP32 graph on the same frames; whole numbers are passed over, and so is an output that is
            zero throughout, which has no signal.

    Reference:
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.1: matching logits;
        the ratio is ours.
    """
    total = torch.zeros(())
    for name, target in wanted.items():
        if _speaks(target):
            total = total.to(target.device) + (outputs[name] - target).square().mean() / target.square().mean()
    return total


def _speaks(target: Tensor) -> bool:
    """Whether an output of the FP32 graph can be learned from."""
    return target.is_floating_point() and bool(target.square().mean() >= torch.finfo(target.dtype).tiny)


def rate_at(share: float, *, rate: float) -> float:
    """The learning rate once a share in [0, 1) of the pictures is done: a rise over a tenth, then half a cosine."""
    if share < _WARM:
        return rate * (0.05 + 0.95 * share / _WARM)
    return rate * (1 + math.cos(math.pi * (share - _WARM) / (1 - _WARM))) / 2


def tune(
    network: TorchGraph,
    student: FakeQuantised,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    plan: Plan,
    *,
    told: str = "",
    kept: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[float, ...]:
    """Train a graph that rounds to answer as the one that does not, in place.

    Args:
        network: FP32; its answers are the target.
        student: The same graph, rounding.
        samples: Pictures without labels, 1 or more.
        spec: What the network was trained with.
        plan: How.
        told: What else must be equal for a state that was kept to be gone on from.
        kept: File to keep the state in after each epoch; remove it once the weights are written.
        progress: Told how many pictures were looked at, and of how many.

    Returns:
        The mean loss of each epoch.

    Raises:
        RangeError: The loss is no number any more, or FP32's outputs are none or zero.
        DatasetError: A picture cannot be read.
    """
    optimiser = torch.optim.Adam(student.parameters(), lr=plan.rate)
    said = json.dumps({"plan": asdict(plan), "told": told}, sort_keys=True)
    losses = _resumed(kept, said, student, optimiser)
    of = plan.epochs * len(samples)
    for epoch in range(len(losses), plan.epochs):
        order = np.random.default_rng((plan.seed, epoch)).permutation(len(samples))
        total, frames = 0.0, 0
        for batch, done in _batches([samples[n] for n in order], spec, plan.batch, epoch * len(samples)):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(min(done / of, 1 - 1e-9), rate=plan.rate)
            frame = torch.from_numpy(batch).to(network.device)
            with torch.no_grad():
                wanted = network.run(frame)
            where = f"in epoch {epoch + 1} after {done} pictures"
            for name, target in wanted.items():
                if not target.isfinite().all():
                    raise RangeError(f"FP32's output {name} is no number {where}; the graph is broken, export it again")
            if not any(_speaks(target) for target in wanted.values()):
                continue
            optimiser.zero_grad(set_to_none=True)
            loss = noise_to_signal(student(frame), wanted)
            if not math.isfinite(value := float(loss.detach())):
                raise RangeError(f"the loss is {value} {where}; lower --rate ({plan.rate:g})")
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total, frames = total + value * len(batch), frames + len(batch)
            progress(done, of)
        if not frames:
            raise RangeError(
                f"every output of the FP32 graph is zero on all {len(samples)} pictures, so there is nothing to learn; "
                "is the network trained?"
            )
        losses.append(total / frames)
        if kept is not None:
            _keep(kept, said, losses, student, optimiser)
    progress(of, of)
    return tuple(losses)


def _batches(
    samples: Sequence[Sample], spec: PreprocessSpec, size: int, before: int
) -> Iterator[tuple[Floats, int]]:
    """Frames, and how many pictures were then looked at; of a picture that is cut into tiles each is a frame."""
    held: list[Floats] = []
    for number, sample in enumerate(samples, before + 1):
        for frame in inputs_of(sample, spec):
            held.append(frame)
            if len(held) == size:
                yield np.concatenate(held), number
                held = []
    if held:
        yield np.concatenate(held), before + len(samples)


def _keep(
    path: Path, said: str, losses: Sequence[float], student: FakeQuantised, optimiser: torch.optim.Optimizer
) -> None:
    tensors = {f"own.{name}": tensor.detach() for name, tensor in student.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{key}": tensor for key, tensor in state.items()}
    whole = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save(whole, {"said": said, "losses": json.dumps(list(losses))}))


def _resumed(
    path: Path | None, said: str, student: FakeQuantised, optimiser: torch.optim.Optimizer
) -> list[float]:
    """The losses of the epochs that are done, or none where nothing that fits was kept."""
    if path is None or not path.exists():
        return []
    # a file that is damaged, or of another training, is as good as none
    try:
        data = path.read_bytes()
        # safetensors: its header is JSON after eight bytes of length
        told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if told["said"] != said:
            return []
        tensors, losses = load(data), [float(loss) for loss in json.loads(told["losses"])]
        own = {name.removeprefix("own."): value for name, value in tensors.items() if name.startswith("own.")}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, number, key = name.split(".", 2)
                state.setdefault(int(number), {})[key] = value
        student.load_state_dict(own)
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        return []
    return losses
