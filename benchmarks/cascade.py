"""The cascade of two U-Nets beside the U-Net of `benchmarks/diffusion.py`, on OpenKBP at low resolution.

    python benchmarks/openkbp_cases.py DATA LOW
    python benchmarks/diffusion.py LOW --base mean_dose --epochs 24
    python benchmarks/cascade.py LOW --epochs 18

Half the epochs, since a step of two networks costs about twice as much: the two are compared at like cost. The U-Net's
predictions are read from LOW; a training is skipped where its checkpoint lies there already.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusion import SHARED, UNET, fit_of, part_of, score, train_once
from shipped import shipped_recipe

from doseledger.dosimetry.intervals import bootstrap_interval, paired_test
from doseledger.learn.kinds import open_predictor
from doseledger.learn.predict.predictor import predict_part

# Both networks of the shipped cascade in the shape of this benchmark's U-Net.
CASCADE = {**UNET, "network": dict.fromkeys(("first", "second"), SHARED["network"])}


def main() -> None:
    """Train, predict and print both models' scores and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--train-only", action="store_true", help="leave the test patients alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    low: Path = args.low
    recipe = shipped_recipe("dose_cascade", {**CASCADE, "fit": fit_of(args.epochs, 2)})
    checkpoint = train_once(low, "low_cascade", recipe)
    if args.train_only:
        return
    predict_part(
        open_predictor(checkpoint, recipe), part_of(low, "test"), low / "predictions" / "low_cascade_test", tell=print
    )
    rng, scores = np.random.default_rng(1), {name: score(low, name) for name in ("low_unet", "low_cascade")}
    for name, values in scores.items():
        for key in ("dose", "dvh"):
            low_end, high_end = bootstrap_interval(values[key], rng)
            print(
                f"{name} {key}: {values[key].mean():.3f} Gy ({low_end:.3f} to {high_end:.3f}), n = {len(values[key])}"
            )
    for key in ("dose", "dvh"):
        print(key, paired_test(scores["low_unet"][key], scores["low_cascade"][key]))


if __name__ == "__main__":
    main()
