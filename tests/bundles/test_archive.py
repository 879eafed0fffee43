from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_sdk.bundles import open_bundle
from edge_sdk.bundles.archive import verify_bundle
from edge_sdk.documents import canonical_json, sha256_hex
from edge_sdk.errors import BundleDamaged, BundleError, BundleUntrusted, ConfigError, MissingPackage
from tests.bundles.making import Key, Parts, npz, put_folder, put_tar, seal

Put = Callable[[Parts], Path]
"""Writes a bundle, as a folder or as a tar."""

FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@pytest.fixture(params=["folder", "tar"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    def write(parts: Parts) -> Path:
        if request.param == "folder":
            return put_folder(parts, tmp_path / "press-3")
        return put_tar(parts, tmp_path / "press-3-1.bundle")

    return write


def test_a_signed_bundle_opens_with_everything_in_it(
    put: Put, signed: Parts, trust: list[Path], key: Key
) -> None:
    bundle = open_bundle(put(signed), trust=trust)
    assert bundle.title == "press-3-1"
    assert bundle.id == sha256_hex(signed["manifest.json"])
    assert bundle.signed_by == key.id
    assert bundle.labels.names == ("spot",)
    assert bundle.thresholds.boundary.tolist() == [0.5]
    for name, data in signed.items():
        assert (bundle.root / name).read_bytes() == data
    golden = bundle.golden()
    assert len(golden.frames) == 4
    assert golden.expected["cells"].shape == (4, 1, 4, 4)


def test_a_tar_is_unpacked_to_a_folder_that_goes_with_the_bundle(
    tmp_path: Path, signed: Parts, trust: list[Path]
) -> None:
    bundle = open_bundle(put_tar(signed, tmp_path / "x.bundle"), trust=trust)
    root = bundle.root
    assert root.is_dir()
    del bundle
    gc.collect()
    assert not root.exists()


def test_an_unsigned_bundle_is_taken_only_where_that_is_written(
    put: Put, plain: Parts, trust: list[Path]
) -> None:
    path = put(plain)
    assert open_bundle(path, trust="unsigned").signed_by is None
    with pytest.raises(BundleUntrusted) as caught:
        open_bundle(path, trust=trust)
    assert str(caught.value) == (
        f"{path} is not signed, and this station demands it; sign it with python -m export pack --key, "
        "or write trust: unsigned"
    )


def test_a_bundle_signed_by_a_foreign_key_is_not_trusted(
    put: Put, plain: Parts, trust: list[Path], key: Key
) -> None:
    foreign = Key()
    path = put(seal(plain, key=foreign))
    with pytest.raises(BundleUntrusted) as caught:
        open_bundle(path, trust=trust)
    assert str(caught.value) == (
        f"{path} is signed by {foreign.id[:12]}, not by a key this station trusts ({key.id[:12]}); "
        "have it signed, or add the key to trust"
    )


def test_a_foreign_signature_under_a_trusted_keys_name_is_found(
    put: Put, plain: Parts, trust: list[Path], key: Key
) -> None:
    parts = seal(plain, key=Key())
    forged = json.loads(parts["manifest.sig"])
    forged[0]["keyid"] = key.id
    parts["manifest.sig"] = canonical_json(forged)
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(put(parts), trust=trust)
    assert f"manifest.json is not what key {key.id[:12]} signed" in str(caught.value)


def test_a_missing_cryptography_is_said_with_the_line_that_installs_it(
    put: Put, signed: Parts, trust: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage) as caught:
        open_bundle(put(signed), trust=trust)
    assert str(caught.value) == (
        "signed bundles need the package cryptography, which is not installed; pip install 'edge-sdk[ota]'"
    )


def test_one_trusted_signature_of_several_is_enough(
    put: Put, plain: Parts, trust: list[Path], key: Key
) -> None:
    parts = seal(plain)
    other = Key()
    parts["manifest.sig"] = canonical_json(
        [other.sign(parts["manifest.json"]), key.sign(parts["manifest.json"])]
    )
    assert open_bundle(put(parts), trust=trust).signed_by == key.id


def test_the_wrong_pages_in_trust_are_wrong_settings(tmp_path: Path, signed: Parts) -> None:
    folder = put_folder(signed, tmp_path / "b")
    with pytest.raises(ConfigError) as caught:
        open_bundle(folder, trust=[tmp_path / "release.pub"])
    assert str(caught.value) == (
        f"trust names {tmp_path / 'release.pub'}, which cannot be read (No such file or directory); "
        "is the path right?"
    )
    for content in (b"", b"-----BEGIN PUBLIC KEY-----", b"AAAA\n", b"\xff\xfe"):
        (tmp_path / "release.pub").write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            open_bundle(folder, trust=[tmp_path / "release.pub"])
        assert str(caught.value) == (
            f"trust names {tmp_path / 'release.pub'}, which is no public key; "
            "give the .pub file that python -m export keys wrote"
        )
    with pytest.raises(BundleUntrusted, match="cannot be trusted, as no key is; name one in trust"):
        open_bundle(folder, trust=[])


@pytest.mark.parametrize("name", ["card.md", "golden/frames.npz", "model/model.onnx", "manifest.json"])
def test_a_missing_file_is_named(put: Put, signed: Parts, trust: list[Path], name: str) -> None:
    path = put({each: data for each, data in signed.items() if each != name})
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, trust=trust)
    assert caught.value.member == name
    end = "has no manifest.json; is it a bundle?" if name == "manifest.json" else f"{name} is missing"
    assert end in str(caught.value)


def test_an_added_file_is_named(put: Put, signed: Parts, trust: list[Path]) -> None:
    path = put({**signed, "model/plugin.so": b"code"})
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, trust=trust)
    assert str(caught.value) == f"{path}: model/plugin.so is not in the manifest; take it out"
    assert caught.value.member == "model/plugin.so"


