"""Stand-ins for hardware, as part of the product: a whole station runs on them.

They keep the same contract as the real adapters (``tests/contracts``), and fail as they are told.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.cameras.base import CameraCounters
from edge_sdk.clock import Clock, SystemClock
from edge_sdk.errors import CameraError, EndOfFrames, RunnerError
from edge_sdk.frames import Frame
from edge_sdk.runners.base import TensorSpec, check_feeds, check_results

__all__ = ["FakeCamera", "FakeRunner", "drawn_picture"]


class FakeCamera:
    """Plays the given pictures, then fails as told.

    Args:
        pictures: ``(H, W, 3)`` uint8 each; an exception among them is raised in its turn, once.
        then: Raised at every read after the last picture; default ``EndOfFrames``.
        name: What frames say they come from.
        rate_hz: Frames are this far apart on ``clock``; ``None``: as fast as they are read.
        clock: Stamps the frames and is slept on.
    """

    def __init__(
        self,
        pictures: Iterable[Image | Exception],
        *,
        then: Exception | None = None,
        name: str = "camera",
        rate_hz: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._pictures = deque(pictures)
        self._then = then or EndOfFrames("the fake camera has played its last picture")
        self._name = name
        self._period_s = 0.0 if rate_hz is None else 1 / rate_hz
        self._clock = clock or SystemClock()
        self._index = 0
        self.closed = False

    @property
    def counters(self) -> CameraCounters:
        """What was counted since the camera was opened."""
        return CameraCounters(frames=self._index)

    def read(self, timeout_s: float) -> Frame:
        """The next picture; see ``Camera.read``."""
        if self.closed:
            raise CameraError("the fake camera was closed; open another one to read from it")
        if not self._pictures:
            raise self._then
        if isinstance(self._pictures[0], Exception):
            raise self._pictures.popleft()  # type: ignore[misc]
        if self._period_s and self._index:
            self._clock.sleep(self._period_s)
        picture = self._pictures.popleft()
        assert not isinstance(picture, Exception)
        frame = Frame(picture, self._name, self._index, self._clock.now(), self._clock.monotonic_ns())
        self._index += 1
        return frame

    def close(self) -> None:
        """Reads fail from here on.  May be called twice."""
        self.closed = True


class FakeRunner:
    """Gives the answers it was told to give, and checks its feeds as a real one does.

    Args:
        answer: The outputs by name; or what makes them of the feeds; or an error to raise.
        inputs: What it takes; default the station's ``frame`` at 64 x 64.
        outputs: What it gives; default taken from ``answer`` where that is arrays.
    """

    def __init__(
        self,
        answer: Mapping[str, Array] | Callable[[Mapping[str, Array]], Mapping[str, Array]] | Exception,
        *,
        inputs: tuple[TensorSpec, ...] = (TensorSpec("frame", "float32", (None, 3, 64, 64)),),
        outputs: tuple[TensorSpec, ...] | None = None,
    ) -> None:
        self._answer = answer
        self._inputs = inputs
        if outputs is None and isinstance(answer, Mapping):
            outputs = tuple(
                TensorSpec(name, str(array.dtype), (None, *array.shape[1:])) for name, array in answer.items()
            )
        self._outputs = outputs or (TensorSpec("cells", "float32", (None, None, None, None)),)
        self._turn = threading.Lock()
        self.closed = False
        self.inferences = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it says it gives."""
        return self._outputs

    def infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """The answer; see ``Runner.infer``."""
        with self._turn:
            if self.closed:
                raise RunnerError("the fake runner is closed; open it again")
            check_feeds(feeds, self._inputs)
            self.inferences += 1
            if isinstance(self._answer, Exception):
                raise self._answer
            found = self._answer(feeds) if callable(self._answer) else self._answer
            results = {name: np.array(array) for name, array in found.items()}
        check_results(results)
        return results

    def close(self) -> None:
        """Inference fails from here on.  May be called twice."""
        self.closed = True


def drawn_picture(
    height: int = 120, width: int = 160, *, seed: int = 0, spot: tuple[int, int, int] | None = None
) -> Image:
    """A grey surface with the noise of a sensor, so that it passes for a photograph.

    Args:
        height: Pixels.
        width: Pixels.
        seed: Another seed, another picture.
        spot: Row, column and radius of a dark round defect, pixels.

    Returns:
        ``(H, W, 3)`` uint8, blue green red.
    """
    noise = np.random.default_rng(seed).normal(0, 4, (height, width))
    shade = 130 + 20 * np.linspace(-1, 1, width)[None, :] + noise
    if spot is not None:
        row, column, radius = spot
        rows, columns = np.ogrid[:height, :width]
        shade[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = 30
    grey = np.clip(shade, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
