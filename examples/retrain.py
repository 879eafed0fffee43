"""Retrain a deployed model from an operator's answers, and see what they were worth.

    python examples/retrain.py

The operator is simulated: asked what a station would ask of the new line's stream, and answering by the truth of
those pictures.  In a plant the answers come from the hub: ``retrain(config, model, mentored="build/mentored")``
with the folder that ``python -m mentoring export`` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the packages lie beside this folder, wherever it is called from
# ruff: noqa: E402

from training.api import Config, adapt, evaluate, retrain, save_checkpoint, train
from training.mentors import ask

HAZELNUT = ROOT / "examples" / "data" / "hazelnut"
STRATEGY = "masked+omnia"


def main(out: Path = ROOT / "build" / "examples" / "retrained", *, iterations: int = 250) -> None:
    """Train, adapt, ask, retrain, judge, and keep the retrained model."""
    config = Config(
        data=HAZELNUT, gap="stains+lamp", trunk="slim", iterations=iterations, strategy=STRATEGY, seed=0
    )
    deployed = adapt(config, train(config)).chosen
    _, lines = config.lines()
    asked = ask(deployed, lines.line("new"), seed=config.seed)
    print(f"{asked.counts} in {asked.minutes:.1f} minutes")
    retrained = retrain(config, deployed, mentored=asked.taught(STRATEGY))
    for name, model in {"deployed": deployed, "retrained": retrained}.items():
        figures = evaluate(model, config).figures
        print(f"{name}: AP {figures['original']['ap']:.3f} on the original line, {figures['new']['ap']:.3f} on the new")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(retrained, out)
    print(out)


if __name__ == "__main__":
    main()
