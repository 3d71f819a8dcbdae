"""The slot loop: admit what waits, step all slots, hand out what comes, again. The same for every executor."""

from collections.abc import Iterator

from ..executors.base import Done, Executor, Output, Progress, Slot, Task


def run_slots(executor: Executor, task: Task) -> Iterator[Output]:
    """Run one task to its end on one executor, at most `executor.capacity` slots at a time.

    Closing the iterator is how a task is cancelled: the slots are dropped at once. A slot that finishes makes room for
    the next picture at the next step, so a task larger than the capacity keeps the device full.
    """
    active: list[Slot] = []
    admitted = finished_steps = 0
    try:
        while admitted < len(task) or active:
            room = executor.capacity - len(active)
            if room > 0 and admitted < len(task):
                stop = min(len(task), admitted + room)
                active.extend(executor.admit(task.part(admitted, stop)))
                admitted = stop
            done: set[Slot] = set()
            for output in executor.step(active):
                if isinstance(output, Done):
                    done.add(output.slot)
                yield output
            active = [slot for slot in active if slot not in done]
            finished_steps += sum(slot.of for slot in done)
            # What is not admitted yet will take as long as what is here; slots of one task mostly take equally long.
            waiting = (len(task) - admitted) * max(slot.of for slot in (*active, *done))
            of = finished_steps + sum(slot.of for slot in active) + waiting
            yield Progress(finished_steps + sum(slot.step for slot in active), of)
    finally:
        executor.drop([slot for slot in active if slot.step < slot.of])
