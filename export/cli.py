"""``python -m export``: a checkpoint to ONNX, and everything a station needs to one signed bundle."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.console import bar, hand_out, refusals, say
from calibration.pictures import balanced, pictures_in
from edge_sdk.bundles.archive import open_bundle, verify_bundle
from edge_sdk.errors import ConfigError
from edge_sdk.folders import check_folder
from edge_sdk.manifest import Manifest, manifest_id
from edge_sdk.quality.gates import Gates
from export.golden import FEWEST
from export.keys import make_keys, read_private_key
from export.qat_cli import qat

__all__ = ["app", "main"]

app = typer.Typer(
    help="Write a checkpoint as ONNX, and pack everything a station needs into one signed bundle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Line = Annotated[str, typer.Option("--line", help="The line that the model is for.", show_default=False)]
Out = Annotated[
    Path, typer.Option("--out", help="Folder to write into; made if need be.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
BundlePath = Annotated[Path, typer.Argument(help="A .bundle file, or a bundle's folder.", show_default=False)]
Trust = Annotated[
    list[Path] | None, typer.Option("--trust", help="A .pub file; one of them must have signed. Repeatable.")
]


@app.command("onnx", epilog="Example: python -m export onnx build/checkpoint --line new --out build/new")
def export_onnx(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT|RECIPE",
            help="Folder that training wrote, or a YAML recipe that names a torch module.",
            show_default=False,
        ),
    ],
    out: Out,
    line: Annotated[
        str | None, typer.Option("--line", help="The line that the model is for; a recipe says it itself.")
    ] = None,
    opset: Annotated[int, typer.Option("--opset", help="Asked for, and checked afterwards.")] = 19,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Compared with torch besides 1 and 2.")] = 5,
    fixed: Annotated[
        bool, typer.Option("--fixed-batch", help="Take --batch frames and no other number; without it any.")
    ] = False,
    fused: Annotated[
        bool, typer.Option("--fused", help="Write model.fused.onnx too: uint8 pictures in, preprocessing inside.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of torch.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write model.onnx, preprocess.json and export.json, compared with torch at several batch sizes."""
    with refusals():
        check_folder(out)
        from export.exporting import export_checkpoint
        from export.recipe import CHECKPOINT, checkpoint_from_recipe

        with ExitStack() as held:
            if source.suffix.lower() in (".yaml", ".yml"):
                made = held.enter_context(checkpoint_from_recipe(source, out))
                if line not in (None, made.line):
                    raise ConfigError(f"{source} is for the line {made.line}, not {line}; leave --line out")
                say(f"{out / CHECKPOINT} will be the network's checkpoint, for `export pack --ckpt`")
                source, line = made.root, made.line
            if line is None:
                raise ConfigError("--line is missing; name the line of the checkpoint that the model is for")
            found = export_checkpoint(
                source, line=line, out=out, opset=opset, batch=batch, fixed=fixed, fused=fused, threads=threads, say=say
            )
        worst = max(row.greatest_difference for row in found.parity)
        text = (
            f"{out / 'model.onnx'}: {found.nodes} nodes, opset {found.opset}, at most {worst:.2g} from torch "
            f"at batch {', '.join(str(size) for size in sorted({row.batch for row in found.parity}))}"
        )
        hand_out(found.model_dump(mode="json", by_alias=True), as_json=as_json, text=text)


app.command("qat", epilog="Example: python -m export qat build/model.onnx --pictures typical --out build")(qat)


@app.command(epilog="Example: python -m export keys --out keys")
def keys(out: Out, as_json: AsJson = False) -> None:
    """Make a pair of keys: release.pem signs bundles, release.pub goes to the stations."""
    with refusals():
        private, public, identity = make_keys(out)
        say(f"keep {private} secret and backed up; who has it can sign for your stations")
        found = {"private": str(private), "public": str(public), "keyid": identity}
        hand_out(found, as_json=as_json, text=f"{public}: key {identity[:16]}")


