"""Pictures of a feature space before and after adaptation, with the figure that they must be read by.

t-SNE pulls apart and pushes together as it likes, so the proxy A-distance of a held-out probe is always printed
beside it.  Colours by class use labels: such pictures are made of an ``Evaluation`` and of nothing else.

Reference:
    van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 2008.  The colour-gap paper, figures 2 to 4;
    the mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), figure 3.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError, ShapeError
from training.probe import domain_probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MOST", "Cloud", "alignment_picture", "plane_of"]

COLOURS = {
    "original line": "#3d6fb4",
    "new line": "#d0661c",
    "healthy": "#a5a9b1",
    "defective": "#c23b3b",
    "known": "#2e8b62",
    "missed": "#c23b3b",
}
"""Those of the reports; of other kinds the next of ``OTHERS``."""
OTHERS = ("#c23b3b", "#7a4fb0", "#2e8b62", "#b98408", "#178a9c", "#b0417f", "#6b7a1e", "#4a4f9c")
INK, SOFT, LINE = "#1b1d22", "#5c616b", "#e2e0d8"
PERPLEXITY = 30.0
COMPONENTS = 50
MOST = 600
"""Points of a line; of more, so many are drawn by lot."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """Both lines in one model's feature space."""

    title: str
    features: Array
    """``(n, F)``, both lines."""
    lines: Sequence[str]
    """``(n,)``: ``original line`` or ``new line``, perhaps with more behind a comma."""
    units: Sequence[str] | None = None
    """``(n,)``: what the probe may not tear apart."""
    kinds: Sequence[str] | None = None
    """``(n,)``: classes, from an evaluation."""

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.lines):
            raise ShapeError(f"features are {self.features.shape} for {len(self.lines)} points; give (n, F)")
        if not len(self.features):
            raise RangeError(f"{self.title}: no point to draw; give at least one")

    @property
    def is_new(self) -> Array:
        """``(n,)``"""
        return np.array([line.startswith("new line") for line in self.lines])

    def distance(self, *, seed: int = 0) -> float | None:
        """Proxy A-distance between the lines; ``None`` with too few points."""
        units = np.array(self.units if self.units is not None else [str(n) for n in range(len(self.lines))])
        new = self.is_new
        probe = domain_probe(
            self.features[~new],
            self.features[new],
            original_units=units[~new].tolist(),
            new_units=units[new].tolist(),
            seed=seed,
        )
        return None if probe is None else probe.distance


def plane_of(features: Array, *, seed: int = 0) -> Array:
    """Features in the plane: PCA to at most 50, then t-SNE; one fit for all rows.

    Args:
        features: ``(n, F)`` of both lines.
        seed: Of t-SNE; the same gives the same plane.

    Returns:
        ``(n, 2)``; for fewer than 8 rows, or rows that are all equal, the first two principal components.
        The perplexity is 30, or a third of the other rows where there are fewer than 91.
    """
    from sklearn.manifold import TSNE

    values = np.asarray(features, np.float64)
    count = len(values)
    left, sizes, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    # the sign of a component is the library's whim: the largest entry is made positive
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    components = left * sizes * np.where(signs == 0, 1, signs)
    if count < 8 or sizes[0] < 1e-9:
        plane = np.zeros((count, 2))
        plane[:, : min(2, len(sizes))] = components[:, :2]
        return plane
    if components.shape[1] < 2:
        components = np.c_[components, np.zeros(count)]
    start = components[:, :2] / max(float(components[:, 0].std()), 1e-12) * 1e-4
    tsne = TSNE(2, perplexity=min(PERPLEXITY, (count - 1) / 3), init=start, random_state=seed, max_iter=500)
    return np.asarray(tsne.fit_transform(components[:, :COMPONENTS]), np.float64)


