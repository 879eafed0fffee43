"""The new line at work: its camera's video, a station, an uploader and the hub, each a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from calibration.exported import read_preprocess
from edge_sdk.errors import EdgeError
from edge_sdk.quality.datasets import Line, read_picture
from edge_sdk.vision.preprocess import PreprocessSpec
from examples.loop.drawing import outlined
from examples.loop.operator import Hub, Operator, Said, answer_all
from examples.loop.processes import Child, Job, Processes
from examples.loop.video import Filmed, LineVideo, write_line_video

__all__ = ["RATE_HZ", "ProductionLine"]

RATE_HZ = 10.0
"""Frames a second of the station's video."""
STREAM_S = 15.0
"""The station streams at least this long, and every picture a few times, before the operator begins."""
TIMES = 6
"""So often every picture passes, within ``LONGEST_STREAM_S``, so that the control sample may draw it."""
LONGEST_STREAM_S = 45.0
AFTER_SWAP_S = 5.0


class ProductionLine:
    """Lives from ``start`` to ``swap``.

    Args:
        run: Starts the processes, and ends them whatever happens.
        out: Of the demo; ``pictures/mentor`` there is what the camera sees.
        seen: The new line, whose part ``mentor`` passes the camera.
        name: Of the bundles; the station is called after it.
        trust: Public key that the bundles are signed with; without one any bundle is taken.
    """

    def __init__(
        self, run: Processes, out: Path, seen: Line, *, name: str, trust: Path | None = None
    ) -> None:
        self.run = run
        self.out = out
        self.seen = seen
        self.name = name
        self.trust = trust
        self.hub: Child | None = None
        self.station: Child | None = None
        self.uploader: Child | None = None
        self.video: LineVideo | None = None
        self.questions: list[dict[str, Any]] = []

    @property
    def settings(self) -> Path:
        """``station.yaml``."""
        return self.out / "station" / "station.yaml"

    @property
    def journal(self) -> Path:
        """What the station wrote of every frame."""
        return self.out / "station" / "inspections.jsonl"

    def start(self, bundle: str) -> dict[str, Any]:
        """Start hub, station and uploader, and let the line run until every picture has been seen."""
        for name in ("station", "hub", "mentored"):
            shutil.rmtree(self.out / name, ignore_errors=True)
        self.hub = self.run.start(
            Job("hub", "-m", "mentoring", "serve", "--data", self.out / "hub", "--port", 0, "--json")
        )
        hub = json.loads(self.hub.first_line())
        video = self.video = self._film()
        self._write_station(video, hub)
        self.run.run(Job("activate-1", "-m", "edge_sdk", "activate", self.settings, bundle, "--json"))
        self.station = self.run.start(
            Job("station", "-m", "edge_sdk", "run", self.settings, "--inspections", self.journal, "--json")
        )
        self.uploader = self.run.start(Job("uploader", "-m", "edge_sdk", "upload", self.settings, "--json"))
        seen_s = TIMES * len(video.pictures) / RATE_HZ
        wait_s = min(max(STREAM_S, seen_s), LONGEST_STREAM_S)
        self._wait_for_frames(round(wait_s * RATE_HZ), timeout_s=wait_s + 60)
        told = self.status()
        return {"hub": hub, "frames": told["station"]["frames_in"], "put": told["outbox"]["put"]}

    def answers(self, line: dict[str, Any], *, interactive: bool = False) -> dict[str, Any]:
        """Answer what the station was unsure of, as an operator would, through the page's own API."""
        url, token_file = line["hub"]["url"], Path(line["hub"]["token_file"])
        hub = Hub(url, token_file.read_text(encoding="utf-8").strip())
        if interactive:
            return self._wait_for_a_person(hub, line)
        assert self.video is not None
        operator = Operator(self.video, self._spec(), classes=self.seen.classes)
        expected = self.status()["outbox"]["put"]
        given = answer_all(
            hub, operator, expected=expected, timeout_s=120, watch=self.watch, seen=self._remember
        )
        return {"answers": given, "asked_of": expected, "questions": self.questions}

    def swap(self, bundle: str) -> dict[str, Any]:
        """Bring the new bundle into the running station, let it judge, and close the line."""
        assert self.station is not None and self.hub is not None
        self.watch()
        self.run.run(
            Job("activate-2", "-m", "edge_sdk", "activate", self.settings, bundle, "--wait", 60, "--json")
        )
        frames = self.status()["station"]["frames_in"]
        self._wait_for_frames(frames + round(AFTER_SWAP_S * RATE_HZ), timeout_s=AFTER_SWAP_S + 60)
        self.watch()
        self.station.stop()
        summary = self.station.answer()
        if self.uploader is not None:
            self.uploader.stop()
        words = ["upload", self.settings, "--until-empty", "--give-up-after", 60, "--json"]
        uploaded = self.run.run(Job("upload-rest", "-m", "edge_sdk", *words))
        said = json.loads(self.hub.first_line())
        token = Path(said["token_file"]).read_text(encoding="utf-8").strip()
        at_hub = Hub(said["url"], token).get_json("/v1/counts")["items"]
        self.hub.stop()
        self._check_journal(summary)
        return {"summary": summary, "uploaded": uploaded["uploaded"], "at_hub": at_hub}

    def watch(self) -> None:
        """Notice at once when one of the three processes on the line has died.

        Raises:
            ChildFailedError: One has.
        """
        for child in (self.hub, self.station, self.uploader):
            if child is not None and not child.running:
                raise child.failure(f"ended with code {child.process.returncode} while the line was running")

    def _film(self) -> LineVideo:
        """The new line's pictures as its camera would send them, in the order of its part ``mentor``."""
        paths = sorted((self.out / "pictures" / "mentor" / "images").glob("*.png"))
        samples = self.seen.mentor
        if len(paths) != len(samples):
            raise EdgeError(f"{len(paths)} pictures were written of the {len(samples)} that the line shows")
        pictures = []
        for path, sample in zip(paths, samples, strict=True):
            truth = self.seen.truth(sample)
            pictures.append(Filmed(sample.image, read_picture(path), truth.healthy, truth.mask, sample.label))
        return write_line_video(pictures, self.out / "line", spec=self._spec(), rate_hz=RATE_HZ)

    def _spec(self) -> PreprocessSpec:
        return read_preprocess(self.out / "model" / "adapted" / "preprocess.json")

    def status(self) -> dict[str, Any]:
        """What the running station says of itself."""
        return self.run.run(Job("status", "-m", "edge_sdk", "status", self.settings, "--json"))

    def latencies_ms(self) -> list[float]:
        """Capture to verdict of every frame that was judged, in order."""
        path = self.journal
        rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        return [
            row["latency_ms"] for row in rows if row["verdict"] != "not_inspected" and "latency_ms" in row
        ]

    # -- helpers

    def _write_station(self, video: LineVideo, hub: dict[str, Any]) -> None:
        self.settings.parent.mkdir(parents=True)
        camera: dict[str, Any] = {
            "uri": f"file:{video.path.resolve()}", "name": "line", "pace": "real", "loop": True,
            "width": video.canvas.width, "height": video.canvas.height,
        }  # fmt: skip
        if len(video.pictures) < 2:
            camera["frozen_s"] = 86400.0  # one picture for ever is all there is to see
        told = {
            "station": f"{self.name}-new",
            "bundle": "bundles/current",
            "trust": "unsigned" if self.trust is None else [str(self.trust.resolve())],
            "camera": camera,
            "runner": {"platform": "auto", "threads": 1},
            # a shift of minutes: a budget spreads its questions over the shift, and the demo is over before
            "mentoring": {"outbox": "outbox", "outbox_mib": 512, "questions_per_shift": 6000, "shift_h": 0.1},
            "hub": {"url": hub["url"], "token_file": str(Path(hub["token_file"]).resolve())},
        }
        self.settings.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")

    def _wait_for_frames(self, count: int, *, timeout_s: float) -> None:
        """Until so many frames came in, as the station's status tells about once a second."""
        assert self.station is not None
        path = self.out / "station" / "state" / "status.json"

        def enough() -> bool:
            if not path.exists():
                return False
            frames: int = json.loads(path.read_text(encoding="utf-8"))["station"]["frames_in"]
            return frames >= count

        self.station.wait_until(enough, timeout_s=timeout_s, what=f"judge {count} frames")

    def _wait_for_a_person(self, hub: Hub, line: dict[str, Any]) -> dict[str, Any]:
        page = line["hub"]["page"]
        keys = "j confirms, f is a false alarm, space is unsure"
        print(f"\n    open {page}\n    and answer until nothing is asked: {keys}\n", file=sys.stderr)
        webbrowser.open(page)
        while True:
            self.watch()
            counts = hub.get_json("/v1/counts")
            if counts["open"] == 0 and counts["items"] >= line["put"]:
                given = {name: counts[name] for name in ("confirm", "infirm", "unsure")}
                return {"answers": given, "asked_of": counts["items"], "questions": []}
            time.sleep(1)

    def _remember(self, picture: bytes, questions: Sequence[dict[str, Any]], said: Sequence[Said]) -> None:
        """Keep a confirmed and an infirmed question for the report."""
        by_number = {one.question: one for one in said}
        for question in questions:
            one = by_number.get(question["question"])
            kept = {entry["answer"] for entry in self.questions}
            if one is None or question["question"] is None or one.answer not in {"confirm", "infirm"} - kept:
                continue
            path = self.out / "line" / f"question-{one.answer}.jpg"
            path.write_bytes(outlined(picture, question["outline"]))
            self.questions.append(
                {"answer": one.answer, "class": question["class"], "confidence": question["confidence"],
                 "jpeg": str(path)}
            )  # fmt: skip

    def _check_journal(self, summary: dict[str, Any]) -> None:
        """Hold what the station says of itself against the line-by-line journal that it wrote.

        Raises:
            EdgeError: They differ: a frame is missing or was counted twice.
        """
        path = self.journal
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        said = summary["station"]
        counted: dict[str, int] = dict.fromkeys(said["outcomes"], 0)
        for row in rows:
            counted[row["verdict"]] += 1
        indices = [row["index"] for row in rows if row["reason"] != "station stopped"]
        if sorted(indices) != list(range(len(indices))):
            raise EdgeError(f"{path} misses a frame or tells one twice; the ledger cannot be trusted")
        judged = {name: count for name, count in said["outcomes"].items() if name != "not_inspected"}
        if any(counted[name] != count for name, count in judged.items()):
            raise EdgeError(
                f"the station counted {judged}, but {path} tells {counted}; the ledger cannot be trusted"
            )
