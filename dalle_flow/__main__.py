"""`dalle-flow ...`, and the same as `python -m dalle_flow ...`."""

import sys


def main() -> int:
    """Run the command line and return its exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    from .cli.app import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
