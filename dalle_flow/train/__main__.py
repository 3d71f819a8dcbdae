"""Train the embedded family: `python -m dalle_flow.train all`, or one model at a time.

    python -m dalle_flow.train all --work .train/s0          # the whole chain, from nothing to exported weights
    python -m dalle_flow.train dalle --minutes 30            # one model, from its last checkpoint, for half an hour

Every command goes on where the last run stopped. `metrics.csv` in each model's folder is the log.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from ..errors import DalleFlowError
from .chain import STAGES, Paused, Workshop


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dalle_flow.train", description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=["all", *STAGES], help="what to do; 'all' is every stage in this order")
    parser.add_argument("--work", type=Path, default=Path(".train/s0"), help="folder of the run (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="stop a model after this time; its checkpoint is kept")
    parser.add_argument("--steps", type=int, help="length of the schedule, instead of the recipe's")
    parser.add_argument("--device", default="cpu", help="where to train (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument("--scenes", type=int, default=150_000, help="training pictures to render")
    parser.add_argument("--font", type=Path, help="NotoColorEmoji.ttf, when it is not where Debian puts it")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> int:
    options = parse(sys.argv[1:])
    workshop = Workshop(
        work=options.work,
        device=options.device,
        threads=options.threads,
        scenes=options.scenes,
        font=options.font,
        seed=options.seed,
        minutes=options.minutes,
        steps=options.steps,
    )
    try:
        for stage in STAGES if options.stage == "all" else [options.stage]:
            started = time.monotonic()
            STAGES[stage](workshop)
            print(f"{stage}: {time.monotonic() - started:.0f} s", flush=True)
    except Paused as pause:
        print(pause, flush=True)
    except DalleFlowError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
