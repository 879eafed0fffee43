"""Good parts that are none, or are given wrongly: a sentence each, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge_sdk.arrays import Array
from edge_sdk.quality.datasets import load_dataset, read_image
from tests.export.conftest import call
from tests.training.scorers.normal_parts import plate, write_trunk
from training.cli import app
from training.scorers.commission import _folder
from training.scorers.distances import distances_of, scorer_of
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.normals import normals_in


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_trunk(tmp_path_factory.mktemp("trunk") / "ckpt")


def pictures(folder: Path, of: Callable[[int], Array], *, count: int = 24) -> Path:
    folder.mkdir()
    for number in range(count):
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), of(number))
    return folder


def fitted(folder: Path, out: Path, *more: object) -> tuple[int, str]:
    code, _, talk = call(app, "train", "--method", "gaussian", "--data", folder, "--out", out, "--side-px", 96, *more)
    return code, " ".join(talk.split())


def test_a_defect_among_the_good_parts_is_named_on_the_command_line(trunk: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "good", lambda n: plate(120 + n, dent=n in (3, 9)))
    code, talk = fitted(folder, tmp_path / "out", "--from", trunk)
    assert code == 0
    assert "003.png" in talk and "009.png" in talk and "lie far beyond the other good parts" in talk


def test_a_picture_of_another_part_is_named(trunk: Path, tmp_path: Path) -> None:
    other = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    folder = pictures(tmp_path / "good", lambda n: other if n == 5 else plate(120 + n))
    code, talk = fitted(folder, tmp_path / "out", "--from", trunk)
    assert code == 0 and "005.png lie far beyond the other good parts" in talk


@pytest.mark.parametrize("level", [lambda n: 90, lambda n: 60 + 4 * n])
def test_pictures_of_one_colour_are_refused(trunk: Path, tmp_path: Path, level: Callable[[int], int]) -> None:
    # a corner differs by a pixel, so that they are no copies
    folder = pictures(tmp_path / "good", lambda n: np.full((96 + n % 3, 128, 3), level(n) + n // 3, np.uint8))
    code, talk = fitted(folder, tmp_path / "out", "--from", trunk)
    assert code == 1 and "that were looked at are each of one colour; is the lens covered, or the lamp off?" in talk
    assert not (tmp_path / "out").exists()


def test_copies_of_one_picture_count_once(trunk: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "same", lambda n: plate(7))
    code, talk = fitted(folder, tmp_path / "out", "--from", trunk)
    assert code == 1
    assert "holds 1 good part that differ (23 copies); a scorer needs 8 at least" in talk
    some = normals_in(pictures(tmp_path / "some", lambda n: plate(max(n, 3))))
    assert [one.image for one in some.samples] == ["000.png", *(f"{n:03d}.png" for n in range(4, 24))]
    assert "3 pictures are copies of others, to the byte, and would make them look more alike" in some.notes[0]


@pytest.mark.parametrize(
    "of",
    [lambda n: plate(120 + n).astype(np.uint16) * 257, lambda n: cv2.cvtColor(plate(120 + n), cv2.COLOR_BGR2BGRA),
     lambda n: plate(120 + n)[..., 0]],
    ids=["16-bit", "alpha", "grey"],
)  # fmt: skip
def test_pictures_of_another_depth_or_channel_count_fit_as_their_8_bit_selves(
    trunk: Path, tmp_path: Path, of: Callable[[int], Array]
) -> None:
    recipe = ScorerRecipe(side_px=96, rank=20)
    usual = normals_in(pictures(tmp_path / "usual", lambda n: plate(120 + n), count=10))
    others = normals_in(pictures(tmp_path / "others", of, count=10))
    maps = []
    for normals in (usual, others):
        checkpoint, _, _ = fit_scorer(normals, recipe, lent=trunk)
        maps.append(distances_of(scorer_of(checkpoint), usual.samples, checkpoint.preprocess).maps)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-5)


def test_pictures_that_fill_12_of_16_bits_are_nearly_black_until_the_set_says_so(trunk: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "twelve", lambda n: plate(120 + n).astype(np.uint16) * 16, count=10)
    code, talk = fitted(folder, tmp_path / "out", "--from", trunk)
    talk = " ".join(talk.split())
    assert code == 0 and "nothing in the 5 pictures that were looked at is brighter than 1" in talk
    place = folder / "dataset.yaml"
    assert f"fills 12 of them, write `schema: dataset/1` and `bit_depth: 12` into {place}" in talk
    dim = pictures(tmp_path / "dim", lambda n: plate(120 + n).astype(np.uint16) // 2, count=10)
    code, talk = fitted(dim, tmp_path / "other", "--from", trunk)
    assert code == 1 and "are each of one colour" in talk and "`bit_depth: 12`" in talk
    (folder / "dataset.yaml").write_text("schema: dataset/1\nbit_depth: 12\n")
    code, talk = fitted(folder, tmp_path / "said", "--from", trunk)
    assert code == 0 and "brighter than" not in talk
    usual = normals_in(pictures(tmp_path / "usual", lambda n: plate(120 + n), count=10))
    samples = normals_in(folder).samples
    # as the commands that calibrate and pack see them
    with _folder(samples) as shown:
        seen = load_dataset(shown).samples
        for here, there in zip(seen, usual.samples, strict=True):
            np.testing.assert_array_equal(read_image(here), read_image(there))
    dark = pictures(tmp_path / "dark", lambda n: plate(120 + n) // 6, count=10)
    code, talk = fitted(dark, tmp_path / "dark-8", "--from", trunk)
    assert code == 0 and "of 255; give more light or a longer exposure" in talk and "bit_depth" not in talk


def test_what_is_no_picture_is_named_and_other_files_do_no_harm(trunk: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "good", lambda n: plate(120 + n), count=10)
    (folder / "notes.txt").write_text("night shift")
    assert fitted(folder, tmp_path / "out", "--from", trunk)[0] == 0
    (folder / "broken.png").write_bytes(b"not a picture")
    code, talk = fitted(folder, tmp_path / "other", "--from", trunk)
    assert code == 1 and "broken.png is no picture that can be read" in talk
    assert not (tmp_path / "other").exists()


def test_weights_of_another_trunk_and_damaged_weights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = pictures(tmp_path / "good", lambda n: plate(120 + n), count=10), tmp_path / "some.safetensors"
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(file))
    file.write_bytes(b"no tensors")
    code, talk = fitted(folder, tmp_path / "out")
    assert code == 1 and "some.safetensors is no safetensors file" in talk and "it is missing or damaged" in talk
    save_file({"stem": torch.zeros(2)}, str(file))
    code, talk = fitted(folder, tmp_path / "out")
    assert code == 1 and "the weights lack blocks.0.0.bn1.bias of the trunk; give those of MobileNetV2 1.0" in talk
