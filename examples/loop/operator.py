"""An operator who knows the truth: answers the hub's questions as a careful person would.

It speaks HTTP as the page does and sees what the page shows, a picture and some cells on it.  A question
is confirmed when at least a quarter of its cells are defective, infirmed when none is, and else unsure.
"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import cv2
import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.errors import HubError, HubRefused
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask
from examples.loop.video import LineVideo

__all__ = ["Hub", "Operator", "Said", "answer_all", "say"]

COVERED = 0.08
"""Share of a cell from which on it is defective, as in training."""
CONFIRM_FROM = 0.25
"""Share of a question's cells that must be defective."""
LOOK_MS = 400
"""Between two answers, as the page would report it."""


@dataclass(frozen=True)
class Said:
    """What is said of one question."""

    question: int | None
    answer: str
    class_name: str | None = None


class Hub:
    """The hub's API, with its token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._token = token

    def get(self, path: str) -> bytes:
        """The body of a GET.

        Raises:
            HubError: The hub is down or refuses.
        """
        return self._call("GET", path, None)

    def get_json(self, path: str) -> dict[str, Any]:
        """A GET that answers with an object."""
        found: dict[str, Any] = json.loads(self.get(path))
        return found

    def post(self, path: str, value: Any) -> dict[str, Any]:
        """A POST of JSON that answers with an object."""
        found: dict[str, Any] = json.loads(self._call("POST", path, json.dumps(value).encode()))
        return found

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return bytes(reply.read())
        except urllib.error.HTTPError as error:
            why = error.read().decode(errors="replace")[:300]
            raise HubRefused(f"the hub refused {method} {path}: {why}", status=error.code) from error
        except OSError as error:
            raise HubError(f"the hub at {self.url} cannot be reached ({error}); is it running?") from error


class Operator:
    """Knows the truth of each picture of a line, and finds it again by what the picture shows.

    Args:
        video: That the station sees, with what is known of its pictures.
        spec: Of the network whose cells are asked about.
        classes: In the order of the masks' ids.
    """

    def __init__(self, video: LineVideo, spec: PreprocessSpec, *, classes: Sequence[str]) -> None:
        self._video = video
        self._spec = spec
        self._classes = tuple(classes)
        self._shown = [_small(video.canvas.picture(one.image)) for one in video.pictures]
        self._by_digest: dict[str, int] = {}

    def recognise(self, picture: bytes) -> int:
        """Which of the video's pictures an encoded picture shows: the one that it differs least from."""
        digest = hashlib.sha256(picture).hexdigest()
        if digest not in self._by_digest:
            seen = _small(
                np.asarray(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR), np.uint8)
            )
            off = [float(np.abs(seen - shown).mean()) for shown in self._shown]
            self._by_digest[digest] = int(np.argmin(off))
        return self._by_digest[digest]

    def say(self, number: int, questions: Sequence[dict[str, Any]]) -> list[Said]:
        """What to say of a picture's questions."""
        one = self._video.pictures[number]
        truth: dict[tuple[int, ...], dict[str, Array]] = {}
        if not one.healthy and one.mask is not None and one.mask.any():
            mask = self._video.canvas.mask(one.mask)
            grids = {tuple(question["grid"]) for question in questions if question.get("grid")}
            truth = {grid: self._cells(mask, grid) for grid in grids}
        return say(one.healthy, truth, questions, classes=self._classes, label=one.label)

    def _cells(self, mask: Array, grid: tuple[int, ...]) -> dict[str, Array]:
        """Which cells are defective, by class."""
        rows, columns = grid
        return {
            name: cells_of_mask((mask == k + 1).astype(np.uint8), self._spec, (rows, columns)) >= COVERED
            for k, name in enumerate(self._classes)
        }


