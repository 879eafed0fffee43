"""What a line's normals say of it: count, mean and variance of what enters each normalisation, as a file.

``transfer`` makes a new line of it without a gradient step.  Several places that make the same part each write such a
file, one place pools them, and no picture leaves its line: a file holds one count and two numbers a channel.

A normalisation's input hangs on how those below it normalise, so moments are pooled that were measured alike:

- *own*, by habit: every line is whitened by its own normals, batch by batch; what is pooled are the moments of the
  union of such whitened lines;
- *under* given statistics: the pooled moments are, to rounding, those of the union as one set.  After as many exchanges
  as normalisations lie on one another, each measured under what the last one pooled, nothing differs from a line that
  holds all pictures: each exchange settles at least one more of them.

Reference:
    Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edge_sdk.documents import sha256_hex, write_atomic
from edge_sdk.errors import ConfigError, FormatError, RangeError
from training.networks.cellnet import CellNetwork, batch_norms
from training.statistics import Statistics, statistics_of, with_statistics

__all__ = ["OWN", "Moment", "Moments", "load_moments", "moments_of", "pooled", "save_moments", "statistics_from"]

SCHEMA = "moments/1"
OWN = "own"
"""In place of a digest: each line was normalised by its own batches."""
FEATURE = "feature"
"""Among the names: the pooled feature, of which a line's drift reference is made."""


@dataclass(frozen=True, eq=False)
class Moment:
    """Of n values a channel, all channels the same n."""

    count: int
    """n, above 0."""
    mean: Tensor
    """``(C,)`` float64."""
    variance: Tensor
    """``(C,)`` float64, the mean squared deviation: divided by n."""

    def joined(self, other: Moment) -> Moment:
        """Of both sets of values together.

        ``n = n_a + n_b``, ``m = m_a + (n_b / n) d`` and ``n v = n_a v_a + n_b v_b + (n_a n_b / n) d^2`` with
        ``d = m_b - m_a``, which loses no digits where the mean is large, as a sum of squares would.
        """
        whole = self.count + other.count
        apart = other.mean - self.mean
        share = other.count / whole
        variance = (1 - share) * self.variance + share * other.variance + (1 - share) * share * apart**2
        return Moment(whole, self.mean + share * apart, variance)


@dataclass(frozen=True, eq=False)
class Moments:
    """Of one network on some pictures."""

    weights: str
    """sha256 of the network's weights, without its normalisations' statistics."""
    under: str
    """``own``, or sha256 of the statistics that the network normalised by."""
    pictures: int
    of: Mapping[str, Moment]
    """By name of the normalisation; and ``feature``."""


