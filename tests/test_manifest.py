"""The manifest: one id for every byte, and no file outside the bundle."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_sdk.documents import parse_json
from edge_sdk.errors import FormatError
from edge_sdk.manifest import (
    ClassThresholds,
    FileEntry,
    Manifest,
    PostprocessSpec,
    labels_of,
    manifest_bytes,
    manifest_id,
    read_manifest,
    thresholds_of,
)
from edge_sdk.quality.gates import Gates
from edge_sdk.vision.preprocess import PreprocessSpec


def manifest(**changed: Any) -> Manifest:
    band = {"boundary": 0.5, "pass_below": 0.3, "defective_from": 0.8}
    fields: dict[str, Any] = {
        "name": "press-3",
        "version": "1",
        "created_at": datetime(2026, 11, 21, tzinfo=timezone.utc),
        "line": "new",
        "classes": ("crack", "dent"),
        "thresholds": tuple(ClassThresholds.model_validate({"class": name, **band}) for name in ("crack", "dent")),
        "preprocess": PreprocessSpec(width=128, height=96),
        "postprocess": PostprocessSpec(cell_px=16),
        "files": (FileEntry(path="model/model.onnx", bytes=3, sha256="a" * 64, role="fp32"),),
        "golden": Gates(),
    }
    return Manifest.model_validate(fields | changed)


def test_a_manifest_survives_its_bytes_and_keeps_its_id() -> None:
    before = manifest()
    after = parse_json(manifest_bytes(before), Manifest, name="manifest.json")
    assert after == before
    assert manifest_bytes(after) == manifest_bytes(before)
    assert manifest_id(after) == manifest_id(before) != manifest_id(manifest(version="2"))


def test_classes_and_thresholds_come_out_in_one_order() -> None:
    found = thresholds_of(manifest())
    assert labels_of(manifest()).names == ("crack", "dent")
    assert found.pass_below.tolist() == pytest.approx([0.3, 0.3])
    assert found.guarantee == "none"


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a\\b", "", "a//b", "./a"])
def test_a_file_outside_the_bundle_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="a file of a bundle has a plain path inside it"):
        FileEntry(path=path, bytes=0, sha256="a" * 64, role="card")


def test_what_does_not_agree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="thresholds are for crack, dent but the classes are crack"):
        manifest(classes=("crack",))
    entry = FileEntry(path="card.md", bytes=0, sha256="a" * 64, role="card")
    with pytest.raises(ValidationError, match=r"file card\.md is listed twice"):
        manifest(files=(entry, entry))
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest_bytes(manifest()).replace(b"bundle/1", b"bundle/7"))
    with pytest.raises(FormatError, match="schema is \"bundle/7\"; give 'bundle/1'"):
        read_manifest(path)
