"""Judge a model on the test pictures of its lines, and see where it is wrong.

    python examples/evaluate.py build/examples/adapted

Without a checkpoint it trains a small one first.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the packages lie beside this folder, wherever it is called from
# ruff: noqa: E402

from training.api import Config, evaluate, load_checkpoint, train
from training.shots import worst

HAZELNUT = ROOT / "examples" / "data" / "hazelnut"


def main(checkpoint: Path | None = None, *, iterations: int = 100) -> None:
    """Print figures with their intervals, and the pictures to look at."""
    config = Config(data=HAZELNUT, gap="stains+lamp", trunk="slim", iterations=iterations, seed=0)
    model = train(config) if checkpoint is None else load_checkpoint(checkpoint)
    found = evaluate(model, config)
    for line, figures in found.figures.items():
        print(f"{line}: AP {figures['ap']:.3f} [{figures['ap_low']:.3f}, {figures['ap_high']:.3f}]")
        state = model.lines.get(line, model.line("original"))  # a line it does not know is judged as the original's
        for shot in worst(found.judged[line], state.thresholds):
            print(f"  {shot.what}: {shot.name}, surest cell {shot.confidence:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
