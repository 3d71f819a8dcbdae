"""Which rounds a loaded pipeline can do: its own, and those of its family that diffusers has a pipeline for.

The pipelines of a family share the networks of the one that was loaded; nothing is loaded or copied.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError
from ..types import RoundKind

KINDS = (RoundKind.GENERATE, RoundKind.REFINE, RoundKind.INPAINT)
# Pipelines that diffusers has, and has not put into its tables yet.
NOT_IN_TABLES = {RoundKind.INPAINT: {"flux2-klein": "Flux2KleinInpaintPipeline"}}


def pipeline_for(pipeline: Any, kind: RoundKind) -> Any:
    """The pipeline for a kind of round, which is `pipeline` itself or one that shares its networks.

    Raises:
        OptionError: there is none.
    """
    cls = _class_for(pipeline, kind)
    if cls is None:
        able = [str(other) for other in KINDS if _class_for(pipeline, other) is not None]
        name = type(pipeline).__name__
        raise OptionError(f"these weights of {name} cannot {kind}; they can {' and '.join(able) or 'do no round'}")
    return pipeline if cls is type(pipeline) else _sharing(pipeline, cls)


def _class_for(pipeline: Any, kind: RoundKind) -> Any:
    own: Any = type(pipeline)
    families = _families()
    takes = inspect.signature(own.__call__).parameters
    if "controlnet" in pipeline.components:  # wants a picture to follow, which no round has
        return None
    if kind is RoundKind.INPAINT:
        fits = "mask_image" in takes
    elif kind is RoundKind.REFINE:
        fits = "image" in takes and "mask_image" not in takes
    else:
        fits = "image" not in takes or own in families[kind].values()
    if not fits:
        names = [name for family in families.values() for name, cls in family.items() if cls.__name__ == own.__name__]
        own = families[kind].get(names[0]) if names else None
    if kind is not RoundKind.INPAINT and (own is not type(pipeline) or kind is RoundKind.GENERATE):
        return own if _sees_latents_alone(pipeline) else None
    return own


def _families() -> Mapping[RoundKind, Mapping[str, Any]]:
    """Kind of round -> diffusers' own table: name of a family -> class."""
    import diffusers
    from diffusers.pipelines import auto_pipeline

    tables = {
        RoundKind.GENERATE: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
        RoundKind.REFINE: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        RoundKind.INPAINT: auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    }
    more = {
        kind: {family: getattr(diffusers, name) for family, name in names.items() if hasattr(diffusers, name)}
        for kind, names in NOT_IN_TABLES.items()
    }
    return {kind: {**more.get(kind, {}), **table} for kind, table in tables.items()}


def _sees_latents_alone(pipeline: Any) -> bool:
    """False of a UNet made for inpainting, which always wants a mask and a picture too."""
    unet, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if unet is None or vae is None:
        return True
    return bool(unet.config.in_channels == vae.config.get("latent_channels", unet.config.in_channels))


def _sharing(pipeline: Any, cls: Any) -> Any:
    """A pipeline of another class around the same parts. diffusers' `from_pipe` would turn all numbers to float32."""
    parts, settings = cls._get_signature_keys(cls)
    config = pipeline.config
    values = {name: pipeline.components[name] for name in parts if name in pipeline.components}
    values |= {name: config[name] for name in settings if name in config}
    needed = inspect.signature(cls.__init__).parameters
    for name in parts:
        if name not in values and needed[name].default is inspect.Parameter.empty:
            if name not in cls._optional_components:
                raise OptionError(f"{cls.__name__} needs a {name}, which these weights do not have")
            values[name] = None
    made = cls(**values)
    made.set_progress_bar_config(disable=True)
    return made
