"""One bundle from the parts: whole, signed, the same bytes, and nothing in it that was refused."""

from __future__ import annotations

import base64
import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from onnx import numpy_helper

from calibration.exported import exported_bytes, read_exported
from calibration.pictures import pictures_in
from calibration.report_file import ReportFile
from calibration.sessions import open_session
from edge_sdk.bundles.archive import Bundle, open_bundle
from edge_sdk.bundles.proof import prove
from edge_sdk.documents import canonical_json, read_json, sha256_hex, write_atomic
from edge_sdk.errors import BundleDamaged
from edge_sdk.quality.gates import Gates, verdicts
from edge_sdk.quality.measures import sqnr_db
from edge_sdk.runners import open_runner
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import preprocess
from export import golden
from export.cli import app
from tests.export.conftest import BAND, SPEC, call, pictures

EPOCH = "1795000000"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("keys") / "keys"
    code, stdout, talk = call(app, "keys", "--out", out)
    assert code == 0, talk
    assert stdout.startswith(f"{out / 'release.pub'}: key ")
    return out


class Packing:
    """Packs with everything in place, but for what a test changes."""

    def __init__(self, work: Path, checkpoint: Path, golden: Path, out: Path, keys: Path) -> None:
        self.work, self.checkpoint, self.golden, self.out, self.keys = work, checkpoint, golden, out, keys

    def pack(self, *more: object, signed: bool = True, name: str = "press-3") -> tuple[int, str, str]:
        words = ["pack", self.work, "--ckpt", self.checkpoint, "--line", "new", "--golden", self.golden]
        words += ["--name", name, "--version", "1.0", "--out", self.out]
        words += ["--key", self.keys / "release.pem"] if signed else []
        return call(app, *words, *more)

    @property
    def bundle(self) -> Path:
        return self.out / "press-3-1.0.bundle"

    def opened(self) -> Bundle:
        return open_bundle(self.bundle, trust=[self.keys / "release.pub"])


