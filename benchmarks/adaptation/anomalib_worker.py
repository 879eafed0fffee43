"""Runs in the environment of anomalib, not in ours: fits its models and judges with them, asked line by line.

A request is one JSON object a line on stdin, an answer one on stdout.  Pictures come as ``.npy`` of what our own
preprocessing made, so both see the same numbers.  ``scorers_peer`` is the other side.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["Models", "main"]

TRUNK = "edge_sdk_mobilenetv2"
LAYERS = {"padim": [1, 2, 3], "patchcore": [2, 3], "stfpm": [1, 2, 3]}
"""Of the trunk: strides 4, 8, 16, and 8, 16, where anomalib's defaults look at its ResNets."""
BATCH = 8
_kept: list[Any] = []


class Models:
    """The peer's models, by the names that the asking side gave them."""

    def __init__(self) -> None:
        self._models: dict[str, nn.Module] = {}

    def hello(self, *, weights: str) -> dict[str, Any]:
        """Import everything, and know the trunk by its weights; the versions."""
        torch.set_num_threads(1)
        _without_compiled_torchvision()
        _register_trunk(Path(weights))
        return {name: metadata.version(name) for name in ("anomalib", "timm", "torch")}

    def fit(self, *, name: str, method: str, frames: str, seed: int, **options: Any) -> dict[str, Any]:
        """Fit ``method`` on normals; seconds and megabytes of what it needs to judge."""
        torch.manual_seed(seed)
        normals = np.load(frames, mmap_mode="r")
        start = time.perf_counter()
        makers: dict[str, Callable[..., nn.Module]]
        makers = {"padim": _padim, "patchcore": _patchcore, "stfpm": _stfpm, "defaults": _defaults}
        model = makers[method](normals, **options)
        took = time.perf_counter() - start
        self._models[name] = model.eval()
        tensors = [one for one in model.state_dict().values() if isinstance(one, torch.Tensor)]
        return {"fit_s": took, "mb": sum(one.numel() * one.element_size() for one in tensors) / 1e6}

    def judge(self, *, name: str, frames: str, out: str) -> dict[str, Any]:
        """Scores ``(N,)`` and maps ``(N, H, W)`` of pictures, into an ``.npz``."""
        pictures = np.load(frames, mmap_mode="r")
        scores, maps = [], []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH):
                found = self._models[name](_tensor(pictures[start : start + BATCH]))
                scores.append(found.pred_score.reshape(-1).numpy())
                maps.append(found.anomaly_map.reshape(-1, *pictures.shape[2:]).numpy())
        np.savez(out, scores=np.concatenate(scores), maps=np.concatenate(maps))
        return {}

    def time(self, *, name: str, frames: str) -> dict[str, Any]:
        """Milliseconds of one picture, the first."""
        frame = _tensor(np.load(frames, mmap_mode="r")[:1])
        model = self._models[name]
        with torch.inference_mode():
            start = time.perf_counter()
            model(frame)
            return {"ms": 1e3 * (time.perf_counter() - start)}


def _padim(normals: Any, **_: Any) -> nn.Module:
    from anomalib.models.image.padim.torch_model import PadimModel

    model: Any = PadimModel(backbone=TRUNK, layers=LAYERS["padim"], pre_trained=True, n_features=100)
    _embed(model, normals)
    model.fit()
    return model  # type: ignore[no-any-return]


def _patchcore(normals: Any, *, ratio: float) -> nn.Module:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model: Any = PatchcoreModel(backbone=TRUNK, layers=LAYERS["patchcore"], pre_trained=True)
    _embed(model, normals)
    model.subsample_embedding(ratio)
    return model  # type: ignore[no-any-return]


def _defaults(normals: Any, *, pictures: int, ratio: float = 0.1) -> nn.Module:
    """PatchCore as it comes, with random weights and its bank filled up by the first normals: for its time alone."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model: Any = PatchcoreModel(backbone="wide_resnet50_2", layers=["layer2", "layer3"], pre_trained=False)
    wanted = round(ratio * pictures * normals.shape[2] * normals.shape[3] / 64)
    model.train()
    with torch.no_grad():
        while sum(len(one) for one in model.embedding_store) < wanted:
            model(_tensor(normals[[len(model.embedding_store) % len(normals)]]))
    model.memory_bank = torch.vstack(model.embedding_store)[:wanted].clone()
    model.embedding_store.clear()
    return model  # type: ignore[no-any-return]


def _stfpm(normals: Any, *, shown: int, batch: int = 32) -> nn.Module:
    """With its loss and its optimiser's settings, until so many pictures were shown."""
    from anomalib.models.image.stfpm.loss import STFPMLoss
    from anomalib.models.image.stfpm.torch_model import STFPMModel

    model: Any = STFPMModel(backbone=TRUNK, layers=LAYERS["stfpm"])
    loss: Any = STFPMLoss()
    steps = torch.optim.SGD(model.student_model.parameters(), lr=0.4, momentum=0.9, dampening=0.0, weight_decay=1e-3)
    order: list[int] = []
    model.train()
    for _ in range(max(1, round(shown / batch))):
        while len(order) < batch:
            order += torch.randperm(len(normals)).tolist()
        some, order = order[:batch], order[batch:]
        model.teacher_model.eval()
        teacher, student = model(_tensor(normals[np.sort(some)]))
        steps.zero_grad()
        loss(teacher, student).backward()
        steps.step()
    return model  # type: ignore[no-any-return]


def _embed(model: Any, normals: Any) -> None:
    model.train()
    model.feature_extractor.eval()
    with torch.no_grad():
        for start in range(0, len(normals), BATCH):
            model(_tensor(normals[start : start + BATCH]))


def _tensor(frames: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(frames, np.float32))


def _without_compiled_torchvision() -> None:
    """A torchvision built for CUDA does not load its operators beside a torch without; importing it asks for two."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # forgotten with its object otherwise


def _register_trunk(weights: Path) -> None:
    """Make our MobileNetV2 known to timm, so that anomalib takes it by name; untrained where it asks for that."""
    import timm
    from safetensors.torch import load_file
    from timm.models import register_model

    def edge_sdk_mobilenetv2(pretrained: bool = False, **options: Any) -> nn.Module:
        made: nn.Module = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", **options)
        if pretrained:
            missing = made.load_state_dict(load_file(weights), strict=False).missing_keys
            assert not missing, missing
        return made

    edge_sdk_mobilenetv2.__module__ = "timm.models.efficientnet"
    register_model(edge_sdk_mobilenetv2)


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    models = Models()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = getattr(models, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001  the other side says it
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
