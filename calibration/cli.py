"""``python -m calibration``: from an FP32 graph and pictures to INT8 graphs and a report of what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from calibration.calibrating import AUTO, calibrate, why_of
from calibration.choosing import WORTH_DB
from calibration.collect import constant_tensors
from calibration.console import MostFloat, bar, bars, hand_out, refusals, say
from calibration.exported import asked_in_float, read_exported, read_preprocess
from calibration.graphs import load_graph
from calibration.held_out import held_out
from calibration.layers import layers_of, strangeness
from calibration.page import html_page
from calibration.pictures import pictures_in
from calibration.qdq import Architecture, host_architecture, qdq_from_onnx
from calibration.ranges import read_ranges, write_ranges
from calibration.renderings import RENDERINGS, TYPED, renderings_of
from calibration.report import compare_on_pictures
from calibration.report_file import RenderingReport, report_file
from calibration.scales import RULES, Rule
from calibration.thresholds import rendering_thresholds, write_thresholds
from calibration.tuned import TUNED_NAME, read_tuned, tuned_digest_of
from calibration.typed import half_from_qdq
from edge_sdk.documents import canonical_json, sha256_hex, write_together
from edge_sdk.errors import ConfigError, FormatError, GateError
from edge_sdk.folders import check_folder
from edge_sdk.quality.thresholds import ALPHA

__all__ = ["app", "main"]

app = typer.Typer(
    help="Choose INT8 ranges from pictures, write the INT8 graphs, and report what they cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[
    Path, typer.Argument(help="The FP32 graph, model.onnx of `export onnx`.", show_default=False)
]
Pictures = Annotated[
    Path, typer.Option("--pictures", help="A data set or a plain folder.", show_default=False)
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder to write into; made if need be.", show_default=False)
]
Preprocess = Annotated[
    Path | None, typer.Option("--preprocess", help="By default preprocess.json beside the graph.")
]
Ranges = Annotated[
    Path | None, typer.Option("--ranges", help="By default ranges.json beside the graph, if there.")
]
TunedWeights = Annotated[
    Path | None,
    typer.Option("--tuned", help=f"By default {TUNED_NAME} beside the graph, where a rendering has its weights."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Of the runtime.")]


@app.command(epilog="Example: python -m calibration ranges build/model.onnx --pictures typical --out build")
def ranges(
    model: Model,
    pictures: Pictures,
    out: Out,
    preprocess: Preprocess = None,
    rule: Annotated[
        str,
        typer.Option(
            "--rule", help=f"auto, or one of {', '.join(RULES)}; auto takes what loses least on pictures of its own."
        ),
    ] = AUTO,
    most: Annotated[int, typer.Option("--max", min=1, help="Pictures calibrated on, chosen evenly.")] = 256,
    most_float: Annotated[
        int | None,
        typer.Option(
            "--max-fp16-layers",
            min=0,
            help="Measure every layer and leave in float at most so many, those that gain most; by default the first "
            f"ones and the heads where each gains {WORTH_DB:g} dB.",
            show_default=False,
        ),
    ] = None,
    equalise: Annotated[
        bool,
        typer.Option(help=f"For TensorRT make channels alike before rounding, where that gains {WORTH_DB:g} dB."),
    ] = True,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Watch the graph's tensors on typical pictures, choose by others, and write ranges.json.

    Ended in the midst, it goes on where it was when it is run again.
    """
    with refusals():
        if rule not in (AUTO, *RULES):
            raise ConfigError(f"there is no rule {rule}; give {', '.join((AUTO, *RULES))}")
        check_folder(out)
        chosen: Rule | Literal["auto"] = next((one for one in RULES if one == rule), AUTO)
        graph = load_graph(model)
        spec = read_preprocess(preprocess or model.with_name("preprocess.json"))
        samples = pictures_in(pictures)
        kept = out / "ranges.part.npz"
        if kept.exists():
            say(f"{kept}: a calibration was ended in the midst; going on from there if it was of the same pictures")
        with bars() as progress:
            table = calibrate(
                graph,
                samples,
                spec,
                rule=chosen,
                most=most,
                most_float=most_float,
                keep_float=asked_in_float(model, graph.digest),
                equalise=equalise,
                threads=threads,
                kept=kept,
                say=say,
                progress=progress,
            )
        dead = constant_tensors(table, graph)
        out.mkdir(parents=True, exist_ok=True)
        write_ranges(out / "ranges.json", table)
        kept.unlink(missing_ok=True)
        for name in dead:
            say(
                f"warning: tensor {name} is {table.tensors[name].lo:g} on every picture; part of the network is dead"
            )
        path, why = str(out / "ranges.json"), why_of(table)
        say(why)
        facts = {
            "ranges": path,
            "pictures": table.n,
            "tensors": len(table.tensors),
            "constant": dead,
            "rule": table.rule,
            "why": why,
            "chosen_on": len(table.choosing),
            "sqnr_db": table.decibels,
            "equalised": sorted(table.factors),
            "float_layers": [layer.model_dump() for layer in table.float_layers],
        }
        hand_out(facts, as_json=as_json, text=f"{path}: {table.n} pictures, {len(table.tensors)} tensors")


