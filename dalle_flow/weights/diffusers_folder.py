"""Parts of a diffusers folder that we step ourselves: UNet, autoencoder, CLIP text encoders, tokenizers, schedule.

Each part is a folder with a config and its weights in one file, a variant of it (`.fp16.`), or several with an index.
The networks are diffusers' classes made from their config; the weights are held against them name by name, so nothing
is filled with random numbers. Text encoders become our `ClipText`, which saves importing transformers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ..errors import WeightsError
from ..models.clip_text import ClipText, ClipTextConfig
from ..models.text.clip_bpe import END, ClipTokenizer
from .disk import read_json
from .files import Checkpoint, on_meta
from .openai_clip import NOT_WEIGHTS, plan_transformers
from .plan import Plan, Stored, check_floating, check_plan, plan_as_is, shapes_of
from .safetensors_file import read_safetensors
from .torch_file import read_torch

# A folder's model_index.json names its pipeline. Others are not stepped here, and neither are these where a part
# asks for more than the parts below give.
PIPELINES = {
    "StableDiffusionPipeline": 1,  # how many text encoders it has
    "StableDiffusionImg2ImgPipeline": 1,
    "StableDiffusionInpaintPipeline": 1,
    "StableDiffusionXLPipeline": 2,
    "StableDiffusionXLImg2ImgPipeline": 2,
    "StableDiffusionXLInpaintPipeline": 2,
}
TEXT_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
# Switches of a UNet that change what it is told; each must be off (absent, null or false).
UNET_SWITCHES = (
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
    "class_embed_type",
    "dual_cross_attention",
)
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.12
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def is_stepped_here(folder: Path) -> bool:
    """Whether a diffusers folder is a Stable Diffusion 1, 2 or XL whose every part is known here."""
    index = read_json(folder / "model_index.json")
    encoders = PIPELINES.get(str(index.get("_class_name")))
    if encoders is None or _class(index, "image_encoder") or _class(index, "vae") != "AutoencoderKL":
        return False
    names = ["text_encoder", "text_encoder_2"]
    found = [_class(index, name) for name in names]
    if any(name not in TEXT_CLASSES for name in found[:encoders]) or any(found[encoders:]):
        return False
    unet = read_json(folder / "unet" / "config.json")
    added = unet.get("addition_embed_type")
    if any(unet.get(name) for name in UNET_SWITCHES) or added != (None if encoders == 1 else "text_time"):
        return False
    if encoders == 2 and index.get("requires_aesthetics_score"):  # XL's refiner
        return False
    scheduler = _scheduler(folder)
    fits = scheduler.get("prediction_type", "epsilon") in PREDICTIONS
    return fits and not scheduler.get("rescale_betas_zero_snr")


def open_unet(folder: Path) -> Checkpoint[UNet2DConditionModel]:
    """The UNet in `folder/unet`, without reading the weights."""
    place = folder / "unet"
    stored, files = stored_in(place, "diffusion_pytorch_model")
    model = _built(place, UNet2DConditionModel)
    return checked(place, Checkpoint("diffusers", model, stored, plan_as_is(stored), files))


def open_vae(place: Path) -> Checkpoint[AutoencoderKL]:
    """The autoencoder in a folder, without reading the weights."""
    stored, files = stored_in(place, "diffusion_pytorch_model")
    renamed = {_vae_name(key): array for key, array in stored.items()}
    return checked(place, Checkpoint("diffusers", _built(place, AutoencoderKL), renamed, plan_as_is(renamed), files))


def open_text(place: Path) -> Checkpoint[ClipText]:
    """A CLIP text encoder in transformers' layout, without reading the weights."""
    stored, files = stored_in(place, "model", "pytorch_model")
    return text_checkpoint(place, stored, files, text_facts(read_json(place / "config.json"), place))


def text_checkpoint(
    where: Path, stored: Mapping[str, Stored], files: tuple[Path, ...], facts: Mapping[str, Any]
) -> Checkpoint[ClipText]:
    """Tensors by transformers' names -> our text encoder; `facts` are what `ClipTextConfig.from_shapes` takes."""
    named: dict[str, Stored] = {}
    for key, array in stored.items():
        if not NOT_WEIGHTS.fullmatch(key) and key != "embeddings.position_ids":
            bare = key.startswith(("embeddings.", "encoder.", "final_layer_norm."))  # as transformers 5 saves it
            named[f"text_model.{key}" if bare else key] = array
    plan: Plan = plan_transformers({key: array.shape for key, array in named.items()})
    try:
        config = ClipTextConfig.from_shapes({name: piece.shape for name, piece in plan.items()}, **facts)
    except ValueError as error:
        raise WeightsError(f"{where}: {error}") from None
    return checked(where, Checkpoint("transformers", on_meta(ClipText, config), named, plan, files))


