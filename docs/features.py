"""The docs' picture of a feature space: before and after adapting, by line and by class, and its defective areas.

    python docs/features.py build/adapted examples/data/hazelnut --gap stains+lamp --method adabn

The folder is what ``python -m training adapt`` wrote.  Classes are those of the test pictures: an evaluation's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch

from edge_sdk.quality.datasets import lines_of, load_dataset
from training.checkpoint import load_checkpoint
from training.figures_clouds import features_picture

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    """Evaluate both checkpoints and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapted", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--gap")
    parser.add_argument("--method", default="adabn")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    models = {
        "before" if method == "source" else f"after {method}": load_checkpoint(asked.adapted / "methods" / method)
        for method in ("source", asked.method)
    }
    seed = int(models["before"].recipe["seed"])
    lines = lines_of(load_dataset(asked.data), gap=asked.gap, seed=seed, evaluating=True)
    for name, areas in (("features.svg", False), ("areas.svg", True)):
        (IMAGES / name).write_bytes(features_picture(models, lines, areas=areas))
        print(f"{name}: {(IMAGES / name).stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
