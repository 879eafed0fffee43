"""ONNX operations in torch, as far as networks of this trade use them, so that a graph can be trained.

A function takes the node's inputs, in order, and its attributes.  What it does not do as ONNX says, it refuses: a graph
that computed something else would be trained to be something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from torch import Tensor

from edge_sdk.errors import FormatError

__all__ = ["OPERATIONS", "Attributes", "Operation"]

Attributes = Mapping[str, Any]
Operation = Callable[[Sequence[Any], Attributes], Any]
"""From inputs (none where one is left out) and attributes to a tensor, or a tuple of them."""

_TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.BOOL: torch.bool,
}


class _Otherwise(FormatError):
    """An attribute asks for what is not here."""


def _convolution(given: Sequence[Any], said: Attributes) -> Tensor:
    values, weight, bias = (*given, None)[:3]
    kernel, rank = weight.shape[2:], weight.ndim - 2
    values = _padded(values, _pads(said, rank), 0.0)
    found: Tensor = (F.conv1d, F.conv2d, F.conv3d)[rank - 1](
        values, weight, bias,
        stride=tuple(said.get("strides", (1,) * len(kernel))),
        dilation=tuple(said.get("dilations", (1,) * len(kernel))),
        groups=said.get("group", 1),
    )  # fmt: skip
    return found


def _transposed(given: Sequence[Any], said: Attributes) -> Tensor:
    values, weight, bias = (*given, None)[:3]
    rank = weight.ndim - 2
    pads = _pads(said, rank)
    if said.get("output_shape") or pads[:rank] != pads[rank:]:
        raise _Otherwise("output_shape or uneven pads")
    found: Tensor = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1](
        values, weight, bias,
        stride=tuple(said.get("strides", (1,) * rank)),
        padding=tuple(pads[:rank]),
        output_padding=tuple(said.get("output_padding", (0,) * rank)),
        groups=said.get("group", 1),
        dilation=tuple(said.get("dilations", (1,) * rank)),
    )  # fmt: skip
    return found


def _gemm(given: Sequence[Any], said: Attributes) -> Tensor:
    a, b, c = (*given, None)[:3]
    made: Tensor = said.get("alpha", 1.0) * ((a.mT if said.get("transA") else a) @ (b.mT if said.get("transB") else b))
    return made if c is None else made + said.get("beta", 1.0) * c


def _max_pool(given: Sequence[Any], said: Attributes) -> Tensor:
    kernel = said["kernel_shape"]
    if said.get("storage_order") or len(kernel) != 2:
        raise _Otherwise("storage_order, or a kernel that is not of two dimensions")
    return F.max_pool2d(
        _padded(given[0], _pads(said, 2), float("-inf")),
        kernel,
        said.get("strides", (1, 1)),
        dilation=said.get("dilations", (1, 1)),
        ceil_mode=bool(said.get("ceil_mode", 0)),
    )


def _average_pool(given: Sequence[Any], said: Attributes) -> Tensor:
    kernel, pads = said["kernel_shape"], _pads(said, 2)
    if len(kernel) != 2 or pads[:2] != pads[2:] or any(one != 1 for one in said.get("dilations", ())):
        raise _Otherwise("uneven pads, dilations, or a kernel that is not of two dimensions")
    return F.avg_pool2d(
        given[0],
        kernel,
        said.get("strides", (1, 1)),
        pads[:2],
        ceil_mode=bool(said.get("ceil_mode", 0)),
        count_include_pad=bool(said.get("count_include_pad", 0)),
    )


def _pads(said: Attributes, rank: int) -> list[int]:
    """Before each dimension, then behind each."""
    if said.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise _Otherwise(f"auto_pad {said['auto_pad'].decode()}")
    return list(said.get("pads", [0] * 2 * rank))


def _padded(values: Tensor, pads: Sequence[int], filling: float) -> Tensor:
    if not any(pads):
        return values
    rank = len(pads) // 2
    return F.pad(values, [pad for n in reversed(range(rank)) for pad in (pads[n], pads[rank + n])], value=filling)


def _pad(given: Sequence[Any], said: Attributes) -> Tensor:
    values, pads, filling, axes = (*given, None, None)[:4]
    mode = said.get("mode", b"constant").decode()
    if axes is not None or mode not in ("constant", "reflect", "edge"):
        raise _Otherwise("axes, or a mode other than constant, reflect and edge")
    told = pads.tolist()
    if mode == "constant":
        return _padded(values, told, 0.0 if filling is None else float(filling))
    if any(told[:2] + told[values.ndim : values.ndim + 2]):
        raise _Otherwise(f"mode {mode} over frames or channels")
    rank = values.ndim
    sides = [pad for n in reversed(range(2, rank)) for pad in (told[n], told[rank + n])]
    return F.pad(values, sides, mode="replicate" if mode == "edge" else mode)


def _resize(given: Sequence[Any], said: Attributes) -> Tensor:
    values, _, scales, sizes = (*given, None, None, None)[:4]
    if values.ndim != 4 or said.get("axes") or said.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise _Otherwise("other axes or another policy than stretch")
    if sizes is not None:
        size = sizes.tolist()
    else:
        size = [int(np.floor(n * scale)) for n, scale in zip(values.shape, scales.tolist(), strict=True)]
    factors = [new / old for new, old in zip(size, values.shape, strict=True)]
    if factors[:2] != [1, 1] or (scales is not None and not np.allclose(factors, scales.tolist())):
        raise _Otherwise("factors that give no whole number of pixels")
    mode = said.get("mode", b"nearest").decode()
    where = said.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "nearest":
        floors = where == "asymmetric" and said.get("nearest_mode", b"round_prefer_floor") == b"floor"
        if not floors and any(factor != int(factor) for factor in factors):
            raise _Otherwise(f"mode nearest with {where} and factors {factors[2]:g}, {factors[3]:g}")
        return F.interpolate(values, size[2:], mode="nearest")
    if mode != "linear" or where not in ("half_pixel", "pytorch_half_pixel", "align_corners") or said.get("antialias"):
        raise _Otherwise(f"mode {mode} with {where}")
    return F.interpolate(values, size[2:], mode="bilinear", align_corners=where == "align_corners")


def _axes(given: Sequence[Any], said: Attributes, at: int = 1) -> list[int] | None:
    """They were an attribute once, and are an input now."""
    if len(given) > at and given[at] is not None:
        return [int(axis) for axis in given[at].tolist()]
    return list(said["axes"]) if "axes" in said else None


def _reduced(reduce: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operation:
    def operation(given: Sequence[Any], said: Attributes) -> Tensor:
        axes = _axes(given, said)
        if not axes:
            if said.get("noop_with_empty_axes"):
                return given[0]  # type: ignore[no-any-return]
            axes = list(range(given[0].ndim))
        return reduce(given[0], tuple(axes), bool(said.get("keepdims", 1)))

    return operation


def _reshape(given: Sequence[Any], said: Attributes) -> Tensor:
    shape = given[1].tolist()
    if not said.get("allowzero"):
        shape = [given[0].shape[n] if size == 0 else size for n, size in enumerate(shape)]
    return given[0].reshape(shape)  # type: ignore[no-any-return]


def _flatten(given: Sequence[Any], said: Attributes) -> Tensor:
    axis = said.get("axis", 1) % (given[0].ndim + 1)
    return given[0].reshape(int(np.prod(given[0].shape[:axis])), -1)  # type: ignore[no-any-return]


def _squeeze(given: Sequence[Any], said: Attributes) -> Tensor:
    axes = _axes(given, said)
    return torch.squeeze(given[0]) if axes is None else torch.squeeze(given[0], tuple(axes))


def _unsqueeze(given: Sequence[Any], said: Attributes) -> Tensor:
    axes = _axes(given, said) or []
    found = given[0]
    rank = found.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        found = found.unsqueeze(axis)
    return found  # type: ignore[no-any-return]


def _slice(given: Sequence[Any], said: Attributes) -> Tensor:
    values, starts, ends, axes, steps = (*given, None, None)[:5]
    found = values
    over = range(len(starts)) if axes is None else axes.tolist()
    by = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(over, starts.tolist(), ends.tolist(), by, strict=True):
        places = range(found.shape[axis])[slice(start, end, step)]
        found = found.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=found.device))
    return found  # type: ignore[no-any-return]


def _gather(given: Sequence[Any], said: Attributes) -> Tensor:
    values, places = given
    axis = said.get("axis", 0) % values.ndim
    flat = (places.reshape(-1).to(torch.int64) % values.shape[axis]).to(values.device)
    shape = (*values.shape[:axis], *places.shape, *values.shape[axis + 1 :])
    return values.index_select(axis, flat).reshape(shape)  # type: ignore[no-any-return]


def _split(given: Sequence[Any], said: Attributes) -> tuple[Tensor, ...]:
    axis = said.get("axis", 0)
    if len(given) > 1 and given[1] is not None:
        return torch.split(given[0], given[1].tolist(), axis)
    if "num_outputs" not in said:
        raise _Otherwise("neither sizes nor their number")
    return torch.split(given[0], -(-given[0].shape[axis] // said["num_outputs"]), axis)


def _clip(given: Sequence[Any], said: Attributes) -> Tensor:
    values, least, most = (*given, None, None)[:3]
    return torch.clamp(values, None if least is None else least.item(), None if most is None else most.item())


def _layer_norm(given: Sequence[Any], said: Attributes) -> Tensor:
    values, scale, bias = (*given, None)[:3]
    shape = values.shape[said.get("axis", -1) % values.ndim :]
    return F.layer_norm(values, shape, scale, bias, said.get("epsilon", 1e-5))


def _constant(given: Sequence[Any], said: Attributes) -> Tensor:
    if "value" in said:
        return torch.from_numpy(numpy_helper.to_array(said["value"]).copy())
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if name in said:
            return torch.tensor(said[name], dtype=torch.float32 if "float" in name else torch.int64)
    raise _Otherwise("a constant that is neither number nor tensor")


def _filled(given: Sequence[Any], said: Attributes) -> Tensor:
    value = numpy_helper.to_array(said["value"]) if "value" in said else np.zeros(1, np.float32)
    return torch.from_numpy(np.broadcast_to(value.reshape(-1)[0], given[0].tolist()).copy())


def _cast(given: Sequence[Any], said: Attributes) -> Tensor:
    if said["to"] not in _TYPES:
        raise _Otherwise(f"the type {TensorProto.DataType.Name(said['to'])}")
    return given[0].to(_TYPES[said["to"]])  # type: ignore[no-any-return]


def _divided(given: Sequence[Any], said: Attributes) -> Tensor:
    whole = not given[0].is_floating_point()
    return torch.div(given[0], given[1], rounding_mode="trunc" if whole else None)


def _depth_to_space(given: Sequence[Any], said: Attributes) -> Tensor:
    if said.get("mode", b"DCR") != b"CRD":
        raise _Otherwise("mode DCR")
    return F.pixel_shuffle(given[0], said["blocksize"])


def _of_all(join: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def operation(given: Sequence[Any], said: Attributes) -> Tensor:
        found = given[0]
        for other in given[1:]:
            found = join(found, other)
        return found  # type: ignore[no-any-return]

    return operation


def _spatial(values: Tensor) -> tuple[int, ...]:
    return tuple(range(2, values.ndim))


OPERATIONS: dict[str, Operation] = {
    "Abs": lambda x, _: torch.abs(x[0]),
    "Add": lambda x, _: x[0] + x[1],
    "AveragePool": _average_pool,
    "BatchNormalization": lambda x, a: F.batch_norm(x[0], x[3], x[4], x[1], x[2], False, 0.0, a.get("epsilon", 1e-5)),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda x, a: torch.cat(list(x), a["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "DepthToSpace": _depth_to_space,
    "Div": _divided,
    "Dropout": lambda x, _: x[0],
    "Elu": lambda x, a: F.elu(x[0], a.get("alpha", 1.0)),
    "Erf": lambda x, _: torch.erf(x[0]),
    "Exp": lambda x, _: torch.exp(x[0]),
    "Expand": lambda x, _: x[0] * torch.ones(x[1].tolist(), dtype=x[0].dtype, device=x[0].device),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda x, a: F.gelu(x[0], approximate=a.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x, _: x[0].mean(_spatial(x[0]), keepdim=True),
    "GlobalMaxPool": lambda x, _: x[0].amax(_spatial(x[0]), keepdim=True),
    "Greater": lambda x, _: x[0] > x[1],
    "HardSigmoid": lambda x, a: torch.clamp(a.get("alpha", 0.2) * x[0] + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda x, _: x[0] * torch.clamp(x[0] / 6 + 0.5, 0, 1),
    "Identity": lambda x, _: x[0],
    "InstanceNormalization": lambda x, a: F.group_norm(x[0], x[0].shape[1], x[1], x[2], a.get("epsilon", 1e-5)),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, a: F.leaky_relu(x[0], a.get("alpha", 0.01)),
    "Log": lambda x, _: torch.log(x[0]),
    "MatMul": lambda x, _: x[0] @ x[1],
    "Max": _of_all(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _of_all(torch.minimum),
    "Mish": lambda x, _: F.mish(x[0]),
    "Mul": lambda x, _: x[0] * x[1],
    "Neg": lambda x, _: -x[0],
    "PRelu": lambda x, _: torch.where(x[0] < 0, x[0] * x[1], x[0]),
    "Pad": _pad,
    "Pow": lambda x, _: torch.pow(x[0], x[1]),
    "Reciprocal": lambda x, _: torch.reciprocal(x[0]),
    "ReduceL2": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "Relu": lambda x, _: torch.relu(x[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda x, a: torch.tensor(list(x[0].shape)[a.get("start", 0) : a.get("end")]),
    "Sigmoid": lambda x, _: torch.sigmoid(x[0]),
    "Slice": _slice,
    "Softmax": lambda x, a: torch.softmax(x[0], a.get("axis", -1)),
    "Softplus": lambda x, _: F.softplus(x[0]),
    "Split": _split,
    "Sqrt": lambda x, _: torch.sqrt(x[0]),
    "Squeeze": _squeeze,
    "Sub": lambda x, _: x[0] - x[1],
    "Sum": _of_all(torch.add),
    "Tanh": lambda x, _: torch.tanh(x[0]),
    "Transpose": lambda x, a: x[0].permute(a.get("perm", list(reversed(range(x[0].ndim))))),
    "Unsqueeze": _unsqueeze,
    "Where": lambda x, _: torch.where(x[0], x[1], x[2]),
}
"""By name."""
