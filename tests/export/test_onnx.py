"""From a checkpoint to a graph: same bytes, no machine in it, and what torch computes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from calibration.exported import read_exported, read_preprocess
from calibration.sessions import open_session
from edge_sdk.documents import sha256_file
from edge_sdk.errors import ConfigError, FormatError
from edge_sdk.vision.preprocess import PreprocessSpec
from export.checkpoint import read_checkpoint
from export.cli import app
from export.exporting import export_checkpoint, graph_bytes
from export.graph import ExportError, onnx_from_torch, outputs_of
from export.parity import check_parity
from tests.export.conftest import CELL, SIDE, SPEC, call
from tests.export.networks import Branching, Residual, Unnamed

Spoiled = Callable[[Callable[[Path], object]], Path]


def edit(**changes: object) -> Callable[[Path], object]:
    """Changes keys of ``checkpoint.json``."""

    def change(folder: Path) -> None:
        path = folder / "checkpoint.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


# -- the graph


def test_inputs_and_outputs_are_named_and_the_batch_alone_is_open(exported: Path) -> None:
    said = read_exported(exported / "export.json")
    assert said.inputs == {"frame": ["N", 3, SIDE, SIDE]}
    assert said.outputs == {"cells": ["N", 1, SIDE // CELL, SIDE // CELL], "feature": ["N", 16]}
    session = open_session(exported / "model.onnx")
    for batch in (1, 2, 7):
        found = session.run(np.zeros((batch, 3, SIDE, SIDE), np.float32))
        assert found["cells"].shape == (batch, 1, SIDE // CELL, SIDE // CELL)
        assert found["feature"].shape == (batch, 16)


def test_the_opset_is_the_one_asked_for_and_the_file_opens_on_older_runtimes(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 19)]
    assert model.ir_version == 10


def test_two_exports_are_the_same_bytes(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    said = export_checkpoint(checkpoint, line="new", out=tmp_path)
    assert said == read_exported(exported / "export.json")
    for name in ("model.onnx", "preprocess.json", "export.json"):
        assert (tmp_path / name).read_bytes() == (exported / name).read_bytes()
    assert sha256_file(tmp_path / "model.onnx") == said.graph_sha256


def test_no_machine_and_no_source_line_is_in_the_file(exported: Path) -> None:
    data = (exported / "model.onnx").read_bytes()
    for trace in (
        str(Path.cwd()),
        sys.prefix,
        str(Path.home()) + "/",
        "site-packages",
        ".py",
        "stack_trace",
        "File ",
    ):
        assert trace.encode() not in data
    model = onnx.load(exported / "model.onnx")
    assert not model.metadata_props and not model.graph.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_batch_norm_is_folded_and_no_node_is_spare(exported: Path) -> None:
    kinds = [node.op_type for node in onnx.load(exported / "model.onnx").graph.node]
    assert sorted(set(kinds)) == ["Add", "Conv", "MaxPool", "ReduceMean", "Relu"]
    assert read_exported(exported / "export.json").nodes == len(kinds) == 16


def test_the_graph_computes_what_torch_computes_at_every_batch(exported: Path) -> None:
    rows = read_exported(exported / "export.json").parity
    assert sorted({row.batch for row in rows}) == [1, 2, 5]
    assert {row.output for row in rows} == {"cells", "feature"}
    assert all(row.greatest_difference <= row.allowed for row in rows)


def test_a_graph_that_computes_something_else_is_found(network: torch.nn.Module, exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.endswith("head.bias"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 0.01, tensor.name))
    line = read_checkpoint_module(exported, network)
    with pytest.raises(
        ExportError, match="^at batch 1 the graph's cells differs from the network's by 0.01, more"
    ):
        check_parity(line, model, SPEC)


def read_checkpoint_module(exported: Path, network: torch.nn.Module) -> torch.nn.Module:
    """The network with the statistics of the line new."""
    state = {
        name: value * 1.1 if name.endswith("running_var") else value
        for name, value in network.state_dict().items()
    }
    module = Residual()
    module.load_state_dict(state)
    return module.eval()


def test_a_network_that_is_not_finite_is_refused(network: torch.nn.Module, exported: Path) -> None:
    broken = Residual()
    broken.load_state_dict({**network.state_dict(), "head.bias": torch.tensor([float("nan")])})
    with pytest.raises(
        ExportError, match="^the network's cells is not finite on ordinary frames; is the checkpoint"
    ):
        check_parity(broken, onnx.load(exported / "model.onnx"), SPEC)


# -- lines


def test_each_line_exports_its_own_statistics(checkpoint: Path, exported: Path) -> None:
    modules = {line: read_checkpoint(checkpoint, line=line).module() for line in ("original", "new")}
    one, other = (modules[line].state_dict()["bn.running_var"] for line in ("original", "new"))
    # the line original has no tensors of its own here, so it is what the weights are
    assert torch.allclose(other, one * 1.1)
    frame = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    with torch.no_grad():
        wanted = modules["new"](torch.from_numpy(frame)).cells.numpy()
    assert np.allclose(open_session(exported / "model.onnx").run(frame)["cells"], wanted, atol=1e-4)
    assert not modules["new"].training


def test_export_json_carries_what_calibration_judges_by(exported: Path, checkpoint: Path) -> None:
    said = read_exported(exported / "export.json")
    assert said.line == "new" and said.classes == ("defect",) and said.cell_px == CELL
    assert said.bands().defective_from.tolist() == [np.float32(0.7)]
    assert (said.weights_sha256, said.line_sha256) == read_checkpoint(checkpoint, line="new").digests()
    assert read_preprocess(exported / "preprocess.json") == SPEC
    assert said.how == "a test" and said.guarantee == "none: a test"


# -- what is refused


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda folder: (folder / "checkpoint.json").unlink(),
            "{folder}/checkpoint.json cannot be read (No such file or directory); is the path right?",
        ),
        (
            lambda folder: (folder / "weights.safetensors").unlink(),
            "{folder}/weights.safetensors is missing; copy the checkpoint whole",
        ),
        (
            lambda folder: (folder / "lines" / "new.json").unlink(),
            "{folder}/lines/new.json cannot be read (No such file or directory); is the path right?",
        ),
        (
            edit(factory="tests.export.nowhere:residual"),
            "{folder}/checkpoint.json: factory tests.export.nowhere:residual cannot be imported "
            "(No module named 'tests.export.nowhere'); is its package installed here?",
        ),
        (
            edit(factory="tests.export.networks:resnet"),
            "{folder}/checkpoint.json: tests.export.networks has no resnet; mind the factory's spelling",
        ),
        (
            edit(arguments={"depth": 3}),
            '{folder}/checkpoint.json: tests.export.networks:residual does not take {{"depth": 3}} '
            "(residual() got an unexpected keyword argument 'depth')",
        ),
        (
            edit(factory="tests.export.networks:no_module", arguments={}),
            "{folder}/checkpoint.json: tests.export.networks:no_module made a int; give one that makes a torch module",
        ),
        (
            edit(arguments={"width": 16, "classes": 1}),
            "{folder}/weights.safetensors is of another architecture than tests.export.networks:residual makes: "
            "blocks.0.bn1.bias is (8,), not (16,); mind the arguments in checkpoint.json",
        ),
        (
            edit(factory="tests.export.networks:branching", arguments={}),
            "{folder}/weights.safetensors is of another architecture than tests.export.networks:branching makes: "
            "the network has no blocks.0.bn1.bias and 31 more; head.weight is (1, 16, 1, 1), not (1, 3, 8, 8); "
            "mind the arguments in checkpoint.json",
        ),
        (
            lambda folder: (folder / "weights.safetensors").write_bytes(b"\x80\x04pickle"),
            "{folder}/weights.safetensors is no safetensors file (",
        ),
        (
            edit(classes=["crack", "dent"]),
            "{folder}/lines/new.json has thresholds for defect, but the classes are crack, dent; "
            "give each class its own, in this order",
        ),
        (
            edit(cell_px=16),
            "the network gives 8 x 8 cells for 64 x 64 pixels, but with cell_px 16 they must be 4 x 4; "
            "mind cell_px in checkpoint.json",
        ),
        (
            edit(schema="checkpoint/2"),
            "{folder}/checkpoint.json: schema is \"checkpoint/2\"; give 'checkpoint/1'",
        ),
        (
            lambda folder: save_file({"stem.scale": torch.ones(1)}, folder / "lines" / "new.safetensors"),
            "{folder}/lines/new.safetensors overrides stem.scale, which weights.safetensors does not have; "
            "it is of another network",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_exported_is_one_sentence(
    spoiled: Spoiled, tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    folder = spoiled(spoil)
    out = tmp_path / "out"
    code, stdout, talk = call(app, "onnx", folder, "--line", "new", "--out", out)
    assert code in (1, 2) and not stdout
    assert talk.rstrip().splitlines()[-1].startswith(sentence.format(folder=folder)), talk
    assert "Traceback" not in talk
    assert not out.exists(), "nothing half-written"


def test_a_line_that_is_not_there_is_asked_wrongly(checkpoint: Path, tmp_path: Path) -> None:
    code, _, talk = call(app, "onnx", checkpoint, "--line", "press-9", "--out", tmp_path)
    assert (code, talk) == (2, f"{checkpoint} has no line press-9; it has original, new\n")
    with pytest.raises(
        FormatError, match=f"^there is no checkpoint {tmp_path / 'none'}; give the folder that"
    ):
        read_checkpoint(tmp_path / "none", line="new")


@pytest.mark.parametrize("opset", [13, 17])
def test_an_opset_that_torch_silently_raises_is_refused(opset: int) -> None:
    with pytest.raises(
        ExportError, match=f"^opset {opset} was asked for, but torch wrote onnx 18; ask for 18"
    ):
        onnx_from_torch(Residual(), SPEC, opset=opset)


def test_a_network_that_looks_at_its_data_first_is_refused() -> None:
    with pytest.raises(
        ExportError, match=r"^torch cannot export the network \(.*\); write its forward without bran"
    ):
        onnx_from_torch(Branching(), SPEC)


def test_outputs_without_a_known_name_are_refused() -> None:
    with pytest.raises(
        ExportError, match="^the network's outputs are logits; give at least one of cells, novelty, bo"
    ):
        outputs_of(Unnamed(), SPEC)


def test_a_network_that_takes_whole_numbers_is_told_what_it_gets() -> None:
    class Looking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(256, 4)

        def forward(self, frame: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.table(frame[:, 0]).permute(0, 3, 1, 2)
            return found

    with pytest.raises(ExportError, match=r"64\) float32 .*, and let forward convert what it needs otherwise$"):
        outputs_of(Looking(), SPEC)


def test_a_size_the_network_does_not_take_is_refused() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, frame: torch.Tensor) -> torch.Tensor:
            return frame.reshape(2, 3, 5)

    with pytest.raises(
        ExportError, match=r"^the network does not take frames of \(2, 3, 64, 64\) float32 \(RuntimeError: "
    ):
        outputs_of(Fixed(), SPEC)


@pytest.mark.parametrize("kind", ["tensor", "tuple", "dict", "named"])
def test_whatever_form_the_outputs_have_they_get_their_names(kind: str) -> None:
    class Any(torch.nn.Module):
        def forward(self, frame: torch.Tensor) -> object:
            cells, feature = frame[:, :1, ::8, ::8], frame.mean((2, 3))
            if kind == "tensor":
                return cells
            if kind == "tuple":
                return cells, feature
            if kind == "dict":
                return {"feature": feature, "cells": cells}
            from tests.export.networks import Outputs

            return Outputs(cells, feature)

    names = ["cells"] if kind == "tensor" else ["cells", "feature"]
    assert list(outputs_of(Any(), PreprocessSpec(width=32, height=32))) == names


def test_no_code_runs_from_a_pickle(spoiled: Spoiled, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return Path.touch, (marker,)  # type: ignore[return-value]

    folder = spoiled(lambda where: torch.save({"x": Payload()}, where / "weights.safetensors"))
    with pytest.raises(FormatError, match="weights.safetensors is no safetensors file"):
        read_checkpoint(folder, line="new").module()
    assert not marker.exists()


def test_the_command_is_quiet_on_the_terminal(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "export",
        "onnx",
        str(checkpoint),
        "--line",
        "original",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["line"] == "original"
    assert done.stderr.splitlines() == [
        "exporting tests.export.networks:residual for the line original, opset 19",
        "comparing with torch at batch 1, 2, 5",
    ]


def test_a_factory_may_refuse_in_its_own_words(spoiled: Spoiled) -> None:
    folder = spoiled(edit(arguments={"width": 8, "classes": "two"}))
    with pytest.raises(ConfigError, match=r'does not take \{"width": 8, "classes": "two"\}'):
        read_checkpoint(folder, line="new").module()


def test_weights_are_read_as_they_were_written(checkpoint: Path, network: torch.nn.Module) -> None:
    state = load_file(checkpoint / "weights.safetensors")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_equal_models_are_equal_bytes(exported: Path) -> None:
    data = (exported / "model.onnx").read_bytes()
    assert graph_bytes(onnx.load_model_from_string(data)) == data
