"""Two sets of pictures compared: the tests against slow versions, what is said, and the command."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from edge_sdk.answers import MentoredRow
from edge_sdk.arrays import Image
from edge_sdk.documents import canonical_json, sha256_file, sha256_hex
from edge_sdk.errors import ConfigError, DatasetError, RangeError, ShapeError
from edge_sdk.manifest import manifest_bytes, read_manifest
from edge_sdk.quality.novelty import confidence_of_distances
from edge_sdk.records import DriftNote, ItemHeader, Part
from edge_sdk.runners import open_runner
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import Adjustment, preprocess
from tests import stations
from tests.export.conftest import call as called
from training.cli import app
from training.drift import adjustment, compare
from training.drift_sides import Picture, model_of, pictures_of, seen_of, sets_of
from training.drift_words import Told, has_moved, too_few
from training.losses.discrepancy import FACTORS
from training.two_sample import Test, ks_test, mmd_test

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    stations.spot_bundle(folder)
    return folder


def folder_of(place: Path, count: int = 40, *, seed: int = 0, gain: object = 1.0, blur: float = 0.0, spots: int = 0,
              labelled: bool = False) -> Path:  # fmt: skip
    """Drawn pictures with some grain, changed."""
    place.mkdir(parents=True)
    rows = ["image,label"]
    for n in range(count):
        spot = (60, 80, 24) if n < spots else None
        image = drawn_picture(seed=seed + n, spot=spot) + RNG(seed + n).normal(0, 6, (120, 160, 3))
        image = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
        pixels = np.clip(np.rint(image * np.array(gain)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(place / f"{n:03d}.png"), pixels)
        rows.append(f"{n:03d}.png,{'spot' if spot else 'good'}")
    if labelled:
        (place / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return place


def export_of(place: Path, *, gains: tuple[float, ...], control: bool = True, note: str = "") -> Path:
    """A hub's export: a record an hour, each as bright as its gain says."""
    (place / "pictures").mkdir(parents=True)
    rows = []
    for n, gain in enumerate(gains):
        image = drawn_picture(seed=n) + RNG(n).normal(0, 6, (120, 160, 3))
        data = cv2.imencode(".png", np.clip(image * gain, 0, 255).astype(np.uint8))[1].tobytes()
        (place / f"pictures/{n}.png").write_bytes(data)
        header = ItemHeader(
            station="press-3",
            camera="camera",
            boot_id="boot",
            seq=n,
            captured_at=datetime(2026, 11, 21, tzinfo=timezone.utc) + timedelta(hours=n),
            model="0" * 64,
            reason="control",
            stratum="control" if control else "uncertain",
            value=0.5,
            inclusion_probability=0.1,
            verdict="passed",
            thresholds={},
            drift=DriftNote(state="alarm", sentence=note) if note and gain != 1 else None,
            parts=(Part(role="frame", type="image/png", bytes=len(data), sha256=sha256_hex(data)),),
        )
        rows.append(MentoredRow(item=sha256_hex(data), picture=f"pictures/{n}.png", header=header))
    lines = (canonical_json(row.model_dump(mode="json", by_alias=True, exclude_none=True)) for row in rows)
    (place / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (place / "answers.jsonl").write_bytes(b"")
    said = {"schema": "mentored/1", "mark": 0, "counts": {}, "files": {}}
    (place / "export.json").write_bytes(canonical_json(said))
    return place


# -- the tests


def test_the_score_test_equals_a_slow_version() -> None:
    here, there = RNG(0).normal(0, 1, 40), RNG(1).normal(0.5, 1, 60)
    grid = np.concatenate([here, there])
    slow = max(abs((here <= s).mean() - (there <= s).mean()) for s in grid)
    assert ks_test(here, there).statistic == pytest.approx(slow)
    assert ks_test(here, here).p == 1.0


def test_the_feature_test_equals_a_slow_version() -> None:
    here, there = RNG(0).normal(0, 2, (9, 3)), RNG(1).normal(1, 2, (11, 3))
    rows = np.concatenate([here, there]) / here.std(axis=0)
    count = len(rows)
    distance = [[float(((a - b) ** 2).sum()) for b in rows] for a in rows]
    bandwidth = sum(map(sum, distance)) / (count * (count - 1))

    def kernel(i: int, j: int) -> float:
        return sum(np.exp(-distance[i][j] / (factor * bandwidth)) for factor in FACTORS) / len(FACTORS)

    slow = sum(kernel(i, j) for i in range(9) for j in range(9)) / 81
    slow += sum(kernel(i, j) for i in range(9, 20) for j in range(9, 20)) / 121
    slow -= 2 * sum(kernel(i, j) for i in range(9) for j in range(9, 20)) / 99
    found = mmd_test(here, there, rounds=20)
    assert found is not None and found.statistic == pytest.approx(slow)


def test_the_feature_test_is_as_seldom_wrong_as_it_says_and_sees_a_shift() -> None:
    wrong = [
        found.p < 0.05
        for seed in range(100)
        if (found := mmd_test(RNG(seed).normal(size=(20, 4)), RNG(1000 + seed).normal(size=(20, 4)), rounds=99))
    ]
    assert np.mean(wrong) <= 0.12  # 5 %, three standard errors
    shifted = mmd_test(RNG(0).normal(size=(40, 4)), RNG(1).normal(1.0, 1, size=(40, 4)), rounds=199)
    assert shifted is not None and shifted.p == pytest.approx(1 / 200)


def test_pictures_of_one_part_count_as_one_observation() -> None:
    def parts(seed: int) -> np.ndarray:
        return np.repeat(RNG(seed).normal(size=(10, 4)), 10, axis=0) + 0.01 * RNG(seed + 500).normal(size=(100, 4))

    units = tuple(str(n // 10) for n in range(100))
    torn, whole = [], []
    for seed in range(12):
        here, there = parts(seed), parts(100 + seed)
        one, other = mmd_test(here, there, rounds=99), mmd_test(here, there, units=(units, units), rounds=99)
        assert one is not None and other is not None
        torn.append(one.p < 0.05)
        whole.append(other.p < 0.05)
    assert np.mean(torn) > 0.8 and np.mean(whole) <= 0.25


def test_scores_of_one_part_count_as_one_observation() -> None:
    """Ten pictures of each of 20 parts: as 200 observations most unchanged sets differ, as 20 hardly any does."""
    units = tuple(str(n // 10) for n in range(200))

    def parts(seed: int) -> np.ndarray:
        return np.repeat(RNG(seed).normal(size=20), 10) + 0.01 * RNG(seed + 500).normal(size=200)

    torn, whole = [], []
    for seed in range(40):
        here, there = parts(seed), parts(100 + seed)
        torn.append(ks_test(here, there).p < 0.05)
        whole.append(ks_test(here, there, units=(units, units)).p < 0.05)
    assert np.mean(torn) > 0.5 and np.mean(whole) <= 0.15
    assert ks_test(parts(0), parts(1) + 3, units=(units, units)).p < 1e-6


def test_the_score_test_weighs_every_part_the_same() -> None:
    here, there = np.array([1.0, 2.0, 3.0, 9.0]), np.array([2.5, 4.0, 5.0])
    units = ("a", "a", "a", "b"), ("x", "y", "y")

    def share(scores: np.ndarray, names: tuple[str, ...], s: float) -> float:
        below = [[v <= s for v, n in zip(scores, names, strict=True) if n == unit] for unit in set(names)]
        return float(np.mean([np.mean(one) for one in below]))

    slow = max(abs(share(here, units[0], s) - share(there, units[1], s)) for s in (*here, *there))
    assert ks_test(here, there, units=units).statistic == pytest.approx(slow)
    apart = ks_test(here, there, units=(tuple("abcd"), tuple("xyz")))
    assert apart == ks_test(here, there)
    with pytest.raises(ShapeError, match="1 and 3 units for 4 and 3 scores; give one a score"):
        ks_test(here, there, units=(("a",), units[1]))


def test_too_little_is_said_so() -> None:
    few = RNG(0).normal(size=(7, 2))
    assert mmd_test(few, few) is None
    with pytest.raises(ShapeError, match=r"features are \(7, 2\) and \(7, 3\); give \(n, F\) and \(m, F\)"):
        mmd_test(few, np.zeros((7, 3)))
    with pytest.raises(ShapeError, match="1 and 7 units for 7 and 7 pictures; give one a picture"):
        mmd_test(few, few, units=(("a",), tuple("abcdefg")))
    with pytest.raises(RangeError, match="0 and 3 scores are compared"):
        ks_test(np.zeros(0), np.zeros(3))


# -- what is said


def compared(bundle: Path, was: Path, now: Path):
    before, after, notes = sets_of(was, now)
    return compare(model_of(bundle, line=None), before, after, notes=notes)


def test_an_unchanged_line_is_left_as_it_is(bundle: Path, tmp_path: Path) -> None:
    found = compared(bundle, folder_of(tmp_path / "a"), folder_of(tmp_path / "b", seed=500))
    assert (found.verdict, found.advice, found.causes) == ("unchanged", "leave everything as it is", ())
    assert found.adjust is None and found.prior is None


def test_a_changed_light_is_named_and_six_numbers_mend_it(bundle: Path, tmp_path: Path) -> None:
    found = compared(bundle, folder_of(tmp_path / "a"), folder_of(tmp_path / "b", seed=500, gain=(0.8, 0.85, 0.9)))
    assert found.verdict == "changed" and "became darker: gain 0.8" in found.sentence
    assert found.adjust is not None and found.features is not None and found.adjusted is not None
    np.testing.assert_allclose(found.adjust.gain, [1 / 0.8, 1 / 0.85, 1 / 0.9], rtol=0.1)
    assert found.scores["spot"].statistic > 0.9 and found.adjusted_scores is not None
    assert found.adjusted_scores.p > 0.01 > found.features.p
    assert found.adjusted.statistic < found.features.statistic / 5
    assert found.advice.startswith("mend the light, or write under camera in station.yaml adjust: {gain: [1.")


def test_more_contrast_is_no_other_light(bundle: Path, tmp_path: Path) -> None:
    was, _ = pictures_of(folder_of(tmp_path / "a"))

    def stretched(image: Image) -> Image:
        middle = image.mean()
        return np.clip(np.rint((image - middle) * 1.2 + middle), 0, 255).astype(np.uint8)

    now = tuple(replace(one, name=f"b{one.name}", read=lambda one=one: stretched(one.read())) for one in was)
    found = compare(model_of(bundle, line=None), was, now)
    assert len(found.causes) == 1 and found.causes[0].startswith("gained contrast: 1.")
    assert found.adjust is None


def test_few_pictures_are_not_taken_for_harmless() -> None:
    """Ten and ten differ by 0.6 in one of twenty draws of the same line."""
    ten = RNG(0).normal(size=10), RNG(1).normal(size=10) + 1
    test = ks_test(*ten)
    assert test.statistic >= 0.4 and not has_moved(test, 1) and too_few(10, 10) and not too_few(33, 33)
    darker = ("became darker: gain 0.97 of the reference",)
    told = Told("unsure", darker, None, 0.6, (10, 10), Adjustment((1.03, 1.03, 1.03)), Test(0.3, 0.7))
    assert told.sentence == (
        "the pictures changed; whether the scores did, 10 and 10 pictures do not tell: the picture became darker: gain "
        "0.97 of the reference"
    )
    assert told.advice.endswith("scores are then as before, as far as 10 and 10 pictures tell")
    short = replace(told, adjusted=Test(1.0, 0.0)).advice
    assert short.startswith("look whether it is the same product: another one needs a model of its own; else mend the")
    assert short.endswith("under camera in station.yaml is not enough by itself, so adapt after it")
    assert replace(told, causes=(), adjust=None).advice.startswith("give 33 or more pictures of each, and look at them")


def test_what_the_advice_rests_on_is_named() -> None:
    causes = (
        "changed its colour: blue 0.85, green 1.04, red 1.10 of the reference",
        "lost contrast: 0.91 of the reference",
        "became blurred: fine detail 0.44 of the reference",
    )
    told = Told("changed", causes, None, 1.0, (100, 60), None, None)
    assert told.advice.startswith("clean or focus the lens")
    assert told.sentence == f"the pictures changed and the scores moved by 1.00: the picture {' and '.join(causes)}"


def test_scores_alone_may_have_moved_because_the_model_knows_what_was() -> None:
    told = Told("more defects", (), None, 0.69, (50, 40), None, None)
    assert told.advice.startswith("look at the parts; the model and its thresholds stand as they did")
    assert "if --was shows pictures that the model was made of" in told.advice
    assert told.advice.endswith("give others instead")


def test_a_blurred_lens_is_to_be_cleaned_and_not_adjusted(bundle: Path, tmp_path: Path) -> None:
    found = compared(bundle, folder_of(tmp_path / "a"), folder_of(tmp_path / "b", seed=500, blur=1.5))
    assert "became blurred" in found.sentence and found.adjust is None
    assert found.advice == "clean or focus the lens; no gain mends a blur"


def test_more_defects_are_no_drift_and_their_share_is_estimated(bundle: Path, tmp_path: Path) -> None:
    was = folder_of(tmp_path / "a", 60, spots=20, labelled=True)
    found = compared(bundle, was, folder_of(tmp_path / "b", 60, seed=500, spots=30))
    assert found.prior is not None and found.prior.low <= 0.5 <= found.prior.high
    assert found.detected == (0.0, 0.5)


def test_the_adjustment_restores_a_known_gain_and_offset(bundle: Path, tmp_path: Path) -> None:
    model = model_of(bundle, line=None)
    pictures, _ = pictures_of(folder_of(tmp_path / "a", 10))
    home = seen_of(model, pictures)
    dimmed = seen_of(model, pictures, adjust=Adjustment((0.8, 0.8, 0.8), (12.0, 0.0, -4.0)))
    found = adjustment(home, dimmed)
    np.testing.assert_allclose(found.gain, 1.25, rtol=0.01)
    np.testing.assert_allclose(found.offset, [-15, 0, 5], atol=1.0)


def test_a_checkpoints_line_is_looked_with(tmp_path: Path) -> None:
    from tests.export.conftest import trained, write_checkpoint

    checkpoint = write_checkpoint(tmp_path / "ckpt", trained())
    shutil.copy(checkpoint / "lines/new.safetensors", checkpoint / "lines/original.safetensors")
    model = model_of(checkpoint, line="original")
    pictures, _ = pictures_of(folder_of(tmp_path / "a", 9))
    seen = seen_of(model, pictures)
    assert seen.features.shape == (9, 16) and seen.scores.shape == (9, 1) and np.isfinite(seen.features).all()
    with pytest.raises(ConfigError, match="the checkpoint has no line named x; it has original, new"):
        model_of(checkpoint, line="x")


def test_a_scorers_bundle_is_looked_with(tmp_path: Path) -> None:
    stations.spot_bundle(tmp_path / "bundle")
    graph, path = tmp_path / "bundle/model/model.onnx", tmp_path / "bundle/manifest.json"
    proto = onnx.load(graph)
    next(node for node in proto.graph.node if node.output[0] == "cells").output[0] = "novelty"
    next(one for one in proto.graph.output if one.name == "cells").name = "novelty"
    onnx.save(proto, graph)
    manifest, normals = read_manifest(path), (-4.0, -3.0, -2.0, -1.0)
    files = tuple(
        one.model_copy(update={"bytes": graph.stat().st_size, "sha256": sha256_file(graph)})
        if one.role == "fp32" else one
        for one in manifest.files
    )  # fmt: skip
    said = manifest.postprocess.model_copy(update={"kind": "novelty", "normals": normals})
    path.write_bytes(manifest_bytes(manifest.model_copy(update={"files": files, "postprocess": said})))
    model = model_of(tmp_path / "bundle", line=None)
    pictures, _ = pictures_of(folder_of(tmp_path / "a", 3, spots=1))
    seen = seen_of(model, pictures)
    runner = open_runner(graph)
    frame = {"frame": preprocess(pictures[0].read(), model.preprocess)}
    wanted = confidence_of_distances(runner.infer(frame)["novelty"].max().reshape(1), normals)
    assert seen.scores[0] == pytest.approx(wanted)
    assert seen.scores[0] > seen.scores[1:].max()


# -- uploaded records


def test_records_are_parted_by_time(bundle: Path, tmp_path: Path) -> None:
    said = "the picture became darker: gain 0.80 of the reference"
    export = export_of(tmp_path / "export", gains=(1.0,) * 20 + (0.8,) * 20, note=said)
    before, after, notes = sets_of(None, export, since="2026-11-21T20:00Z")
    assert (len(before), len(after)) == (20, 20)
    found = compare(model_of(bundle, line=None), before, after, notes=notes)
    assert "became darker: gain 0.8" in found.sentence
    assert found.notes[-1] == f"the station said: {said}"
    assert "the 40 records of the control sample are looked at" in found.notes[0]
    assert sets_of(None, export)[2][-1] == (
        "records before 2026-11-21 20:00 UTC (20) are compared with those after (20)"
    )


def test_records_that_were_chosen_are_said_to_be(tmp_path: Path) -> None:
    export = export_of(tmp_path / "export", gains=(1.0,) * 20, control=False)
    assert "only 0 records are of the control sample, so all 20 are looked at" in pictures_of(export)[1][0]


# -- the command


def test_the_command_writes_a_page_and_says_what_to_do(bundle: Path, tmp_path: Path) -> None:
    was, now = folder_of(tmp_path / "was"), folder_of(tmp_path / "now", seed=500, blur=1.5)
    code, out, talk = called(app, "drift", bundle, "--was", was, "--now", now, "--out", tmp_path / "out", "--json")
    assert code == 0, talk
    said = json.loads(out)
    assert said["schema"] == "drift-comparison/1" and said["verdict"] in ("changed", "harmless")
    assert json.loads((tmp_path / "out/drift.json").read_bytes())["sentence"] == said["sentence"]
    page = (tmp_path / "out/drift.html").read_text(encoding="utf-8")
    assert said["advice"] in page and "became blurred" in page and "<script src" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--was", "few", "--now", "now"), "--was holds 5 pictures, fewer than 8 of them healthy or unlabelled"),
        (("--now", "now"), "does not say when its pictures were taken; give what was before as --was"),
        (("--was", "was", "--now", "now", "--since", "x"), "--since parts the records of --now; leave it out"),
        (("--now", "export", "--since", "yesterday"), "--since is 'yesterday'; give a time, e.g. 2026-11-21T10:00Z"),
        (("--now", "export1"), "0 records are before 2026-11-21 00:00 UTC and 1 after; give a time"),
        (("--now", "export", "--since", "2020-01-01"), "0 records are before 2020-01-01 and 10 after; give a time"),
        (("--was", "was", "--now", "nowhere"), "holds no picture|there is no folder|no such folder"),
        (("--was", "was", "--now", "now", "--line", "new"), "is a bundle, which is for one line; leave --line out"),
    ],
)
def test_bad_input_gets_a_sentence(bundle: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    folder_of(tmp_path / "was", 9)
    folder_of(tmp_path / "now", 9, seed=50)
    folder_of(tmp_path / "few", 5)
    export_of(tmp_path / "export", gains=(1.0,) * 10)
    export_of(tmp_path / "export1", gains=(1.0,))
    folders = ("was", "now", "few", "export", "export1", "nowhere")
    given = [tmp_path / word if word in folders else word for word in words]
    code, _, talk = called(app, "drift", bundle, *given, "--out", tmp_path / "out")
    assert code != 0 and re.search(said, talk), talk
    assert not (tmp_path / "out").exists()


def test_neither_a_checkpoint_nor_a_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds neither a checkpoint nor a bundle"):
        model_of(tmp_path, line=None)


def test_a_damaged_picture_of_an_export_is_named(bundle: Path, tmp_path: Path) -> None:
    export = export_of(tmp_path / "export", gains=(1.0,) * 20)
    (export / "pictures/3.png").write_bytes(b"no picture")
    before, after, _ = sets_of(None, export)
    with pytest.raises(DatasetError, match=r"3.png cannot be read as a picture; export the hub again"):
        compare(model_of(bundle, line=None), before, after)
    assert isinstance(before[0], Picture)
