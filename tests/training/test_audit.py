"""A new line's guarantee: which control items count, which half is kept from training, and what it promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from calibration.cli import app as calibrating
from edge_sdk.answers import Answer, MentoredRow
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Lines, lines_of, load_dataset, read_image, read_picture
from edge_sdk.records import ItemHeader
from export.cli import app as exporting
from tests.training.drawn import SMALL, write_set
from training.adapt import adapt
from training.answers import Mentored
from training.audit import audit_of, unseen, write_audit
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.cli import app
from training.retrain import retrain
from training.train import train

MOMENT = datetime(2026, 11, 21, 10, tzinfo=timezone.utc)


def row(number: int, *, classes: Sequence[str] = (), share: float = 0.1, stratum: str = "control") -> MentoredRow:
    """An item that asks about a place of each of ``classes``; without one, about the whole picture."""
    asked = [{"class": name, "confidence": 0.5, "box": [0, 0, 1, 1], "cells": [[0, 0]]} for name in classes]
    item = sha256_hex(str(number).encode())
    header = ItemHeader.model_validate(
        {
            "station": "press-3", "camera": "left", "boot_id": "b", "seq": number, "captured_at": MOMENT,
            "model": "f" * 64, "reason": "control", "stratum": stratum, "value": 0.5, "inclusion_probability": share,
            "verdict": "passed", "thresholds": {}, "questions": asked, "parts": [],
        }
    )  # fmt: skip
    return MentoredRow(item=item, picture=f"pictures/{item}.png", header=header)


def said(about: MentoredRow, answer: str, question: int | None = None, class_name: str | None = None) -> Answer:
    return Answer.model_validate(
        {
            "id": uuid4(), "item": about.item, "question": question, "answer": answer, "class": class_name,
            "operator": "ada", "answered_at": MOMENT, "after_ms": 900,
        }
    )  # fmt: skip


def audited(*pairs: tuple[MentoredRow, Sequence[Answer]], classes: Sequence[str] = ("crack", "dent")) -> Any:
    rows = tuple(one for one, _ in pairs)
    return audit_of(Mentored(Path(), rows, {one.item: tuple(given) for one, given in pairs}), classes)


def test_a_picture_counts_where_all_of_it_was_judged() -> None:
    bare, asked = row(1), row(2, classes=["crack", "dent"])
    assert audited((bare, [said(bare, "infirm")])).shows.tolist() == [[False, False]]
    assert audited((bare, [said(bare, "confirm", class_name="dent")])).shows.tolist() == [[False, True]]
    both = [said(asked, "infirm", 0), said(asked, "confirm", 1)]
    assert audited((asked, both)).shows.tolist() == [[False, True]]
    renamed = [said(asked, "infirm", 0), said(asked, "confirm", 1, "crack")]
    assert audited((asked, renamed)).shows.tolist() == [[True, False]]
    assert audited((asked, [said(asked, "infirm", 0), said(asked, "infirm", 1)])).shows.tolist() == [[False, False]]


def test_what_is_open_unsure_or_without_a_class_is_left_out() -> None:
    bare, asked = row(1), row(2, classes=["crack", "dent"])
    assert not len(audited((asked, [said(asked, "infirm", 0)])))
    assert not len(audited((asked, [said(asked, "infirm", 0), said(asked, "unsure", 1)])))
    assert not len(audited((bare, [said(bare, "confirm")]))), "of which of the two?"
    assert audited((bare, [said(bare, "confirm")]), classes=["crack"]).shows.tolist() == [[True]]
    assert not len(audited((bare, [])))
    assert not len(audited((asked, [said(asked, "confirm", 7)])))


def test_what_was_chosen_by_its_score_is_no_part_of_it() -> None:
    queued = row(3, stratum="uncertain", share=1.0)
    assert not len(audited((queued, [said(queued, "infirm")])))


def test_after_a_changed_share_all_that_count_were_as_likely() -> None:
    pairs = [(one, [said(one, "infirm")]) for n in range(600) if (one := row(n, share=0.1 if n % 2 else 0.4))]
    found = audited(*pairs)
    often = sum(one.header.inclusion_probability == 0.4 for one in found.rows)
    assert sum(one.header.inclusion_probability == 0.1 for one in found.rows) == 300
    assert abs(often - 75) < 3 * np.sqrt(300 * 0.25 * 0.75)


def test_the_half_that_is_kept_from_training_is_drawn_by_lot_and_always_the_same() -> None:
    pairs = [(one, [said(one, "infirm")]) for n in range(400) if (one := row(n))]
    first, again = audited(*pairs).held_out(), audited(*reversed(pairs)).held_out()
    assert {one.item for one in first.rows} == {one.item for one in again.rows}
    assert abs(len(first) - 200) < 3 * np.sqrt(400 * 0.25)


def test_what_a_guarantee_lacks_is_said() -> None:
    bare = row(1)
    assert audited((bare, [said(bare, "infirm")]), classes=["crack"]).missing() == (
        "the answered control sample holds 1 healthy pictures and at least 0 of each defect; "
        "conformal at alpha 0.1 needs 9 of each"
    )


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Lines, Path]:
    folder = write_set(tmp_path_factory.mktemp("plates") / "set", pictures=160)
    dataset = load_dataset(folder)
    lines = lines_of(dataset, gap="lamp", seed=1)
    source = train(dataset, lines, SMALL)
    return source.with_line("new", source.line("original")), lines, folder


def answered(plates: tuple[Checkpoint, Lines, Path], folder: Path, count: int) -> Mentored:
    """A hub's export of control items: the set's pictures, answered as they are."""
    (folder / "pictures").mkdir(parents=True)
    rows, answers = [], {}
    for n, sample in enumerate(load_dataset(plates[2]).samples[:count]):
        one = row(n)
        cv2.imwrite(str(folder / one.picture), read_image(sample))
        rows.append(one)
        answers[one.item] = (said(one, "infirm" if sample.healthy else "confirm"),)
    return Mentored(folder, tuple(rows), answers)


def test_enough_answers_give_the_retrained_line_its_guarantee_and_train_nothing(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source, lines, _ = plates
    export = answered(plates, tmp_path / "export", 80)
    held = audit_of(export, source.classes).held_out()
    found = retrain(source, lines, SMALL, mentored=export, strategy="masked")
    fewest = min(int((~held.shows).sum()), int(held.shows.sum()))
    assert fewest >= 9
    state = found.line("new")
    assert state.thresholds.guarantee == f"conformal alpha 0.1 n {fewest}"
    assert state.thresholds.how == (
        f"conformal quantiles of the strongest cell of {len(held)} pictures of the answered control sample"
    )
    # whatever the held-out pictures show, the weights are the same
    for one in held.rows:
        cv2.imwrite(str(export.root / one.picture), np.full((60, 64, 3), 255, np.uint8))
    blank = retrain(source, lines, SMALL, mentored=export, strategy="masked")
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, blank.network.state_dict()[name]), name
    assert blank.line("new").thresholds.pass_below[0] != state.thresholds.pass_below[0]


def test_too_few_answers_train_all_and_say_what_is_missing(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source, lines, _ = plates
    found = retrain(source, lines, SMALL, mentored=answered(plates, tmp_path / "export", 12), strategy="masked")
    said_why = found.line("new").thresholds.guarantee
    assert said_why.startswith("none: the answered control sample holds ")
    assert said_why.endswith(" of each defect; conformal at alpha 0.1 needs 9 of each")


def test_what_an_earlier_round_has_learned_from_calibrates_no_later_one(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source, lines, _ = plates
    brief = SMALL.model_copy(update={"iterations": 2})
    export = answered(plates, tmp_path / "export", 80)
    early = replace(export, rows=export.rows[:12])
    first = retrain(source, lines, brief, mentored=early, strategy="masked")
    assert set(first.line("new").trained_on) == {row.item for row in early.rows}, "half of them was not enough"
    with pytest.raises(DatasetError, match="retrain trained line new on every answer"):
        unseen(first, early)
    # answered since: all of it may judge the first round
    assert {row.item for row in unseen(first, export).rows} == {row.item for row in export.rows[12:]}
    save_checkpoint(first, tmp_path / "first")
    second = retrain(load_checkpoint(tmp_path / "first"), lines, brief, mentored=export, strategy="masked")
    late = {row.item for row in audit_of(export, source.classes).held_out().rows} - set(first.line("new").trained_on)
    assert f" of {len(late)} pictures of the answered control sample" in second.line("new").thresholds.how
    assert {row.item for row in unseen(second, export).rows} == late
    # and adapted anew the weights still have seen what they have seen
    adapted = adapt(load_checkpoint(tmp_path / "first"), load_dataset(plates[2]), lines, brief, methods=["adabn"])
    assert adapted.chosen.line("new").trained_on == first.line("new").trained_on
    # fresh weights have seen nothing
    fresh = retrain(first, lines, brief, mentored=export, strategy="scratch")
    assert unseen(fresh, export).rows == audit_of(export, source.classes).held_out().rows


def export_file(export: Mentored) -> None:
    """The export's answers and records as a hub writes them."""
    root = export.root
    (root / "records.jsonl").write_text("".join(row.model_dump_json(by_alias=True) + "\n" for row in export.rows))
    given = (one for row in export.rows for one in export.answers[row.item])
    (root / "answers.jsonl").write_text("".join(one.model_dump_json(by_alias=True) + "\n" for one in given))
    said = {"schema": "mentored/1", "mark": len(export.answers), "counts": {}, "files": {}}
    (root / "export.json").write_text(json.dumps(said))


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_writes_what_was_judged_whole_and_says_what_it_is_enough_for(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    export = answered(plates, tmp_path / "export", 40)
    export_file(export)
    save_checkpoint(plates[0], tmp_path / "model")
    words = ("audit", tmp_path / "model", "--mentored", export.root, "--out", tmp_path / "audit", "--json")
    good = sum(one[0].answer == "infirm" for one in export.answers.values())
    assert json.loads(command(*words).stdout) == {
        "out": str(tmp_path / "audit"), "line": "new", "pictures": 40, "healthy": good, "shows": {"dent": 40 - good},
        "trained_on": 0, "guarantee": "enough for alpha 0.1",
    }  # fmt: skip
    written = load_dataset(tmp_path / "audit")
    assert [sum(one.healthy is kind for one in written.samples) for kind in (True, False)] == [good, 40 - good]
    for one in written.samples:
        assert np.array_equal(read_image(one), read_picture(export.root / "pictures" / Path(one.image).name))
        assert (export.answers[Path(one.image).stem][0].answer == "infirm") is one.healthy
    # a second time, with fewer: the older ones are gone
    export_file(replace(export, rows=export.rows[:6]))
    told = command(*words[:-1])
    good = sum(export.answers[row.item][0].answer == "infirm" for row in export.rows[:6])
    assert told.stdout == (
        f"{tmp_path / 'audit'}: {good} healthy, {6 - good} dent; guarantee: none: the answered control sample holds "
        f"{good} healthy pictures and at least {6 - good} of each defect; conformal at alpha 0.1 needs 9 of each\n"
    )
    assert len(load_dataset(tmp_path / "audit").samples) == 6


def test_a_retrained_line_is_audited_on_what_it_was_not_trained_on(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source = plates[0]
    export = answered(plates, tmp_path / "export", 60)
    retrained = source.with_line("new", replace(source.line("new"), method="retrained"))
    held = audit_of(export, source.classes).held_out()
    assert {row.item for row in unseen(retrained, export).rows} == {row.item for row in held.rows}
    few = replace(export, rows=export.rows[:10])
    with pytest.raises(DatasetError, match=r"retrain trained line new on every answer, since half of them is too few"):
        unseen(retrained, few)
    assert len(unseen(source, few)) == 10


def test_what_cannot_be_audited_is_refused_and_nothing_is_written(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source = plates[0]
    export = answered(plates, tmp_path / "export", 10)
    save_checkpoint(source, tmp_path / "model")
    out = tmp_path / "out"

    def refused(*more: object) -> str:
        found = command("audit", tmp_path / "model", "--mentored", export.root, "--out", out, *more)
        assert (found.exit_code, found.stdout) in ((1, ""), (2, "")) and "Traceback" not in found.stderr
        return found.stderr.splitlines()[-1]

    assert refused().endswith("holds no export.json; give a folder that `python -m mentoring export` wrote")
    export_file(export)
    assert refused("--line", "new7") == "the checkpoint has no line named new7; it has original, new"
    unsure = {item: (one[0].model_copy(update={"answer": "unsure"}),) for item, one in export.answers.items()}
    export_file(replace(export, answers=unsure))
    assert refused().startswith(f"{export.root} holds no picture of the control sample that an operator judged whole")
    assert not out.exists() and not list(tmp_path.glob(".out*"))
    export_file(export)
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert refused() == f"{out} holds something else; give an empty folder, or a new name"
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    detector = replace(source, factory="training.detector:detector_of")
    with pytest.raises(ConfigError, match=r"is of training.detector:detector_of; only thresholds of cells are cali"):
        unseen(detector, export)


def test_a_picture_of_two_classes_counts_for_each(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    rows = [row(1, classes=["crack", "dent"]), row(2)]
    for one in rows:
        cv2.imwrite(str(tmp_path / one.picture), np.full((8, 8, 3), 9, np.uint8))
    both, healthy = rows
    answers = {both.item: (said(both, "confirm", 0), said(both, "confirm", 1))}
    answers[healthy.item] = (said(healthy, "infirm"),)
    export = Mentored(tmp_path, tuple(rows), answers)
    write_audit(audit_of(export, ["crack", "dent"]), export, ["crack", "dent"], tmp_path / "out")
    found = load_dataset(tmp_path / "out")
    assert sorted(one.label for one in found.samples) == ["crack", "dent", "no defect"]
    assert found.classes == ("crack", "dent")


@pytest.mark.slow
def test_a_bundle_comes_out_with_the_guarantee_of_the_graph_that_runs(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    export = answered(plates, tmp_path / "export", 60)
    export_file(export)
    save_checkpoint(plates[0], tmp_path / "model")
    graph, audit, typical = tmp_path / "graph", tmp_path / "audit", tmp_path / "typical"
    typical.mkdir()
    for n, sample in enumerate(load_dataset(plates[2]).samples[60:]):  # what calibrates is left out of thresholds
        cv2.imwrite(str(typical / f"{n}.png"), read_image(sample))
    done = CliRunner()
    for name, words in [
        (app, ["audit", tmp_path / "model", "--mentored", export.root, "--out", audit]),
        (exporting, ["onnx", tmp_path / "model", "--line", "new", "--out", graph]),
        (calibrating, ["ranges", graph / "model.onnx", "--pictures", typical, "--out", graph]),
        (calibrating, ["render", graph / "model.onnx", "--ranges", graph / "ranges.json", "--out", graph]),
        (calibrating, ["thresholds", graph / "model.onnx", "--int8", graph / "model.cpu.onnx", "--pictures", audit,
                       "--out", graph]),
        (exporting, ["pack", graph, "--ckpt", tmp_path / "model", "--line", "new", "--golden", audit, "--name", "p",
                     "--version", "2", "--out", tmp_path]),
    ]:  # fmt: skip
        found = done.invoke(name, [str(word) for word in words])
        assert found.exit_code == 0, found.stderr
    shown = json.loads(done.invoke(exporting, ["inspect", str(tmp_path / "p-2.bundle"), "--json"]).stdout)
    own = {one["rendering"]: one["guarantee"] for one in shown["calibrated"]}
    fewest = sum(one[0].answer == "infirm" for one in export.answers.values())
    assert own["int8-cpu"] == f"conformal alpha 0.1 n {min(fewest, 60 - fewest)}"
