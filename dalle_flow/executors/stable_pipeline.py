"""What `stable` does with a diffusers folder that is no Stable Diffusion of ours: the executor `pipeline` runs it.

The options stay those of `stable`, and mean what they say. What the pipeline cannot do (samplers by the names of 2022,
interpolating) is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ..errors import OptionError
from ..types import RoundKind
from .base import StrictOptions, Task
from .pipeline import PipelineGenerator, PipelineSlot
from .pipeline_options import PipelineOptions, PipelineRefineOptions, parameters
from .stable_options import StableInpaintOptions, StableOptions, StableRefineOptions

OURS_ALONE = ("sampler", "noiser", "latentless")  # what a pipeline has nothing like; they must be as they are usually


class StableByPipeline(PipelineGenerator):
    """A pipeline behind the options of `stable`."""

    Options: ClassVar[type[StrictOptions]] = StableOptions
    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {
        RoundKind.GENERATE: StableOptions,
        RoundKind.REFINE: StableRefineOptions,
        RoundKind.INPAINT: StableInpaintOptions,
    }

    def admit(self, task: Task) -> Sequence[PipelineSlot]:
        name = type(self.pipeline).__name__
        if task.kind not in self.verbs:
            raise OptionError(f"{name} cannot {task.kind}; it can {', '.join(self.verbs)}", field="executor")
        usual = type(task.options)().model_dump()
        values = task.options.model_dump()
        for option in OURS_ALONE:
            if option in values and values.pop(option) != usual[option]:
                raise OptionError(
                    f"{name} has no {option!r}; leave it out, or use the executor 'pipeline' with its 'scheduler'",
                    field=option,
                )
        takes = parameters(self.pipeline)
        if "guidance_scale" not in takes and values["guidance_scale"] == usual["guidance_scale"]:
            del values["guidance_scale"]
        kind = PipelineOptions if task.kind is RoundKind.GENERATE else PipelineRefineOptions
        return super().admit(replace(task, options=kind(**values)))


def load_other(weights: Mapping[str, Path], device: str) -> StableByPipeline:
    """The pipeline in the folder of the role `stable`.

    Raises:
        OptionError: weights for parts that a pipeline brings itself.
        WeightsError: they are missing, damaged, or of a pipeline that is not known.
    """
    if other := [role for role in weights if role not in ("stable", "config")]:
        raise OptionError(
            f"{weights['stable']}: this pipeline brings its own {other[0]}; leave it out", field="weights"
        )
    given = {"pipeline": weights["stable"]} | {role: path for role, path in weights.items() if role == "config"}
    return StableByPipeline.load(given, device)
