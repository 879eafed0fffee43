"""Whether the graph computes what the network computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from onnx import ModelProto
from torch import nn

from calibration.exported import ParityRow
from calibration.sessions import open_session
from edge_sdk.arrays import Array, Floats
from edge_sdk.quality.areas import areas_from_outputs
from edge_sdk.vision.preprocess import PreprocessSpec
from edge_sdk.vision.tiles import outputs_of_frame
from export.graph import ExportError, Named

__all__ = ["BATCHES", "check_parity"]

BATCHES = (1, 2, 5)
"""1 is the station's, 2 the exporter's example; the third is any other."""
_RELATIVE = 1e-4
"""Of the greatest magnitude of an output: two correct runtimes sum in other orders."""


def check_parity(
    network: nn.Module, model: ModelProto, spec: PreprocessSpec, *, batches: Sequence[int] = BATCHES
) -> tuple[ParityRow, ...]:
    """Compare graph and network on the same random frames.

    Args:
        network: That was exported.
        model: That was written.
        spec: Height and width.
        batches: Sizes of N to try.

    Returns:
        A row for each batch size and output.

    Raises:
        ExportError: They differ by more than rounding.
    """
    session = open_session(model)
    named = Named(network, session.outputs).eval()
    random = np.random.default_rng(0)
    rows = []

    def asked(frame: Floats) -> dict[str, Array]:
        with torch.no_grad():
            given = named(torch.from_numpy(frame))
        return {name: value.numpy() for name, value in zip(session.outputs, given, strict=True)}

    compared: list[tuple[int, dict[str, Array], dict[str, Array]]] = []
    for batch in batches:
        frame = random.normal(size=(batch, 3, spec.height, spec.width)).astype(np.float32)
        compared.append((batch, asked(frame), session.run(frame)))
    if spec.tile_overlap_px is not None:
        # a frame of several tiles, as the station puts them together
        size = 2 * spec.height * (spec.shrink or 1), 2 * spec.width * (spec.shrink or 1), 3
        image = random.integers(0, 256, size, np.uint8)
        given, found = outputs_of_frame(image, spec, asked), outputs_of_frame(image, spec, session.run)
        compared.append((1, *_spoken(given, found, spec, (size[0], size[1]))))
    for batch, given, found in compared:
        for name, reference in given.items():
            if found[name].shape != reference.shape:
                raise ExportError(
                    f"at batch {batch} the graph's {name} is {found[name].shape}, the network's {reference.shape}; "
                    "the graph does not follow the batch"
                )
            if not np.isfinite(reference).all():
                raise ExportError(
                    f"the network's {name} is not finite on ordinary frames; is the checkpoint sound?"
                )
            difference = float(np.abs(found[name] - reference).max(initial=0))
            allowed = _RELATIVE * max(1.0, float(np.abs(reference).max(initial=0)))
            rows.append(ParityRow(batch=batch, output=name, greatest_difference=difference, allowed=allowed))
            # not (a <= b): NaN differs too
            if not difference <= allowed:
                raise ExportError(
                    f"at batch {batch} the graph's {name} differs from the network's by {difference:.3g}, more than "
                    f"{allowed:.3g}; the export is wrong, do not use it"
                )
    return tuple(rows)


def _spoken(
    given: dict[str, Array], found: dict[str, Array], spec: PreprocessSpec, size: tuple[int, int]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Of a detector's tiles what they speak for, in their own pixels; everything else as it is.

    What a tile leaves to its neighbour, and how far off it lies, would else say how much the two may differ.
    """
    areas = [areas_from_outputs(one, spec, [size]) for one in (given, found)]
    if areas[0] is None or areas[1] is None or "boxes" not in given:
        return given, found
    speak = areas[0].valid[0, :, 0] & areas[1].valid[0, :, 0]
    first, second = (
        {**one, "boxes": np.asarray(seen.raw)[:, speak], "scores": one["scores"][:, speak]}
        for one, seen in zip((given, found), areas, strict=True)
        if seen is not None
    )
    return first, second
