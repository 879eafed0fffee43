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
from training.evaluate import evaluate
from training.figures import alignment_picture
from training.figures_clouds import areas_cloud, pictures_cloud

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
    pictures, areas = [], []
    for method in ("source", asked.method):
        checkpoint = load_checkpoint(asked.adapted / "methods" / method)
        seed = int(checkpoint.recipe["seed"])
        lines = lines_of(load_dataset(asked.data), gap=asked.gap, seed=seed, evaluating=True)
        found = evaluate(checkpoint, lines)
        title = "before" if method == "source" else f"after {method}"
        pictures.append(pictures_cloud(found, checkpoint, title=title))
        areas.append(areas_cloud(found, checkpoint, title=title))
    for name, clouds in (("features.svg", pictures), ("areas.svg", areas)):
        (IMAGES / name).write_bytes(alignment_picture(clouds))
        print(f"{name}: {(IMAGES / name).stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
