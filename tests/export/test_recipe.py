"""Any torch module, named in a recipe, becomes a checkpoint, a graph and a bundle."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from calibration.collect import check_size
from calibration.exported import read_exported, read_preprocess
from calibration.graphs import Graph
from calibration.sessions import open_session
from edge_sdk.bundles.archive import open_bundle
from edge_sdk.documents import sha256_file
from edge_sdk.errors import FormatError
from edge_sdk.vision.preprocess import PreprocessSpec, fitted, preprocess, tiled
from edge_sdk.vision.tiles import outputs_of_frame
from export import exporters, exporting
from export.checkpoint import read_checkpoint
from export.cli import app
from export.exporting import graph_bytes
from export.fused import check_fused, with_preprocessing
from export.graph import ExportError, Made, graph_of, kept_in_float, onnx_from_torch, unrounded
from export.parity import check_parity
from export.recipe import checkpoint_from_recipe
from tests.export.conftest import SPEC, call
from tests.export.networks import Branching, Eigen, recurring, residual

RECIPE = """\
schema: module/1
module: tests.export.networks:recurring
preprocess: {width: 64, height: 48}
thresholds: [{class: dent, boundary: 0.01, pass_below: 0.01, defective_from: 0.01}]
classes: [dent]
"""


LINE_OF_THRESHOLDS = "thresholds: [{class: dent, boundary: 0.01, pass_below: 0.01, defective_from: 0.01}]\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def made() -> Made:
    """The residual network, written once."""
    return graph_of(residual().eval(), SPEC)


def done(*words: object) -> tuple[str, str]:
    code, stdout, talk = call(app, *words)
    assert code == 0, talk
    return stdout, talk


# -- the recipe


def test_a_recipe_gives_a_graph_a_checkpoint_and_a_bundle(recipe: Path, tmp_path: Path, others: Path) -> None:
    out = tmp_path / "out"
    _, talk = done("onnx", recipe, "--out", out)
    assert "note: torch.export does not follow the network (" in talk and "so it was traced" in talk
    said = read_exported(out / "export.json")
    assert (said.way, said.cell_px, said.line, said.classes) == ("torchscript", 8, "original", ("dent",))
    assert said.note is not None and "rrelu" in said.note
    assert said.inputs == {"frame": ["N", 3, 48, 64]} and said.outputs["cells"] == ["N", 1, 6, 8]
    assert said.guarantee == "none: the recipe gives them"
    assert sorted({row.batch for row in said.parity}) == [1, 2, 5]
    frame = np.random.default_rng(0).normal(size=(3, 3, 48, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = recurring()(torch.from_numpy(frame))["cells"].numpy()
    np.testing.assert_allclose(open_session(out / "model.onnx").run(frame)["cells"], wanted, atol=1e-5)
    done("pack", out, "--ckpt", out / "checkpoint", "--line", "original", "--golden", others, "--name", "any",
         "--version", "1", "--out", tmp_path)  # fmt: skip
    assert open_bundle(tmp_path / "any-1.bundle", trust="unsigned").manifest.classes == ("dent",)


def test_a_recipes_weights_and_thresholds_are_those_it_names(recipe: Path, tmp_path: Path) -> None:
    state = {name: tensor * 1.5 for name, tensor in residual().state_dict().items() if tensor.is_floating_point()}
    state |= {name: tensor for name, tensor in residual().state_dict().items() if name not in state}
    save_file(state, tmp_path / "own.safetensors")
    recipe.write_text(
        RECIPE.replace("recurring", "residual").replace("48", "64").replace(LINE_OF_THRESHOLDS, "")
        + "weights: own.safetensors\nline: press-3\narguments: {width: 8}\n"
    )
    with checkpoint_from_recipe(recipe, tmp_path / "out") as made:
        assert made.line == "press-3" and made.file.cell_px == 8
    assert [band.defective_from for band in made.said.thresholds] == [0.8]
    assert made.said.guarantee == "none: the recipe says nothing of thresholds"
    module = read_checkpoint(tmp_path / "out" / "checkpoint", line="press-3").module()
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_a_traced_network_is_the_same_bytes_twice_and_names_no_machine() -> None:
    spec = PreprocessSpec(width=64, height=48)
    one, other = (graph_bytes(graph_of(recurring(), spec).model) for _ in range(2))
    assert one == other
    for trace in (str(Path.cwd()), str(Path(torch.__file__).parent), ".py"):
        assert trace.encode() not in one
    nodes = onnx.load_model_from_string(one).graph.node
    assert [node.op_type for node in nodes] == ["Conv", "LeakyRelu", "Conv", "ReduceMean"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("recurring", "nowhere"), "{recipe}: tests.export.networks has no nowhere; mind the factory's spelling"),
        (("tests.export.networks", "no.such"), "{recipe}: factory no.such:recurring cannot be imported ("),
        (("recurring", "no_module"), "{recipe}: tests.export.networks:no_module made a int; give one that makes a "),
        (("[dent]", "[hole]"), "{recipe}:1: thresholds are for dent but the classes are hole; give each class its own"),
        ((f"{LINE_OF_THRESHOLDS}classes: [dent]", "classes: [dent, hole]"), "the network gives 1 classes but the ch"),
        (("width: 64", "wide: 64"), "{recipe}:3: "),
        (("classes", "klasses"), "{recipe}:5: no setting named klasses; did you mean classes?"),
        (("[dent]", "[dent]\nweights: none.st"), "{recipe}: weights is {folder}/none.st, which is no file; give a s"),
        (("recurring", "unnamed"), "the network's outputs are logits; give at least one of cells, novelty, boxes, and"),
    ],
)
def test_a_recipe_that_cannot_be_exported_is_one_sentence(
    recipe: Path, tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    recipe.write_text(RECIPE.replace(*change))
    code, stdout, talk = call(app, "onnx", recipe, "--out", tmp_path / "out")
    assert code in (1, 2) and not stdout and "Traceback" not in talk
    assert talk.rstrip().splitlines()[-1].startswith(sentence.format(recipe=recipe, folder=tmp_path)), talk
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_cannot_be_exported_leaves_the_older_checkpoint_and_graph(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done("onnx", recipe, "--out", out)
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    recipe.write_text(RECIPE.replace("recurring", "branching"))
    code, _, talk = call(app, "onnx", recipe, "--out", out)
    assert code == 1 and "Traceback" not in talk, talk
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint", "export.json", "model.onnx", "preprocess.json"]


def test_a_recipe_for_another_line_and_a_checkpoint_without_one_are_asked_wrongly(
    recipe: Path, checkpoint: Path, tmp_path: Path
) -> None:
    code, _, talk = call(app, "onnx", recipe, "--line", "new", "--out", tmp_path / "out")
    assert (code, talk.splitlines()[-1]) == (2, f"{recipe} is for the line original, not new; leave --line out")
    code, _, talk = call(app, "onnx", checkpoint, "--out", tmp_path / "out")
    assert (code, talk) == (2, "--line is missing; name the line of the checkpoint that the model is for\n")


# -- the second way


def test_tracing_computes_what_torch_computes_with_as_few_nodes(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> object:
        raise RuntimeError("not today")

    network = residual().eval()
    monkeypatch.setattr(exporters, "_by_dynamo", fails)
    second = graph_of(network, SPEC)
    assert (made.way, second.way) == ("dynamo", "torchscript")
    assert second.note == "torch.export does not follow the network (RuntimeError: not today), so it was traced"
    assert len(second.model.graph.node) == len(made.model.graph.node)
    assert {row.batch for row in check_parity(network, second.model, SPEC)} == {1, 2, 5}
    with pytest.raises(ExportError, match="write its forward without branches that depend on the data$"):
        graph_of(Branching(), SPEC)


def test_an_operation_that_onnx_lacks_is_named_and_nothing_else_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"'aten::linalg_eigvals' .*; replace that operation by others, or leave it"):
        graph_of(Eigen(), SPEC)
    assert "Torch IR graph" not in "".join(capfd.readouterr())


# -- a fixed batch


def test_a_graph_may_take_one_number_of_frames(checkpoint: Path, tmp_path: Path) -> None:
    words = ("onnx", checkpoint, "--line", "new", "--out", tmp_path, "--fixed-batch", "--batch", "1", "--json")
    said = json.loads(done(*words)[0])
    assert said["inputs"] == {"frame": [1, 3, 64, 64]} and {row["batch"] for row in said["parity"]} == {1}
    traced = graph_of(recurring(), SPEC, batch=3)
    assert [dim.dim_value for dim in traced.model.graph.input[0].type.tensor_type.shape.dim] == [3, 3, 64, 64]
    assert {row.batch for row in check_parity(recurring(), traced.model, SPEC, batches=(3,))} == {3}


# -- preprocessing inside


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_preprocessing_inside_is_bit_for_bit_that_outside_also_at_the_border(made: Made, colour: str) -> None:
    spec = PreprocessSpec(width=64, height=64, colour=colour, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))  # type: ignore[arg-type]
    model = made.model
    fused = with_preprocessing(model, spec)
    taken = fused.graph.input[0].type.tensor_type
    assert taken.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_param or dim.dim_value for dim in taken.shape.dim] == ["N", 64, 64, 3]
    assert len(fused.graph.node) == len(model.graph.node) + (5 if colour == "rgb" else 4)
    assert check_fused(model, fused, spec) == 0
    plain, inside = open_session(model), open_session(fused)
    random = np.random.default_rng(0)
    for height, width in ((64, 64), (40, 90), (90, 31)):
        picture = random.integers(0, 256, (height, width, 3), np.uint8)
        wanted = plain.run(preprocess(picture, spec))
        found = inside.run(fitted(picture, spec)[None])  # type: ignore[arg-type]
        for name, reference in wanted.items():
            np.testing.assert_array_equal(found[name], reference)


def test_another_preprocessing_inside_is_found(made: Made) -> None:
    wrong = with_preprocessing(made.model, PreprocessSpec(width=64, height=64, mean=(0.4, 0.4, 0.4)))
    with pytest.raises(ExportError, match=r"^with its preprocessing inside the graph answers .* apart; the export is"):
        check_fused(made.model, wrong, SPEC)


def test_a_graph_with_its_preprocessing_inside_is_not_calibrated(made: Made) -> None:
    fused = Graph(with_preprocessing(made.model, SPEC), "")
    with pytest.raises(FormatError, match=r"^the graph takes uint8 pictures, its .* inside; give model\.onnx, "):
        check_size(fused, SPEC)


def test_the_command_writes_the_fused_graph_and_takes_away_an_older_one(
    checkpoint: Path, tmp_path: Path, written_once: None
) -> None:
    words = ("onnx", checkpoint, "--line", "original", "--out", tmp_path)
    done(*words, "--fused")
    said = read_exported(tmp_path / "export.json")
    model = onnx.load(tmp_path / "model.fused.onnx")
    assert said.fused_sha256 == sha256_file(tmp_path / "model.fused.onnx")
    with pytest.raises(ExportError, match="^preprocessing goes into a graph that takes one float32 input named frame"):
        with_preprocessing(model, SPEC)
    done(*words)
    assert not (tmp_path / "model.fused.onnx").exists()
    assert read_exported(tmp_path / "export.json").fused_sha256 is None


# -- tiles


def test_parity_is_looked_at_on_a_frame_of_several_tiles(network: torch.nn.Module) -> None:
    spec = PreprocessSpec(width=64, height=64, tile_overlap_px=32)
    model = onnx_from_torch(network, spec)
    rows = check_parity(network, model, spec)
    assert [row.batch for row in rows] == [1, 1, 2, 2, 5, 5, 1, 1]
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    assert outputs_of_frame(image, spec, open_session(model).run)["cells"].shape == (1, 1, 16, 16)


class Anchors(torch.nn.Module):
    """Boxes at fixed places of the input, the last at ``edge``; scores from the frame."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        corners = [[20.0, 20.0, 32.0, 32.0], [20.0, edge - 6, 32.0, edge + 6]]
        self.register_buffer("corners", torch.tensor([corners]))

    def forward(self, frame: torch.Tensor) -> dict[str, torch.Tensor]:
        bright = frame.mean(dim=(1, 2, 3))[:, None, None]
        return {"boxes": self.corners + 0 * bright, "scores": bright.expand(-1, 2, 1) - 2}