def alignment_picture(
    clouds: Sequence[Cloud],
    *,
    seed: int = 0,
    form: Literal["svg", "png"] = "svg",
    transparent: bool = False,
    classes: str = "by class",
) -> bytes:
    """Draw feature spaces side by side: coloured by line, and below by class where the classes are known.

    Args:
        clouds: One a model, e.g. before and after; each is fitted for itself, both its lines together.
        seed: Of t-SNE, of the probe and of which points are left out.
        form: ``svg`` with real text, or ``png``.
        transparent: Without a ground, to lie on a page.
        classes: What the second row is called.

    Returns:
        The file; the same input gives the same bytes.

    Raises:
        RangeError: There is no cloud, or one is empty.
    """
    if not clouds:
        raise RangeError("no feature space to draw; give at least one")
    thinned = [_thinned(cloud, seed) for cloud in clouds]
    rows = 2 if any(cloud.kinds is not None for cloud in thinned) else 1
    with _house_style():
        from matplotlib.figure import Figure as NewFigure

        figure = NewFigure(figsize=(3.1 * len(thinned), 3.15 * rows + 0.2), layout="constrained")
        axes = figure.subplots(rows, len(thinned), squeeze=False)
        for column, (cloud, whole) in enumerate(zip(thinned, clouds, strict=True)):
            plane = plane_of(cloud.features, seed=seed)
            distance = whole.distance(seed=seed)
            said = "too few to say" if distance is None else f"{distance:.2f} of 2"
            _draw(axes[0, column], plane, cloud.lines, shapes=cloud.lines)
            axes[0, column].set_title(cloud.title, fontsize=11, color=INK, fontweight="bold", loc="left")
            axes[0, column].set_xlabel(f"A-distance {said}", fontsize=10, color=INK)
            if rows == 2:
                _draw(axes[1, column], plane, cloud.kinds or ["not known"] * len(cloud.lines), shapes=cloud.lines)
        if rows == 2:
            axes[0, 0].set_ylabel("by line", fontsize=10, color=SOFT)
            axes[1, 0].set_ylabel(classes, fontsize=10, color=SOFT)
        return _saved(figure, form, transparent=transparent)


def _thinned(cloud: Cloud, seed: int) -> Cloud:
    """At most ``MOST`` points of each line."""
    chance = np.random.default_rng(seed)
    keep = np.ones(len(cloud.lines), bool)
    for new in (False, True):
        mine = np.flatnonzero(cloud.is_new == new)
        if len(mine) > MOST:
            keep[chance.permutation(mine)[MOST:]] = False
    which: list[int] = np.flatnonzero(keep).tolist()
    return Cloud(
        cloud.title,
        cloud.features[which],
        [cloud.lines[n] for n in which],
        None if cloud.units is None else [cloud.units[n] for n in which],
        None if cloud.kinds is None else [cloud.kinds[n] for n in which],
    )


def _draw(axes: Axes, plane: Array, kinds: Sequence[str], *, shapes: Sequence[str]) -> None:
    """Points of each kind in its colour; circles of the original line, lozenges of the new one."""
    order = list(COLOURS)
    names = sorted(set(kinds), key=lambda name: (order.index(name) if name in COLOURS else len(order), name))
    colours = _colours(names)
    size = 26 if len(plane) < 120 else 14 if len(plane) < 500 else 8
    for name in names:
        for new in (False, True):
            mine = np.array([k == name and s.startswith("new line") == new for k, s in zip(kinds, shapes, strict=True)])
            if mine.any():
                x, y = plane[mine, 0], plane[mine, 1]
                axes.scatter(x, y, s=size, marker="D" if new else "o", c=colours[name], alpha=0.75, linewidths=0)
    for name in names:
        lozenge = all(s.startswith("new line") for k, s in zip(kinds, shapes, strict=True) if k == name)
        axes.scatter([], [], s=26, marker="D" if lozenge else "o", c=colours[name], linewidths=0, label=name)
    columns = 2 if max(len(name) for name in names) > 12 else 3  # a wide legend would squeeze the panel
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(columns, len(names)), frameon=False, fontsize=9,
        labelcolor=SOFT, handletextpad=0.2, columnspacing=1.0, borderpad=0,
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(LINE)


def _colours(names: Sequence[str]) -> Mapping[str, str]:
    others = iter(OTHERS * (len(names) // len(OTHERS) + 1))
    return {
        name: COLOURS.get(name) or COLOURS.get(name.rpartition(", ")[2]) or next(others) for name in names
    }


def _house_style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(
        {"svg.hashsalt": "edge-sdk", "svg.fonttype": "none", "font.family": "DejaVu Sans", "axes.linewidth": 0.8}
    )


def _saved(figure: Figure, form: Literal["svg", "png"], *, transparent: bool) -> bytes:
    file = io.BytesIO()
    if form == "svg":
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=transparent)
        text = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue().decode(), flags=re.DOTALL)
        return text.replace("'DejaVu Sans'", "system-ui, sans-serif").encode()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None}, transparent=transparent)
    return file.getvalue()
