"""The hand-over from the inspecting thread to the outbox."""

from __future__ import annotations

import errno
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.clock import FakeClock
from edge_sdk.config import MentoringConfig, StationConfig
from edge_sdk.errors import ConfigError, OutboxBusy
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.manifest import ClassThresholds, Manifest, PostprocessSpec, manifest_id
from edge_sdk.outbox import Mentor, Outbox
from edge_sdk.outbox.quotas import Values
from edge_sdk.quality.gates import Gates
from edge_sdk.records import ItemHeader, Record, confidence_of, decode_item, picture_of
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.outbox.seeing import inspected, picture


def manifest(*classes: str, version: str = "1") -> Manifest:
    return Manifest(
        name="spots",
        version=version,
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        line="new",
        classes=classes,
        thresholds=tuple(
            ClassThresholds(class_name=name, boundary=0.5, pass_below=0.25, defective_from=0.75)
            for name in classes
        ),
        preprocess=PreprocessSpec(width=64, height=64, mean=(0, 0, 0), std=(1, 1, 1)),
        postprocess=PostprocessSpec(cell_px=16),
        files=(),
        golden=Gates(),
    )


def station(folder: Path, **mentoring: Any) -> StationConfig:
    return StationConfig(
        station="press-3",
        bundle=folder / "bundle",
        trust="unsigned",
        camera={"uri": "file:line.avi"},
        mentoring=MentoringConfig(outbox=folder / "outbox", **mentoring),
    )


