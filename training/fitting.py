"""The one training loop: fixed iterations, one cycle of the rate, averaged weights, resumable.

``train``, ``adapt`` and ``retrain`` differ in their loss alone, which they bring as a function of the
step's progress.  The loop runs on the team's device, and with the team's other processes under ``torchrun``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from edge_sdk.documents import sha256_hex, write_atomic
from edge_sdk.errors import EdgeError, FormatError
from training.team import Team, dealt, team

__all__ = ["GRADIENT", "NotFinite", "Terms", "backbone", "fit", "loss_of", "one_cycle"]

Terms = Mapping[str, Tensor]
"""The loss, term by term; their sum is minimised."""

SAVE_EVERY = 25
"""Steps between two states kept for resuming."""
MEASURE_EVERY = 25
"""Steps between two measurements of each term's gradient: a backward pass a term, a few percent of the time."""
GRADIENT = "grad_"
"""Before a term's name in the history: the norm of its gradient on the backbone."""


class NotFinite(EdgeError, ArithmeticError):
    """The loss became NaN or infinite."""


def one_cycle(step: int, steps: int, *, rate: float, warm: float = 0.3) -> float:
    """The learning rate of a step: a cosine up from a 25th of ``rate``, then a cosine down to nearly 0.

    Reference:
        Smith and Topin, Super-convergence, 2017, with cosines for lines.
    """
    rising = max(1, round(warm * steps))
    if step < rising:
        share = (1 - math.cos(math.pi * step / rising)) / 2
        return rate * (0.04 + 0.96 * share)
    share = (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2
    return rate * max(share, 1e-4)


def loss_of(entry: Mapping[str, float]) -> float:
    """The loss of a step in the history: the sum of its terms, without the gradients measured beside them."""
    return sum(value for name, value in entry.items() if not name.startswith(GRADIENT))


def backbone(network: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters below the network's ``head``; all of them where it has none."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    below = [p for name, p in named if not name.startswith("head.")]
    return below or [p for _, p in named]


def fit(
    modules: Mapping[str, nn.Module],
    losses: Callable[[float], Terms],
    *,
    iterations: int,
    rate: float,
    weight_decay: float,
    averaging: float,
    chance: np.random.Generator,
    rates: Mapping[str, float] | None = None,
    resume: Path | None = None,
    told: str = "",
    progress: Callable[[int, int, Mapping[str, float]], None] = lambda step, steps, terms: None,
    measure_every: int = MEASURE_EVERY,
    last: bool = True,
) -> list[dict[str, float]]:
    """Train modules in place.

    Args:
        modules: By name; ``network`` is averaged, the others are helpers of the loss.
        losses: From the share done, in [0, 1), to the terms of one step's loss.
        iterations: Steps.
        rate: Highest learning rate.
        weight_decay: Of AdamW.
        averaging: Of the network's weights, exponential; 0 keeps the last ones.
        chance: All randomness of the batches; its state is kept for resuming.
        rates: Highest rate of a module by name, where it is not ``rate``.
        resume: File to keep the state in.  One that is there is gone on from.
        told: What is trained on what: a state that was kept for something else is not gone on from.  The weights that
            it starts from are added here.
        progress: Called after each step.
        measure_every: Steps between two measurements of the gradients, from the first step on; 0: none.
        last: Nothing costly follows, so ``resume`` is deleted at the end; else it then holds the trained state, from
            which all steps are passed over, and the caller deletes it.

    Returns:
        The terms of each step; where it was measured, beside each term ``grad_<term>``, the L2 norm of its
        gradient on the network below its head.  A reversed gradient counts with its weight.

    Raises:
        NotFinite: A term became NaN or infinite; names the step and the term.
        FormatError: The state to go on from is damaged.
    """
    together = team()
    if resume is not None:
        told = f"{told} from {_digest(modules)}"
    for module in modules.values():
        module.to(together.device, together.dtype)
    highest = {name: (rates or {}).get(name, rate) for name in modules}
    groups = [(name, [p for p in module.parameters() if p.requires_grad]) for name, module in modules.items()]
    groups = [(name, parameters) for name, parameters in groups if parameters]
    given = [{"params": parameters} for _, parameters in groups]
    optimiser = torch.optim.AdamW(given, lr=rate, weight_decay=weight_decay)
    network = modules["network"]
    below = backbone(network)
    average = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    history: list[dict[str, float]] = []
    start = 0
    kept = together.told(resume.read_bytes() if together.first and resume is not None and resume.exists() else None)
    if kept is not None and resume is not None:
        start, history = _resumed(kept, resume, modules, average, optimiser, chance, told)
    for module in modules.values():
        module.train()
    for step in range(start, iterations):
        for group, (name, _) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = one_cycle(step, iterations, rate=highest[name])
        optimiser.zero_grad(set_to_none=True)
        with _on(together.device), dealt(modules.values(), together):
            terms = losses(step / iterations)
            values = {name: float(term.detach()) for name, term in terms.items()}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise NotFinite(f"the loss term {name} is {value} at step {step}; lower the rate ({rate:g})")
            if measure_every and step % measure_every == 0:
                values |= {GRADIENT + name: _norm(term, below, together) for name, term in terms.items()}
            sum(terms.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        _average_gradients([p for _, own in groups for p in own], together)
        optimiser.step()
        with torch.no_grad():
            # early steps weigh less than the mean would say, or the average starts at the beginning
            share = min(averaging, (1 + step) / (10 + step))
            for name, p in network.named_parameters():
                if p.requires_grad:
                    average[name].lerp_(p, 1 - share)
        history.append(values)
        progress(step + 1, iterations, values)
        if resume is not None and together.first and _due(step + 1, iterations, last=last):
            _keep(resume, modules, average, optimiser, chance, history, told)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.requires_grad and averaging:
                p.copy_(average[name])
    for module in modules.values():
        module.eval()
        module.to("cpu", torch.float32)
    if last and resume is not None and together.first:
        resume.unlink(missing_ok=True)
    return history


def _digest(modules: Mapping[str, nn.Module]) -> str:
    """Of weights and statistics."""
    states = (module.state_dict().values() for module in modules.values())
    return sha256_hex(b"".join(tensor.detach().cpu().numpy().tobytes() for state in states for tensor in state))


def _due(done: int, iterations: int, *, last: bool) -> bool:
    """Whether a state is kept after so many steps."""
    return not last if done == iterations else done % SAVE_EVERY == 0


def _on(device: torch.device) -> AbstractContextManager[object]:
    """What a loss makes anew, it makes where the pictures are."""
    return nullcontext() if device.type == "cpu" else device


def _norm(term: Tensor, parameters: list[nn.Parameter], together: Team) -> float:
    """L2 norm of a term's gradient on some parameters; 0 where it does not reach them."""
    if not term.requires_grad:
        return 0.0
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    reached = together.averaged(gradient for gradient in found if gradient is not None)
    return float(torch.stack([gradient.square().sum() for gradient in reached]).sum().sqrt()) if reached else 0.0


def _average_gradients(parameters: list[nn.Parameter], together: Team) -> None:
    if together.size == 1:
        return
    reached = [p for p in parameters if p.grad is not None]
    for p, gradient in zip(reached, together.averaged(p.grad for p in reached if p.grad is not None), strict=True):
        p.grad = gradient


def _keep(
    path: Path,
    modules: Mapping[str, nn.Module],
    average: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    chance: np.random.Generator,
    history: list[dict[str, float]],
    told: str,
) -> None:
    tensors = {f"average.{name}": tensor for name, tensor in average.items()}
    for name, module in modules.items():
        tensors |= {f"module.{name}.{key}": tensor.detach() for key, tensor in module.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{key}": tensor for key, tensor in state.items()}
    said = {"history": history, "chance": chance.bit_generator.state, "told": told}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(whole, {"said": json.dumps(said)}))


def _resumed(
    kept: bytes,
    path: Path,
    modules: Mapping[str, nn.Module],
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    chance: np.random.Generator,
    told: str,
) -> tuple[int, list[dict[str, float]]]:
    from safetensors import SafetensorError

    try:
        length = int.from_bytes(kept[:8], "little")  # safetensors: its header is JSON after eight bytes of length
        said: dict[str, Any] = json.loads(json.loads(kept[8 : 8 + length])["__metadata__"]["said"])
        if said["told"] != told:
            return 0, []
        tensors = load(kept)
        for name, module in modules.items():
            start = f"module.{name}."
            module.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
        for name, mean in average.items():
            mean.copy_(tensors[f"average.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("adam."):
                _, number, kind = key.split(".", 2)
                state.setdefault(int(number), {})[kind] = tensor.clone()
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        chance.bit_generator.state = said["chance"]
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FormatError(f"{path} cannot be gone on from ({error}); delete it to begin again") from error
    history = list(said["history"])
    return len(history), history
