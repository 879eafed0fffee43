"""What is installed on a station: systemd takes the units, the station takes the example settings."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from edge_sdk.cli import parser
from edge_sdk.config import load_station
from tests.house.places import ROOT, ask
from tests.requirements import need

UNITS = ("edge-station", "edge-upload")
SYSTEMD = ROOT / "deploy" / "systemd"


def unit(name: str) -> str:
    return (SYSTEMD / f"{name}.service").read_text(encoding="utf-8")


def setting(name: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit(name), flags=re.MULTILINE)


@pytest.fixture
def copies(tmp_path: Path) -> list[str]:
    """The units with a command that every machine has; systemd-analyze looks whether it exists."""
    need("systemd-analyze", found=shutil.which("systemd-analyze") is not None, apt="systemd")
    for name in UNITS:
        text = re.sub(r"^ExecStart=.*$", "ExecStart=/usr/bin/true", unit(name), flags=re.MULTILINE)
        (tmp_path / f"{name}.service").write_text(text, encoding="utf-8")
    return [str(tmp_path / f"{name}.service") for name in UNITS]


def test_systemd_finds_nothing_wrong_with_the_units(copies: list[str]) -> None:
    done = ask(["systemd-analyze", "verify", "--man=no", *copies])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_wrong_line_in_a_unit_would_be_found(copies: list[str]) -> None:
    path = Path(copies[0])
    path.write_text(path.read_text(encoding="utf-8") + "\n[Service]\nProtectSysten=strict\n", encoding="utf-8")
    done = ask(["systemd-analyze", "verify", "--man=no", copies[0]])
    assert "ProtectSysten" in done.stderr


def test_the_units_are_exposed_by_less_than_two_of_ten(copies: list[str]) -> None:
    for path in copies:
        done = ask(["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", path])
        assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_that_exists(name: str) -> None:
    (line,) = setting(name, "ExecStart")
    program, *arguments = shlex.split(line)
    assert program == "/opt/edge-sdk/bin/edge-sdk"
    asked = parser().parse_args(arguments)
    assert asked.station == "/etc/edge-sdk/station.yaml"


@pytest.mark.parametrize("name", UNITS)
def test_wrong_settings_are_not_tried_again_and_everything_else_is(name: str) -> None:
    from edge_sdk.errors import ConfigError

    assert setting(name, "RestartPreventExitStatus") == [str(ConfigError.exit_code)]
    assert setting(name, "Restart") == ["always"]
    assert setting(name, "StartLimitIntervalSec") == ["0"]


def test_both_processes_are_one_user_that_sysusers_makes() -> None:
    users = {setting(name, "User")[0] for name in UNITS}
    assert users == {"edge-station"}
    made = (SYSTEMD / "edge-sdk.sysusers").read_text(encoding="utf-8")
    assert re.search(r"^u edge-station ", made, flags=re.MULTILINE)
    for group in setting("edge-station", "SupplementaryGroups")[0].split():
        assert re.search(rf"^m edge-station {group}$", made, flags=re.MULTILINE)


def test_the_shipped_settings_are_taken_and_their_folders_are_made_for_the_user() -> None:
    config = load_station(ROOT / "deploy" / "config" / "station.yaml")
    assert config.trust != "unsigned"
    assert config.mentoring is not None
    assert config.hub is not None
    folders = re.findall(
        r"^d (\S+)\s+0750 edge-station edge-station$",
        (SYSTEMD / "edge-sdk.tmpfiles").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    for path in (config.bundle.parent, config.mentoring.outbox, config.state):
        assert str(path) in folders


def test_the_settings_hold_no_secret() -> None:
    text = (ROOT / "deploy" / "config" / "station.yaml").read_text(encoding="utf-8")
    assert "token:" not in text
    assert "password" not in text
