"""The single file of Stable Diffusion 1 as CompVis made it (.ckpt or .safetensors): its parts, opened one by one.

It holds the UNet (`model.diffusion_model.`), the autoencoder (`first_stage_model.`) and the text encoder
(`cond_stage_model.transformer.`). A .ckpt is read as data, nothing in it runs. Sizes come from the shapes; what shows
in none (heads, norm groups, the picture size) is as in the published files, unless the configs of a diffusers folder
are there to say otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ..errors import WeightsError
from ..models.clip_text import ClipText
from .diffusers_folder import checked, schedule_of, text_checkpoint, text_facts
from .disk import read_json
from .files import Checkpoint, on_meta
from .ldm_layout import kl_sizes, plan_kl, plan_unet, unet_sizes
from .plan import Stored, shapes_of
from .safetensors_file import read_safetensors
from .torch_file import read_torch

CONFIG_FOLDER = "diffusers_config"
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
# What published files hold besides: the noise schedule, which follows from two numbers, and what training needs.
SCHEDULE = {
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *("lvlb_weights", "logvar", "scale_factor"),
}
TRAINING_ONLY = ("model_ema.", "first_stage_model.loss.", "loss.")  # running means, discriminator
# Classes of the training that some .ckpt files name beside the weights. They are read as names, never looked up.
TRAINING_CLASSES = ("pytorch_lightning.", "numpy", "_codecs")
OTHER_MODELS = {
    "conditioner.embedders.": "Stable Diffusion XL in one file; give its diffusers folder",
    "cond_stage_model.model.": "Stable Diffusion 2 in one file; give its diffusers folder",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3 in one file; give its diffusers folder",
    "double_blocks.": "FLUX in one file; give its diffusers folder",
    "control_model.": "a ControlNet, which changes another model; give that model's weights",
    "lora_unet_": "a LoRA, which changes another model; give that model's weights",
}


@dataclass(frozen=True)
class Unseen:
    """What no shape tells; the defaults are those of the published version 1."""

    unet_heads: int = 8
    unet_groups: int = 32
    vae_groups: int = 32
    latent_scale: float = 0.18215
    size_px: int = 512
    text: Mapping[str, Any] = field(default_factory=dict)  # arguments of ClipTextConfig.from_shapes
    prediction: str = "epsilon"  # or "v"
    signal: Tensor | None = None  # (timesteps,) float64; None: that of version 1


def open_unet(path: Path, stored: Mapping[str, Stored], unseen: Unseen) -> Checkpoint[UNet2DConditionModel]:
    """The UNet among a file's tensors (their names without the prefix), without reading them."""
    found = unet_sizes(path, shapes_of(stored))
    if found.in_channels not in (found.out_channels, 2 * found.out_channels + 1):
        raise WeightsError(
            f"{path}: the UNet takes {found.in_channels} channels; allowed are {found.out_channels}, and "
            f"{2 * found.out_channels + 1} for inpainting"
        )
    model = _made(path, UNet2DConditionModel, found.config(unseen.unet_heads, unseen.unet_groups))
    return checked(path, Checkpoint("compvis", model, stored, plan_unet(stored), (path,)))


def open_vae(path: Path, stored: Mapping[str, Stored], unseen: Unseen) -> Checkpoint[AutoencoderKL]:
    """The autoencoder among a file's tensors (their names without the prefix), without reading them."""
    model = _made(path, AutoencoderKL, kl_sizes(path, shapes_of(stored)).config(unseen.vae_groups))
    taken, plan = plan_kl(stored)
    return checked(path, Checkpoint("compvis", model, taken, plan, (path,)))


def read_parts(path: Path) -> dict[str, dict[str, Stored]]:
    """The tensors of a single file by part (`UNET`, `VAE`, `TEXT`), without their prefixes; "" has those without one.

    Raises:
        WeightsError: no such file, damaged, of another model, or with tensors that are of no part.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file or folder; 'dalle-flow weights fetch' gets weights.")
    safe = path.suffix == ".safetensors"
    found: Mapping[str, Stored] = read_safetensors(path) if safe else read_torch(path, TRAINING_CLASSES)
    if any(
        key.startswith("state_dict.") for key in found
    ):  # beside it stands what the training had: counters, optimizer
        found = {key.removeprefix("state_dict."): item for key, item in found.items() if key.startswith("state_dict.")}
    for prefix, what in OTHER_MODELS.items():
        if any(key.startswith(prefix) for key in found):
            raise WeightsError(f"{path}: this is {what}.")
    parts: dict[str, dict[str, Stored]] = {UNET: {}, VAE: {}, TEXT: {}, "": {}}
    for key, item in found.items():
        if key in SCHEDULE or key.startswith(TRAINING_ONLY):
            continue
        prefix = next(prefix for prefix in parts if key.startswith(prefix))
        parts[prefix][key.removeprefix(prefix)] = item
    return parts


def open_text(path: Path, stored: Mapping[str, Stored], unseen: Unseen) -> Checkpoint[ClipText]:
    """The text encoder among a file's tensors (their names without the prefix), without reading them."""
    return text_checkpoint(path, stored, (path,), unseen.text)


def unseen_in(folder: Path | None) -> Unseen:
    """What the configs of a diffusers folder say that no shape tells; the published values where there is no folder."""
    if folder is None:
        return Unseen()
    unet, vae = (read_json(folder / name / "config.json") for name in ("unet", "vae"))
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim", 8)
    numbers = {"heads": heads, "unet groups": unet.get("norm_num_groups", 32), "size": unet.get("sample_size", 64)}
    numbers["vae groups"] = vae.get("norm_num_groups", 32)
    if wrong := [name for name, value in numbers.items() if type(value) is not int or value < 1]:
        raise WeightsError(f"{folder}: {wrong[0]} must be a whole number of at least 1, got {numbers[wrong[0]]!r}")
    signal, prediction = schedule_of(folder)
    return Unseen(
        unet_heads=numbers["heads"],
        unet_groups=numbers["unet groups"],
        vae_groups=numbers["vae groups"],
        latent_scale=vae.get("scaling_factor", Unseen.latent_scale),
        size_px=numbers["size"] * 2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1),
        text=text_facts(read_json(folder / "text_encoder" / "config.json"), folder),
        prediction=prediction,
        signal=signal,
    )


def _made(path: Path, model_class: Any, arguments: Mapping[str, Any]) -> Any:
    """A network of these sizes without memory for its weights."""
    try:
        return on_meta(lambda values: model_class(**values), arguments)  # type: ignore[arg-type]
    except ValueError as error:
        raise WeightsError(
            f"{path}: these sizes make no {model_class.__name__} ({error}). Heads and norm groups show in no shape: a "
            f"folder {CONFIG_FOLDER} beside the file, with diffusers' configs, can say them."
        ) from None
