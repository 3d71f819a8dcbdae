"""Options of Stable Diffusion, by kind of round. The samplers are those of 2022, by their names then."""

from pydantic import Field

from ..errors import OptionError
from ..models.karras import SamplerName
from ..models.sigmas import Noiser
from .base import StrictOptions


class StableOptions(StrictOptions):
    sampler: SamplerName = Field("k_lms", description="how the noise is taken away")
    guidance_scale: float = Field(7.5, ge=0, le=100, description="how much the prompt counts; 1 switches it off")
    noiser: Noiser | None = Field(None, description="spacing of the noise levels; null: even in timesteps")
    num_inference_steps: int = Field(50, ge=1, le=250, description="steps from noise to picture")
    negative_prompt: str | None = Field(None, max_length=2000, description="what to lead away from; null: nothing")
    width: int | None = Field(None, ge=8, le=2048, description="in pixels; null: what the weights are used to")
    height: int | None = Field(None, ge=8, le=2048, description="in pixels; null: what the weights are used to")


class StableRefineOptions(StableOptions):
    width: int | None = Field(None, ge=8, le=2048, description="in pixels; null: as the given picture")
    height: int | None = Field(None, ge=8, le=2048, description="in pixels; null: as the given picture")
    strength: float = Field(0.75, gt=0, le=1, description="how far from the picture; 1 ignores it")
    latentless: bool = Field(False, description="start from noise alone, at the level that strength says")


class StableInpaintOptions(StableOptions):
    width: int | None = Field(None, ge=8, le=2048, description="in pixels; null: as the given picture")
    height: int | None = Field(None, ge=8, le=2048, description="in pixels; null: as the given picture")
    strength: float = Field(1.0, gt=0, le=1, description="how far the new part may be from what was there")


class StableInterpolateOptions(StableOptions):
    resample_prior: bool = Field(True, description="start each frame from the one before it; false: all from one noise")
    strength: float = Field(0.75, gt=0, le=1, description="resample_prior: how far a frame may be from the one before")


def check_options(options: StrictOptions) -> None:
    """Refuse an option that would not be read."""
    if isinstance(options, StableOptions) and options.negative_prompt is not None and options.guidance_scale == 1:
        raise OptionError("negative_prompt says nothing where guidance_scale is 1", field="negative_prompt")
    if isinstance(options, StableInterpolateOptions) and not options.resample_prior:
        usual = StableInterpolateOptions.model_fields["strength"].default
        if options.strength != usual:
            raise OptionError("strength says nothing where resample_prior is false; leave it out", field="strength")