def test_an_altered_file_is_named(put: Put, signed: Parts, trust: list[Path]) -> None:
    path = put({**signed, "card.md": b"# press-4\n"})
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, trust=trust)
    assert str(caught.value).startswith(f"{path}: card.md was altered (sha256 ")
    path = put({**signed, "card.md": b"# press-3!\n"})
    with pytest.raises(BundleDamaged) as caught:
        verify_bundle(path, trust=trust)
    assert str(caught.value) == f"{path}: card.md has 11 bytes, not 10; copy the bundle again"


def test_of_several_wrong_files_the_first_is_named(put: Put, signed: Parts, trust: list[Path]) -> None:
    parts = {name: data for name, data in signed.items() if name != "model/model.onnx"}
    path = put({**parts, "a.txt": b"", "z.txt": b""})
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, trust=trust)
    assert caught.value.member == "a.txt"


@FIXTURES
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_folder_is_found_and_its_file_named(
    tmp_path_factory: pytest.TempPathFactory, signed: Parts, key: Key, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(signed)))
    at = data.draw(st.integers(0, len(signed[name]) - 1))
    altered = bytearray(signed[name])
    altered[at] ^= 1 << data.draw(st.integers(0, 7))
    home = tmp_path_factory.mktemp("flipped")
    folder = put_folder({**signed, name: bytes(altered)}, home / "b")
    with pytest.raises((BundleDamaged, BundleUntrusted)) as caught:
        open_bundle(folder, trust=[key.write(home / "release.pub")])
    if isinstance(caught.value, BundleDamaged):
        # Of the two that vouch for each other nobody can tell which was altered.
        pair = ("manifest.json", "manifest.sig")
        assert caught.value.member == name or (caught.value.member in pair and name in pair)
    else:
        assert name == "manifest.sig", "only the name of the signing key leads to another sentence"