@app.command(
    epilog="Example: python -m calibration render build/model.onnx --ranges build/ranges.json --out build"
)
def render(
    model: Model,
    ranges: Annotated[Path, typer.Option("--ranges", help="ranges.json of this graph.", show_default=False)],
    out: Out,
    arch: Annotated[
        str, typer.Option("--arch", help="CPU of the station: x86_64, aarch64 or auto.")
    ] = "auto",
    keep_float: Annotated[
        list[str] | None, typer.Option("--keep-float", help="Name of a node to leave as it is; repeatable.")
    ] = None,
    most_float: MostFloat = None,
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="Also write model.trt.fp16.onnx: FP16 in the graph, for a strongly typed build."),
    ] = False,
    tuned: Annotated[
        Path | None,
        typer.Option("--tuned", help="tuned.safetensors of `export qat`: its weights, where they lose less."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write model.trt.onnx and model.cpu.onnx from one range table."""
    with refusals():
        known: dict[str, Architecture] = {
            "x86_64": "x86_64",
            "aarch64": "aarch64",
            "auto": host_architecture(),
        }
        if arch not in known:
            raise ConfigError(f"there is no architecture {arch}; give {', '.join(known)}")
        check_folder(out)
        graph, table = load_graph(model), read_ranges(ranges)
        finer = None if tuned is None else read_tuned(tuned)
        if finer is not None and (keep_float or most_float is not None):
            raise ConfigError(
                f"{tuned} was trained with its own layers in float; give --max-fp16-layers to `export qat`, or leave "
                "--tuned out"
            )
        kept = (*(keep_float or ()), *asked_in_float(model, graph.digest))
        layers = table.float_layers[:most_float]
        if finer is not None:
            finer.check(graph, table)
            layers = tuple(layer for layer in layers if layer.node in finer.said.keep_float)
        if most_float is not None and most_float > len(layers):
            say(f"ranges.json names {len(layers)} layers worth FP16; for more: ranges --max-fp16-layers {most_float}")
        trt = qdq_from_onnx(
            graph,
            table,
            layout="tensorrt",
            keep_float=(*kept, *(layer.node for layer in layers)),
            tuned=finer if finer and finer.said.trt.taken else None,
        )
        models = {
            "trt": trt,
            "cpu": qdq_from_onnx(
                graph,
                table,
                layout="onnxruntime",
                architecture=known[arch],
                keep_float=kept,
                tuned=finer if finer and finer.said.cpu.taken else None,
            ),
        }
        if fp16:
            models[TYPED] = half_from_qdq(trt, table)
        out.mkdir(parents=True, exist_ok=True)
        files = {out / RENDERINGS[kind]: made.SerializeToString(deterministic=True) for kind, made in models.items()}
        write_together(files)
        if not fp16:
            (out / RENDERINGS[TYPED]).unlink(missing_ok=True)  # of older ranges
        found: dict[str, dict[str, object]] = {}
        for kind, (path, data) in zip(models, files.items(), strict=True):
            found[kind] = {
                "path": str(path),
                "sha256": sha256_hex(data),
                "bytes": len(data),
                "rounded_tensors": sum(node.op_type == "QuantizeLinear" for node in models[kind].graph.node),
                "tuned": tuned_digest_of(models[kind]),
                "nodes": [node.name for node in graph.nodes] if as_json else len(graph.nodes),
            }
        found["trt"]["float_layers"] = [layer.model_dump() for layer in layers]
        found["trt"]["equalised"] = sorted(table.factors)
        if table.factors:
            say(f"channels of {len(table.factors)} tensors are equalised for TensorRT")
        for layer in layers:
            say(f"{layer.node} is left in float for TensorRT: {layer.why}")
        text = "\n".join(
            f"{row['path']}: {row['rounded_tensors']} tensors in INT8, {row['bytes']} bytes"
            for row in found.values()
        )
        hand_out({"arch": known[arch], **found}, as_json=as_json, text=text)


@app.command(
    epilog="Example: python -m calibration report build/model.onnx --int8 build/model.cpu.onnx "
    "--pictures held-out --out build"
)
def report(
    model: Model,
    int8: Annotated[
        list[Path], typer.Option("--int8", help="An INT8 graph; repeatable.", show_default=False)
    ],
    pictures: Pictures,
    out: Out,
    preprocess: Preprocess = None,
    ranges: Ranges = None,
    tuned: TunedWeights = None,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "What INT8 costs",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 where a gate does not hold.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare INT8 with FP32 on held-out pictures; write report.json and report.html."""
    with refusals():
        check_folder(out)
        graph = load_graph(model)
        spec = read_preprocess(preprocess or model.with_name("preprocess.json"))
        exported = read_exported(model.with_name("export.json"))
        if exported.graph_sha256 != graph.digest:
            raise FormatError(
                f"{model.with_name('export.json')} is of another graph than {model}; export it again"
            )
        files = renderings_of(int8, graph, say=say)
        held = held_out(graph, files, pictures_in(pictures), beside=model, ranges=ranges, tuned=tuned, say=say)
        table, samples = held.ranges, held.samples
        with bar("comparing with FP32", len(samples)) as step:
            judged = compare_on_pictures(graph, files, samples, spec, exported, progress=step)
        layers = layers_of(graph, files, samples, spec, ranges=table, asked=exported.keep_float or ())
        strange = strangeness(graph, table, samples, spec).sentence if table else None
        if strange:
            say(f"warning: {strange}")
        found = report_file(
            judged,
            tuple(files),
            graph_sha256=graph.digest,
            line=exported.line,
            ranges=table,
            left_out=held.left_out,
            layers=layers,
            strange=strange,
            tuned_on=held.tuned_on,
        )
        out.mkdir(parents=True, exist_ok=True)
        page = html_page(found, judged, exported.bands(), ranges=table, title=title)
        write_together({out / "report.json": canonical_json(found) + b"\n", out / "report.html": page.encode()})
        broken = [gate.sentence for row in found.renderings.values() for gate in row.gates if not gate.held]
        for sentence in broken:
            say(f"refused: {sentence}")
        for kind, row in found.renderings.items():
            if row.accepted and (slower := row.refusal(found.cpu)):
                say(f"not shipped: {row.rendering}: {slower}")
            if not row.accepted:
                say(_worst_layers(kind, row))
        speed = f", {found.speedup:.2f} times as fast" if found.speedup else ""
        sqnr = "no bit differs" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"
        text = (
            f"{found.rendering}: {100 * found.agreement:.1f} % of {found.n} verdicts and "
            f"{100 * found.cells_agreement:.2f} % of cells as FP32, {sqnr}{speed}; {out / 'report.html'}"
        )
        hand_out(found.model_dump(mode="json", by_alias=True), as_json=as_json, text=text)
        if broken and strict:
            raise GateError(f"{found.rendering} is refused: {broken[0]}", findings=broken)


@app.command(
    epilog="Example: python -m calibration thresholds build/model.onnx --int8 build/model.cpu.onnx "
    "--pictures labelled --out build"
)
def thresholds(
    model: Model,
    pictures: Pictures,
    out: Out,
    int8: Annotated[
        list[Path] | None, typer.Option("--int8", help="An INT8 graph; repeatable.", show_default=False)
    ] = None,
    preprocess: Preprocess = None,
    ranges: Ranges = None,
    tuned: TunedWeights = None,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Share of pictures of a kind that may fall on the wrong side.")
    ] = ALPHA,
    as_json: AsJson = False,
) -> None:
    """Calibrate thresholds on the outputs of the graphs that a station runs, on labelled held-out pictures.

    Pictures that calibrated, chose or fine-tuned an INT8 graph are left out of its thresholds.
    """
    with refusals():
        check_folder(out)
        graph = load_graph(model)
        spec = read_preprocess(preprocess or model.with_name("preprocess.json"))
        exported = read_exported(model.with_name("export.json"))
        renderings = renderings_of(int8, graph, say=say) if int8 else {}
        files = {f"int8-{kind}": path for kind, path in renderings.items()} or {"fp32": model}
        if f"int8-{TYPED}" in files:
            raise ConfigError(f"{files[f'int8-{TYPED}']} is no graph that a bundle carries; give {RENDERINGS['trt']}")
        samples, left_out = pictures_in(pictures), 0
        if renderings:
            held = held_out(graph, renderings, samples, beside=model, ranges=ranges, tuned=tuned, say=say)
            samples, left_out = held.samples, held.left_out
        found = {}
        for role, path in files.items():
            with bar(f"judging with {role}", len(samples)) as step:
                made = rendering_thresholds(
                    path, role, samples, spec, exported, alpha=alpha, left_out=left_out, progress=step
                )
            written = write_thresholds(out, made)
            found[role] = {"path": str(written), **made.model_dump(mode="json", by_alias=True)}
        text = "\n".join(f"{row['path']}: {row['how']}; guarantee: {row['guarantee']}" for row in found.values())
        hand_out(found, as_json=as_json, text=text)


def _worst_layers(kind: str, row: RenderingReport) -> str:
    """Where to look first."""
    rounded = sorted((one.sqnr_db, one.node) for one in row.layers if one.sqnr_db is not None)
    listed = ", ".join(f"{node} {decibels:.1f} dB" for decibels, node in rounded[:3])
    return f"{kind}: the layers farthest from FP32: {listed}" if listed else f"{kind}: no layer was looked at"


def main() -> None:
    """Entry point."""
    app(prog_name="python -m calibration")