def test_a_box_that_rounding_takes_across_a_tiles_border_is_no_wrong_export() -> None:
    spec = PreprocessSpec(width=64, height=64, tile_overlap_px=32)
    border = tiled(spec, 128, 128)[0].cores()[1] + 32 / 8
    graph = onnx_from_torch(Anchors(border + 1e-4), spec)
    assert len(check_parity(Anchors(border - 1e-4), graph, spec, batches=(1,))) == 4
    with pytest.raises(ExportError, match=r"^at batch 1 the graph's boxes differs from the network's by 0\.0[12]"):
        check_parity(Anchors(border - 0.01), graph, spec, batches=(1,))


# -- the disk


@pytest.mark.parametrize("file", [0, 1, 2])
def test_a_full_disk_leaves_the_older_export_whole(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_once: None, file: int
) -> None:
    words = ("onnx", checkpoint, "--line", "original", "--out", tmp_path)
    done(*words)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", full_after(file))
    code, stdout, talk = call(app, *words, "--batch", "3")
    assert code == 1 and not stdout
    assert talk.splitlines()[-1] == "No space left on device; nothing half-written is left, mend it and run again"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_preprocess(tmp_path / "preprocess.json") == SPEC


@pytest.fixture
def written_once(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint's graph is not written by torch again."""
    if not KEPT:
        KEPT.append(graph_of(network, SPEC))
    monkeypatch.setattr(exporting, "graph_of", lambda *_, **__: KEPT[0])


KEPT: list[Made] = []


def full_after(files: int) -> Callable[[int], None]:
    """An ``fsync`` that finds the disk full after so many files."""
    left = [files]

    def fsync(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


def test_what_is_to_stay_in_float_is_not_lost_by_tracing() -> None:
    network = recurring()
    model = graph_of(network, SPEC).model
    network.keep_float = ("head", "leaky")  # type: ignore[assignment]  # which has no weights to keep
    assert [model.graph.node[2].name] == list(kept_in_float(network, model))
    network.keep_float = ("stem",)  # type: ignore[assignment]
    with pytest.raises(ExportError, match="^the network keeps stem in float, but no weight of the graph is called so;"):
        kept_in_float(network, model)


@pytest.mark.parametrize(
    ("said", "name", "near"),
    [
        ("keep_float", "haed", "head"),
        ("keep_float_first", "leaki", "leaky, head"),
        ("keep_float", "z", "stem, bn, leaky"),
    ],
)
def test_a_part_that_the_network_does_not_have_is_named_with_the_nearest(said: str, name: str, near: str) -> None:
    network = recurring()
    setattr(network, said, ("head", name))
    with pytest.raises(ExportError) as caught:
        kept_in_float(network, onnx.ModelProto())
    assert str(caught.value) == (
        f"the network's {said} names {name}, which it does not have; give names of its submodules, e.g. {near}"
    )


def test_a_network_that_names_all_of_itself_is_told_that_nothing_is_rounded() -> None:
    network = recurring()
    model = graph_of(network, SPEC).model
    everything = tuple(node.name for node in model.graph.node)
    said = unrounded(network, model, everything)
    assert said.endswith("the network's keep_float names all of it; name less to change that")
    assert unrounded(network, model, everything[-1:]) == unrounded(network, model, ()) == ""
