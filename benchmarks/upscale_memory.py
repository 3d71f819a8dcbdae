"""Peak memory of enlarging a large picture, whole process, at the published sizes with random weights.

    python benchmarks/upscale_memory.py [--side 1024] [--only swinir-l x4plus] [--dtype float32]

Each network is run by the upscaling executor as a person's request is, in a process of its own.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NETWORKS = ("swinir-l", "x4plus", "general-x4v3")


def enlarge(name: str, side: int, dtype: str) -> None:
    """Make the network, save it, load it as weights are, enlarge one picture; prints seconds and peak MiB."""
    import numpy as np
    import torch
    from PIL import Image

    from dalle_flow.engine.local import LocalEngine
    from dalle_flow.flow.run import run_round
    from dalle_flow.models.rrdb import RRDBConfig, RRDBNet
    from dalle_flow.models.srvgg import SRVGG, SRVGGConfig
    from dalle_flow.models.swinir import SwinIR, SwinIRConfig
    from dalle_flow.types import ExecutorPlan, Finished, UpscaleRequest
    from dalle_flow.weights.ours import save_ours

    made = {
        "swinir-l": lambda: SwinIR(SwinIRConfig()),
        "x4plus": lambda: RRDBNet(RRDBConfig()),
        "general-x4v3": lambda: SRVGG(SRVGGConfig(features=64, convolutions=32, scale=4)),
    }
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        save_ours(made[name](), Path(folder))
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        engine = LocalEngine({"upscale": ExecutorPlan("upscale", "upscale", {"upscaler": Path(folder)})})
        engine.load("upscale")
        started = time.perf_counter()
        for event in run_round(engine, UpscaleRequest(Image.fromarray(pixels), options={"dtype": dtype})):
            if isinstance(event, Finished):
                size = event.candidate.image.size
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {side} x {side} -> {size[0]} x {size[1]} | {dtype} | {seconds:.0f} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=1024, help="of the picture that is enlarged, in pixels")
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS), help="which networks")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--one", choices=NETWORKS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        enlarge(asked.one, asked.side, asked.dtype)
        return
    print(
        f"{os.cpu_count()} cores\n\n| network | picture | numbers | s | peak MiB |\n| --- | --- | --- | --- | --- |",
        flush=True,
    )
    for name in asked.only:
        options = ["--one", name, "--side", str(asked.side), "--dtype", asked.dtype]
        subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    main()
