"""`dalle-flow` as a process: how soon it answers, and what is left of it after a full disk, Ctrl-C or a closed pipe."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle_flow.images import read_picture, recipe_of

Command = Callable[..., Any]
# A shell that runs us in the background has its programs ignore Ctrl-C, and they hand that on.
HEAR_CTRL_C = [
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
]
PLUGIN = Path(__file__).parents[1] / "plugin"
MANY = ["-n", "40", "--set", "step_s=0.05"]  # 6 seconds, if nobody stops it


def test_help_and_import_are_quick_and_light(command: Command) -> None:
    """CPU time: what the clock on the wall says depends on who else is on the machine."""
    for program in (["-m", "dalle_flow", "--help"], ["-c", "import dalle_flow"]):
        watch = "import os, sys, subprocess; subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=-3);"
        watch += "t = os.times(); print(t.children_user + t.children_system)"
        runs = [subprocess.check_output([sys.executable, "-c", watch, *program], text=True) for _ in range(3)]
        assert min(float(seconds) for seconds in runs) < 0.5


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("generate", "inpaint", "segment", "weights")), ["--version"]],
)
def test_help_imports_nothing_large(command: Command, arguments: list[str]) -> None:
    said = command(*arguments, PYTHONPROFILEIMPORTTIME="1")
    assert said.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in said.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "numpy", "PIL", "transformers", "huggingface_hub", "yaml", "msgpack"}


def test_bad_requests_are_refused_without_torch(command: Command, noise_flow: Path) -> None:
    for arguments in (["-n", "0"], ["-n", "5000"], ["--seed", "-1"], ["--sneed"]):
        said = command("generate", "a cat", "--flow", str(noise_flow), *arguments, PYTHONPROFILEIMPORTTIME="1")
        assert said.returncode == 2
        assert "torch" not in said.stderr


def test_bad_pictures_are_refused_without_torch(command: Command, noise_flow: Path, tmp_path: Path) -> None:
    Image.new("RGB", (12, 10)).save(tmp_path / "x.png")
    Image.new("L", (12, 10)).save(tmp_path / "black.png")
    for arguments in (
        ["refine", "none.png"],
        ["refine", "x.png"],
        ["inpaint", "x.png", "a hat", "--mask", "black.png"],
        ["interpolate", "a", ""],
        ["upscale", "x.png", "-o", "x.png"],
        ["segment", "x.png", "", "-o", "mask.png"],
    ):
        said = command(*arguments, "--flow", str(noise_flow), PYTHONPROFILEIMPORTTIME="1")
        assert said.returncode == 2
        assert " torch" not in said.stderr


@pytest.mark.parametrize("room", [0, 1, 8])
def test_a_full_disk(command: Command, noise_flow: Path, tmp_path: Path, room: int) -> None:
    """Files may not grow beyond `room` blocks of 512 bytes: the picture, or the sheet, does not fit."""
    limits = ["sh", "-c", f'ulimit -f {room}; exec "$@"', "sh"]
    said = command("generate", "a cat", "--flow", str(noise_flow), "-o", "out", limits=limits)
    assert said.returncode == 1
    assert said.stderr.startswith("error: cannot write out/")
    assert len(said.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_keeps_the_earlier_round(command: Command, noise_flow: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        assert command("generate", "a cat", "-n", "1", "--flow", str(noise_flow), cwd=disk).returncode == 0
        said = command("generate", "a dog", "-n", "9", "--flow", str(noise_flow), cwd=disk)
        assert said.returncode == 1
        assert "No space left on device" in said.stderr
        assert sorted(path.name for path in (disk / "out").iterdir()) == ["00.png", "round.json", "sheet.png"]
        assert recipe_of(read_picture(disk / "out" / "00.png")).prompt == "a cat"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(command: Command, noise_flow: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    said = command("generate", "a cat", "--flow", str(noise_flow))
    assert (said.returncode, said.stderr) == (1, "error: cannot write into out: Permission denied\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupt_leaves_nothing_half_done(
    start: Callable[..., Any], command: Command, noise_flow: Path, tmp_path: Path, number: int, code: int, earlier: bool
) -> None:
    arguments = ["--flow", str(noise_flow), "-o", "new/out"]
    if earlier:
        command("generate", "a cat", "-n", "2", *arguments)
    before = {path.name: path.read_bytes() for path in (tmp_path / "new").rglob("*.*")}
    process = start("generate", "a dog", *MANY, *arguments, limits=HEAR_CTRL_C)
    wait_for(lambda: list((tmp_path / "new").rglob(".round-*")))
    time.sleep(0.2)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in error
    assert error == ("error: interrupted\n" if number == signal.SIGINT else "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").rglob("*.*")} == before
    assert (tmp_path / "new").exists() == earlier


def test_output_that_nobody_takes(command: Command, noise_flow: Path) -> None:
    script = ["sh", "-c", '"$@" >/dev/full', "sh"]
    said = command("generate", "a cat", "-n", "1", "--json", "--flow", str(noise_flow), limits=script)
    assert said.returncode == 1
    assert said.stderr == "error: No space left on device\n"


def test_output_cut_short_by_its_reader(start: Callable[..., Any], noise_flow: Path) -> None:
    process = start("generate", "a cat", "-n", "2", "--json", "--flow", str(noise_flow))
    process.stdout.close()
    process.stdout = None
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error == ""


@pytest.mark.parametrize(("locale", "coding"), [("C", ""), ("POSIX", "ascii"), ("C.UTF-8", "latin-1")])
def test_any_locale(command: Command, noise_flow: Path, tmp_path: Path, locale: str, coding: str) -> None:
    more = {"LC_ALL": locale, "PYTHONIOENCODING": coding} if coding else {"LC_ALL": locale}
    said = command("generate", "猫 ünseen unseen", "-n", "1", "--flow", str(noise_flow), "--json", **more)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["request"]["prompt"] == "猫 ünseen unseen"
    assert command("show", "out/00.png", **more).returncode == 0


def test_no_network_is_asked_for(command: Command, noise_flow: Path) -> None:
    """Every socket is an error in this process."""
    ban = "import sys; sys.addaudithook(lambda name, _: name.startswith('socket.') and sys.exit(name))"
    program = f"{ban}\nfrom dalle_flow.__main__ import main\nsys.exit(main())"
    arguments = ["generate", "a cat", "-n", "1", "--flow", str(noise_flow), "-q"]
    command_line = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}
    said = subprocess.run(command_line, cwd=noise_flow.parent, env=environment, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "out/sheet.png\n"), said.stderr


def wait_for(happened: Callable[[], object]) -> None:
    for _ in range(1200):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen")


def test_progress_on_a_terminal(noise_flow: Path) -> None:
    """Loading, the steps of all pictures, and nothing left on the screen but what is said for good."""
    master, terminal = pty.openpty()
    arguments = ["generate", "an unseen cat", "-n", "8", "--set", "step_s=0.03", "--flow", str(noise_flow)]
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN), "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dalle_flow", *arguments],
        cwd=noise_flow.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal that nobody holds any more with an error
        while part := os.read(master, 65536):
            shown += part
    os.close(master)
    out, _ = process.communicate(timeout=60)
    text = shown.decode()
    assert process.returncode == 0
    assert out.startswith("8 pictures, best first")
    for part in ("loading", "noise", "%", "warning: I do not know 'unseen'"):
        assert part in text
    assert "\x1b[?25h" in text, "the cursor is shown again"
