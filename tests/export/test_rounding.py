"""Rounding that a gradient passes, against the equations one number at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from calibration.scales import weight_steps
from calibration.sessions import open_session
from export.rounding import LEAST_WEIGHT, rounded


def slow(x: float, s: float, n: int, p: int) -> tuple[float, float]:
    """``q(x)`` and ``dq/dx`` as the docstring has them, in float32."""
    level = float(np.float32(x) / np.float32(s))
    below = math.floor(level)
    near = below if level - below < 0.5 or (level - below == 0.5 and below % 2 == 0) else below + 1
    kept = min(max(near, n), p)
    return float(np.float32(kept) * np.float32(s)), 1.0 if n <= near <= p else 0.0


@given(
    st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=20),
    st.floats(0.0078125, 2, width=32),
    st.sampled_from([-128, -127]),
)
def test_value_and_gradient_are_those_of_the_equations(numbers: list[float], step: float, least: int) -> None:
    values = torch.tensor(numbers, requires_grad=True)
    found = rounded(values, torch.tensor(step), least=least)
    pull = torch.arange(1.0, 1.0 + len(numbers))
    found.backward(pull)  # type: ignore[no-untyped-call]
    wanted = [slow(number, step, least, 127) for number in numbers]
    assert found.tolist() == [value for value, _ in wanted]
    assert values.grad is not None
    assert values.grad.tolist() == [weight * slope for weight, (_, slope) in zip(pull.tolist(), wanted, strict=True)]


def test_ties_go_to_even_and_both_ends_are_clipped() -> None:
    values = torch.tensor([0.5, 1.5, -0.5, -2.5, 127.4, 127.6, -128.4, -128.6], requires_grad=True)
    found = rounded(values, torch.tensor(1.0))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert found.tolist() == [0, 2, 0, -2, 127, 127, -128, -128]
    assert values.grad is not None and values.grad.tolist() == [1, 1, 1, 1, 1, 0, 1, 0]


def test_the_runtime_rounds_to_the_same_bits() -> None:
    scale = np.float32(0.037)
    nodes = [
        helper.make_node("QuantizeLinear", ["frame", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["cells"]),
    ]
    constants = [numpy_helper.from_array(np.asarray(scale), "s"), numpy_helper.from_array(np.int8(0), "z")]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("frame", "cells")]
    model = helper.make_model(
        helper.make_graph(nodes, "q", value[:1], value[1:], constants), opset_imports=[helper.make_opsetid("", 19)]
    )
    model.ir_version = 10
    frame = np.random.default_rng(0).normal(0, 2, 10_000).astype(np.float32)
    # and numbers on the very edge between two steps
    frame = np.concatenate([frame, (np.arange(-140, 140) + np.float32(0.5)) * scale]).astype(np.float32)
    wanted = open_session(model, reference=True).run(frame)["cells"]
    assert np.array_equal(rounded(torch.from_numpy(frame), torch.tensor(scale)).numpy(), wanted)


def test_no_weight_is_clipped_by_its_own_step_and_each_channel_has_its_own() -> None:
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    weight = (weight * torch.tensor([0.01, 1, 30, 0]).reshape(-1, 1, 1, 1)).requires_grad_()
    steps = weight_steps(weight.detach().numpy(), 0)
    found = rounded(weight, torch.from_numpy(steps).reshape(-1, 1, 1, 1), least=LEAST_WEIGHT)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None and bool((weight.grad == 1).all())
    errors = (found - weight).detach().abs().amax((1, 2, 3)).numpy()
    assert (errors <= steps / 2 * (1 + 1e-5)).all() and steps[3] == steps[:3].min()
