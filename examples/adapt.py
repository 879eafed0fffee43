"""Adapt a model to a new line of which nobody has labelled a picture, and see what that did.

    python examples/adapt.py

Trains on the hazelnuts beside this file; the new line is the same parts under another lamp, with harmless stains.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the packages lie beside this folder, wherever it is called from
# ruff: noqa: E402

from training.api import Config, adapt, evaluate, save_checkpoint, train

HAZELNUT = ROOT / "examples" / "data" / "hazelnut"


def main(out: Path = ROOT / "build" / "examples" / "adapted", *, iterations: int = 250) -> None:
    """Train, adapt, judge both, and keep the adapted model."""
    config = Config(data=HAZELNUT, gap="stains+lamp", trunk="slim", iterations=iterations, seed=0)
    source = train(config)
    found = adapt(config, source)
    print(f"{found.decision.method}: {found.decision.why}")
    for name, model in {"before": source, "after": found.chosen}.items():
        figures = evaluate(model, config).figures
        print(f"{name}: AP {figures['original']['ap']:.3f} on the original line, {figures['new']['ap']:.3f} on the new")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(found.chosen, out)
    print(out)


if __name__ == "__main__":
    main()
