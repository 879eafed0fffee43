"""``report.html``: the INT8 report as people read it, in one file without anything from outside."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape

import numpy as np

from calibration.ranges import RangeTable
from calibration.report import Cost, Judged
from calibration.report_file import RenderingReport, ReportFile, most_moved
from calibration.scales import RULES, rounding_db
from edge_sdk.arrays import Array
from edge_sdk.labels import Thresholds
from edge_sdk.quality.datasets import read_image

__all__ = ["html_page"]

_SHOWN = 12
_SIDE = 340
_GATES = {
    "agreement": "verdicts",
    "cells_agreement": "cells",
    "sqnr_db": "signal to noise",
    "score_drop": "average precision",
}
_NAMES = {
    "cpu": "CPU rendering (ONNX Runtime)",
    "trt": "TensorRT rendering",
    "trt-fp16": "TensorRT rendering, FP16 in the graph",
}


def html_page(
    report: ReportFile, judged: Judged, bands: Thresholds, *, ranges: RangeTable | None, title: str
) -> str:
    """The whole page.

    Args:
        report: The figures.
        judged: What they were made of.
        bands: Thresholds of the line.
        ranges: For the table of tensors, where it is there.
        title: Of the page.
    """
    parts = [_head(report, title)]
    for (kind, row), cost in zip(report.renderings.items(), judged.costs, strict=True):
        parts.append(_rendering(kind, row, cost, judged, bands))
    if ranges is not None:
        parts.append(_tensors(ranges))
    parts.append(_foot(report))
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(report: ReportFile, title: str) -> str:
    refused = [kind for kind, row in report.renderings.items() if not row.accepted]
    if refused:
        names = " and ".join(_NAMES.get(kind, kind) for kind in refused)
        banner = (
            f'<p class="banner no"><b>Refused:</b> {escape(names)}. The broken gates are named below.</p>'
        )
    else:
        banner = '<p class="banner yes"><b>Accepted:</b> every gate holds.</p>'
    weak = ""
    if report.weak:
        weak = f'<p class="banner weak"><b>Weak evidence:</b> only {report.n} pictures were compared.</p>'
    if report.strange:
        weak += f'<p class="banner weak"><b>Another kind of pictures:</b> {escape(report.strange)}.</p>'
    return (
        f"<header><h1>{escape(title)}</h1><p>INT8 against FP32 on <b>{report.n}</b> held-out pictures "
        f"of the line <b>{escape(report.line)}</b>.</p></header>{banner}{weak}"
    )


def _rendering(kind: str, row: RenderingReport, cost: Cost, judged: Judged, bands: Thresholds) -> str:
    speed = f"{row.speedup:.2f}&times;" if row.speedup else "&ndash;"
    under = (
        f"{row.fp32_ms:.2f} &rarr; {row.int8_ms:.2f} ms, one thread"
        if row.speedup
        else "timed on its own device"
    )
    sqnr = f"{row.sqnr_db:.1f} dB" if row.sqnr_db is not None else ("identical" if row.accepted else "none")
    tiles = "".join(
        f'<div class="tile"><b>{value}</b><span>{name}</span><small>{note}</small></div>'
        for value, name, note in (
            (
                f"{100 * row.agreement:.1f} %",
                "same verdict",
                f"{len(row.flips)} of {cost.measured.pictures} flipped",
            ),
            (
                f"{math.floor(row.cells_agreement * 1e4) / 100:.2f} %",
                "same cell decisions",
                "at the decision boundary",
            ),
            (sqnr, "signal to noise", "of the cells' logits"),
            (speed, "as fast as FP32", under),
        )
    )
    gates = "".join(
        f'<tr class="{"held" if gate.held else "broken"}"><td>{"&#10003;" if gate.held else "&#10007;"}</td>'
        f"<td>{escape(_GATES.get(gate.gate, gate.gate))}</td>"
        f"<td>{escape(gate.sentence.partition(' (weak')[0])}</td></tr>"
        for gate in row.gates
    )
    return (
        f"<section><h2>{escape(_NAMES.get(kind, kind))} <code>{escape(row.rendering)}</code></h2>"
        f'<div class="tiles">{tiles}</div>'
        f'<div class="pair"><div class="scroll"><table class="gates">{gates}</table></div>'
        f"<figure>{_scatter(judged.confidence, cost.confidence, bands)}<figcaption>The surest cell of each picture: "
        "FP32 across, INT8 up. Shaded: the uncertain band.</figcaption></figure></div>"
        f"{_found(row)}{_pictures(cost, judged)}{_layers(row)}</section>"
    )


def _found(row: RenderingReport) -> str:
    """Score and recall, by class and by domain."""
    lines = []
    if row.score_fp32 is not None and row.score_int8 is not None:
        lines.append(("average precision", "", f"{row.score_fp32:.4f}", f"{row.score_int8:.4f}"))
    for name, seen in row.recall.items():
        lines.append((f"recall of {name}", f"{seen.pictures}", f"{seen.fp32}", f"{seen.int8}"))
    for name, domain in row.domains.items():
        seen = domain.recall
        if seen.pictures:
            lines.append((f"recall on {name}", f"{seen.pictures}", f"{seen.fp32}", f"{seen.int8}"))
        lines.append((f"same verdict on {name}", f"{domain.pictures}", "", f"{100 * domain.agreement:.1f} %"))
    if not lines:
        return ""
    cells = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in line) + "</tr>" for line in lines)
    heads = "<tr><th></th><th>pictures</th><th>FP32</th><th>INT8</th></tr>"
    return f'<h3>What is found</h3><div class="scroll"><table class="tensors">{heads}{cells}</table></div>'


def _layers(row: RenderingReport) -> str:
    """The layers with weights, those farthest from FP32 first."""
    if not row.layers:
        return ""
    order = sorted(row.layers, key=lambda layer: math.inf if layer.sqnr_db is None else layer.sqnr_db)
    cells = "".join(
        f"<tr><td><code>{escape(layer.node)}</code></td>"
        f"{_bar(math.inf if layer.sqnr_db is None else layer.sqnr_db)}"
        f"<td>{_db(math.inf if layer.sqnr_db is None else layer.sqnr_db)}</td>"
        f"<td>{'' if layer.gain_db is None else f'{layer.gain_db:+.2f} dB'}</td>"
        f"<td class=\"why\">{'int8' if layer.why_float is None else f'float: {escape(layer.why_float)}'}</td></tr>"
        for layer in order
    )
    heads = "<tr><th>layer</th><th>result, dB</th><th></th><th>gain in float</th><th>runs in</th></tr>"
    return (
        "<h3>Layer by layer, with all that was lost before</h3>"
        f'<div class="scroll"><table class="tensors">{heads}{cells}</table></div>'
    )


def _scatter(before: Array, after: Array, bands: Thresholds) -> str:
    side, edge = 260, 26
    best = before.argmax(axis=1)
    rows = np.arange(len(before))
    x, y = before[rows, best], after[rows, best]

    def at(value: float) -> float:
        return edge + float(np.clip(value, 0, 1)) * (side - 2 * edge)

    low, high = at(float(bands.pass_below.min())), at(float(bands.defective_from.max()))
    dots = "".join(
        f'<circle cx="{at(float(a)):.1f}" cy="{side - at(float(b)):.1f}" r="3"/>'
        for a, b in zip(x, y, strict=True)
        if np.isfinite(b)
    )
    return (
        f'<svg viewBox="0 0 {side} {side}" role="img" aria-label="Confidence of FP32 against INT8">'
        f'<rect class="band" x="{low:.1f}" y="{edge}" width="{max(high - low, 1):.1f}" height="{side - 2 * edge}"/>'
        f'<rect class="band" x="{edge}" y="{side - high:.1f}" width="{side - 2 * edge}" '
        f'height="{max(high - low, 1):.1f}"/>'
        f'<path class="axis" d="M{edge} {edge}V{side - edge}H{side - edge}"/>'
        f'<path class="line" d="M{edge} {side - edge}L{side - edge} {edge}"/>{dots}'
        f'<text x="{edge}" y="{side - 8}">0</text><text x="{side - edge - 6}" y="{side - 8}">1</text>'
        f'<text x="6" y="{edge + 4}">1</text></svg>'
    )


def _pictures(cost: Cost, judged: Judged) -> str:
    """The flipped pictures; where there is none, those whose confidence moved most."""
    before, after = judged.confidence.max(axis=1), cost.confidence.max(axis=1)
    if cost.flips:
        places, heading = [flip.place for flip in cost.flips], "Pictures with another verdict"
    else:
        places = most_moved(judged, cost)[:4]
        heading = "No verdict changed; these moved most"
    flips = {flip.place: flip for flip in cost.flips}
    cards = []
    for place in places[:_SHOWN]:
        sample = judged.samples[place]
        flip = flips.get(place)
        verdict = f"{flip.before} &rarr; {flip.after}" if flip else "same verdict"
        label = f" &middot; {escape(sample.label)}" if sample.label else ""
        cards.append(
            f'<figure class="card{" flip" if flip else ""}"><img alt="" src="{_thumbnail(judged, place)}">'
            f"<figcaption><b>{verdict}</b><br>{float(before[place]):.3f} &rarr; {float(after[place]):.3f}"
            f"<br><small>{escape(sample.image)}{label}</small></figcaption></figure>"
        )
    more = len(places) - _SHOWN
    rest = f"<p>{more} more stand in report.json.</p>" if more > 0 else ""
    return f'<h3>{heading}</h3><div class="cards">{"".join(cards)}</div>{rest}'


def _thumbnail(judged: Judged, place: int) -> str:
    import cv2

    image = read_image(judged.samples[place])
    scale = _SIDE / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _tensors(ranges: RangeTable) -> str:
    rows: list[tuple[float, str, list[float]]] = []
    for name, row in ranges.tensors.items():
        decibels = [rounding_db(row.histogram, row.amax[rule]) for rule in RULES]
        rows.append((decibels[RULES.index(row.chosen)], name, decibels))
    rows.sort(key=lambda one: one[0])
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td>{_bar(chosen)}"
        + "".join(f"<td>{_db(value)}</td>" for value in decibels)
        + f"<td>{_span(ranges.tensors[name].lo, ranges.tensors[name].hi)}</td></tr>"
        for chosen, name, decibels in rows
    )
    heads = "".join(f"<th>{rule}</th>" for rule in RULES)
    return (
        "<section><h2>What rounding costs, tensor by tensor</h2>"
        f"<p>Symmetric int8, from the histograms of {ranges.n} calibration pictures; the worst first.</p>"
        f'<div class="scroll"><table class="tensors"><tr><th>tensor</th><th>chosen, dB</th>{heads}'
        f"<th>seen</th></tr>{cells}</table></div></section>"
    )


def _bar(decibels: float) -> str:
    share = min(100.0, max(0.0, decibels * 2)) if math.isfinite(decibels) else 100.0
    return f'<td><i style="width:{share:.0f}%"></i></td>'


def _db(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "&infin;"


def _span(lo: float, hi: float) -> str:
    return f"{lo:.3g} &hellip; {hi:.3g}"


def _foot(report: ReportFile) -> str:
    tried = ", ".join(f"{rule} {'exact' if db is None else f'{db:.1f} dB'}" for rule, db in report.rules_db.items())
    chosen = f"{report.chosen_on} pictures of their own: {tried}" if report.chosen_on else "nothing: the rule was given"
    calibrated = f"{report.calibrated_on} pictures, rule {report.rule}" if report.calibrated_on else "unknown"
    tuned = [f"{row.rendering} on {row.tuned_on} pictures" for row in report.renderings.values() if row.tuned_on]
    how = "calibrated or fine-tuned" if tuned else "calibrated"
    facts: Sequence[tuple[str, str]] = (
        ("graph", report.graph_sha256[:16]),
        ("calibrated on", calibrated),
        ("rule chosen on", chosen),
        ("channels equalised", f"of {report.equalised} tensors, for TensorRT" if report.equalised else "none"),
        ("fine-tuned", ", ".join(tuned) or "nothing: the weights are the graph's own"),
        ("left out", f"{report.left_out} pictures that were {how} on" if report.left_out else "none"),
        ("processor", f"{report.cpu} ({', '.join(report.instructions) or 'no INT8 instructions known'})"),
    )
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f"<footer><dl>{rows}</dl></footer>"


_STYLE = """
:root{color-scheme:light dark;--ink:#16202b;--soft:#5b6b7c;--paper:#f6f8fa;--card:#fff;--line:#dde4ea;--good:#0a7d4f;
--bad:#c2352b;--warm:#9a6700;--key:#2563a8}
@media(prefers-color-scheme:dark){:root{--ink:#e7edf3;--soft:#9aa9b8;--paper:#10161d;--card:#18212b;--line:#2b3947;
--good:#43c58f;--bad:#ff7b70;--warm:#e0b040;--key:#6fb0f2}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1040px;margin:0 auto;padding:28px 18px 60px}h1{font-size:1.9rem;margin:0 0 4px}h2{font-size:1.25rem;
margin:0 0 14px}h2 code{font-size:.8em;color:var(--soft);font-weight:400}h3{font-size:1rem;margin:22px 0 10px}
header p{margin:0 0 18px;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px;margin:18px 0}
.banner{border-radius:10px;padding:10px 16px;margin:10px 0;border:1px solid;background:var(--card)}
.yes{color:var(--good)}.no{color:var(--bad)}.weak{color:var(--warm)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(135px,1fr));gap:12px;margin-bottom:16px}
.tile{border:1px solid var(--line);border-radius:12px;padding:14px;min-width:0}
.tile b{display:block;white-space:nowrap;font-size:clamp(1.2rem,5.2vw,1.6rem);
font-variant-numeric:tabular-nums}.tile span{display:block}.tile small{color:var(--soft)}
.pair{display:grid;grid-template-columns:minmax(0,1fr) 280px;gap:20px;align-items:start}
@media(max-width:760px){.pair{grid-template-columns:1fr}section{padding:16px}}
table{border-collapse:collapse;width:100%;font-size:.92rem}td,th{padding:7px 8px;border-top:1px solid var(--line);
text-align:left;vertical-align:top}tr:first-child td,tr:first-child th{border-top:0}
.held td:first-child{color:var(--good)}.broken td{color:var(--bad);font-weight:600}
.scroll{overflow-x:auto}.tensors td,.tensors th{white-space:nowrap;font-variant-numeric:tabular-nums}
.tensors td.why{white-space:normal;min-width:220px}
.tensors td:nth-child(2){min-width:120px}.tensors i{display:block;height:10px;margin-top:7px;border-radius:5px;
background:var(--key)}
figure{margin:0}figcaption{font-size:.85rem;color:var(--soft)}svg{width:100%;height:auto;display:block}
svg text{font-size:11px;fill:var(--soft)}.axis{fill:none;stroke:var(--soft)}
.line{stroke:var(--line);stroke-dasharray:4 4}
.band{fill:var(--warm);opacity:.12}circle{fill:var(--key);opacity:.65}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(180px,1fr));gap:14px}
.card{border:1px solid var(--line);border-radius:12px;overflow:hidden}.card.flip{border-color:var(--bad)}
.card img{display:block;width:100%;height:150px;object-fit:contain;background:#000}.card figcaption{padding:10px 12px;
overflow-wrap:anywhere}.card b{color:var(--ink)}
footer{color:var(--soft);font-size:.88rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px}
dd{margin:0;overflow-wrap:anywhere}
"""