def say(
    healthy: bool | None,
    truth: dict[tuple[int, ...], dict[str, Array]],
    questions: Sequence[dict[str, Any]],
    *,
    classes: Sequence[str],
    label: str | None = None,
) -> list[Said]:
    """What a careful person says of the questions about one picture.

    Args:
        healthy: The whole picture; ``None`` where nobody knows.
        truth: By grid and class the ``(h, w)`` bool map of defective cells; empty where no mask was drawn.
        questions: As ``GET /v1/next`` sends them.
        classes: In the order of the set.
        label: Class of the picture as a whole, named where there are several.

    Returns:
        One entry a question; of a picture without a mask first one for the picture as a whole.
    """
    if healthy is None:
        return [Said(question["question"], "unsure") for question in questions]
    whole_class = label if len(classes) > 1 else None
    if not healthy and not truth:
        whole = [Said(None, "confirm", whole_class)]
        return whole + [Said(q["question"], "unsure") for q in questions if q["question"] is not None]
    found = []
    for question in questions:
        if question["question"] is None:
            found.append(Said(None, "infirm") if healthy else Said(None, "confirm", whole_class))
            continue
        cells = question["cells"]
        maps = truth.get(tuple(question["grid"] or ()), {})
        share = {name: _share(maps.get(name), cells) for name in classes}
        asked = str(question["class"])
        best = max(classes, key=lambda name: share[name])
        if share.get(asked, 0.0) >= CONFIRM_FROM:
            found.append(Said(question["question"], "confirm"))
        elif share[best] >= CONFIRM_FROM:
            found.append(Said(question["question"], "confirm", best))
        elif share[best] == 0:
            found.append(Said(question["question"], "infirm"))
        else:
            found.append(Said(question["question"], "unsure"))
    return found


def _share(found: Array | None, cells: Sequence[Sequence[int]]) -> float:
    if found is None or not cells:
        return 0.0
    return float(np.mean([bool(found[row, column]) for row, column in cells]))


def _small(image: Image) -> Array:
    return np.asarray(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), np.int16)


def answer_all(
    hub: Hub,
    operator: Operator,
    *,
    expected: int,
    timeout_s: float,
    watch: Callable[[], None] = lambda: None,
    seen: Callable[[bytes, list[dict[str, Any]], list[Said]], None] = lambda picture, questions, said: None,
) -> dict[str, int]:
    """Answer until every item that is expected has come and no question is open.

    Args:
        hub: To ask and answer.
        operator: Who answers.
        expected: How many items the station will send in all.
        timeout_s: The longest to wait for them.
        watch: Called between two leases; raises where a process has died.
        seen: Told of every picture with its questions and what was said of them.

    Returns:
        How many of each answer were given.
    """
    given = {"confirm": 0, "infirm": 0, "unsure": 0}
    holder, until = uuid4().hex, time.monotonic() + timeout_s
    while True:
        watch()
        asked = hub.get_json(f"/v1/next?lease=20&holder={holder}")["questions"]
        if not asked:
            if hub.get_json("/v1/counts")["items"] >= expected:
                return given
            if time.monotonic() > until:
                raise HubError(
                    f"the hub did not get all {expected} items within {timeout_s:g} s; see the uploader's log"
                )
            time.sleep(0.2)
            continue
        by_item: dict[str, list[dict[str, Any]]] = {}
        for question in asked:
            by_item.setdefault(question["item"], []).append(question)
        answers = []
        for item, questions in by_item.items():
            picture = hub.get(f"/v1/pictures/{item}")
            said = operator.say(operator.recognise(picture), questions)
            seen(picture, questions, said)
            for one in said:
                answers.append(_answer(item, one))
                given[one.answer] += 1
        hub.post("/v1/answers", answers)


def _answer(item: str, said: Said) -> dict[str, Any]:
    return {
        "schema": "answer/1",
        "id": str(uuid4()),
        "item": item,
        "question": said.question,
        "answer": said.answer,
        "class": said.class_name,
        "operator": "demo",
        "device": "whole-loop",
        "answered_at": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        "after_ms": LOOK_MS,
        "page": "whole-loop",
        "withdraws": None,
    }
