"""``report.json`` (``demo/1``): what the demo found, for whoever reads it by program."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edge_sdk.documents import Tolerant

__all__ = [
    "Adapted",
    "Answers",
    "Data",
    "DemoReport",
    "Figures",
    "Flip",
    "Gain",
    "GoodParts",
    "Int8",
    "Mentored",
    "OnBothLines",
    "Outbox",
    "Outcomes",
    "Rule",
    "Stage",
    "StationReport",
    "Swap",
]


class Data(Tolerant):
    """What the demo ran on."""

    name: str
    pictures: int = Field(ge=1)
    licence: str = ""
    sha256: str = ""
    original: str = ""
    """The original line in words."""
    new: str = ""
    """The new line in words."""
    notes: tuple[str, ...] = ()


class Stage(Tolerant):
    """One stage of the demo."""

    name: str
    took_s: float = Field(ge=0)


class Figures(Tolerant):
    """A model on one line's test pictures; ``None`` where the part holds nothing to measure it on."""

    ap: float | None = Field(None, ge=0, le=1)
    ap_low: float | None = Field(None, ge=0, le=1)
    """Lower end of the 95 % bootstrap interval over groups."""
    ap_high: float | None = Field(None, ge=0, le=1)
    auroc: float | None = Field(None, ge=0, le=1)
    precision: float | None = Field(None, ge=0, le=1)
    recall: float | None = Field(None, ge=0, le=1)
    n: int = Field(ge=0)
    """Test pictures."""
    unit: Literal["cells", "pictures"]


class Gain(Tolerant):
    """A paired difference of AP on the new line's test pictures."""

    value: float
    low: float
    """Lower end of the 95 % bootstrap interval over groups."""
    high: float


class OnBothLines(Tolerant):
    """A model on both lines."""

    original: Figures
    new: Figures


class GoodParts(Tolerant):
    """The original line commissioned from its good parts alone, judged on its test pictures."""

    parts: int = Field(0, ge=0)
    """That it was made of; half of them set the threshold."""
    alpha: float | None = None
    """Share of good parts that may be stopped."""
    good: int = Field(0, ge=0)
    stopped: int = Field(0, ge=0)
    """Of the good ones: asked about or rejected."""
    defective: int = Field(0, ge=0)
    found: int = Field(0, ge=0)
    """Of the defective ones: asked about or rejected."""
    left_out: str = ""
    """Why there is none."""


class Rule(Tolerant):
    """What one method looked like to the rules that see no label."""

    method: str
    ap_new: float | None = None
    """On the new line's test pictures, which the rules never saw."""
    facts: dict[str, float | str | None] = Field(default_factory=dict)


class Adapted(OnBothLines):
    """The model that the label-free rules chose."""

    method: str
    """``none`` where they left the model as it was."""
    why: str = ""
    methods: tuple[Rule, ...] = ()


class Mentored(OnBothLines):
    """A model after mentoring."""

    strategy: str = ""


class Flip(Tolerant):
    """A verdict that INT8 turned."""

    picture: str
    fp32: str
    int8: str
    confidence_fp32: float | None = None
    confidence_int8: float | None = None


class Int8(Tolerant):
    """The CPU rendering that ran, against FP32 on held-out pictures."""

    rendering: str
    agreement: float = Field(ge=0, le=1)
    """Share of equal cell decisions."""
    flips: tuple[Flip, ...] = ()
    sqnr_db: float | None = None
    speedup: float | None = None
    pictures: int | None = None


class Outcomes(Tolerant):
    """Every frame is one of these."""

    passed: int = Field(ge=0)
    defective: int = Field(ge=0)
    uncertain: int = Field(ge=0)
    not_inspected: int = Field(ge=0)

    @property
    def total(self) -> int:
        """All of them."""
        return self.passed + self.defective + self.uncertain + self.not_inspected


class StationReport(Tolerant):
    """What became of the frames."""

    frames_in: int = Field(ge=0)
    outcomes: Outcomes
    not_inspected_by: dict[str, int] = Field(default_factory=dict)
    fps: float | None = None
    p50_ms: float | None = None
    """Capture to verdict."""
    p99_ms: float | None = None


class Outbox(Tolerant):
    """Items on their way."""

    put: int = Field(ge=0)
    uploaded: int = Field(ge=0)
    at_hub: int = Field(ge=0)


class Answers(Tolerant):
    """What the operator said."""

    confirm: int = Field(ge=0)
    infirm: int = Field(ge=0)
    unsure: int = Field(ge=0)

    @property
    def total(self) -> int:
        """All of them."""
        return self.confirm + self.infirm + self.unsure


class Swap(Tolerant):
    """The new bundle's way into the running station."""

    bundle: str
    frames_lost: int = Field(ge=0)


class DemoReport(Tolerant):
    """The whole of ``report.json``."""

    schema_: Literal["demo/1"] = Field("demo/1", alias="schema")
    data: Data
    seed: int = 0
    quick: bool = False
    took_s: float = Field(ge=0)
    stages: tuple[Stage, ...]
    source_only: OnBothLines
    source_only_plain: OnBothLines
    adapted: Adapted
    retrained: Mentored
    retrained_unmasked: Mentored
    full_labels: Mentored
    gains: dict[str, Gain] = Field(default_factory=dict)
    """``adaptation``: adapted against source-only; ``mentoring``: retrained against adapted."""
    good_parts: GoodParts | None = None
    int8: Int8
    station: StationReport
    outbox: Outbox
    answers: Answers
    swap: Swap

    @model_validator(mode="after")
    def _ledgers_add_up(self) -> DemoReport:
        if self.station.outcomes.total != self.station.frames_in:
            raise ValueError(
                f"{self.station.frames_in} frames came in and {self.station.outcomes.total} have an outcome"
            )
        kept = self.station.not_inspected_by
        if sum(kept.values()) != self.station.outcomes.not_inspected:
            raise ValueError(
                f"{self.station.outcomes.not_inspected} frames were not inspected, but the reasons differ"
            )
        if not self.outbox.put == self.outbox.uploaded == self.outbox.at_hub:
            raise ValueError(
                f"{self.outbox.put} items were put, {self.outbox.uploaded} uploaded, "
                f"{self.outbox.at_hub} are at the hub"
            )
        return self
