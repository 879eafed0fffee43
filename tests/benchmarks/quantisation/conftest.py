"""A drawn set that networks can be trained on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_sdk.quality.datasets import Dataset, load_dataset
from edge_sdk.testing import drawn_picture

LABELS = ("free", "scratch", "spot")


@pytest.fixture(scope="package")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures of two defects with masks, and of none, three of a part."""
    root = tmp_path_factory.mktemp("drawn")
    rows = ["image,mask,label,domain,group"]
    for n in range(72):
        label = LABELS[n % 3]
        image, mask = drawn_picture(64, 64, seed=n), np.zeros((64, 64), np.uint8)
        if label == "spot":
            cv2.circle(mask, (20 + n % 24, 32), 6, 255, -1)
        elif label == "scratch":
            cv2.line(mask, (8, 10 + n % 40), (56, 14 + n % 40), 255, 3)
        image[mask > 0] = 30
        cv2.imwrite(str(root / f"{n}.png"), image)
        if label != "free":
            cv2.imwrite(str(root / f"{n}_mask.png"), mask)
        rows.append(f"{n}.png,{'' if label == 'free' else f'{n}_mask.png'},{label},line,part{n // 3:02d}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return load_dataset(root)
