"""What two graphs are compared on: the picture and not its padding, and of a detector what its tiles speak for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_sdk.arrays import Floats
from edge_sdk.errors import ShapeError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.areas import Areas, areas_from_outputs
from edge_sdk.quality.gates import Measured, compare, verdicts
from edge_sdk.quality.measures import sqnr_db
from edge_sdk.vision.preprocess import PreprocessSpec, tiled
from edge_sdk.vision.tiles import Infer, outputs_of_frame, tiles_of

SPEC = PreprocessSpec(width=64, height=64)
WIDE = (32, 64)
"""A picture that leaves the upper and the lower quarter of the input empty."""
BAND = Thresholds.uniform(1, boundary=0.5, pass_below=0.3, defective_from=0.8)
TILED = replace(SPEC, tile_overlap_px=16)
LARGE = (400, 640)


def cells(value: float = -5.0) -> Floats:
    return np.full((1, 1, 8, 8), value, np.float32)


Outputs = dict[str, Floats]


def measured(before: Outputs, after: Outputs, spec: PreprocessSpec, size: tuple[int, int]) -> Measured:
    one, two = (areas_from_outputs(outputs, spec, [size]) for outputs in (before, after))
    assert one is not None and two is not None
    return compare(one, two, BAND)


def test_what_happens_in_the_padding_is_no_verdict_no_score_and_no_noise() -> None:
    quiet, loud = cells(), cells()
    loud[0, 0, 0, 3] = 6.0  # in the padding above the picture
    said = areas_from_outputs({"cells": loud}, SPEC, [WIDE])
    assert said is not None
    assert verdicts(said.confidence(), BAND).tolist() == [0]
    assert said.surest().tolist() == [[-5.0]]
    seen = measured({"cells": quiet}, {"cells": loud}, SPEC, WIDE)
    assert (seen.flips, seen.cells_agreement, seen.sqnr_db) == ((), 1.0, float("inf"))
    loud[0, 0, 3, 3] = 6.0  # and on the picture
    assert measured({"cells": quiet}, {"cells": loud}, SPEC, WIDE).flips == (0,)


def test_quiet_padding_does_not_make_a_bad_graph_look_like_a_good_one() -> None:
    before, after = cells(-1.0), cells(-1.5)
    for logits in (before, after):
        logits[0, 0, :2] = logits[0, 0, 6:] = -20.0
    assert sqnr_db(before, after) > 20
    assert measured({"cells": before}, {"cells": after}, SPEC, WIDE).sqnr_db == pytest.approx(10 * np.log10(1 / 0.25))


def test_of_an_anomaly_map_the_padding_says_nothing_either() -> None:
    before, after = cells(1.0), cells(1.0)
    after[0, 0, 0] = 40.0
    one, two = (areas_from_outputs({"novelty": each}, SPEC, [WIDE], normals=[1.0, 2.0]) for each in (before, after))
    assert one is not None and two is not None
    assert compare(one, two, BAND).sqnr_db == float("inf") and compare(one, two, BAND).flips == ()


def test_a_box_beside_the_picture_is_no_detection() -> None:
    boxes = np.array([[[0, 0, 64, 12], [4, 20, 30, 40]]], np.float32)  # the first lies in the padding
    scores = np.array([[[6.0], [-4.0]]], np.float32)
    said = areas_from_outputs({"boxes": boxes, "scores": scores}, SPEC, [WIDE])
    assert said is not None and said.valid[0, :, 0].tolist() == [False, True]
    assert verdicts(said.confidence(), BAND).tolist() == [0]


def detector(noise: float, shift: float = 0.0) -> Infer:
    """Anchors on a grid of 8 pixels with scores of their own, off by up to ``noise``, and boxes moved by ``shift``."""
    random = np.random.default_rng(3)
    centres = np.stack(np.meshgrid(np.arange(4, 64, 8), np.arange(4, 64, 8)), axis=-1).reshape(-1, 2)
    boxes = np.concatenate([centres - 6, centres + 6], axis=1).astype(np.float32)
    scores = random.normal(-4, 0.5, (len(boxes), 1)).astype(np.float32)
    off = np.random.default_rng(4).uniform(-noise, noise, scores.shape).astype(np.float32)

    def infer(frame: Floats) -> Outputs:
        return {"boxes": boxes[None] + np.float32(shift), "scores": (scores + off)[None]}

    return infer


def test_tiles_do_not_hide_how_far_a_detector_is_from_its_graph() -> None:
    image = np.zeros((*LARGE, 3), np.uint8)
    good, bad = detector(0.0), detector(2.0)
    before, after = (outputs_of_frame(image, TILED, one) for one in (good, bad))
    alone = sqnr_db(good(np.zeros(1))["scores"], bad(np.zeros(1))["scores"])
    assert sqnr_db(before["scores"], after["scores"]) > 20 > 15 > alone  # what no tile speaks for is loud and equal
    seen = measured(before, after, TILED, LARGE)
    assert seen.sqnr_db == pytest.approx(alone, abs=1.0)


def test_a_box_is_as_far_off_in_the_last_tile_as_in_the_first() -> None:
    image = np.zeros((*LARGE, 3), np.uint8)
    good, moved = detector(0.0), detector(0.0, shift=4.0)
    before, after = (outputs_of_frame(image, TILED, one) for one in (good, moved))
    alone = sqnr_db(good(np.zeros(1))["boxes"], moved(np.zeros(1))["boxes"])
    assert sqnr_db(before["boxes"], after["boxes"]) > alone + 10
    assert measured(before, after, TILED, LARGE).sqnr_db == pytest.approx(alone, abs=1.0)


def test_a_box_that_rounding_takes_to_the_next_tile_does_not_fail_an_engine() -> None:
    image = np.zeros((*LARGE, 3), np.uint8)
    down, _ = tiled(TILED, *LARGE)
    border = down.cores()[1] + 2 - down.starts[0]  # its tile's core ends there, with the slack of an eighth

    def infer(centre: float) -> Infer:
        boxes = np.array([[[20, centre - 6, 32, centre + 6], [20, 20, 32, 32]]], np.float32)
        return lambda frame: {"boxes": boxes, "scores": np.full((1, 2, 1), -2.0, np.float32)}

    before, after = (outputs_of_frame(image, TILED, infer(border + off)) for off in (-1e-3, 1e-3))
    assert sqnr_db(before["scores"], after["scores"]) < 20
    assert measured(before, after, TILED, LARGE).sqnr_db > 60


def test_a_detector_that_gives_no_numbers_or_no_boxes_on_the_picture_is_told() -> None:
    image = np.zeros((*LARGE, 3), np.uint8)
    before = outputs_of_frame(image, TILED, detector(0.0))
    gone = {"boxes": before["boxes"] - 1e4, "scores": before["scores"]}
    assert measured(before, gone, TILED, LARGE).sqnr_db < 0
    nothing = {name: np.full_like(values, np.nan) for name, values in before.items()}
    seen = measured(before, nothing, TILED, LARGE)
    assert seen.sqnr_db == float("-inf") and seen.flips == (0,)


def test_tiles_of_one_frame_are_as_many_as_its_boxes_say() -> None:
    before = outputs_of_frame(np.zeros((*LARGE, 3), np.uint8), TILED, detector(0.0))
    said = areas_from_outputs(before, TILED, [LARGE])
    assert said is not None and said.raw is not None
    each = said.raw.reshape(len(tiles_of(TILED, *LARGE)), -1, 4)
    np.testing.assert_allclose(each, np.broadcast_to(each[:1], each.shape), atol=1e-4)


def test_areas_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"^2 sizes for 1 pictures; give one of each$"):
        areas_from_outputs({"cells": cells()}, SPEC, [WIDE, WIDE])
    with pytest.raises(ShapeError, match=r"^valid is \(1, 4, 4\) for logits \(1, 1, 8, 8\); give \(1, 8, 8\)$"):
        Areas(cells(), np.ones((1, 4, 4), bool))
    with pytest.raises(ShapeError, match=r"^boxes is \(1, 3, 4\) for 2 anchors; give \(N, A, 4\), one row an anchor$"):
        areas_from_outputs({"boxes": np.zeros((1, 3, 4)), "scores": np.zeros((1, 2, 1))}, SPEC, [WIDE])
    assert areas_from_outputs({"feature": np.zeros((1, 4))}, SPEC, [WIDE]) is None
