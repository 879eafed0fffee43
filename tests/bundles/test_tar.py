from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.bundles.tar import TarReader, is_plain_name, write_tar
from edge_sdk.errors import BundleDamaged

NAMES = st.lists(
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=12),
    min_size=1,
    max_size=3,
).map("/".join)


def contents(path: Path) -> dict[str, bytes]:
    reader = TarReader(path)
    try:
        return {name: b"".join(reader.stream(name)) for name in reader.members}
    finally:
        reader.close()


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5))
def test_what_is_written_is_read_by_us_and_by_pythons_own_reader(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes]
) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.bundle"
    write_tar(dict(members), path)
    assert contents(path) == members
    with tarfile.open(path) as archive:
        assert archive.getnames() == sorted(members)
        for info in archive:
            inside = archive.extractfile(info)
            assert inside is not None
            assert inside.read() == members[info.name]
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


def test_equal_members_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1" * 700)
    write_tar({"b": b"2", "a/one": tmp_path / "one"}, tmp_path / "x")
    write_tar({"a/one": b"1" * 700, "b": b"2"}, tmp_path / "y")
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_a_tar_of_gnus_own_making_is_read(tmp_path: Path) -> None:
    """Someone packs a bundle by hand: other modes and owners say nothing about its content."""
    with tarfile.open(tmp_path / "x", "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("a/" + "long" * 30 + "/b.txt")
        info.size, info.mode, info.uid, info.uname, info.mtime = 3, 0o600, 1000, "anna", 1_700_000_000
        archive.addfile(info, io.BytesIO(b"abc"))
    assert contents(tmp_path / "x") == {"a/" + "long" * 30 + "/b.txt": b"abc"}


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        "",
        ".",
        "a\\b",
        "c:x",
        "a\nb",
        "a\0b",
        "a/./b",
    ],
)
def test_a_name_that_leads_out_or_reads_in_two_ways_is_not_plain(name: str) -> None:
    assert not is_plain_name(name)


@pytest.mark.parametrize("name", ["a", "model/model.onnx", "model/Prüfung 1.onnx", "a.b-c_d"])
def test_an_ordinary_name_is_plain(name: str) -> None:
    assert is_plain_name(name)


def test_nothing_is_packed_under_a_name_that_could_not_be_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.\./x' is no plain name inside a bundle; give one like"):
        write_tar({"../x": b""}, tmp_path / "x")


def member(name: str, **changed: object) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        for attribute, value in changed.items():
            setattr(info, attribute, value)
        archive.addfile(info)

    return add


@pytest.mark.parametrize(
    ("add", "named", "sentence"),
    [
        (member("../x"), "../x", "'../x' would be unpacked outside its folder; do not use this file"),
        (member("/etc/x"), "/etc/x", "'/etc/x' would be unpacked outside its folder; do not use this file"),
        (
            member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "x",
            "x is a symbolic link; a bundle holds plain files alone",
        ),
        (
            member("x", type=tarfile.LNKTYPE, linkname="a"),
            "x",
            "x is a hard link; a bundle holds plain files",
        ),
        (member("x", type=tarfile.DIRTYPE), "x", "x is a folder; a bundle holds plain files alone"),
        (member("x", type=tarfile.CHRTYPE), "x", "x is of tar type b'3'; a bundle holds plain files alone"),
        (member("a"), "a", "a is in it twice; pack it again"),
    ],
)
def test_what_is_no_plain_file_is_refused_by_name(
    tmp_path: Path, add: Callable[[tarfile.TarFile], None], named: str, sentence: str
) -> None:
    with tarfile.open(tmp_path / "x", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        add(archive)
    with pytest.raises(BundleDamaged) as caught:
        TarReader(tmp_path / "x")
    assert caught.value.member == named
    assert str(caught.value).startswith(f"{tmp_path / 'x'}: {sentence}")


def test_a_tar_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    write_tar({"a": b"1" * 700, "b/c": b"2" * 3}, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    used = 512 + 1024 + 512 + 512
    for length in range(0, used + 1023, 61):
        (tmp_path / "short").write_bytes(data[:length])
        with pytest.raises(BundleDamaged):
            contents(tmp_path / "short")


def test_something_else_than_a_tar_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no bundle" * 100)
    with pytest.raises(BundleDamaged) as caught:
        TarReader(tmp_path / "x")
    assert str(caught.value) == (
        f"{tmp_path / 'x'} is no bundle, or is damaged after its beginning; copy it again"
    )


def test_bytes_behind_the_last_member_are_found(tmp_path: Path) -> None:
    write_tar({"a": b"1"}, tmp_path / "x")
    with (tmp_path / "x").open("ab") as file:
        file.write(b"\0" * 511 + b"x")
    with pytest.raises(BundleDamaged, match="bytes stand after its last member; copy it again"):
        TarReader(tmp_path / "x")
