"""How long the first picture takes: whole processes, from command start to the sheet written.

    python benchmarks/first_picture.py [--runs 5]

Prints a markdown table: median, least and most wall seconds and the peak memory of each command.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "a cat on a skateboard, watercolor"
CLI = [sys.executable, "-m", "dalle_flow"]
COMMANDS = {
    "python -c 'pass'": [sys.executable, "-c", "pass"],
    "import dalle_flow": [sys.executable, "-c", "import dalle_flow"],
    "import torch": [sys.executable, "-c", "import torch"],
    "dalle-flow --help": [*CLI, "--help"],
    "dalle-flow generate -n 1": [*CLI, "generate", PROMPT, "-n", "1", "--seed", "1"],
    "dalle-flow generate -n 9": [*CLI, "generate", PROMPT, "-n", "9", "--seed", "1"],
    "dalle-flow generate -n 36": [*CLI, "generate", PROMPT, "-n", "36", "--seed", "1"],
}


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds and peak memory in MiB of one run; a command that fails ends the benchmark."""
    if "generate" in command:
        command = [*command, "-o", str(folder)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            assert process.stderr is not None
            raise SystemExit(f"{' '.join(command)} failed: {process.stderr.read().decode()}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each command, after one that is not")
    runs = parser.parse_args().runs
    print(f"{os.cpu_count()} cores, {runs} runs each\n")
    print("| command | median s | least | most | peak MiB |\n| --- | --- | --- | --- | --- |")
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            run(command, Path(folder))
            found = [run(command, Path(folder)) for _ in range(runs)]
        seconds = [s for s, _ in found]
        row = (statistics.median(seconds), min(seconds), max(seconds))
        print(f"| {name} | {row[0]:.2f} | {row[1]:.2f} | {row[2]:.2f} | {max(m for _, m in found):.0f} |", flush=True)


if __name__ == "__main__":
    main()
