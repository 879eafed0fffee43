"""The demo's report: a schema that adds up, and a page that stands for itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from pydantic import ValidationError

from edge_sdk.documents import canonical_json
from examples.loop.charts import Point, histogram, scatter
from examples.loop.page import PageExtras, render
from examples.loop.schema import DemoReport
from examples.loop.words import headline, not_good
from tests.examples.synthetic import made_up_extras, made_up_report

REPORT = made_up_report()


def changed(**entries):
    return json.loads(canonical_json(REPORT)) | entries


# -- report.json


def test_a_report_survives_its_file():
    assert DemoReport.model_validate_json(canonical_json(REPORT)) == REPORT


def test_a_report_names_every_entry_of_the_format():
    said = json.loads(canonical_json(REPORT))
    assert said["schema"] == "demo/1"
    assert set(said["source_only"]["new"]) == {
        "ap", "ap_low", "ap_high", "auroc", "precision", "recall", "n", "unit",
    }  # fmt: skip
    assert {"frames_in", "outcomes", "not_inspected_by", "fps", "p50_ms", "p99_ms"} <= set(said["station"])
    assert set(said["outbox"]) == {"put", "uploaded", "at_hub"}
    assert set(said["answers"]) == {"confirm", "infirm", "unsure"}
    assert {"rendering", "agreement", "flips", "sqnr_db", "speedup"} <= set(said["int8"])
    assert {"bundle", "frames_lost"} == set(said["swap"])


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (
            {"outbox": {"put": 10, "uploaded": 9, "at_hub": 9}},
            "10 items were put, 9 uploaded, 9 are at the hub",
        ),
        (
            {"station": {**changed()["station"], "frames_in": 913}},
            "913 frames came in and 912 have an outcome",
        ),
        (
            {"station": {**changed()["station"], "not_inspected_by": {"queue full": 1}}},
            "3 frames were not inspected, but the reasons differ",
        ),
    ],
)
def test_ledgers_that_do_not_add_up_are_refused(entries, sentence):
    with pytest.raises(ValidationError, match=sentence):
        DemoReport.model_validate(changed(**entries))


def test_a_line_without_anything_to_measure_has_no_figures():
    bare = {"ap": None, "n": 0, "unit": "pictures"}
    report = DemoReport.model_validate(changed(retrained={"original": bare, "new": bare}))
    assert report.retrained.new.ap is None
    assert "cannot tell" in headline(report).title
    assert "–" in render(report, PageExtras())


# -- words


def at(ap_by_model: dict[str, tuple[float, float]], **entries) -> DemoReport:
    said = changed(**entries)
    for name, (original, new) in ap_by_model.items():
        said[name]["original"]["ap"], said[name]["new"]["ap"] = original, new
    return DemoReport.model_validate(said)


@pytest.mark.parametrize(
    ("before", "after", "title"),
    [
        (0.43, 0.94, "From 0.96 down to 0.43 on a new line, and back to 0.94 with 21 answers"),
        (0.43, 0.42, "From 0.96 down to 0.43 on a new line; 21 answers did not help, it is at 0.42"),
        (0.93, 0.98, "The new line cost the model little, 0.96 to 0.93; 21 answers brought it to 0.98"),
        (0.97, 0.99, "The new line was no harder, 0.96 to 0.97; 21 answers brought it to 0.99"),
        (0.93, 0.93, "Little changed: 0.96 at home, 0.93 on a new line, 0.93 after 21 answers"),
    ],
)
def test_the_headline_says_what_happened(before, after, title):
    assert headline(at({"source_only": (0.957, before), "retrained": (0.96, after)})).title == title


def test_an_adaptation_that_was_refused_is_called_that():
    report = DemoReport.model_validate(changed(adapted={**changed()["source_only"], "method": "none"}))
    assert "The rules that see no label left it as it was." in headline(report).lead


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ({"retrained": (0.90, 0.94)}, "The original line lost 0.06 by mentoring"),
        ({"retrained": (0.96, 0.80)}, "Mentoring cost 0.05 on the new line"),
        (
            {"retrained_unmasked": (0.96, 0.99)},
            "Calling every cell nobody judged healthy did better than masking",
        ),
        ({"full_labels": (0.96, 0.99)}, "Complete labels of the same pictures would have brought 0.05 more"),
        (
            {"adapted": (0.96, 0.30)},
            "The label-free rules chose AdaBN and were wrong: it cost 0.13 on the new line",
        ),
        ({"source_only": (0.96, 0.93)}, "There was hardly a gap to close"),
    ],
)
def test_what_was_not_good_is_told(models, sentence):
    assert any(sentence in complaint for complaint in not_good(at(models)))


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"left_out": "the original line has 3 good parts"},
         "No model was made of good parts alone: the original line has 3 good parts."),
        ({"parts": 12, "alpha": 0.143, "good": 7, "stopped": 2, "defective": 3, "found": 3},
         "The model of good parts alone stopped 2 of 7 good test pictures; on average 14% were promised, of so few "
         "either way says little."),
        ({"parts": 12, "alpha": 0.143, "good": 7, "stopped": 1, "defective": 3, "found": 1},
         "The model of good parts alone passed 2 of 3 defective test pictures."),
    ],
)  # fmt: skip
def test_what_was_not_good_of_the_model_of_good_parts_is_told(parts, sentence):
    told = [one for one in not_good(at({}, good_parts=parts)) if "good parts alone" in one]
    assert told == [sentence]


def test_a_gain_whose_interval_holds_nothing_is_called_perhaps_chance():
    told = not_good(REPORT)
    assert "On so few pictures the gain by mentoring, +0.10 [−0.01, +0.18], could be chance." in told
    assert not any("gain by adapting" in sentence for sentence in told)


def test_a_test_of_one_group_alone_is_said_to_tell_little():
    said = changed()
    for line in ("original", "new"):
        said["retrained"][line] |= {"ap_low": None, "ap_high": None}
    told = not_good(DemoReport.model_validate(said))
    assert any("are of one group, so there is no interval" in sentence for sentence in told)


def test_something_is_always_to_be_held_against_a_demo():
    perfect = at(dict.fromkeys(("source_only", "source_only_plain", "adapted", "retrained"), (0.99, 0.99)))
    assert not_good(perfect)


# -- page


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.pictures = 0
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "srcset") and not (value or "").startswith("data:"):
                self.outside.append(f"{tag} {name}={value}")
        self.pictures += tag == "img"
        if tag not in ("meta", "img", "br", "link", "path", "circle", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(report: DemoReport = REPORT, extras: PageExtras | None = None) -> str:
    return render(report, made_up_extras() if extras is None else extras)


def test_the_page_needs_nothing_from_outside_and_its_tags_are_closed():
    links = Links()
    links.feed(page())
    assert not links.outside
    assert not links.open
    assert links.pictures == 17
    assert "@import" not in page() and "url(" not in page() and "<script" not in page()


def test_the_page_shows_the_figures_of_the_report():
    text = page()
    for shown in (
        "0.431",
        "0.846",
        "0.943",
        "912",
        "p50 6.4 ms",
        "p99 18.2 ms",
        "99.81 %",
        "27.4 dB",
        "ink_b04.png",
        "hazelnut-2",
    ):
        assert shown in text
    assert "From 0.96 down to 0.43 on a new line, and back to 0.94 with 21 answers" in text
    for heading in ("The same parts, three times", "How good, on both lines", "The way of a frame", "How fast",
                    "INT8 against FP32", "What the label-free rules decided", "Both lines in feature space",
                    "The same line, from good parts alone", "What was not good", "How this was made"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text


def test_the_page_is_whole_without_pictures_planes_and_latencies():
    text = page(extras=PageExtras())
    assert "How good, on both lines" in text
    assert "The same parts" not in text and "from good parts alone" not in text


def test_names_from_a_data_set_cannot_bring_markup_into_the_page():
    report = DemoReport.model_validate(changed(data={"name": "<img src=x onerror=alert(1)>", "pictures": 1}))
    assert "<img src=x" not in page(report)


def test_a_mark_lies_where_its_figure_says():
    track = re.search(r'<u class="new" style="left:([\d.]+)%">', page())
    assert track is not None
    assert float(track[1]) == pytest.approx(21.2)


# -- figures


def test_every_picture_is_a_mark_inside_its_frame():
    points = [Point(float(x), float(x**2), x % 2 == 0, x % 3 == 0) for x in range(20)]
    drawing = scatter(points, title="a & b")
    assert drawing.count("<circle") == drawing.count("<path") == 10
    assert 'aria-label="a &amp; b"' in drawing


def test_one_picture_alone_lies_in_the_middle():
    assert 'cx="170.0" cy="125.0"' in scatter([Point(3, 3, new=False, defective=None)], title="one")


def test_a_latency_far_out_does_not_flatten_the_others():
    drawing = histogram([*np.linspace(4, 6, 999), 4000.0], p50=5, p99=6, title="latency")
    assert drawing.count('class="bar"') >= 10
