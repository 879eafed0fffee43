"""A real RTSP camera on loopback, for the system's Python: GStreamer's server with a moving ball.

    /usr/bin/python3 tests/servers/rtsp_server.py --port 8554 [--codec h264|mjpeg] [--rate-hz 25]

Prints its uri when it answers.  ``tests/servers/processes.py`` starts, stalls and kills it.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={rate} ! rtph264pay name=pay0 pt=96",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0")
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--rate-hz", type=int, default=25)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    asked = parser.parse_args()
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(
        f"( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width={asked.width},"
        f"height={asked.height},framerate={asked.rate_hz}/1 ! {ENCODERS[asked.codec].format(rate=asked.rate_hz)} )"
    )
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(asked.port)
    server.get_mount_points().add_factory("/line", factory)
    if not server.attach(None):
        sys.exit(f"port {asked.port} of 127.0.0.1 is in use; give another with --port")
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/line", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
