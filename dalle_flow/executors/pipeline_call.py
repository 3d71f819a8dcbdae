"""One call of a diffusers pipeline, run step by step.

A pipeline draws a picture in one call and tells a callback after each denoising step. Here the call runs in a thread of
its own that moves only while somebody waits for it: it computes to the next callback, hands over, and stands still. So
there is never more than one thing computing, a picture can be given up between any two steps, and what is the process's
(random numbers, warnings) is the call's while it runs and everybody else's while it stands.
"""

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import DalleFlowError, FailureError
from .pipeline_options import parameters
from .quiet import quiet


@dataclass(frozen=True)
class Ready:
    """The prompt is encoded, the noise drawn; `of` steps follow."""

    of: int


@dataclass(frozen=True, eq=False)
class Stepped:
    latents: Tensor | None  # as the pipeline keeps them; None where it does not show them


Event = Ready | Stepped | Image.Image
HandOver = Callable[[Event], None]


class GivenUp(BaseException):
    """Raised inside a call that nobody wants any more. Not an Exception: a pipeline must not catch it."""


class Turns:
    """Work that runs in a thread, only while `next` waits for what it hands over; the last is its result."""

    def __init__(self, work: Callable[[HandOver], Event]):
        self._work = work
        self._go: SimpleQueue[None] = SimpleQueue()  # no semaphore: `abandon` may come while one is being taken
        self._back = threading.Semaphore(0)
        self._said: Event | BaseException | None = None
        self._given_up = False
        self._over = threading.Event()
        # Daemon: a call that nobody closed must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="pipeline call", daemon=True)
        self._thread.start()

    def next(self) -> Event:
        """What comes next; an error of the work is raised here. Interrupted, the work is given up."""
        if self._over.is_set():
            raise RuntimeError("the work is over")
        self._go.put(None)
        try:
            self._back.acquire()
        except BaseException:
            self.close()
            raise
        said, self._said = self._said, None
        if self._over.is_set():
            self._thread.join()
        if isinstance(said, BaseException):
            raise said
        assert said is not None
        return said

    def close(self) -> None:
        """Give the work up where it stands; returns when its thread has ended. Does nothing the second time."""
        self.abandon()
        self._thread.join()

    def abandon(self) -> None:
        """As `close`, and does not wait for the end. Safe wherever the garbage collector may call it."""
        self._given_up = True
        self._go.put(None)

    def _run(self) -> None:
        try:
            self._wait()
            self._said = self._work(self._hand_over)
        except GivenUp:
            pass
        except BaseException as error:
            self._said = error
        finally:
            self._over.set()
            self._back.release()

    def _hand_over(self, event: Event) -> None:
        self._said = event
        self._back.release()
        self._wait()

    def _wait(self) -> None:
        self._go.get()
        if self._given_up:
            raise GivenUp


class PipelineCall:
    """A picture in the making. `of` is how many steps it takes; `close` it if it is not made to its end.

    One that is forgotten gives its work up too: its thread keeps the work, and not this, so it notices.

    Raises:
        FailureError: the pipeline does not take these arguments, or fails; so do the methods.
    """

    def __init__(self, pipeline: Any, arguments: Mapping[str, Any], seed: int, steps: int):
        self._pipeline = pipeline
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # arguments have a generator of their own; this is for what draws past it
            self._random = torch.get_rng_state()
        self._turns = Turns(lambda hand_over: _draw(pipeline, arguments, steps, hand_over))
        # At the process's end the thread is left as it stands, which daemons may be.
        weakref.finalize(self, self._turns.abandon).atexit = False
        self._waiting: Event | None = self._next()
        if isinstance(self._waiting, Ready):
            self.of, self._waiting = self._waiting.of, None
        else:  # a pipeline of pipelines: its first words come with the first step
            self.of = steps if isinstance(self._waiting, Stepped) else 1

    def step(self) -> Stepped | Image.Image:
        """One denoising step further, or the picture."""
        event, self._waiting = self._waiting, None
        while event is None or isinstance(event, Ready):
            event = self._next()
        return event

    def finish(self) -> Image.Image:
        """The picture, whatever is left to do."""
        event: Event = self.step()
        while not isinstance(event, Image.Image):
            event = self._next()
        return event

    def close(self) -> None:
        with quiet():
            self._turns.close()

    def _next(self) -> Event:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.set_rng_state(self._random)
            try:
                return self._turns.next()
            except DalleFlowError:
                raise
            except Exception as error:
                said = " ".join(str(error).split())[:500] or type(error).__name__
                raise FailureError(f"{type(self._pipeline).__name__}: {said}") from error
            finally:
                self._random = torch.get_rng_state()


def _draw(pipeline: Any, arguments: Mapping[str, Any], steps: int, hand_over: HandOver) -> Image.Image:
    """Call the pipeline, which is this call's own, and hand over before its first step and after each."""
    bar, started = pipeline.progress_bar, False

    def progress_bar(iterable: Any = None, total: int | None = None) -> Any:
        nonlocal started
        if not started:  # all pipelines make their bar when the steps begin
            started = True
            hand_over(Ready(getattr(pipeline, "_num_timesteps", None) or total or steps))
        return bar(iterable, total)

    def on_step_end(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        hand_over(Stepped(tensors.get("latents")))
        return tensors

    def on_step(_step: int, _timestep: Any, latents: Tensor) -> None:  # how older pipelines tell
        hand_over(Stepped(latents))

    pipeline.progress_bar = progress_bar
    takes = parameters(pipeline)
    told = {"callback_on_step_end": on_step_end} if "callback_on_step_end" in takes else {"callback": on_step}
    pictures = pipeline(**arguments, **told, output_type="pil").images
    if not isinstance(pictures, list) or not isinstance(pictures[0], Image.Image):
        raise FailureError(f"{type(pipeline).__name__} makes {type(pictures).__name__}, not pictures")
    picture: Image.Image = pictures[0]
    return picture
