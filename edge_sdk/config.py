"""``station.yaml`` (``station/1``): what a station is told.

Every unit stands in its setting's name, an unknown setting is an error with a suggestion, and
relative paths are relative to the file.  The file holds no secret: a token is a file of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from edge_sdk.documents import Document, read_yaml

__all__ = [
    "AdjustConfig",
    "CameraConfig",
    "HubConfig",
    "MentoringConfig",
    "PipelineConfig",
    "RunnerConfig",
    "StationConfig",
    "VerdictConfig",
    "load_station",
]


Triple = tuple[float, float, float]


class AdjustConfig(Document):
    """A gain and an offset of each channel before the graph; ``python -m training drift`` says which."""

    gain: Triple = (1.0, 1.0, 1.0)
    """Blue, green, red."""
    offset: Triple = (0.0, 0.0, 0.0)
    """Blue, green, red, in grey levels of 0 to 255."""

    @field_validator("gain")
    @classmethod
    def _some_light_left(cls, gain: Triple) -> Triple:
        if not all(0.2 <= one <= 5 for one in gain):
            raise ValueError("give gains from 0.2 to 5; a light that changed by more is a fault to mend, not to adjust")
        return gain

    @field_validator("offset")
    @classmethod
    def _some_levels_left(cls, offset: Triple) -> Triple:
        if not all(abs(one) <= 128 for one in offset):
            raise ValueError("give offsets from -128 to 128 grey levels")
        return offset


class CameraConfig(Document):
    """Where frames come from."""

    uri: str
    """``file:line.avi``, ``file:folder``, ``rtsp://…``, ``http://…``, ``v4l2:///dev/video0``."""
    name: str = "camera"
    """What the camera is called in frames, items and logs."""
    pace: Literal["real", "max"] = "real"
    """Of a file or folder: at its own rate, or as fast as it is read."""
    rate_hz: float | None = Field(None, gt=0, le=10_000)
    """Of a folder, or instead of a file's own rate."""
    loop: bool = False
    """Of a file or folder: begin again at its end."""
    exposure_us: float | None = Field(None, gt=0)
    """For cameras that can be told; files and network streams pass over it."""
    width: int | None = Field(None, gt=0)
    """Frames of another width or height are a camera fault."""
    height: int | None = Field(None, gt=0)
    open_timeout_s: float = Field(5.0, gt=0, le=600)
    """How long opening a camera may take before it counts as lost."""
    read_timeout_s: float = Field(2.0, gt=0, le=600)
    """How long a frame may be awaited before the camera is opened again."""
    overlap_lines: int | None = Field(None, ge=1, le=16384)
    """Of a line-scan camera: judge the last so many lines of a frame again above the next one, so that a defect of up
    to so many lines is whole in one of the two.  Needs a bundle whose pictures are cut into tiles."""
    black_below: float = Field(4.0, ge=0, le=255)
    """A frame whose brightest part stays below this grey level shows nothing."""
    frozen_frames: int = Field(5, ge=2)
    """So many identical frames in a row …"""
    frozen_s: float = Field(1.0, ge=0)
    """… over more than this time are a frozen camera."""
    adjust: AdjustConfig | None = None
    """Makes up for a light or a camera that changed, before the graph; leave it out and nothing is changed."""

    @field_validator("uri")
    @classmethod
    def _has_scheme(cls, uri: str) -> str:
        if ":" not in uri:
            raise ValueError(f"say what kind it is, e.g. file:{uri}, rtsp://{uri} or v4l2:///dev/video0")
        return uri


class RunnerConfig(Document):
    """What executes the model."""

    platform: Literal["auto", "cpu", "cpu-fp32"] = "auto"
    """``auto`` takes the bundle's INT8 rendering for this CPU, or its FP32 graph where it has none."""
    threads: int = Field(1, ge=1, le=256)
    """CPU threads of one inference; given, never guessed."""


class PipelineConfig(Document):
    """How frames are handed on."""

    policy: Literal["latest", "lossless"] = "latest"
    """``latest`` drops the older frame when the engine is behind; ``lossless`` makes the camera wait."""
    deadline_ms: float | None = Field(None, gt=0)
    """Capture to verdict; a later verdict is counted as late."""


class VerdictConfig(Document):
    """Where verdicts go, besides the program that embeds the station."""

    to: str
    """An address such as ``modbus://10.0.0.5:502``."""


class MentoringConfig(Document):
    """Which frames an operator is asked about, and how much disk they may take."""

    outbox: Path = Path("./outbox")
    """Folder where items wait for the uploader."""
    outbox_mib: int = Field(2048, ge=1)
    """Most that the outbox may take of the disk; beyond, what teaches least is given up."""
    control_share: float = Field(0.1, ge=0, le=1)
    """Of frames, drawn at random whatever the model says: the control sample."""
    questions_per_shift: int = Field(200, ge=0)
    """Budget of questions to operators, up to three a frame; spent over the shift on what ranks highest."""
    choose_by: Literal["band", "quotas"] = "quotas"
    """How the budget ranks frames: in quotas of the surest, most doubtful and newest, or by their place in the band."""
    shift_h: float = Field(8.0, gt=0, le=168)
    """Hours of a shift: no span as long as this sees more questions, and a burst takes about a quarter."""


class HubConfig(Document):
    """Where records are uploaded to."""

    url: str
    """The hub's address, e.g. ``https://hub.plant``."""
    token_file: Path | None = None
    """A file with the bearer token and nothing else."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give the hub's address, e.g. https://hub.plant or http://127.0.0.1:8080")
        return url.rstrip("/")


class StationConfig(Document):
    """A whole ``station.yaml``."""

    station: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    """The station's name: letters, digits, ``_ . -``."""
    bundle: Path
    """A bundle's folder or file, or ``bundles/current`` of two slots."""
    trust: tuple[Path, ...] | Literal["unsigned"] = ()
    """Public keys, one of which must have signed the bundle; ``unsigned`` takes any bundle."""
    camera: CameraConfig
    runner: RunnerConfig = RunnerConfig()
    pipeline: PipelineConfig = PipelineConfig()
    verdicts: tuple[VerdictConfig, ...] = ()
    mentoring: MentoringConfig | None = None
    hub: HubConfig | None = None
    state: Path = Path("./state")
    """Where the station writes what it is doing (``status.json``)."""

    @model_validator(mode="after")
    def _trust_said(self) -> StationConfig:
        if self.trust == ():
            raise ValueError("trust is missing; name the public keys, e.g. [keys/release.pub], or write unsigned")
        return self


def load_station(path: str | Path) -> StationConfig:
    """Read a ``station.yaml`` and make its paths absolute.

    Raises:
        ConfigError: The file is missing, or a setting is unknown or wrong; with file and line.
    """
    path = Path(path)
    config = read_yaml(path, StationConfig)
    folder = path.absolute().parent

    def beside(given: Path) -> Path:
        return folder / given.expanduser()

    changed: dict[str, object] = {"bundle": beside(config.bundle), "state": beside(config.state)}
    if config.trust != "unsigned":
        changed["trust"] = tuple(beside(key) for key in config.trust)
    if config.mentoring is not None:
        changed["mentoring"] = config.mentoring.model_copy(update={"outbox": beside(config.mentoring.outbox)})
    if config.hub is not None and config.hub.token_file is not None:
        changed["hub"] = config.hub.model_copy(update={"token_file": beside(config.hub.token_file)})
    scheme, _, rest = config.camera.uri.partition(":")
    if scheme == "file":
        changed["camera"] = config.camera.model_copy(update={"uri": f"file:{beside(Path(rest))}"})
    return config.model_copy(update=changed)