def text_facts(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What a text encoder's config says that no shape tells."""
    if config.get("layer_norm_eps", 1e-5) != 1e-5:
        raise WeightsError(f"{where}: layer_norm_eps is {config['layer_norm_eps']!r}; only 1e-05 is supported.")
    eot = config.get("eos_token_id", 2)
    return {
        "heads": config.get("num_attention_heads"),
        "activation": config.get("hidden_act", "quick_gelu"),
        "eot_token_id": None if eot == 2 else eot,  # 2 stands in published configs by mistake
    }


def read_tokenizer(place: Path, context_length: int) -> tuple[ClipTokenizer, int]:
    """CLIP's tokenizer in a folder, and the id it pads with: the end of text, where nothing else is said."""
    if (place / "tokenizer.json").is_file() and not (place / "vocab.json").is_file():
        model = read_json(place / "tokenizer.json").get("model", {})
        vocab, merges = model.get("vocab"), model.get("merges")
        if not isinstance(vocab, dict) or not isinstance(merges, list):
            raise WeightsError(f"{place}: tokenizer.json has no vocabulary with merges; it is not CLIP's.")
        pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
        tokenizer = ClipTokenizer(vocab, pairs, context_length)
    else:
        tokenizer = ClipTokenizer.from_folder(place, context_length)
        vocab = read_json(place / "vocab.json") if (place / "vocab.json").is_file() else {}
    config = place / "tokenizer_config.json"
    pad = read_json(config).get("pad_token") if config.is_file() else None
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if pad in (None, END):
        return tokenizer, tokenizer.eot_token_id
    if type(vocab.get(pad)) is not int:
        raise WeightsError(f"{config}: pad_token {pad!r} is not in the vocabulary")
    return tokenizer, vocab[pad]


def has_tokenizer(place: Path) -> bool:
    named = any((place / name).is_file() for name in ("vocab.json", "tokenizer.json"))
    return named or len(list(place.glob("bpe_*.txt.gz"))) == 1


def schedule_of(folder: Path) -> tuple[Tensor, str]:
    """The share of signal left at each timestep (float64), and what the UNet predicts: "epsilon" or "v"."""
    config, where = _scheduler(folder), folder / "scheduler"
    predicted = PREDICTIONS.get(config.get("prediction_type", "epsilon"))
    if predicted is None:
        raise WeightsError(f"{where}: prediction_type {config['prediction_type']!r}; allowed: {', '.join(PREDICTIONS)}")
    steps = config.get("num_train_timesteps", 1000)
    first, last = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    kind = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif kind == "scaled_linear":
        betas = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2
    elif kind == "linear":
        betas = torch.linspace(first, last, steps, dtype=torch.float64)
    else:
        raise WeightsError(f"{where}: beta_schedule {kind!r}; allowed: scaled_linear, linear")
    return (1 - betas).cumprod(0), predicted


def stored_in(place: Path, *names: str) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    """The tensors of a part and its files: `NAME.safetensors`, a variant, several with an index, or `NAME.bin`."""
    for name in names:
        for file in (place / f"{name}.safetensors", place / f"{name}.fp16.safetensors"):
            if file.is_file():
                return read_safetensors(file), (file,)
        for index in (place / f"{name}.safetensors.index.json", place / f"{name}.fp16.safetensors.index.json"):
            if index.is_file():
                return _sharded(index)
        if (file := place / f"{name}.bin").is_file():
            return dict(read_torch(file)), (file,)
    kind = "has no weights" if place.is_dir() else "there is no such folder"
    raise WeightsError(f"{place}: {kind}; looked for {names[0]}.safetensors. Fetch the whole pipeline.")


def checked(where: Path, checkpoint: Checkpoint[Any]) -> Checkpoint[Any]:
    """The checkpoint, after holding every name and shape against the model."""
    check_plan(where, checkpoint.plan, shapes_of(checkpoint.stored), shapes_of(checkpoint.model))
    check_floating(where, checkpoint.stored)
    return checkpoint


def _sharded(index: Path) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) and "/" not in name for name in places.values()):
        raise WeightsError(f"{index}: has no weight_map of file names; it is damaged, fetch it again.")
    files = tuple(index.with_name(name) for name in sorted(set(places.values())))
    stored: dict[str, Stored] = {}
    for file in files:
        stored |= read_safetensors(file)
    return stored, files


def _built(place: Path, model_class: Any) -> Any:
    """The network of a part's config, without memory for its weights."""
    config = {key: value for key, value in read_json(place / "config.json").items() if not key.startswith("_")}
    try:
        return on_meta(lambda values: model_class.from_config(values), config)  # type: ignore[arg-type]
    except (TypeError, ValueError, KeyError, NotImplementedError) as error:
        raise WeightsError(f"{place}: diffusers cannot make its {model_class.__name__}: {error}") from None


def _vae_name(key: str) -> str:
    module, _, leaf = key.rpartition(".")
    above, _, last = module.rpartition(".")
    return f"{above}.{OLD_ATTENTION[last]}.{leaf}" if last in OLD_ATTENTION and ".attentions." in above else key


def _class(index: Mapping[str, Any], name: str) -> str | None:
    """Class of a part, as model_index.json names it; None where it has none."""
    entry = index.get(name)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _scheduler(folder: Path) -> dict[str, Any]:
    return read_json(folder / "scheduler" / "scheduler_config.json")
