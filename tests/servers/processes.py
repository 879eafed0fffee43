"""Start a server as a process of its own, stall it, kill it and bring it back."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.requirements import need

__all__ = ["CameraServer", "free_port", "mjpeg_server", "rtsp_server"]

HERE = Path(__file__).parent
SYSTEM_PYTHON = Path("/usr/bin/python3")
RTSP_PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gir1.2-gstreamer-1.0 "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
)


class CameraServer:
    """A camera server that prints its uri as its first line."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self.uri = ""

    def start(self) -> None:
        """Returns when the server has said its uri."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        self.uri = self._process.stdout.readline().strip()
        assert "://" in self.uri, f"{self._command} did not start"

    def stall(self) -> None:
        """Sockets stay open and nothing comes any more, as when a cable is pulled."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> CameraServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def rtsp_server(*, codec: str = "h264") -> CameraServer:
    """GStreamer's RTSP server; skips the test where Debian's packages are missing."""
    probe = (
        "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0'); "
        "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
        "assert all(map(Gst.ElementFactory.find, ('x264enc', 'rtph264pay', 'jpegenc', 'videotestsrc')))"
    )
    found = (
        SYSTEM_PYTHON.exists()
        and not subprocess.run(
            [SYSTEM_PYTHON, "-c", probe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
    )
    need("a GStreamer RTSP server", found=found, apt=RTSP_PACKAGES)
    script = str(HERE / "rtsp_server.py")
    return CameraServer([str(SYSTEM_PYTHON), script, "--port", str(free_port()), "--codec", codec])


def mjpeg_server(pictures: list[Path]) -> CameraServer:
    """A camera that sends MJPEG over HTTP."""
    script = str(HERE / "mjpeg_server.py")
    return CameraServer(
        [sys.executable, script, "--port", str(free_port()), "--pictures", *map(str, pictures)]
    )


def free_port() -> int:
    """A port that nobody listens on, so that a server can come back to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
