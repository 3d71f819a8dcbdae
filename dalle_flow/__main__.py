"""`dalle-flow ...`, and the same as `python -m dalle_flow ...`."""

import os
import sys


def main() -> int:
    """Run the command line and return its exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        from .cli.app import run
    except KeyboardInterrupt:
        return 130

    # torch's threads wait for each other by spinning, thousands of times in a round. On a machine that is busy already
    # that was measured to take 25 s for what takes 8 s when they sleep. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return run()


if __name__ == "__main__":
    sys.exit(main())
