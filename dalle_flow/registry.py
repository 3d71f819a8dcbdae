"""Executor name -> class, imported only when asked for. Built-ins and installed plug-ins alike.

A plug-in is a package with an entry point in the group `dalle_flow.executors`: `name = "module:Class"`.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from .errors import UnknownNameError

if TYPE_CHECKING:
    from .executors.base import Executor

GROUP = "dalle_flow.executors"
BUILT_IN = {
    "dalle": "dalle_flow.executors.dalle:DalleGenerator",
    "glid3": "dalle_flow.executors.glid3:Glid3Generator",
    "stable": "dalle_flow.executors.stable:StableGenerator",
    "clip": "dalle_flow.executors.clip:ClipRanker",
    "siglip": "dalle_flow.executors.siglip:SiglipRanker",
    "segment": "dalle_flow.executors.segment:SegmentExecutor",
    "pipeline": "dalle_flow.executors.pipeline:PipelineGenerator",
    "upscale": "dalle_flow.executors.upscale:UpscaleExecutor",
}


def executor_names() -> list[str]:
    """All names, sorted; imports nothing."""
    return sorted({*BUILT_IN, *(e.name for e in entry_points(group=GROUP))})


def executor_class(name: str) -> "type[Executor]":
    """The class of that name; UnknownNameError, with the near ones named, when there is none."""
    targets = {e.name: e.value for e in entry_points(group=GROUP)} | BUILT_IN
    if name not in targets:
        raise UnknownNameError.of("executor", name, targets)
    module, _, attribute = targets[name].partition(":")
    found: type[Executor] = getattr(import_module(module), attribute)
    return found
