"""What a flag ``--device`` may name.  Training and fine-tuning both ask here, and bring what torch sees."""

from __future__ import annotations

from edge_sdk.errors import ConfigError

__all__ = ["check_device"]


def check_device(name: str, *, gpus: int) -> str:
    """A device that is there, by its name.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:1``.
        gpus: How many CUDA GPUs are to be seen, 0 or more.

    Returns:
        The name.

    Raises:
        ConfigError: There is no such kind of device, or not here.
    """
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise ConfigError(f"there is no device named {name!r}; give cpu, cuda or, of several GPUs, cuda:1")
    if kind == "cuda" and not gpus:
        raise ConfigError(f"device is {name}, but no CUDA GPU is to be seen here; give cpu")
    if kind == "cuda" and int(number or 0) >= gpus:
        there = ", ".join(f"cuda:{n}" for n in range(gpus))
        raise ConfigError(f"device is {name}, but there is only {there}; give one of these, or cpu")
    return name
