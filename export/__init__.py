"""From a checkpoint to what a station runs: torch to ONNX, and all parts to one signed bundle."""