@FIXTURES
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_tar_is_found(
    tmp_path_factory: pytest.TempPathFactory, signed: Parts, key: Key, data: st.DataObject
) -> None:
    home = tmp_path_factory.mktemp("flipped")
    path = put_tar(signed, home / "x.bundle")
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    with pytest.raises((BundleDamaged, BundleUntrusted)):
        open_bundle(path, trust=[key.write(home / "release.pub")])


def test_a_manifest_that_is_not_canonical_is_damaged(put: Put, plain: Parts) -> None:
    spaced = json.dumps(json.loads(plain["manifest.json"]), indent=1).encode()
    path = put({**plain, "manifest.json": spaced})
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, trust="unsigned")
    assert str(caught.value) == (
        f"{path}: manifest.json is not the canonical JSON it was packed as; copy the bundle again"
    )


def test_a_manifest_of_another_version_is_one_clear_sentence(put: Put, plain: Parts) -> None:
    document = json.loads(plain["manifest.json"])
    document["schema"] = "bundle/2"
    path = put({**plain, "manifest.json": canonical_json(document)})
    with pytest.raises(BundleError) as caught:
        open_bundle(path, trust="unsigned")
    assert str(caught.value).startswith(f"{path}: manifest.json: schema is \"bundle/2\"; give 'bundle/1'")


def test_what_a_newer_manifest_says_besides_is_passed_over(put: Put, plain: Parts) -> None:
    document = json.loads(plain["manifest.json"])
    document["colour"] = "blue"
    data = canonical_json(document)
    bundle = open_bundle(put({**plain, "manifest.json": data}), trust="unsigned")
    assert bundle.id == sha256_hex(data)


def test_links_and_folders_in_a_bundle(tmp_path: Path, plain: Parts) -> None:
    folder = put_folder(plain, tmp_path / "b")
    put_folder({"engines/abc/model.engine": b"ours"}, folder)
    assert open_bundle(folder, trust="unsigned").title == "press-3-1", "engines are the station's own"
    (tmp_path / "link").symlink_to(folder)
    assert open_bundle(tmp_path / "link", trust="unsigned").root == folder.resolve()
    (folder / "golden" / "more").symlink_to("/etc/passwd")
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(folder, trust="unsigned")
    assert str(caught.value) == f"{folder}: golden/more is a link; a bundle holds plain files alone"


def test_a_bundle_that_is_not_there_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path / "x.bundle", trust="unsigned")
    assert str(caught.value) == f"there is no bundle {tmp_path / 'x.bundle'}; is the path right?"
    (tmp_path / "current").symlink_to("a")
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path / "current", trust="unsigned")
    assert str(caught.value) == (
        f"{tmp_path / 'current'} leads to a, which is not there; activate a bundle first"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleDamaged, match=r"empty has no manifest\.json; is it a bundle\?"):
        open_bundle(tmp_path / "empty", trust="unsigned")


def test_a_cpu_runs_int8_where_there_is_one_and_fp32_where_that_is_asked_for(put: Put, plain: Parts) -> None:
    bundle = open_bundle(put(plain), trust="unsigned")
    assert bundle.model("auto") == (bundle.root / "model/model.cpu.onnx", "int8-cpu")
    assert bundle.model_path("cpu").name == "model.cpu.onnx"
    assert bundle.model_path("cpu-fp32").name == "model.onnx"
    with pytest.raises(BundleError, match="there is no platform 'gpu'; give one of auto, cpu, cpu-fp32"):
        bundle.model("gpu")