@pytest.fixture
def packing(
    work: Path, checkpoint: Path, others: Path, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> Packing:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    # a network this small is no faster in INT8, which would leave it out
    path = work / "report.json"
    report = json.loads(path.read_bytes())
    for row in (report, report["renderings"]["cpu"]):
        row["speedup"] = 2.0
    path.write_bytes(canonical_json(report))
    return Packing(work, checkpoint, others, tmp_path / "out", keys)


# -- keys


def test_the_private_key_is_its_owners_alone_and_the_public_one_a_line(keys: Path) -> None:
    assert stat.S_IMODE((keys / "release.pem").stat().st_mode) == 0o600
    private = serialization.load_pem_private_key((keys / "release.pem").read_bytes(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    line = (keys / "release.pub").read_text(encoding="ascii")
    assert base64.b64decode(line) == private.public_key().public_bytes_raw() and line.endswith("=\n")


def test_keys_are_never_overwritten(keys: Path) -> None:
    before = (keys / "release.pem").read_bytes()
    code, _, talk = call(app, "keys", "--out", keys)
    assert code == 2
    assert talk == (
        f"{keys / 'release.pem'} is there already and is never overwritten; give another folder, or move it away\n"
    )
    assert (keys / "release.pem").read_bytes() == before


# -- what is in it


def test_the_bundle_holds_what_a_station_needs(packing: Packing) -> None:
    code, stdout, talk = packing.pack("--json")
    assert code == 0, talk
    said = json.loads(stdout)
    opened = packing.opened()
    manifest = opened.manifest
    assert said["id"] == opened.id and said["signed"] and said["left_out"] == {}
    assert {entry.path: entry.role for entry in manifest.files} == {
        "calibration/ranges.json": "ranges",
        "calibration/report.html": "report",
        "calibration/report.json": "report",
        "card.md": "card",
        "golden/expected.npz": "golden-expected",
        "golden/frames.npz": "golden-frames",
        "model/model.cpu.onnx": "int8-cpu",
        "model/model.onnx": "fp32",
        "model/model.trt.onnx": "int8-trt",
    }
    assert (manifest.name, manifest.version, manifest.line) == ("press-3", "1.0", "new")
    assert manifest.preprocess == SPEC and manifest.postprocess.cell_px == 8
    assert (
        manifest.postprocess.how == "a test"
        and manifest.thresholds[0].defective_from == BAND["defective_from"]
    )
    assert manifest.drift is not None and manifest.drift.n == 24
    assert manifest.drift.watch is None and said["unwatched"].keys() == {"fp32", "int8-cpu", "int8-trt"}
    assert said["unwatched"]["fp32"].endswith("too few for a drift reference; give 32 or more healthy ones")
    assert "the station will not watch fp32 for drift: " in talk
    assert manifest.created_at.timestamp() == int(EPOCH)
    for entry in manifest.files:
        assert sha256_hex((opened.root / entry.path).read_bytes()) == entry.sha256


def test_each_rendering_is_watched_against_what_it_makes_of_healthy_pictures(
    packing: Packing, tmp_path: Path
) -> None:
    packing.golden = pictures(tmp_path / "more", 80, seed=100)
    code, stdout, talk = packing.pack("--json")
    assert code == 0 and json.loads(stdout)["unwatched"] == {}, talk
    opened = packing.opened()
    drift = opened.manifest.drift
    assert drift is not None and drift.watch is not None and (drift.n, drift.mean) == (24, (0.0,) * 16)
    assert [one.rendering for one in drift.watch] == ["fp32", "int8-trt", "int8-cpu"]
    healthy = [path for n, path in enumerate(sorted((tmp_path / "more").glob("*.png"))) if n % 2 == 0]
    for one in (drift.watch[0], drift.watch[2]):
        session = open_session(opened.root / next(e.path for e in opened.manifest.files if e.role == one.rendering))
        images = [cv2.imread(str(path)) for path in healthy]
        outputs = [session.run(preprocess(image, SPEC)) for image in images]
        sure = np.array([confidence_from_logits(found["cells"][0]).max() for found in outputs])
        passed = [found["feature"][0] for found, top in zip(outputs, sure, strict=True) if top < BAND["pass_below"]]
        assert one.n == len(passed) >= 32 and one.of == "feature" and one.detected is None
        np.testing.assert_allclose(one.mean, np.mean(passed, axis=0), rtol=1e-4, atol=1e-5)
    assert drift.watch[0].mean != drift.watch[2].mean


def test_the_tar_is_plain_sorted_and_timeless(packing: Packing) -> None:
    packing.pack()
    with tarfile.open(packing.bundle, "r:") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert all(member.isreg() and member.mtime == 0 and not member.uid for member in members)


def test_packing_twice_gives_the_same_bytes(packing: Packing) -> None:
    packing.pack()
    first = packing.bundle.read_bytes()
    packing.pack()
    assert packing.bundle.read_bytes() == first
    assert [path.name for path in packing.out.iterdir()] == ["press-3-1.0.bundle"]


def test_no_golden_frame_lies_within_its_band_and_both_verdicts_are_there(packing: Packing) -> None:
    packing.pack()
    opened = packing.opened()
    golden = opened.golden()
    assert 16 <= len(golden.frames) <= 64
    confidence = confidence_from_logits(golden.expected["cells"])
    surest = confidence.max(axis=(2, 3))
    assert ((surest < BAND["pass_below"]) | (surest >= BAND["defective_from"])).all()
    assert set(verdicts(confidence, opened.thresholds).tolist()) == {0, 2}


def test_what_is_expected_is_what_each_graph_gives(packing: Packing) -> None:
    packing.pack()
    opened = packing.opened()
    golden = opened.golden()
    for role, key in (("fp32", "cells"), ("int8-cpu", "cells.int8-cpu"), ("int8-trt", "cells.int8-trt")):
        path = opened.file(role)
        assert path is not None
        session = open_session(path, reference=role == "int8-trt")
        found = np.concatenate([session.run(preprocess(frame, SPEC))["cells"] for frame in golden.frames])
        assert np.array_equal(found, golden.expected[key])


def test_a_station_proves_every_graph_on_the_golden_frames(packing: Packing) -> None:
    packing.pack()
    opened = packing.opened()
    for platform in ("cpu", "cpu-fp32"):
        runner = open_runner(opened.model_path(platform))
        assert prove(opened, runner) == ()
        runner.close()


def test_pictures_of_several_sizes_are_golden_too(packing: Packing, tmp_path: Path) -> None:
    import cv2

    folder = pictures(tmp_path / "mixed", 18, seed=100)
    for n in range(0, 18, 3):
        picture = cv2.imread(str(folder / f"{n:03d}.png"))
        assert picture is not None
        cv2.imwrite(str(folder / f"{n:03d}.png"), cv2.resize(picture, (96, 96)))
    packing.golden = folder
    assert packing.pack()[0] == 0
    assert {frame.shape for frame in packing.opened().golden().frames} == {(64, 64, 3), (96, 96, 3)}


def test_the_card_tells_data_figures_limits_and_licence(packing: Packing) -> None:
    packing.pack()
    opened = packing.opened()
    card = (opened.root / "card.md").read_text(encoding="utf-8")
    assert card.startswith("# press-3 1.0\n\nFor the line **new**. Finds defect.\n")
    for part in ("## Data\n\n- title: drawn", "- new:\n  - ap: 0.9", "statistics per line", "Pictures: CC0."):
        assert part in card
    assert "% of 24 held-out verdicts" in card


# -- what is left out


def test_a_rendering_that_was_refused_is_left_out_and_said(packing: Packing) -> None:
    path = packing.work / "report.json"
    report = json.loads(path.read_bytes())
    row = report["renderings"]["cpu"]
    row["accepted"] = False
    row["gates"][0].update(
        held=False, sentence="9 of 24 pictures got another verdict than from FP32; at most 1 may"
    )
    path.write_bytes(canonical_json(report))
    code, _, talk = packing.pack()
    assert code == 0
    assert "int8-cpu is left out: 9 of 24 pictures got another verdict than from FP32; at most 1 may" in talk
    opened = packing.opened()
    assert opened.model("auto")[1] == "fp32"
    assert "cells.int8-cpu" not in opened.golden().expected
    assert "- int8-cpu is left out: 9 of 24" in (opened.root / "card.md").read_text(encoding="utf-8")


def test_a_rendering_slower_than_fp32_is_left_out(packing: Packing) -> None:
    path = packing.work / "report.json"
    report = json.loads(path.read_bytes())
    report["renderings"]["cpu"]["speedup"] = 0.6
    path.write_bytes(canonical_json(report))
    code, stdout, _ = packing.pack("--json")
    why = json.loads(stdout)["left_out"]["int8-cpu"]
    assert (
        code == 0
        and why.startswith("it is 0.60 times as fast as FP32 on ")
        and why.endswith("so FP32 is shipped")
    )


def test_a_rendering_that_fails_on_the_golden_pictures_is_left_out_without_a_report(packing: Packing) -> None:
    for page in ("report.json", "report.html"):
        (packing.work / page).unlink()
    path = packing.work / "model.cpu.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("blocks.1.conv2.weight_q"):
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    path.write_bytes(model.SerializeToString())
    code, stdout, _ = packing.pack("--json")
    assert code == 0
    assert list(json.loads(stdout)["left_out"]) == ["int8-cpu"]
    assert len(packing.opened().golden().frames) >= 16, "what is not packed has no say in what is golden"


def test_a_bundle_of_fp32_alone_is_a_bundle(packing: Packing) -> None:
    for name in ("ranges.json", "report.json", "report.html", "model.cpu.onnx", "model.trt.onnx"):
        (packing.work / name).unlink()
    code, stdout, talk = packing.pack("--json")
    assert code == 0, talk
    assert json.loads(stdout)["left_out"] == {
        "int8-trt": "it was not rendered",
        "int8-cpu": "it was not rendered",
    }
    assert packing.opened().model("auto")[1] == "fp32"


def test_large_frames_are_fewer_but_never_without_one_of_each_verdict(
    packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing.pack()
    usual = packing.opened().golden().frames
    for most, count in ((5, 5), (1, 2)):
        monkeypatch.setattr(golden, "_MOST_BYTES", most * usual[0].nbytes)
        code, stdout, talk = packing.pack("--json")
        assert code == 0, talk
        said = json.loads(stdout)
        assert (said["golden_frames"], said["golden_bytes"]) == (count, count * usual[0].nbytes)
        assert f"warning: only {count} golden frames, {said['golden_bytes'] / 1024:.0f} KiB of pictures: weak" in talk
        assert " evidence; a bundle holds no more of so large frames\n" in talk
        opened = packing.opened()
        confidence = confidence_from_logits(opened.golden().expected["cells"])
        assert set(verdicts(confidence, opened.thresholds).tolist()) == {0, 2}
        assert "A bundle holds no more of such large frames. Fewer than 16: weak evidence." in (
            opened.root / "card.md"
        ).read_text(encoding="utf-8")


def test_a_small_set_gives_fewer_golden_frames_and_says_so(packing: Packing, tmp_path: Path) -> None:
    packing.golden = pictures(tmp_path / "few", 6, seed=100)
    code, _, talk = packing.pack()
    assert code == 0
    assert "of pictures: weak evidence; with 16 or more a station's proof says more" in talk


# -- trust


def test_an_unsigned_bundle_says_so_and_is_taken_only_as_such(packing: Packing) -> None:
    code, _, talk = packing.pack(signed=False)
    assert code == 0
    assert "the bundle is unsigned: a station takes it only with trust: unsigned" in talk
    code, _, talk = call(app, "verify", packing.bundle, "--trust", packing.keys / "release.pub")
    assert code == 1
    assert talk.startswith(
        f"{packing.bundle} is not signed, and this station demands it; sign it with python -m"
    )
    code, stdout, _ = call(app, "verify", packing.bundle, "--unsigned")
    assert code == 0 and stdout == f"{packing.bundle}: whole, 9 files, unsigned\n"


def test_verify_names_the_first_wrong_file(packing: Packing) -> None:
    packing.pack()
    trust = ("--trust", packing.keys / "release.pub")
    code, stdout, _ = call(app, "verify", packing.bundle, *trust)
    assert code == 0 and stdout == f"{packing.bundle}: whole, 9 files, signed by a trusted key\n"
    data = bytearray(packing.bundle.read_bytes())
    with tarfile.open(packing.bundle, "r:") as tar:
        member = tar.getmember("model/model.onnx")
        data[member.offset_data + member.size // 2] ^= 1
    packing.bundle.write_bytes(data)
    code, _, talk = call(app, "verify", packing.bundle, *trust)
    assert code == 1
    assert talk.startswith(f"{packing.bundle}: model/model.onnx was altered (sha256 ")
    with pytest.raises(BundleDamaged) as caught:
        packing.opened()
    assert caught.value.member == "model/model.onnx"


def test_verify_asks_whom_to_trust(packing: Packing) -> None:
    packing.pack()
    sentence = "say whom to trust: --trust keys/release.pub, or --unsigned to check the bytes alone\n"
    for more in ((), ("--unsigned", "--trust", packing.keys / "release.pub")):
        code, _, talk = call(app, "verify", packing.bundle, *more)
        assert (code, talk) == (2, sentence)


def test_a_key_that_is_none_is_refused(packing: Packing, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no key", encoding="ascii")
    other = generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "rsa.pem").write_bytes(other)
    for name, sentence in (
        ("none.pem", "the key {path} cannot be read (No such file or directory); is the path right?"),
        ("text.pem", "{path} is no private key; give the release.pem that python -m export keys wrote"),
        ("rsa.pem", "{path} is another kind of key; give the release.pem that python -m export keys wrote"),
    ):
        code, _, talk = packing.pack("--key", tmp_path / name, signed=False)
        assert (code, talk) == (2, sentence.format(path=tmp_path / name) + "\n")
    assert not packing.out.exists()


# -- inspect and diff


def test_inspect_shows_what_is_inside(packing: Packing) -> None:
    packing.pack()
    code, stdout, _ = call(app, "inspect", packing.bundle)
    assert code == 0
    assert stdout.startswith("press-3 1.0, for the line new\nid ")
    assert "  defect: passes below 0.300, defective from 0.700\n" in stdout
    code, stdout, _ = call(app, "inspect", packing.bundle, "--json")
    assert json.loads(stdout)["schema"] == "bundle/1"


def test_diff_shows_what_changed(packing: Packing) -> None:
    packing.pack()
    packing.pack("--mm-per-px", 0.25, name="press-4")
    other = packing.out / "press-4-1.0.bundle"
    code, stdout, _ = call(app, "diff", packing.bundle, other)
    assert code == 0
    assert "mm_per_px: None -> 0.25\n" in stdout and "name: press-3 -> press-4\n" in stdout
    assert call(app, "diff", packing.bundle, packing.bundle)[1] == "no difference\n"


# -- what is refused


def retold(work: Path, **changes: object) -> None:
    said = read_exported(work / "export.json")
    (work / "export.json").write_bytes(exported_bytes(said.model_copy(update=changes)))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda work: (work / "model.onnx").unlink(),
            "{work}/model.onnx cannot be read (No such file or directory)",
        ),
        (
            lambda work: (work / "export.json").unlink(),
            "{work}/export.json cannot be read (No such file or directory)",
        ),
        (
            lambda work: retold(work, graph_sha256="0" * 64),
            "{work}/export.json is of another graph than model.onnx; export it again",
        ),
        (
            lambda work: retold(work, line="original"),
            "{work}/model.onnx was exported for the line original, not new; export that line",
        ),
        (
            lambda work: retold(work, weights_sha256="0" * 64),
            "{work}/model.onnx was exported from other weights than {ckpt} has; export it again",
        ),
        (
            lambda work: retold(work, thresholds=()),
            "the thresholds of {ckpt} changed after the export; export it again",
        ),
        (
            lambda work: change_json(work / "ranges.json", graph_sha256="0" * 64),
            "the range table is of graph 000000000000, but this is graph ",
        ),
        (
            lambda work: change_json(work / "ranges.json", preprocess_sha256="0" * 64),
            "{work}/ranges.json was made with another preprocessing; make the ranges again",
        ),
        (
            lambda work: change_json(work / "report.json", graph_sha256="0" * 64),
            "{work}/report.json is of another graph than model.onnx; make the report again",
        ),
        (
            lambda work: (work / "model.cpu.onnx").write_bytes((work / "model.onnx").read_bytes()),
            "{work}/model.cpu.onnx was rendered from another graph than model.onnx; render it again: "
            "python -m calibration render",
        ),
        (
            lambda work: (work / "model.trt.onnx").write_bytes(b"\x00\x01\x02"),
            "{work}/model.trt.onnx is no ONNX graph; render it again: python -m calibration render",
        ),
        (
            lambda work: touch(work / "model.cpu.onnx"),
            "the report is of another model.cpu.onnx; make the report again: python -m calibration report",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_one_sentence(
    packing: Packing, spoil: Callable[[Path], object], sentence: str
) -> None:
    spoil(packing.work)
    code, stdout, talk = packing.pack()
    assert code == 1 and not stdout
    last = talk.rstrip().splitlines()[-1]
    assert last.startswith(sentence.format(work=packing.work, ckpt=packing.checkpoint)), talk
    assert not packing.out.exists()


def change_json(path: Path, **changes: object) -> None:
    write_atomic(path, canonical_json({**json.loads(path.read_bytes()), **changes}))


def touch(path: Path) -> None:
    """The same graph in other bytes."""
    model = onnx.load(path)
    model.producer_name = "someone"
    path.write_bytes(model.SerializeToString())


def test_no_picture_outside_the_band_is_no_bundle(packing: Packing, tmp_path: Path) -> None:
    path = packing.checkpoint / "lines" / "new.json"
    before = path.read_bytes()
    wide = {**BAND, "pass_below": 1e-6, "defective_from": 1.0}
    try:
        change_json(path, thresholds=[wide])
        said = read_exported(packing.work / "export.json")
        band = type(said.thresholds[0]).model_validate(wide)
        retold(packing.work, thresholds=(band,))
        code, _, talk = packing.pack()
    finally:
        path.write_bytes(before)
    assert code == 1
    assert talk.rstrip().splitlines()[-1] == (
        "none of the 24 pictures has a clear verdict: all lie within the uncertain band, 1e-06 to 1, or at its edge; "
        "give more pictures, or choose other thresholds"
    )


def test_a_name_that_cannot_be_a_files_is_asked_wrongly(packing: Packing) -> None:
    code, _, talk = packing.pack(name="../press")
    assert code == 2
    assert talk.rstrip().splitlines()[-1] == (
        "name is '../press'; give letters, digits, dots, dashes, beginning with a letter or digit"
    )


def test_the_time_of_a_reproducible_build_is_checked(
    packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    code, _, talk = packing.pack()
    assert code == 2
    assert talk.rstrip().splitlines()[-1] == "SOURCE_DATE_EPOCH is 'yesterday'; give whole seconds since 1970"


def test_an_empty_golden_folder_is_refused(packing: Packing, tmp_path: Path) -> None:
    packing.golden = tmp_path / "empty"
    packing.golden.mkdir()
    code, _, talk = packing.pack()
    assert (code, talk) == (
        1,
        f"{packing.golden} holds no picture; give a folder with PNG, JPEG, BMP or TIFF files\n",
    )


def test_the_report_in_the_bundle_is_the_one_that_was_made(packing: Packing) -> None:
    packing.pack()
    opened = packing.opened()
    report = read_json(opened.root / "calibration" / "report.json", ReportFile)
    cpu = opened.file("int8-cpu")
    assert cpu is not None and report.renderings["cpu"].sha256 == sha256_hex(cpu.read_bytes())


def test_a_rendering_that_breaks_a_gate_on_the_golden_frames_alone_is_left_out(
    packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A station looks at these and no others, and would refuse it."""
    graphs = {role: packing.work / name for role, name in (("fp32", "model.onnx"), ("int8-cpu", "model.cpu.onnx"))}
    samples, exported = pictures_in(packing.golden), read_exported(packing.work / "export.json")

    def made(least: float) -> golden.GoldenSet:
        return golden.golden_set(
            graphs, samples, SPEC, exported.bands(), exported.temperature(), gates=Gates(sqnr_fp32_db=least)
        )

    whole = made(0.0)
    places = [[sample.image for sample in samples].index(name) for name in whole.names]
    both = [whole.outputs[role]["cells"] for role in ("fp32", "int8-cpu")]
    everywhere = sqnr_db(*both)
    some = [sqnr_db(*(cells[places[:most]] for cells in both)) for most in range(1, len(places))]
    there = min(some)
    assert there < everywhere  # else this says nothing
    monkeypatch.setattr(golden, "MOST", 1 + some.index(there))
    (finding,) = made((everywhere + there) / 2).findings["int8-cpu"]
    assert finding.gate == "sqnr_db" and finding.value == pytest.approx(there)
    assert made(there - 1e-3).findings == {"int8-cpu": ()}
