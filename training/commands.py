"""What the commands of ``python -m training`` have in common: their config, their bars, their result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.console import hand_out, say

if TYPE_CHECKING:
    from training.config import Config
    from training.outcome import Work

__all__ = ["at_work", "config_given", "hand_over", "resume_beside"]


def config_given(
    recipe: Path | None,
    data: list[Path] | None,
    original: str | None,
    new: list[str] | None,
    gap: str | None,
    seed: int | None,
    device: str | None,
    threads: int | None,
    quick: bool,
    **settings: Any,
) -> Config:
    """The recipe file with the flags over it."""
    from training.config import config_of

    return config_of(
        recipe,
        data=tuple(data) if data else None,
        original=None if original is None else tuple(original.split(",")),
        new=tuple(new) if new else None,
        gap=gap,
        seed=seed,
        device=device,
        threads=threads,
        quickly=quick or None,
        **settings,
    )


def whole_cells(side_px: int | None) -> int | None:
    """A side as networks take it: the nearest multiple of 16 pixels, at least 32."""
    return None if side_px is None else 16 * max(2, round(side_px / 16))


@contextmanager
def at_work(config: Config) -> Iterator[Work]:
    """Bars, notes and curves of a command, on the config's device and with the other processes if there are any."""
    from training.api import working
    from training.outcome import Work
    from training.progress import shown

    with working(config) as together, shown(hidden=not together.first) as (progress, curves):
        yield Work(config, progress, curves, together.first, say)


def hand_over(work: Work, facts: Mapping[str, Any], as_json: bool, text: str) -> None:
    """The result, once of all processes."""
    if work.first:
        hand_out(dict(facts), as_json=as_json, text=text)


def resume_beside(out: Path) -> Path:
    """Where the state of a training under way is kept."""
    return out.with_name(f".{out.name}.resume.safetensors")
