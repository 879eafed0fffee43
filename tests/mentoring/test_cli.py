"""``python -m mentoring`` as a technician types it: real processes, exit codes, last lines."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mentoring.items import answer
from tests.mentoring.running import ROOT, HubProcess

Item = tuple[str, bytes]
pytestmark = pytest.mark.system


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mentoring", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_serves_takes_items_and_exports_beside_it(tmp_path: Path, drawn: list[Item]) -> None:
    with HubProcess(tmp_path / "hub") as hub:
        assert hub.page == f"http://127.0.0.1:{hub.port}/#token={hub.token}"
        assert [hub.put(item) for item in drawn[:2]] == [201, 201]
        assert hub.call("POST", "/v1/answers", [answer(drawn[0][0])])[0] == 201
        young = run("export", "--data", str(tmp_path / "hub"), "--out", str(tmp_path / "young"), "--json")
        assert json.loads(young.stdout)["mark"] == 0
        done = run(
            "export", "--data", str(tmp_path / "hub"), "--out", str(tmp_path / "out"), "--include-recent"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            f"{tmp_path / 'out'}: mark 1, 1 records; 1 confirm, 0 infirm, 0 unsure, 0 withdrawn\n"
        )
        assert hub.stop() == 0


def test_without_json_it_prints_the_page_s_address_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mentoring", "serve", "--data", str(tmp_path / "hub"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        rest = process.stdout.read()
    assert line.startswith("http://127.0.0.1:")
    assert line.endswith(f"/#token={(tmp_path / 'hub' / 'token').read_text()}")
    assert (process.returncode, rest) == (0, "")


def test_on_an_open_address_the_token_is_not_printed(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub", "--host", "0.0.0.0") as hub:
        assert hub.page == f"http://0.0.0.0:{hub.port}/"
        assert hub.token not in (tmp_path / "hub.log").read_text()


def test_a_token_file_of_one_s_own_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("my-own-token-of-some-length\n")
    with HubProcess(tmp_path / "hub", "--token-file", str(tmp_path / "mine")) as hub:
        assert hub.call("GET", "/v1/counts")[0] == 200
        assert hub.call("GET", "/v1/counts", token="another-token-of-some-length")[0] == 401
        assert not (tmp_path / "hub" / "token").exists()


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("serve", "--data", str(tmp_path / "hub"), "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"port {port} on 127.0.0.1 is in use; stop what listens there, or give another --port (0 takes any)\n"
    )


def test_a_folder_served_twice_is_one_sentence(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub"):
        done = run("serve", "--data", str(tmp_path / "hub"), "--port", "0")
    assert done.returncode == 1
    assert last_line(done).startswith(f"{tmp_path / 'hub'} is served by another process (pid ")


def test_asked_wrongly_is_exit_code_2(tmp_path: Path) -> None:
    for words, sentence in (
        (("serve",), "Missing option '--data'"),
        (("serve", "--data", str(tmp_path), "--port", "99999"), "'--port'"),
        (("serve", "--data", str(tmp_path), "--colour", "red"), "No such option: --colour"),
        (
            ("serve", "--data", str(tmp_path / "h"), "--host", "no.such.host.invalid"),
            "is no address of this machine",
        ),
        (("export", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "o")), "holds no hub's data"),
        (("export", "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--mark", "-1"), "'--mark'"),
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in last_line(done)


def test_a_mark_that_is_not_there_is_exit_code_1(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub"):
        pass
    done = run("export", "--data", str(tmp_path / "hub"), "--out", str(tmp_path / "o"), "--mark", "5")
    assert (done.returncode, last_line(done)) == (1, "there is no mark 5; the last answer is number 0")


def test_help_shows_an_example() -> None:
    for command in ("serve", "export"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert f"python -m mentoring {command} --data ./hub" in done.stdout


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, drawn: list[Item]) -> None:
    with HubProcess(tmp_path / "hub") as hub:
        for item in drawn:
            assert hub.put(item) == 201
            assert hub.call("POST", "/v1/answers", [answer(item[0])])[0] == 201
            hub.kill()
            hub.start()
        counts = hub.call("GET", "/v1/counts")[1]
        assert (counts["items"], counts["confirm"], counts["open"]) == (8, 8, 8)
        assert hub.call("POST", "/v1/have", [digest for digest, _ in drawn])[1] == {"missing": []}
