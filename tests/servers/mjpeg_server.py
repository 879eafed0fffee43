"""A real network camera that sends MJPEG over HTTP, in a few lines of the standard library.

python tests/servers/mjpeg_server.py --port 0 --picture PICTURE.jpg… [--rate-hz 25]
"""

import argparse
import http.server
import itertools
import sys
import time
from pathlib import Path


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate-hz", type=float, default=25)
    parser.add_argument("--pictures", nargs="+", required=True)
    asked = parser.parse_args()
    pictures = [Path(path).read_bytes() for path in asked.pictures]

    class Line(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for picture in itertools.cycle(pictures):
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                    self.wfile.write(head.encode() + picture + b"\r\n")
                    time.sleep(1 / asked.rate_hz)
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", asked.port), Line) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}/line.mjpg\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
