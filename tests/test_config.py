"""``station.yaml``: what it takes, and how it says no."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sdk.config import load_station
from edge_sdk.errors import ConfigError

WHOLE = """\
station: press-3
bundle: ./bundles/current
trust: [keys/release.pub]
camera: {uri: "file:line.avi", pace: real, exposure_us: 120}
runner: {platform: auto, threads: 1}
pipeline: {policy: latest, deadline_ms: 80}
mentoring: {outbox: ./outbox, outbox_mib: 2048, control_share: 0.1, questions_per_shift: 200}
hub: {url: "https://hub.plant", token_file: ./token}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "station.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_station(written(tmp_path, WHOLE))
    assert config.bundle == tmp_path / "bundles/current"
    assert config.trust == (tmp_path / "keys/release.pub",)
    assert config.camera.uri == f"file:{tmp_path / 'line.avi'}"
    assert config.mentoring is not None and config.mentoring.outbox == tmp_path / "outbox"
    assert config.hub is not None and config.hub.token_file == tmp_path / "token"
    assert config.state == tmp_path / "state"


def test_other_addresses_are_left_alone(tmp_path: Path) -> None:
    text = WHOLE.replace("file:line.avi", "rtsp://10.0.0.7/line")
    assert load_station(written(tmp_path, text)).camera.uri == "rtsp://10.0.0.7/line"
    text = WHOLE.replace("file:line.avi", "file:/data/line.avi")
    assert load_station(written(tmp_path, text)).camera.uri == "file:/data/line.avi"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("exposure_us: 120", "exposure_us: 0", ":4: camera.exposure_us is 0; give a number above 0"),
        ("exposure_us: 120", "exposure: 120", ":4: no setting named camera.exposure; did you mean exposure_us?"),
        ("threads: 1", "threads: 0", ":5: runner.threads is 0; give at least 1"),
        ("threads: 1", "threads: two", ':5: runner.threads is "two"; give a whole number'),
        ("policy: latest", "policy: newest", ":6: pipeline.policy is \"newest\"; give 'latest' or 'lossless'"),
        ("control_share: 0.1", "control_share: 1.5", ":7: mentoring.control_share is 1.5; give at most 1"),
        ("https://hub.plant", "hub.plant", ":8: hub.url is \"hub.plant\"; give the hub's address"),
        ("file:line.avi", "line.avi", ':4: camera.uri is "line.avi"; say what kind it is, e.g. file:line.avi'),
        ("trust: [keys/release.pub]\n", "", ":1: trust is missing; name the public keys"),
        ("station: press-3", "station: press 3", ':1: station is "press 3"; '),
        ("bundle: ./bundles/current\n", "", ":1: bundle is missing; add it"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = written(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_station(path)
    assert f"{path}{sentence}" in str(caught.value)


def test_unsigned_bundles_are_taken_only_when_that_is_written(tmp_path: Path) -> None:
    config = load_station(written(tmp_path, WHOLE.replace("[keys/release.pub]", "unsigned")))
    assert config.trust == "unsigned"
