"""The OpenKBP yardstick at full resolution: one large model, trained, predicted and scored; made for a GPU.

    python benchmarks/openkbp_cases.py DATA FULL --full --maps --workers 16
    python benchmarks/yardstick.py FULL --epochs 2 --train-only          # seconds a step, and how busy the GPU is
    python benchmarks/yardstick.py FULL --epochs 80

Train patients are trained on, but for the 20 that choose the epoch; the challenge's validation patients are predicted
once, by the best epoch. A run that ends early goes on where it was (its state lies in FULL). Choose `--epochs` from the
first command's seconds so that training takes the 20 minutes that were asked for. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusion import fit_of, part_of, score, train_once
from shipped import shipped_recipe

from doseledger.dosimetry.intervals import bootstrap_interval
from doseledger.learn.kinds import open_predictor
from doseledger.learn.predict.predictor import predict_part

# Babier et al., Med Phys 48:5549, 2021.
PUBLISHED = "the challenge's winner, on its 100 test patients: dose score 2.43, DVH score 1.48"


@contextmanager
def watched_gpu(log: Path) -> Iterator[None]:
    """Record once a second, in percent, how busy the GPU is; nothing where there is none."""
    if not torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        yield
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-l", "1"]
    with log.open("w") as file, subprocess.Popen(query, stdout=file) as watcher:
        try:
            yield
        finally:
            watcher.terminate()
    busy = [float(line) for line in log.read_text().split()]
    if busy:
        print(f"GPU busy: median {np.median(busy):.0f} %, mean {np.mean(busy):.0f} % of {len(busy)} seconds")


def main() -> None:
    """Train, predict and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full", type=Path)
    parser.add_argument("--model", default="dose_unet_large", help="a block of params.yaml or models/recipes")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--patch", type=int, nargs=3, default=(96, 128, 128), metavar=("Z", "Y", "X"))
    parser.add_argument("--train-only", action="store_true", help="leave the validation patients alone")
    args = parser.parse_args()
    changes = {
        "inputs": {"physics": ["conformal", "gathered", "plan"]},
        "sampling": {"patch_zyx": list(args.patch), "batch_size": args.batch, "patches_per_case": 1},
        "loader": {"workers": args.workers, "persistent": args.workers > 0},
        "loss": {"target_weight": 1.0},
        "fit": fit_of(args.epochs, max(1, args.epochs // 8)),
    }
    recipe = shipped_recipe(args.model, changes)
    began = time.perf_counter()
    name = f"{args.model}_{args.epochs}"
    with watched_gpu(args.full / f"{name}_busy.txt"):
        checkpoint = train_once(args.full, name, recipe)
    print(f"trained in {time.perf_counter() - began:.0f} s, {args.epochs} epochs")
    if torch.cuda.is_available():
        print(f"GPU memory at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    if args.train_only:
        return
    out = args.full / "predictions" / f"{name}_test"
    predict_part(open_predictor(checkpoint, recipe), part_of(args.full, "test"), out, tell=print)
    scores, rng = score(args.full, name), np.random.default_rng(1)
    for key in ("dose", "dvh"):
        low, high = bootstrap_interval(scores[key], rng)
        print(f"{name} {key} score: {scores[key].mean():.3f} Gy ({low:.3f} to {high:.3f}), n = {len(scores[key])}")
    print(PUBLISHED)


if __name__ == "__main__":
    main()
