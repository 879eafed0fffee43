from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_sdk.platforms import Check, Machine, machine_checks, read_machine

PC = Machine("x86_64", "", (), (3, 11, 7))
ORIN = Machine("aarch64", "NVIDIA Jetson Orin Nano", (36, 4, 3), (3, 10, 12))


def jetson_tree(root: Path, release: str) -> Path:
    """The files by which a Jetson is known."""
    (root / "etc").mkdir()
    (root / "etc/nv_tegra_release").write_text(release, encoding="utf-8")
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    return root


def found(checks: tuple[Check, ...], name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64", (36, 4, 3), "JetPack 6.2"),
        ("# R36 (release), REVISION: 5.0, GCID: 1", (36, 5, 0), "JetPack 6.2.2"),
        ("# R39 (release), REVISION: 2.1, GCID: 1", (39, 2, 1), "JetPack 7.2.1"),
        ("# R35 (release), REVISION: 6.4, GCID: 1", (35, 6, 4), "JetPack 5"),
        ("# R41 (release), REVISION: 1.0, GCID: 1", (41, 1, 0), "JetPack unknown (L4T 41.1.0)"),
        ("something else", (), ""),
    ],
)
def test_a_jetson_is_known_by_its_files(
    tmp_path: Path, release: str, l4t: tuple[int, ...], jetpack: str
) -> None:
    machine = read_machine(jetson_tree(tmp_path, release))
    assert machine.is_jetson
    assert machine.board == "NVIDIA Jetson AGX Orin Developer Kit"
    assert (machine.l4t, machine.jetpack) == (l4t, jetpack)


def test_this_machine_is_read_without_an_error() -> None:
    machine = read_machine()
    assert machine.python == tuple(sys.version_info[:3])
    assert all(check.level in ("ok", "warning", "error") for check in machine_checks())


def test_a_computer_that_is_no_jetson_runs_on_its_cpu(tmp_path: Path) -> None:
    checks = machine_checks(tmp_path, machine=PC)
    assert found(checks, "board").sentence == "not a Jetson: the CPU runner is used"
    assert found(checks, "opencv").level == "ok"
    assert found(checks, "onnxruntime").level == "ok"
    assert "release" not in {check.name for check in checks}


@pytest.mark.parametrize(
    ("l4t", "level", "sentence"),
    [
        ((36, 4, 3), "ok", "supported"),
        ((36, 4, 7), "warning", "this release refuses CUDA memory that others give"),
        ((35, 6, 4), "error", "TensorRT 8 and Python 3.8 are not supported"),
        ((41, 1), "warning", "a release newer than this SDK knows; it may well work"),
        ((), "warning", "the JetPack cannot be told; in a container the file is there only when mounted"),
    ],
)
def test_a_release_is_judged(tmp_path: Path, l4t: tuple[int, ...], level: str, sentence: str) -> None:
    machine = Machine("aarch64", "NVIDIA Jetson Orin Nano", l4t, (3, 10, 12))
    check = found(machine_checks(tmp_path, machine=machine), "release")
    assert (check.level, check.sentence) == (level, sentence)


@pytest.mark.parametrize(
    ("python", "level"),
    [((3, 8, 10), "error"), ((3, 10, 12), "ok"), ((3, 13, 0), "ok"), ((3, 15, 0), "warning")],
)
def test_a_python_is_judged(tmp_path: Path, python: tuple[int, int, int], level: str) -> None:
    machine = Machine("x86_64", "", (), python)
    assert found(machine_checks(tmp_path, machine=machine), "python").level == level


def test_pips_opencv_on_a_jetson_is_an_error_that_says_how_to_mend_it(tmp_path: Path) -> None:
    """The OpenCV of this test is pip's, which has no GStreamer."""
    import cv2

    if "GStreamer:                   YES" in cv2.getBuildInformation():
        assert found(machine_checks(tmp_path, machine=ORIN), "opencv").level == "ok"
        return
    check = found(machine_checks(tmp_path, machine=ORIN), "opencv")
    assert check.level == "error"
    assert check.sentence == "this OpenCV has no GStreamer and hides JetPack's, which has"
    assert check.mend == "pip uninstall opencv-python opencv-python-headless"


def test_numpy_2_on_a_jetson_is_warned_of(tmp_path: Path) -> None:
    import numpy as np

    check = found(machine_checks(tmp_path, machine=ORIN), "numpy")
    assert check.level == ("warning" if np.__version__.startswith("2") else "ok")
    assert found(machine_checks(tmp_path, machine=PC), "numpy").level == "ok"


def test_a_missing_opencv_is_an_error_that_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    check = found(machine_checks(tmp_path, machine=PC), "opencv")
    assert (check.level, check.sentence, check.mend) == (
        "error",
        "no camera and no picture can be read",
        "pip install 'edge-sdk[cpu]'",
    )


def test_a_small_receive_buffer_matters_on_a_jetson(tmp_path: Path) -> None:
    folder = tmp_path / "proc/sys/net/core"
    folder.mkdir(parents=True)
    (folder / "rmem_max").write_text("212992\n", encoding="ascii")
    check = found(machine_checks(tmp_path, machine=ORIN), "receive buffer")
    assert (check.level, check.mend) == ("warning", "sysctl -w net.core.rmem_max=33554432")
    assert found(machine_checks(tmp_path, machine=PC), "receive buffer").level == "ok"


def test_a_clock_that_nobody_sets_is_warned_of_on_a_jetson(tmp_path: Path) -> None:
    assert found(machine_checks(tmp_path, machine=ORIN), "clock").level == "warning"
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    assert found(machine_checks(tmp_path, machine=ORIN), "clock").level == "ok"
