"""The one training loop: fixed iterations, one cycle of the rate, averaged weights, resumable.

``train``, ``adapt`` and ``retrain`` differ in their loss alone, which they bring as a function of the
step's progress.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edge_sdk.documents import write_atomic
from edge_sdk.errors import EdgeError, FormatError

__all__ = ["NotFinite", "Terms", "fit", "one_cycle"]

Terms = Mapping[str, Tensor]
"""The loss, term by term; their sum is minimised."""

SAVE_EVERY = 25
"""Steps between two states kept for resuming."""


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
        resume: File to keep the state in; deleted at the end.  One that is there is gone on from.
        told: What is trained on what: a state that was kept for something else is not gone on from.
        progress: Called after each step.

    Returns:
        The terms of each step, and their gradients' size is left to the optimiser.

    Raises:
        NotFinite: A term became NaN or infinite; names the step and the term.
        FormatError: The state to go on from is damaged.
    """
    highest = {name: (rates or {}).get(name, rate) for name in modules}
    groups = [(name, [p for p in module.parameters() if p.requires_grad]) for name, module in modules.items()]
    groups = [(name, parameters) for name, parameters in groups if parameters]
    given = [{"params": parameters} for _, parameters in groups]
    optimiser = torch.optim.AdamW(given, lr=rate, weight_decay=weight_decay)
    network = modules["network"]
    average = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    history: list[dict[str, float]] = []
    start = 0
    if resume is not None and resume.exists():
        start, history = _resumed(resume, modules, average, optimiser, chance, told)
    for module in modules.values():
        module.train()
    for step in range(start, iterations):
        for group, (name, _) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = one_cycle(step, iterations, rate=highest[name])
        terms = losses(step / iterations)
        values = {name: float(term.detach()) for name, term in terms.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFinite(f"the loss term {name} is {value} at step {step}; lower the rate ({rate:g})")
        optimiser.zero_grad(set_to_none=True)
        sum(terms.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            # early steps weigh less than the mean would say, or the average starts at the beginning
            share = min(averaging, (1 + step) / (10 + step))
            for name, p in network.named_parameters():
                if p.requires_grad:
                    average[name].lerp_(p, 1 - share)
        history.append(values)
        progress(step + 1, iterations, values)
        if resume is not None and (step + 1) % SAVE_EVERY == 0 and step + 1 < iterations:
            _keep(resume, modules, average, optimiser, chance, history, told)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.requires_grad and averaging:
                p.copy_(average[name])
    for module in modules.values():
        module.eval()
    if resume is not None:
        resume.unlink(missing_ok=True)
    return history


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
    whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(whole, {"said": json.dumps(said)}))


def _resumed(
    path: Path,
    modules: Mapping[str, nn.Module],
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    chance: np.random.Generator,
    told: str,
) -> tuple[int, list[dict[str, float]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            said: dict[str, Any] = json.loads(file.metadata()["said"])
        if said["told"] != told:
            return 0, []
        tensors = load_file(path)
        for name, module in modules.items():
            start = f"module.{name}."
            module.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
        for name in average:
            average[name] = tensors[f"average.{name}"].clone()
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