@app.command(
    epilog="Example: python -m export pack build/new --ckpt build/checkpoint --line new --golden pictures "
    "--name press-3 --version 1 --key keys/release.pem --out build"
)
def pack(
    work: Annotated[
        Path, typer.Argument(help="Folder with model.onnx and its INT8 graphs.", show_default=False)
    ],
    ckpt: Annotated[
        Path, typer.Option("--ckpt", help="That the graph was exported from.", show_default=False)
    ],
    line: Line,
    golden: Annotated[
        Path,
        typer.Option("--golden", help="Held-out pictures to choose golden frames from.", show_default=False),
    ],
    name: Annotated[str, typer.Option("--name", help="Of the bundle.", show_default=False)],
    version: Annotated[str, typer.Option("--version", help="Of the bundle.", show_default=False)],
    out: Out,
    key: Annotated[
        Path | None, typer.Option("--key", help="release.pem; without it the bundle is unsigned.")
    ] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="Pictures looked at, chosen evenly.")] = 256,
    mm_per_px: Annotated[float | None, typer.Option("--mm-per-px", help="Of a frame's pixel.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put graphs, ranges, report, golden frames and card into one signed bundle."""
    with refusals():
        check_folder(out)
        from export.checkpoint import read_checkpoint
        from export.pack import bundle_from_parts

        signer = read_private_key(key) if key else None
        source = read_checkpoint(ckpt, line=line)
        samples = balanced(pictures_in(golden), most)
        with bar("choosing golden frames", len(samples)) as step:
            packed = bundle_from_parts(
                work,
                source,
                samples,
                out,
                name=name,
                version=version,
                created_at=_now(),
                key=signer,
                gates=Gates(),
                mm_per_px=mm_per_px,
                progress=step,
            )
        frames = len(packed.golden.frames)
        if frames < FEWEST:
            size = _mib(packed.golden.picture_bytes)
            few = f"warning: only {frames} golden frames, {size} of pictures: weak evidence; "
            more = f"with {FEWEST} or more a station's proof says more"
            say(few + ("a bundle holds no more of so large frames" if packed.golden.crowded else more))
        for role, why in packed.left_out.items():
            say(f"{role} is left out: {why}")
        for role, why in packed.unwatched.items():
            say(f"the station will not watch {role} for drift: {why}")
        if not packed.signed:
            say("the bundle is unsigned: a station takes it only with trust: unsigned")
        found = {
            "bundle": str(packed.path),
            "id": packed.id,
            "graphs": [entry.role for entry in packed.manifest.files if entry.path.startswith("model/")],
            "left_out": packed.left_out,
            "unwatched": packed.unwatched,
            "golden_frames": frames,
            "golden_bytes": packed.golden.picture_bytes,
            "signed": packed.signed,
        }
        hand_out(found, as_json=as_json, text=f"{packed.path}: {packed.id[:16]}, {frames} golden frames")


@app.command(epilog="Example: python -m export verify build/press-3-1.bundle --trust keys/release.pub")
def verify(
    bundle: BundlePath,
    trust: Trust = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Check the bytes alone, not who signed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the signature and every byte; name the first wrong file."""
    with refusals():
        if bool(trust) == unsigned:
            raise ConfigError(
                "say whom to trust: --trust keys/release.pub, or --unsigned to check the bytes alone"
            )
        manifest = verify_bundle(bundle, trust="unsigned" if unsigned else trust or ())
        identity, files = manifest_id(manifest), len(manifest.files)
        found = {"bundle": str(bundle), "id": identity, "files": files, "signed": not unsigned}
        who = "unsigned" if unsigned else "signed by a trusted key"
        hand_out(found, as_json=as_json, text=f"{bundle}: whole, {files} files, {who}")


@app.command(epilog="Example: python -m export inspect build/press-3-1.bundle")
def inspect(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Show what a bundle holds, without asking who signed it."""
    with refusals():
        opened = open_bundle(bundle, trust="unsigned")
        manifest = opened.manifest
        document = {"id": opened.id, **manifest.model_dump(mode="json", by_alias=True, exclude_none=True)}
        hand_out(document, as_json=as_json, text=_outline(manifest, opened.id))


@app.command(epilog="Example: python -m export diff build/press-3-1.bundle build/press-3-2.bundle")
def diff(
    first: BundlePath,
    second: Annotated[Path, typer.Argument(help="The other one.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show what differs between two bundles."""
    with refusals():
        found = _differences(
            open_bundle(first, trust="unsigned").manifest, open_bundle(second, trust="unsigned").manifest
        )
        text = "\n".join(f"{place}: {old} -> {new}" for place, (old, new) in found.items()) or "no difference"
        hand_out({place: list(pair) for place, pair in found.items()}, as_json=as_json, text=text)


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def _now() -> datetime:
    """The time, or the one that a reproducible build sets."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(timezone.utc).replace(microsecond=0)
    if not epoch.isdigit():
        raise ConfigError(f"SOURCE_DATE_EPOCH is {epoch!r}; give whole seconds since 1970")
    return datetime.fromtimestamp(int(epoch), timezone.utc)


def _outline(manifest: Manifest, identity: str) -> str:
    bands = [
        f"  {band.class_name}: passes below {band.pass_below:.3f}, defective from {band.defective_from:.3f}"
        for band in manifest.thresholds
    ]
    files = [f"  {entry.path}  {entry.bytes} bytes  {entry.role}" for entry in manifest.files]
    spec, own = manifest.preprocess, manifest.calibrated or ()
    watched = [
        f"drift of {one.rendering}: {len(one.mean)} numbers ({one.of}) of {one.n} pictures, changed above "
        f"{one.threshold:.2f}"
        for one in (manifest.drift.watch if manifest.drift is not None else None) or ()
    ]
    return "\n".join(
        [
            f"{manifest.name} {manifest.version}, for the line {manifest.line}",
            f"id {identity}",
            f"made {manifest.created_at:%Y-%m-%d %H:%M} UTC",
            f"input {spec.width} x {spec.height}, {spec.colour}, {spec.resize}; cell {manifest.postprocess.cell_px} px",
            f"thresholds, {manifest.postprocess.how}; guarantee: {manifest.postprocess.guarantee}",
            *bands,
            *(f"thresholds of {one.rendering}, {one.how}; guarantee: {one.guarantee}" for one in own),
            *(watched or ["drift: not watched, as the bundle has no reference"]),
            "files",
            *files,
        ]
    )


def _differences(first: Manifest, second: Manifest) -> dict[str, tuple[Any, Any]]:
    old, new = _flat(first), _flat(second)
    return {
        place: (old.get(place), new.get(place))
        for place in sorted(old.keys() | new.keys())
        if old.get(place) != new.get(place)
    }


def _flat(manifest: Manifest) -> dict[str, Any]:
    whole = manifest.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"files", "drift"})
    flat: dict[str, Any] = {f"file {entry.path}": entry.sha256[:16] for entry in manifest.files}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{place}.{name}" if place else name)
        else:
            flat[place] = value

    walk({**whole, "thresholds": {band["class"]: band for band in whole["thresholds"]}}, "")
    return flat


def main() -> None:
    """Entry point."""
    app(prog_name="python -m export")
