"""The command ``qat``: its flags, and what it says.  What it does is in ``export.qat``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibration.console import MostFloat, bars, hand_out, refusals, say
from calibration.devices import check_device
from calibration.exported import asked_in_float, read_preprocess
from calibration.graphs import load_graph
from calibration.pictures import MODEST, pictures_in
from calibration.ranges import read_ranges
from calibration.tuned import TUNED_NAME, Judgement, Tuned, write_tuned
from edge_sdk.errors import ConfigError
from edge_sdk.folders import check_folder

__all__ = ["qat"]


def qat(
    model: Annotated[Path, typer.Argument(help="The FP32 graph, model.onnx of `export onnx`.", show_default=False)],
    pictures: Annotated[
        Path,
        typer.Option(
            "--pictures", help="The folder that the ranges were made of, or more; no labels.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write into; made if need be.", show_default=False)],
    ranges: Annotated[
        Path | None, typer.Option("--ranges", help="By default ranges.json beside the graph.")
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option("--preprocess", help="By default preprocess.json beside the graph.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Rounds over the pictures.")] = 10,
    rate: Annotated[
        float, typer.Option("--rate", help="Highest learning rate, in units of each weight tensor's own size.")
    ] = 3e-4,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Frames a step.")] = 8,
    most: Annotated[int, typer.Option("--max", min=1, help="Pictures trained on, chosen evenly.")] = 256,
    most_float: MostFloat = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the pictures' order.")] = 0,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda or cuda:1.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of torch.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Fine-tune a graph's INT8 layers with fake quantisation, where calibration alone loses too much.

    The INT8 graph learns to answer as FP32 does, so no label is needed. The range table stays what it is; the weights
    go to tuned.safetensors, for `calibration render --tuned`, and only where they lose less on pictures that trained
    nothing. Ended in the midst, it goes on after the last whole epoch when it is run again.
    """
    with refusals():
        if not rate > 0:
            raise ConfigError(f"--rate is {rate:g}; give a number above 0, e.g. 0.0003")
        check_folder(out)
        import torch

        from export.qat import parted, quantisation_aware
        from export.tuning import Plan

        torch.set_num_threads(threads)
        check_device(device, gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0)
        graph, table = load_graph(model), read_ranges(ranges or model.with_name("ranges.json"))
        table.check_graph(graph)
        spec = read_preprocess(preprocess or model.with_name("preprocess.json"))
        asked = asked_in_float(model, graph.digest)
        layers = table.float_layers[:most_float]
        parts = parted(pictures_in(pictures), table, most)
        if len(parts.training) < MODEST:
            count = f"{len(parts.training)} picture{'' if len(parts.training) == 1 else 's'}"
            say(f"warning: only {count} to train on; below {MODEST} the weights may fit these pictures and no others")
        kept = out / "tuned.part.safetensors"
        if kept.exists():
            say(f"{kept}: a fine-tuning was ended in the midst; going on from there if it was of the same")
        with bars() as progress:
            tuned = quantisation_aware(
                graph,
                table,
                parts,
                spec,
                Plan(epochs=epochs, rate=rate, batch=batch, seed=seed),
                keep_float=tuple(dict.fromkeys((*asked, *(layer.node for layer in layers)))),
                keep_float_cpu=asked,
                device=device,
                kept=kept,
                progress=progress,
            )
        taken = tuned.said.trt.taken or tuned.said.cpu.taken
        path = out / TUNED_NAME
        if taken:
            out.mkdir(parents=True, exist_ok=True)
            write_tuned(path, tuned)
        kept.unlink(missing_ok=True)
        facts = {
            "tuned": str(path) if taken else None,
            "sha256": tuned.digest if taken else None,
            **tuned.said.model_dump(mode="json", by_alias=True, exclude={"pictures"}),
            "pictures": len(tuned.said.pictures),
        }
        hand_out(facts, as_json=as_json, text=_words(tuned, path if taken else None, model, ranges))


def _words(tuned: Tuned, path: Path | None, model: Path, ranges: Path | None) -> str:
    said = tuned.said
    lines = [
        _sentence(name, judged, said.judged_on)
        for name, judged in (("TensorRT", said.trt), ("the CPU", said.cpu))
    ]
    if path is None:
        return "\n".join([*lines, "nothing was written: the calibrated graphs stay as they are"])
    table = ranges or model.with_name("ranges.json")
    then = f"python -m calibration render {model} --ranges {table} --tuned {path} --out {path.parent}"
    return "\n".join([*lines, f"{path}: trained on {len(said.pictures)} pictures; now: {then}"])


def _sentence(name: str, judged: Judgement, n: int) -> str:
    before, after = (
        "no error" if value is None else f"{value:.1f} dB" for value in (judged.before_db, judged.after_db)
    )
    verdict = "the fine-tuned weights are taken" if judged.taken else "no better, so its weights stay"
    return f"for {name} {before} before and {after} after, on {n} pictures that trained nothing: {verdict}"
