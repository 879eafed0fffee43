"""What belongs to a line: by habit its batch-normalisation statistics, at most an encoder of its own.

Weights are shared by all lines; the running mean and variance of each normalisation are one line's.
Estimating them on the unlabelled pictures of a new line is the whole of AdaBN: no labels, no gradient.
A method that trains an encoder for the new line alone (ADDA) overrides its weights the same way.

Reference:
    Li et al., Revisiting batch normalization for practical domain adaptation, 2016, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.arrays import Image
from edge_sdk.errors import FormatError
from training.networks.cellnet import batch_norms

__all__ = ["Statistics", "estimated", "load_statistics", "own_weights", "some_of", "statistics_of", "with_statistics"]

ENOUGH = 500
"""Pictures that a line's statistics are measured on; more change them no further."""

Statistics = Mapping[str, Tensor]
"""What a line overrides of the network, by the names of its ``state_dict``: ``<module>.running_mean`` and
``<module>.running_var`` of every normalisation, and of some lines weights too."""


def statistics_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's statistics."""
    found: dict[str, Tensor] = {}
    for name, module in batch_norms(network):
        for kind in ("running_mean", "running_var"):
            found[f"{name}.{kind}"] = getattr(module, kind).detach().clone()
    return found


def own_weights(network: nn.Module, statistics: Statistics) -> dict[str, Tensor]:
    """Of what belongs to a line, all that is no normalisation: an encoder of its own, by habit nothing."""
    measured = statistics_of(network).keys()
    return {name: tensor for name, tensor in statistics.items() if name not in measured}


def load_statistics(network: nn.Module, statistics: Statistics) -> None:
    """Put what belongs to a line into the network.

    Raises:
        FormatError: The network has no such tensor, or one of another shape; it is left as it was.
    """
    own = network.state_dict()
    for name, tensor in statistics.items():
        if name not in own:
            raise FormatError(f"the line overrides {name}, which the network does not have; it is of another one")
        if own[name].shape != tensor.shape:
            raise FormatError(
                f"the line's {name} is {tuple(tensor.shape)}, but the network's is {tuple(own[name].shape)}; "
                "it is of another one"
            )
    with torch.no_grad():
        for name, tensor in statistics.items():
            own[name].copy_(tensor)


@contextmanager
def with_statistics(network: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Work with what belongs to a line for a while."""
    own = network.state_dict()
    before = {name: own[name].detach().clone() for name in statistics if name in own}
    load_statistics(network, statistics)
    try:
        yield
    finally:
        load_statistics(network, before)


def some_of(images: Image) -> Image:
    """At most ``ENOUGH`` of ``(N, H, W, 3)`` pictures, spread over all."""
    if len(images) <= ENOUGH:
        return images
    found: Image = images[np.linspace(0, len(images) - 1, ENOUGH).round().astype(int)]
    return found


def estimated(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The statistics that a network has on some pictures; the network is left as it was.

    Every normalisation normalises by its batch while those above it are measured, so a layer sees
    what it will see once all statistics are the new ones.  Of several batches the plain mean counts.

    Args:
        network: Any with batch normalisations; none of its weights changes.
        batches: ``(N, 3, H, W)`` preprocessed pictures, N above 1; no labels.
    """
    before = statistics_of(network)
    mode = network.training
    network.eval()
    momenta = {}
    for name, module in batch_norms(network):
        momenta[name] = module.momentum
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
        module.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    found = statistics_of(network)
    for name, module in batch_norms(network):
        module.momentum = momenta[name]
    load_statistics(network, before)
    network.train(mode)
    return found