def test_a_rendering_that_is_not_in_the_bundle_is_one_clear_sentence(put: Put, plain: Parts) -> None:
    parts = seal({name: data for name, data in plain.items() if name != "model/model.cpu.onnx"})
    bundle = open_bundle(put(parts), trust="unsigned")
    assert bundle.model() == (bundle.root / "model/model.onnx", "fp32")
    with pytest.raises(BundleError) as caught:
        bundle.model("cpu")
    assert str(caught.value) == (
        "press-3-1 has no int8-cpu graph for runner.platform cpu (it has card, fp32, golden-expected, "
        "golden-frames); write another platform, or pack the bundle with that graph"
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"golden/frames.npz": b"no archive"}, "press-3-1: frames.npz is no archive of arrays ("),
        (
            {"golden/frames.npz": npz(frames=np.zeros((2, 8, 8), np.uint8))},
            "press-3-1: a golden frame is (8, 8) uint8, not (H, W, 3) uint8; pack it again",
        ),
        (
            {"golden/expected.npz": npz(cells=np.zeros((3, 1, 4, 4), np.float32))},
            "press-3-1: expected output 'cells' is (3, 1, 4, 4) for 4 golden frames; pack it again",
        ),
        (
            {"golden/frames.npz": npz(frames=np.zeros((0, 8, 8, 3), np.uint8)), "golden/expected.npz": npz()},
            "press-3-1 has no golden frames to prove itself on; pack it again",
        ),
        ({"golden/frames.npz": None}, "press-3-1 has no golden frames to prove itself on; pack it again"),
    ],
)
def test_golden_frames_that_do_not_fit_are_one_clear_sentence(
    put: Put, plain: Parts, changed: dict[str, bytes | None], sentence: str
) -> None:
    parts = {name: data for name, data in {**plain, **changed}.items() if data is not None}
    bundle = open_bundle(put(seal(parts)), trust="unsigned")
    with pytest.raises(BundleError) as caught:
        bundle.golden()
    assert str(caught.value).startswith(sentence)


def test_golden_frames_may_differ_in_size(put: Put, plain: Parts) -> None:
    frames = {"0001": np.zeros((8, 9, 3), np.uint8), "0000": np.zeros((5, 6, 3), np.uint8)}
    parts = {
        **plain,
        "golden/frames.npz": npz(**frames),
        "golden/expected.npz": npz(cells=np.zeros((2, 1, 4, 4), np.float32)),
    }
    bundle = open_bundle(put(seal(parts)), trust="unsigned")
    assert [frame.shape for frame in bundle.golden().frames] == [(5, 6, 3), (8, 9, 3)]


def test_no_pickle_is_ever_loaded(put: Put, plain: Parts) -> None:
    parts = {**plain, "golden/frames.npz": npz(frames=np.array([{"code": 1}], dtype=object))}
    bundle = open_bundle(put(seal(parts)), trust="unsigned")
    with pytest.raises(BundleError, match="is no archive of arrays"):
        bundle.golden()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[ ]",
        b'["x"]',
        b"[" * 100_000,
        b'[{"keyid":"00"}]',
        b'[{"keyid":1,"sig":2}]',
        b'[{"keyid":"00","sig":"00"}]',
    ],
)
def test_a_signature_file_that_is_none_is_one_clear_sentence(
    put: Put, signed: Parts, trust: list[Path], content: bytes
) -> None:
    path = put({**signed, "manifest.sig": content})
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, trust=trust)
    assert str(caught.value) == f"{path}: manifest.sig is no list of signatures; copy the bundle again"


def test_a_manifest_without_an_end_is_not_read_into_memory(tmp_path: Path, plain: Parts) -> None:
    folder = put_folder(plain, tmp_path / "b")
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(folder, trust="unsigned")
    assert str(caught.value) == (
        f"{folder}: manifest.json has 1073741824 bytes, at most 16777216 may be; pack it again"
    )


def test_a_disk_that_refuses_while_unpacking_is_one_clear_sentence(
    tmp_path: Path, plain: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_tar(plain, tmp_path / "x.bundle")
    unpacked = tmp_path / "tmp"
    unpacked.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError) as caught:
        open_bundle(path, trust="unsigned")
    assert str(caught.value) == (
        f"{path} cannot be read or unpacked (No space left on device: {path}); mind rights and room on the disk"
    )
    assert list(unpacked.iterdir()) == [], "nothing half unpacked is left behind"
