"""What operators said, on its way back: their answers, and the hub's export of them with the records they are about."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import ConfigDict, Field, field_serializer, field_validator, model_validator

from edge_sdk.documents import Tolerant, utc_text
from edge_sdk.records import ItemHeader, Sha256

__all__ = ["Answer", "MentoredExport", "MentoredRow"]


class Answer(Tolerant):
    """What an operator said of one question (``answer/1``); never changed, only withdrawn by another."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["answer/1"] = Field("answer/1", alias="schema")
    id: UUID
    item: str = Sha256
    question: int | None = Field(None, ge=0)
    """Number of the question, or ``None`` for the whole picture."""
    answer: Literal["confirm", "infirm", "unsure"]
    class_name: str | None = Field(None, alias="class")
    """The class that it is instead, where the operator gave one."""
    operator: str = Field(min_length=1, max_length=200)
    device: str = Field("", max_length=200)
    answered_at: datetime
    after_ms: int = Field(ge=0)
    """From the first paint of the question to the key."""
    page: str = Field("", max_length=200)
    """Version of the page that asked."""
    withdraws: UUID | None = None
    """Id of the answer that this one takes back."""

    @field_validator("answered_at")
    @classmethod
    def _aware(cls, moment: datetime) -> datetime:
        if moment.tzinfo is None:
            raise ValueError("give the time with its zone, e.g. 2026-11-21T10:00:00Z")
        return moment

    @field_serializer("answered_at")
    def _answered_at_text(self, moment: datetime) -> str:
        return utc_text(moment)


class MentoredRow(Tolerant):
    """A line of ``records.jsonl`` in the hub's export."""

    item: str = Sha256
    picture: str
    """Path of the picture as it was judged, relative to the export."""
    confidence: str | None = None
    """Path of the baseline's float16 confidence, ``(K, h, w)`` or of a detector ``(A, K)``, relative to the export."""
    header: ItemHeader


class MentoredExport(Tolerant):
    """``export.json`` (``mentored/1``): the same mark gives the same bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["mentored/1"] = Field("mentored/1", alias="schema")
    mark: int = Field(ge=0)
    """The last answer that the export covers, counted from 1; 0 covers none."""
    counts: dict[str, int]
    """``records``, ``confirm``, ``infirm``, ``unsure``, ``withdrawn``."""
    files: dict[str, str]
    """sha256 of every file of the export by its relative path."""

    @model_validator(mode="after")
    def _paths_stay_inside(self) -> MentoredExport:
        for path in self.files:
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"file {path!r} leaves the export; it is damaged or was tampered with")
        return self
