"""What the figures mean, in sentences: the report's headline, and what was not good."""

from __future__ import annotations

from collections.abc import Iterator

from examples.loop.schema import DemoReport, Figures, OnBothLines

__all__ = ["LEFT", "MATTERS", "NAMES", "Headline", "headline", "named", "not_good", "shown", "signed"]

MATTERS = 0.02
"""Differences of average precision below this are told as none."""
LEFT = ("none", "source")
"""What the rules call it to change nothing."""
DROP = 0.1
"""From here on a gap is told as a drop."""


class Headline:
    """Title and lead of the report."""

    def __init__(self, title: str, lead: str) -> None:
        self.title = title
        self.lead = lead


def shown(value: float | None, digits: int = 2) -> str:
    """A figure as text; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.2f}".replace("-", "−")


NAMES = {"adabn": "AdaBN", "dann": "DANN", "mmd": "MMD", "coral": "deep CORAL", "adda": "ADDA"}
"""Methods as their papers write them."""


def named(method: str) -> str:
    """A method as its paper writes it."""
    return {**NAMES, **dict.fromkeys(LEFT, "left as it was")}.get(method.lower(), method)


def _ap(model: OnBothLines, line: str) -> float | None:
    found: Figures = getattr(model, line)
    return found.ap


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def headline(report: DemoReport) -> Headline:
    """Title and lead, whatever happened."""
    before, own = _ap(report.source_only, "new"), _ap(report.source_only, "original")
    adapted, after = _ap(report.adapted, "new"), _ap(report.retrained, "new")
    drop, mentored, whole = _less(own, before), _less(after, adapted), _less(after, before)
    answers = report.answers.total
    said = f"{answers} answer{'' if answers == 1 else 's'}"
    if whole is None or drop is None or mentored is None:
        title = f"The loop ran, but its test pictures cannot tell how good the model is; {said} were given"
    elif drop >= DROP and whole >= MATTERS:
        title = (
            f"From {shown(own)} down to {shown(before)} on a new line, and back to {shown(after)} with {said}"
        )
    elif drop >= DROP:
        title = f"From {shown(own)} down to {shown(before)} on a new line; {said} did not help, it is at {shown(after)}"
    elif whole >= MATTERS and drop < 0:
        title = f"The new line was no harder, {shown(own)} to {shown(before)}; {said} brought it to {shown(after)}"
    elif whole >= MATTERS:
        title = f"The new line cost the model little, {shown(own)} to {shown(before)}; "
        title += f"{said} brought it to {shown(after)}"
    else:
        title = f"Little changed: {shown(own)} at home, {shown(before)} on a new line, {shown(after)} after {said}"
    unit = report.source_only.new.unit
    what = (
        "every defective cell before every good one" if unit == "cells" else "every defective picture first"
    )
    lead = [
        f"Average precision is 1 where the model ranks {what}.",
        f"Trained on {report.data.original or 'its own line'} it reaches {shown(own)} there "
        f"and {shown(before)} on {report.data.new or 'the new line'}.",
    ]
    if report.adapted.method in LEFT:
        lead.append("The rules that see no label left it as it was.")
    else:
        lead.append(
            f"Adapted by {named(report.adapted.method)} to unlabelled pictures of the new line "
            f"it reaches {shown(adapted)} there."
        )
    lead.append(f"After {said} to questions from its own station it reaches {shown(after)},")
    lead.append(f"and {shown(_ap(report.retrained, 'original'))} on its original line.")
    return Headline(title, " ".join(lead))


def not_good(report: DemoReport) -> list[str]:
    """What a reader should hold against the demo; never empty."""
    return list(_complaints(report))


def _complaints(report: DemoReport) -> Iterator[str]:
    so, adapted, after = report.source_only, report.adapted, report.retrained
    tested = so.new.n
    many = f"{tested} picture{'s' if tested != 1 else ''}"
    if after.new.ap is not None and after.new.ap_low is None:
        yield (
            f"The {many} of the new line's test are of one group, so there is no interval and the figures say little: "
            "other groups can be much easier or harder. Try other seeds."
        )
    else:
        yield (
            f"The test is small: {many} a line. The interval of the final figure reaches from "
            f"{shown(after.new.ap_low)} to {shown(after.new.ap_high)}."
        )
    drop, plain = _less(so.original.ap, so.new.ap), report.source_only_plain
    if drop is not None and drop < 0:
        yield f"There was no gap to close: the model was no worse on the new line ({shown(so.new.ap)}) than at home."
    elif drop is not None and drop < DROP:
        yield f"There was hardly a gap to close: the new line cost the model {shown(drop)} before anything was done."
    plain_drop = _less(plain.original.ap, plain.new.ap)
    if drop is not None and plain_drop is not None and plain_drop > drop + MATTERS:
        yield (
            f"Ordinary photometric jitter in training closes much of such a gap: without it the drop was "
            f"{shown(plain_drop)} instead of {shown(drop)}. A drop shown without jitter alone would be staged."
        )
    gain = _less(adapted.new.ap, so.new.ap)
    if adapted.method in LEFT:
        better = [rule for rule in adapted.methods if (_less(rule.ap_new, so.new.ap) or 0) > MATTERS]
        for rule in better:
            yield (
                f"The label-free rules refused {named(rule.method)}, which would have reached {shown(rule.ap_new)} "
                f"on the new line instead of {shown(so.new.ap)}."
            )
    elif gain is not None and gain < 0:
        yield (
            f"The label-free rules chose {named(adapted.method)} and were wrong: "
            f"it cost {shown(-gain)} on the new line."
        )
    best = max(
        (rule for rule in adapted.methods if rule.ap_new is not None),
        key=lambda r: r.ap_new or 0.0,
        default=None,
    )
    if best is not None and adapted.method not in (*LEFT, best.method):
        lead = _less(best.ap_new, adapted.new.ap)
        if lead is not None and lead > MATTERS:
            yield f"{named(best.method)} would have been {shown(lead)} better than {named(adapted.method)}, the choice."
    yield from _about_mentoring(report)
    yield from _about_good_parts(report)
    yield from _about_the_station(report)


def _about_mentoring(report: DemoReport) -> Iterator[str]:
    adapted, after = report.adapted, report.retrained
    gain = _less(after.new.ap, adapted.new.ap)
    if gain is not None and gain < MATTERS:
        how = f"cost {shown(-gain)}" if gain < -MATTERS else "changed little"
        yield f"Mentoring {how} on the new line ({shown(adapted.new.ap)} before, {shown(after.new.ap)} after)."
    lost = _less(adapted.original.ap, after.original.ap)
    if lost is not None and lost > MATTERS:
        yield f"The original line lost {shown(lost)} by mentoring; its own bundle therefore stays as it was."
    yield from _perhaps_chance(report)
    control = _less(report.retrained_unmasked.new.ap, after.new.ap)
    if control is not None and control > MATTERS:
        yield f"Calling every cell nobody judged healthy did better than masking, by {shown(control)}."
    ceiling = _less(report.full_labels.new.ap, after.new.ap)
    if ceiling is not None and ceiling > MATTERS:
        yield f"Complete labels of the same pictures would have brought {shown(ceiling)} more."
    if after.new.precision is not None and after.new.precision < 0.7:
        yield (
            f"At the decision boundary {round(100 * (1 - after.new.precision))} % of what is reported on the new line "
            "is still a false alarm."
        )
    if after.new.recall is not None and after.new.recall < 0.8:
        yield f"At the decision boundary {round(100 * (1 - after.new.recall))} % of the defects are still missed."
    if report.answers.total and report.answers.unsure / report.answers.total > 0.3:
        yield f"{report.answers.unsure} of {report.answers.total} answers were unsure and taught nothing."


def _about_good_parts(report: DemoReport) -> Iterator[str]:
    parts = report.good_parts
    if parts is None:
        return
    if parts.left_out:
        yield f"No model was made of good parts alone: {parts.left_out}."
        return
    if parts.found < parts.defective:
        missed = parts.defective - parts.found
        yield f"The model of good parts alone passed {missed} of {parts.defective} defective test pictures."
    if parts.alpha is not None and parts.good and parts.stopped > parts.alpha * parts.good:
        yield (
            f"The model of good parts alone stopped {parts.stopped} of {parts.good} good test pictures; on average "
            f"{parts.alpha:.0%} were promised, of so few either way says little."
        )


def _perhaps_chance(report: DemoReport) -> Iterator[str]:
    """Gains whose interval holds 0."""
    told = {"adaptation": "adapting", "mentoring": "mentoring"}
    for name, words in told.items():
        gain = report.gains.get(name)
        if gain is not None and gain.value > 0 >= gain.low:
            yield (
                f"On so few pictures the gain by {words}, {signed(gain.value)} [{signed(gain.low)}, "
                f"{signed(gain.high)}], could be chance."
            )


def _about_the_station(report: DemoReport) -> Iterator[str]:
    station, int8 = report.station, report.int8
    if int8.agreement < 0.995:
        yield f"INT8 decided {100 * (1 - int8.agreement):.2f} % of the cells otherwise; 0.5 % would be allowed."
    if int8.flips:
        many = len(int8.flips)
        yield f"INT8 turned {many} verdict{'s' if many > 1 else ''}, listed above."
    if int8.speedup is not None and int8.speedup < 1:
        yield f"On this CPU the INT8 rendering was slower than FP32 ({int8.speedup:.2f} times as fast)."
    lost = {
        reason: count for reason, count in station.not_inspected_by.items() if reason != "station stopped"
    }
    if lost:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(lost.items()))
        yield f"Of {station.frames_in} frames {sum(lost.values())} were not inspected ({reasons})."
    if report.swap.frames_lost:
        yield f"{report.swap.frames_lost} frames were lost while the new bundle came in."
    if report.quick:
        yield "This was a quick run: every training was cut short, so the figures say that it works, not how well."