Open = Callable[..., Mentor]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens mentors that rank by the band and draw nothing for the control sample, unless told."""
    mentors: list[Mentor] = []

    def open_mentor(
        *, draw: Callable[[], float] = lambda: 1.0, clock: FakeClock | None = None, choose_by: str = "band",
        **mentoring: Any,
    ) -> Mentor:  # fmt: skip
        settings = station(tmp_path, choose_by=choose_by, **mentoring)
        mentors.append(Mentor(settings, manifest("crack"), clock=clock or FakeClock(), draw=draw))
        return mentors[-1]

    yield open_mentor
    for mentor in mentors:
        mentor.close()


def kept(folder: Path) -> list[Record]:
    """The records in the outbox, as they were put."""
    items = (folder / "outbox" / "items").iterdir()
    records = [decode_item(path.read_bytes()) for path in items if not path.name.startswith(".")]
    return sorted(records, key=lambda record: record.header.seq)


def headers(folder: Path) -> list[ItemHeader]:
    return [record.header for record in kept(folder)]


def test_an_uncertain_frame_is_kept_with_all_that_an_operator_and_a_training_need(
    opened: Open, tmp_path: Path
) -> None:
    mentor = opened()
    assert mentor.offer(inspected(3, confidence=0.5, model=manifest_id(manifest("crack"))))
    mentor.close()
    (record,) = kept(tmp_path)
    header = record.header
    assert (header.station, header.camera, header.seq) == ("press-3", "left", 0)
    assert (header.reason, header.stratum, header.value, header.inclusion_probability) == (
        "uncertain",
        "uncertain",
        1.0,
        1.0,
    )
    assert header.model == manifest_id(manifest("crack"))
    assert [question.class_name for question in header.questions] == ["crack"]
    assert header.boot_id.startswith("00000001-")
    assert np.array_equal(picture_of(record), picture(3))
    found = confidence_of(record)
    assert found is not None
    assert found.shape == (1, 4, 4)


def test_passed_frames_and_camera_faults_are_not_kept(opened: Open, tmp_path: Path) -> None:
    mentor = opened()
    assert not mentor.offer(inspected(1, verdict=Verdict.PASSED))
    assert not mentor.offer(inspected(2, verdict=Verdict.NOT_INSPECTED))
    mentor.close()
    assert kept(tmp_path) == []
    assert mentor.snapshot()["offered"] == 1


def test_defects_are_kept_as_well_as_doubts(opened: Open, tmp_path: Path) -> None:
    mentor = opened()
    for seed, verdict in enumerate([Verdict.UNCERTAIN, Verdict.PASSED, Verdict.DEFECTIVE]):
        mentor.offer(inspected(seed, verdict=verdict, confidence=0.9))
    mentor.close()
    assert [header.reason for header in headers(tmp_path)] == ["uncertain", "defect"]
    assert mentor.snapshot()["put"] == 2


def test_the_control_sample_is_drawn_whatever_the_verdict_and_outside_of_the_budget(
    opened: Open, tmp_path: Path
) -> None:
    mentor = opened(draw=lambda: 0.19, control_share=0.2, questions_per_shift=0)
    for seed, verdict in enumerate([Verdict.UNCERTAIN, Verdict.PASSED, Verdict.DEFECTIVE]):
        mentor.offer(inspected(seed, verdict=verdict))
    mentor.close()
    assert [(h.reason, h.stratum, h.inclusion_probability) for h in headers(tmp_path)] == [
        ("uncertain", "control", 0.2),
        ("control", "control", 0.2),
        ("defect", "control", 0.2),
    ]


def test_a_share_of_0_draws_nothing(opened: Open, tmp_path: Path) -> None:
    mentor = opened(draw=lambda: 0.0, control_share=0.0)
    assert not mentor.offer(inspected(1, verdict=Verdict.PASSED))
    mentor.close()
    assert kept(tmp_path) == []


def test_what_is_over_the_budget_is_counted(opened: Open) -> None:
    mentor = opened(questions_per_shift=16)
    for seed in range(10):
        mentor.offer(inspected(seed, confidence=0.5))
    assert mentor.drain(30)
    found = mentor.snapshot()
    # all at once: a quarter of the shift's questions
    assert (found["put"], found["over_budget"], found["questions_left"]) == (4, 6, 12)


def test_quotas_name_the_stratum_and_leave_the_control_sample_alone(opened: Open, tmp_path: Path) -> None:
    draws = iter([1.0, 0.0] * 20)
    mentor = opened(choose_by="quotas", questions_per_shift=40, control_share=0.1, draw=lambda: next(draws))
    for seed in range(40):
        mentor.offer(inspected(seed, confidence=0.5))
    assert mentor.drain(30)
    found = mentor.snapshot()
    mentor.close()
    strata = [header.stratum for header in headers(tmp_path)]
    assert strata.count("control") == 20
    assert 0 < len(strata) - 20 < 20
    assert set(strata) <= {"control", "strongest", "entropy", "novelty"}
    assert found["questions_left"] == 40 - (len(strata) - 20)
    assert found["over_budget"] == 40 - len(strata)


def test_cells_that_show_no_picture_are_ranked_by_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    mentor = opened(choose_by="quotas", questions_per_shift=40)
    ranked: list[Values] = []
    monkeypatch.setattr(mentor._quotas, "affords", lambda questions, values: ranked.append(values))
    confidence = np.full((1, 8, 8), 0.5, np.float32)
    confidence[:, [0, 7]] = 0.9  # of 64 rows a frame of 320 x 240 fills the 48 in the middle
    mentor.offer(replace(inspected(0, model=manifest_id(manifest("crack"))), confidence=confidence))
    assert mentor.drain(30)
    assert [one.strongest for one in ranked] == [0.5]


def test_what_the_line_knows_to_be_healthy_changes_the_reason_and_nothing_else(opened: Open, tmp_path: Path) -> None:
    draws = iter([1.0, 1.0, 1.0, 0.0, 1.0])
    mentor = opened(questions_per_shift=40, control_share=0.1, draw=lambda: next(draws))
    mentor.healthy_if = lambda inspection: inspection.frame.index != 0
    for seed, verdict in enumerate([Verdict.UNCERTAIN, Verdict.UNCERTAIN, Verdict.DEFECTIVE, Verdict.PASSED]):
        mentor.offer(inspected(seed, verdict=verdict))
    assert not mentor.offer(inspected(4, verdict=Verdict.PASSED)), "chosen as any other: a passed one only by lot"
    assert mentor.drain(30)
    assert [(header.reason, header.stratum) for header in headers(tmp_path)] == [
        ("uncertain", "uncertain"), ("healthy", "uncertain"), ("healthy", "defect"), ("healthy", "control"),
    ]  # fmt: skip
    assert mentor.snapshot()["questions_left"] == 40 - 3


def test_a_frame_kept_for_a_change_of_the_input_says_so_and_that_its_part_is_healthy(
    opened: Open, tmp_path: Path
) -> None:
    mentor = opened(draw=lambda: 1.0)
    mentor.healthy_if = lambda inspection: inspection.frame.index == 1
    for seed in range(2):
        assert mentor.offer(inspected(seed, verdict=Verdict.PASSED), changed=True)
    assert mentor.offer(inspected(1, verdict=Verdict.PASSED), changed=True), "kept though one like it is queued"
    assert mentor.drain(30)
    assert [(header.reason, header.stratum) for header in headers(tmp_path)] == [
        ("novelty", "drift"), ("healthy", "drift"), ("healthy", "drift"),
    ]  # fmt: skip


def test_a_line_that_cannot_say_stops_nothing(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mentor = opened()

    def broken(_: Inspection) -> bool:
        raise ConnectionError("the PLC is away")

    mentor.healthy_if = broken
    for seed in range(3):
        assert mentor.offer(inspected(seed))
    mentor.close()
    assert [header.reason for header in headers(tmp_path)] == ["uncertain"] * 3
    said = [record for record in caplog.records if record.message == "the line could not say whether a part is healthy"]
    assert len(said) == 1 and said[0].error == "the PLC is away"  # type: ignore[attr-defined]


def test_the_frames_of_a_loop_are_kept_once(opened: Open, tmp_path: Path) -> None:
    mentor = opened()
    for _ in range(3):
        for seed in range(5):
            mentor.offer(inspected(seed))
    mentor.close()
    found = mentor.snapshot()
    assert (found["put"], found["duplicate"]) == (5, 10)
    assert [header.seq for header in headers(tmp_path)] == [0, 1, 2, 3, 4]


def test_after_a_swap_each_record_names_the_classes_of_the_bundle_that_judged_it(
    opened: Open, tmp_path: Path
) -> None:
    old, new = manifest("crack"), manifest("stain", version="2")
    mentor = opened()
    mentor.offer(inspected(0, model=manifest_id(old)))
    mentor.use(new)
    mentor.offer(inspected(1, model=manifest_id(new)))
    mentor.offer(inspected(2, model=manifest_id(old)))
    mentor.close()
    assert [header.questions[0].class_name for header in headers(tmp_path)] == ["crack", "stain", "crack"]
    assert list(headers(tmp_path)[1].thresholds) == ["stain"]


def test_a_full_hand_over_refuses_and_counts_and_does_not_wait(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_sdk.outbox.mentor.HAND_OVER", 4)
    mentor = opened(draw=lambda: 0.0)
    gate = threading.Event()
    monkeypatch.setattr(mentor, "_keep", lambda *_: gate.wait(30))
    taken = [mentor.offer(inspected(seed)) for seed in range(12)]
    assert taken[:4] == [True] * 4
    assert sum(taken) <= 5, "and at most one that the thread had taken out"
    gate.set()
    assert mentor.drain(30)
    found = mentor.snapshot()
    assert found["refused"] == taken.count(False)
    assert found["tombstones"] == {"not put": taken.count(False)}, (
        "they had been drawn for the control sample"
    )


def test_the_hand_over_is_bounded_in_bytes_too(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_sdk.outbox.mentor.HAND_OVER_BYTES", 500_000)
    mentor = opened()
    gate = threading.Event()
    monkeypatch.setattr(mentor, "_keep", lambda *_: gate.wait(30))
    taken = [mentor.offer(inspected(seed)) for seed in range(5)]  # 230,400 bytes of pixels each
    gate.set()
    assert taken == [True, True, False, False, False]


def test_closing_keeps_what_was_handed_over(opened: Open, tmp_path: Path) -> None:
    mentor = opened()
    for seed in range(12):
        mentor.offer(inspected(seed))
    mentor.close()
    mentor.close()
    assert len(kept(tmp_path)) == 12
    assert not mentor.offer(inspected(99))
    with Outbox(tmp_path / "outbox", writing=True):
        pass


def test_closing_does_not_wait_for_ever_and_counts_what_it_left(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    mentor = opened()
    slow = threading.Event()
    monkeypatch.setattr(mentor, "_keep", lambda *_: slow.wait(0.2))
    for seed in range(10):
        mentor.offer(inspected(seed))
    mentor.close(timeout_s=0.1)
    assert mentor.snapshot()["refused"] >= 8


def test_a_second_station_on_the_same_outbox_is_refused(opened: Open) -> None:
    opened()
    with pytest.raises(OutboxBusy, match="is already written by process"):
        opened()


def test_a_station_without_an_outbox_has_no_mentor(tmp_path: Path) -> None:
    config = station(tmp_path).model_copy(update={"mentoring": None})
    with pytest.raises(ConfigError) as refused:
        Mentor(config, manifest("crack"))
    assert str(refused.value) == (
        "the station has no outbox; write a section mentoring, e.g. mentoring: {outbox: ./outbox}"
    )


def test_a_disk_that_cannot_be_written_stops_no_inspection_and_is_tried_again(
    opened: Open, tmp_path: Path
) -> None:
    (tmp_path / "outbox").write_text("in the way")
    clock = FakeClock()
    mentor = opened(clock=clock)
    assert mentor.offer(inspected(1))
    assert mentor.drain(30)
    found = mentor.snapshot()
    assert found["failed"] == 1
    assert found["degraded"] == (
        f"{tmp_path / 'outbox'} could not be opened (File exists); nothing acknowledged is lost: see to the disk"
    )
    (tmp_path / "outbox").unlink()
    clock.advance(31)
    mentor.offer(inspected(2))
    assert mentor.drain(30)
    found = mentor.snapshot()
    assert (found["put"], found["degraded"]) == (1, None)


def test_a_failing_put_is_counted_and_said_and_the_next_one_works(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mentor = opened()
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        broken.setattr("edge_sdk.outbox.items.write_durably", fail)
        mentor.offer(inspected(1))
        assert mentor.drain(30)
        found = mentor.snapshot()
        assert found["failed"] == 1
        assert found["degraded"] == (
            f"{tmp_path / 'outbox'} could not be written (Input/output error); "
            "nothing acknowledged is lost: see to the disk"
        )
    mentor.offer(inspected(1))
    assert mentor.drain(30)
    assert mentor.snapshot()["degraded"] is None
    assert mentor.snapshot()["put"] == 1, "what failed is not taken for a duplicate"


def test_a_full_outbox_is_counted_as_no_room(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    mentor = opened(outbox_mib=1)
    big = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    frame = inspected(0).frame
    object.__setattr__(frame, "pixels", big)
    mentor.offer(Inspection(frame, inspected(0).detections, Verdict.UNCERTAIN, "as told"))
    assert mentor.drain(30)
    assert mentor.snapshot()["no_room"] == 1
    assert mentor.snapshot()["failed"] == 0


def test_an_inspection_that_cannot_be_recorded_harms_no_other(opened: Open) -> None:
    mentor = opened()
    broken = inspected(1)
    object.__setattr__(broken.detections, "classes", np.array([7], np.int32))
    mentor.offer(broken)
    mentor.offer(inspected(2))
    assert mentor.drain(30)
    found = mentor.snapshot()
    assert (found["failed"], found["put"]) == (1, 1)


def test_every_offered_frame_ends_in_one_count(opened: Open) -> None:
    mentor = opened(questions_per_shift=6)
    handed = sum(mentor.offer(inspected(seed % 9)) for seed in range(30))
    assert mentor.drain(30)
    found = mentor.snapshot()
    assert found["offered"] == 30
    assert handed == sum(found[name] for name in ("put", "duplicate", "over_budget", "no_room", "failed"))


def test_what_an_offer_costs_the_inspecting_thread(
    opened: Open, record_property: Callable[[str, object], None]
) -> None:
    """A figure, not a bound: a loaded machine must not fail a test.  Below 50 us is what is wanted (``-s``)."""
    mentor = opened()
    inspections = [inspected(seed) for seed in range(40)]
    passed = inspected(0, verdict=Verdict.PASSED)
    took: dict[str, list[float]] = {"kept": [], "passed": []}
    for number in range(400):
        for kind, inspection in (("kept", inspections[number % 40]), ("passed", passed)):
            before = time.perf_counter_ns()
            mentor.offer(inspection)
            took[kind].append((time.perf_counter_ns() - before) / 1e3)
        time.sleep(0.0005)
    assert mentor.drain(60)
    for kind, values in took.items():
        values.sort()
        p99 = values[int(len(values) * 0.99)]
        record_property(f"offer_{kind}_p99_us", p99)
        print(
            f"offer, {kind}: median {statistics.median(values):.1f} us, p99 {p99:.1f} us, most {values[-1]:.0f} us"
        )
