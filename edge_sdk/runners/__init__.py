"""What executes a model."""

from edge_sdk.runners.base import Runner, TensorSpec, open_runner

__all__ = ["Runner", "TensorSpec", "open_runner"]