def moments_of(network: CellNetwork, batches: Iterable[Tensor], *, under: Statistics | None = None) -> Moments:
    """Measure; the network is left as it was.

    Args:
        network: Its weights count, and none of its statistics.
        batches: ``(N, 3, H, W)`` preprocessed pictures, N above 1 unless ``under`` is given.
        under: What to normalise by; without it each batch normalises itself, as ``training.statistics.estimated`` does.

    Raises:
        ConfigError: The network has no normalisation, or there is no picture.
    """
    found: dict[str, Moment] = {}
    norms = dict(batch_norms(network))
    if not norms:
        raise ConfigError("the network has no normalisation, so a line's normals say nothing of it; train another one")

    def look(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        _add(found, name, given[0])

    hooks = [module.register_forward_pre_hook(partial(look, name)) for name, module in norms.items()]
    mode, before = network.training, _buffers(network)
    pictures = 0
    try:
        network.eval()
        for module in norms.values():
            module.train(under is None)
        with torch.no_grad(), with_statistics(network, under or {}):
            for batch in batches:
                pictures += len(batch)
                _add(found, FEATURE, network(batch).feature)
    finally:
        for hook in hooks:
            hook.remove()
        network.load_state_dict(before, strict=False)
        network.train(mode)
    if not pictures:
        raise ConfigError("there is no picture to measure; give at least one of the new line's normals")
    digest = OWN if under is None else _digest({name: under[name] for name in sorted(under)})
    return Moments(_weights(network), digest, pictures, found)


def pooled(parts: Sequence[Moments]) -> Moments:
    """The moments of all the parts' pictures together, exact for what entered each normalisation.

    Args:
        parts: At least one, measured with the same weights and normalised alike.

    Raises:
        RangeError: There is none, or one counts no value.
        FormatError: Two were measured with different weights, or under different statistics.
    """
    if not parts:
        raise RangeError("no statistics are given to pool; give at least one file")
    first = parts[0]
    for number, one in enumerate(parts, 1):
        if one.pictures < 1 or any(moment.count < 1 for moment in one.of.values()):
            raise RangeError(f"statistics {number} of {len(parts)} count no picture; measure some, or leave them out")
        _check_same(first, one, number)
    whole = dict(first.of)
    for one in parts[1:]:
        whole = {name: moment.joined(one.of[name]) for name, moment in whole.items()}
    return Moments(first.weights, first.under, sum(one.pictures for one in parts), whole)


def statistics_from(moments: Moments, network: CellNetwork) -> dict[str, Tensor]:
    """The line's ``running_mean`` and ``running_var`` of every normalisation, float32; the variance divided by n - 1.

    Raises:
        FormatError: The moments are of another network.
    """
    own = {name: module.num_features for name, module in batch_norms(network)}
    theirs = {name: len(moment.mean) for name, moment in moments.of.items() if name != FEATURE}
    strange = sorted(own.items() ^ theirs.items())
    if strange:
        name, channels = strange[0]
        raise FormatError(
            f"the statistics are of another architecture: {name} with {channels} channels is in one of the two alone; "
            "measure them with this checkpoint"
        )
    if moments.weights != _weights(network):
        raise FormatError(
            "the statistics were measured with other weights than this checkpoint's; measure them with this checkpoint"
        )
    found: dict[str, Tensor] = {}
    for name in own:
        one = moments.of[name]
        found[f"{name}.running_mean"] = one.mean.float()
        found[f"{name}.running_var"] = (one.variance * (one.count / max(one.count - 1, 1))).float()
    return found


def save_moments(moments: Moments, path: Path) -> None:
    """Write a ``moments/1`` file: float64 tensors, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, one in moments.of.items():
        tensors |= {f"{name}.mean": one.mean.contiguous(), f"{name}.variance": one.variance.contiguous()}
    said = {
        "schema": SCHEMA,
        "weights": moments.weights,
        "under": moments.under,
        "pictures": str(moments.pictures),
        "counts": json.dumps({name: one.count for name, one in moments.of.items()}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save(tensors, said))


def load_moments(path: Path) -> Moments:
    """Read a ``moments/1`` file.

    Raises:
        ConfigError: There is no such file.
        FormatError: It is something else, or damaged.
        RangeError: It counts no picture, or holds a variance below 0 or a value that is no number.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; give what `python -m training transfer --moments` wrote")
    try:
        with safe_open(path, "pt") as file:
            said: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if said.get("schema") != SCHEMA:
            raise FormatError(f"{path} is of {said.get('schema')!r}; this version reads {SCHEMA}")
        counts: dict[str, Any] = json.loads(said["counts"])
        found = {
            name: Moment(int(count), tensors[f"{name}.mean"].double(), tensors[f"{name}.variance"].double())
            for name, count in counts.items()
        }
        moments = Moments(said["weights"], said["under"], int(said["pictures"]), found)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} holds no statistics of a line ({error}); it is damaged or something else") from error
    if moments.pictures < 1 or any(one.count < 1 for one in found.values()):
        raise RangeError(f"{path} counts no picture; measure some, or leave it out")
    if FEATURE not in found:
        raise FormatError(
            f"{path} holds no moments of the feature, of which a line's drift reference is made; measure again with "
            "`python -m training transfer --moments`"
        )
    for name, one in found.items():
        fine = torch.isfinite(one.mean).all() and torch.isfinite(one.variance).all() and (one.variance >= 0).all()
        if not fine:
            raise RangeError(f"{path}: {name} has a variance below 0 or a value that is no number; measure again")
    return moments


def _add(found: dict[str, Moment], name: str, values: Tensor) -> None:
    rows = values.detach().double().movedim(1, -1).reshape(-1, values.shape[1]).cpu()
    one = Moment(len(rows), rows.mean(0), rows.var(0, unbiased=False))
    found[name] = found[name].joined(one) if name in found else one


def _check_same(first: Moments, one: Moments, number: int) -> None:
    shapes = [{name: len(moment.mean) for name, moment in each.of.items()} for each in (first, one)]
    if shapes[0] != shapes[1]:
        name = min(shapes[0].items() ^ shapes[1].items())[0]
        raise FormatError(
            f"statistics 1 and {number} are of different architectures ({name}); measure all with one checkpoint"
        )
    if first.weights != one.weights:
        raise FormatError(
            f"statistics 1 and {number} were measured with different weights; measure all with one checkpoint"
        )
    if first.under != one.under:
        raise FormatError(
            f"statistics 1 and {number} were measured under different normalisations; measure all alike"
        )


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    kept = dict(statistics_of(network))
    for name, module in batch_norms(network):
        if module.num_batches_tracked is not None:
            kept[f"{name}.num_batches_tracked"] = module.num_batches_tracked.detach().clone()
    return kept


def _weights(network: nn.Module) -> str:
    buffers = _buffers(network).keys()
    return _digest({name: tensor for name, tensor in network.state_dict().items() if name not in buffers})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    pieces = [name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes() for name, tensor in tensors.items()]
    return sha256_hex(b"".join(pieces))
