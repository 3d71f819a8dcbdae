"""Stable Diffusion, all parts together: from CompVis' single files (version 1) or diffusers' folders (1, 2 and XL).

A single file that lacks autoencoder and text encoder, as some inpainting files do, takes them from elsewhere; its
tokenizer always comes from beside it. A folder `diffusers_config` beside it, or given, has what shows in no shape.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ..errors import WeightsError
from ..models.clip_text import ClipText, TextStates
from ..models.latent_codec import KLCodec
from ..models.text.clip_bpe import ClipTokenizer
from . import diffusers_folder
from .compvis_file import CONFIG_FOLDER, TEXT, UNET, VAE, Unseen, open_text, open_unet, open_vae, read_parts, unseen_in
from .diffusers_folder import has_tokenizer, read_tokenizer
from .disk import read_json
from .files import Checkpoint, Device
from .identity import TOKENIZER, files_in
from .plan import Stored

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class TextReader:
    """A text encoder, its tokenizer, and the id that fills up what the text leaves free."""

    encoder: ClipText
    tokenizer: ClipTokenizer
    pad_token_id: int

    def read(self, text: str) -> TextStates:
        """The states of one text (B = 1); what is longer than the encoder reads is cut off at its end."""
        tokens = self.tokenizer([text], truncate=True)  # (1, T)
        tokens[0, len(self.tokenizer.encode(text)) + 2 :] = self.pad_token_id
        states: TextStates = self.encoder(tokens.to(self.encoder.ln_final.weight.device))
        return states


@dataclass(frozen=True)
class StableDiffusion:
    """All parts, loaded."""

    unet: UNet2DConditionModel
    codec: KLCodec
    texts: tuple[TextReader, ...]
    latent_scale: float
    size_px: int
    prediction: str
    signal: Tensor | None
    blank_is_zero: bool  # the unconditional states are zeros where no negative prompt is given, as XL was trained
    files: Mapping[str, Sequence[Path]]  # all that were read, by part, for the weights' hash


def load_stable_diffusion(
    weights: Mapping[str, Path], *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> StableDiffusion:
    """Stable Diffusion from `stable` (a file, a folder with one file, or a diffusers folder).

    Args:
        weights: by role; besides `stable` may be there: `vae` and `text` (a file or diffusers folder of that part
            alone, used instead of the file's own), `tokenizer` (folder), `config` (folder with diffusers' configs).

    Raises:
        WeightsError: something is missing, damaged, or of another model.
    """
    path = weights["stable"]
    if path.is_dir() and (path / "model_index.json").is_file():
        return _load_folder(path, weights, dtype, device)
    return _load_file(checkpoint_file(path), weights, dtype, device)


def checkpoint_file(path: Path) -> Path:
    """The file a path names, or the one checkpoint in a folder."""
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(found) != 1:
        what = f"has {len(found)} checkpoints ({', '.join(file.name for file in found[:4])})" if found else "has none"
        raise WeightsError(f"{path}: {what}; name one .ckpt or .safetensors file, or a folder with model_index.json.")
    return found[0]


def _load_file(path: Path, weights: Mapping[str, Path], dtype: torch.dtype, device: Device) -> StableDiffusion:
    parts = read_parts(path)
    if not parts[UNET]:
        raise WeightsError(f"{path}: has no {UNET}*, so it is no Stable Diffusion 1 in one file.")
    if parts[""]:
        names = ", ".join(sorted(parts[""])[:4])
        raise WeightsError(f"{path}: {len(parts[''])} tensors are of no part of Stable Diffusion 1: {names}.")
    beside = path.parent / CONFIG_FOLDER
    config = weights.get("config", beside if beside.is_dir() else None)
    unseen = unseen_in(config)
    unet = open_unet(path, parts[UNET], unseen)
    vae = _vae(weights["vae"], unseen) if "vae" in weights else _own(path, parts, VAE, unseen)
    text = _text(weights["text"], unseen) if "text" in weights else _own(path, parts, TEXT, unseen)
    place = _tokenizer_place(weights, path, config)
    reader = TextReader(text.load(dtype, device), *read_tokenizer(place, text.model.config.context_length))
    _check_fit(path, unet.model, vae.model, [reader])
    return StableDiffusion(
        unet.load(dtype, device), KLCodec(vae.load(dtype, device)).eval(), (reader,), unseen.latent_scale,
        unseen.size_px, unseen.prediction, unseen.signal, False,
        {"unet": unet.files, "vae": _files(vae, weights.get("vae"), "vae"),
         "text": _files(text, weights.get("text"), "text_encoder"),
         "tokenizer": files_in(place, *TOKENIZER), **_settings(config)},
    )  # fmt: skip


def _load_folder(folder: Path, weights: Mapping[str, Path], dtype: torch.dtype, device: Device) -> StableDiffusion:
    if not diffusers_folder.is_stepped_here(folder):
        raise WeightsError(f"{folder}: is no Stable Diffusion 1, 2 or XL whose parts are all known here.")
    if other := [role for role in weights if role not in ("stable", "vae")]:
        raise WeightsError(f"{folder}: a diffusers folder brings its own {other[0]}; leave {other[0]}=PATH out.")
    index = read_json(folder / "model_index.json")
    unet = diffusers_folder.open_unet(folder)
    vae = _vae(weights["vae"], Unseen()) if "vae" in weights else diffusers_folder.open_vae(folder / "vae")
    readers: list[TextReader] = []
    files = {"unet": unet.files, "vae": _files(vae, weights.get("vae"), "vae"), **_settings(folder)}
    for suffix in ("", "_2"):
        if not (folder / f"text_encoder{suffix}").is_dir():
            continue
        text = diffusers_folder.open_text(folder / f"text_encoder{suffix}")
        place = folder / f"tokenizer{suffix}"
        words = read_tokenizer(place, text.model.config.context_length)
        readers.append(TextReader(text.load(dtype, device), *words))
        files |= {f"text{suffix}": text.files, f"tokenizer{suffix}": files_in(place, *TOKENIZER)}
    _check_fit(folder, unet.model, vae.model, readers)
    signal, prediction = diffusers_folder.schedule_of(folder)
    codec = KLCodec(vae.load(dtype, device)).eval()
    config: Any = vae.model.config
    zero = len(readers) == 2 and index.get("force_zeros_for_empty_prompt", True) is True
    size_px = _side(unet.model.config) * codec.downscale
    return StableDiffusion(
        unet.load(dtype, device), codec, tuple(readers), config.scaling_factor, size_px, prediction, signal, zero,
        files,
    )  # fmt: skip


def _side(config: Mapping[str, Any]) -> int:
    """Latents along a side that a UNet is used to."""
    side = config.get("sample_size") or 64
    return int(side if isinstance(side, int) else side[0])


def _settings(folder: Path | None) -> dict[str, Sequence[Path]]:
    """The configs of a diffusers folder, by part: they decide a picture as the weights do, and are named alike."""
    if folder is None:
        return {}
    parts = sorted({file.parent for file in folder.glob("*/*config.json")})
    found = {f"config/{part.name}": files_in(part, "*config.json") for part in parts}
    return {"config": files_in(folder, "model_index.json"), **found}


def _files(part: Checkpoint[Any], given: Path | None, name: str) -> Sequence[Path]:
    """The files of a part; where its folder was given by itself, or the whole folder it is in, with its config."""
    if given is None or not given.is_dir():
        return part.files
    return (*part.files, *files_in(given / name if (given / name).is_dir() else given, "config.json"))


def _own(path: Path, parts: Mapping[str, dict[str, Stored]], part: str, unseen: Unseen) -> Checkpoint[Any]:
    """The autoencoder or text encoder that a file brings itself."""
    what, role = ("autoencoder", "vae") if part == VAE else ("text encoder", "text")
    if not parts[part]:
        raise WeightsError(f"{path}: has no {what} ({part}*); say where one is with {role}=PATH.")
    return open_vae(path, parts[part], unseen) if part == VAE else open_text(path, parts[part], unseen)


def _vae(path: Path, unseen: Unseen) -> Checkpoint[AutoencoderKL]:
    """An autoencoder given by itself: diffusers' folder, a whole checkpoint's, or a file of nothing else."""
    if path.is_dir():
        return diffusers_folder.open_vae(path / "vae" if (path / "vae").is_dir() else path)
    parts = read_parts(path)
    return open_vae(path, parts[VAE] or parts[""], unseen)


def _text(path: Path, unseen: Unseen) -> Checkpoint[ClipText]:
    """A text encoder given by itself, in the same three ways."""
    if path.is_dir():
        return diffusers_folder.open_text(path / "text_encoder" if (path / "text_encoder").is_dir() else path)
    parts = read_parts(path)
    return open_text(path, parts[TEXT] or parts[""], unseen)


def _tokenizer_places(weights: Mapping[str, Path], path: Path, config: Path | None) -> Iterator[Path]:
    """Where a tokenizer may be: where it is said to be and nowhere else, or by the text encoder, or by the file."""
    if "tokenizer" in weights:
        yield weights["tokenizer"]
        return
    if text := weights.get("text"):
        folder = text if text.is_dir() else text.parent
        yield from (folder, folder / "tokenizer", folder.parent / "tokenizer")
    yield from (path.parent, path.parent / "tokenizer")
    if config is not None:
        yield config / "tokenizer"


def _tokenizer_place(weights: Mapping[str, Path], path: Path, config: Path | None) -> Path:
    places = list(_tokenizer_places(weights, path, config))
    if not (found := [place for place in places if has_tokenizer(place)]):
        raise WeightsError(
            f"{places[0]}: there is no tokenizer. CLIP's vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz, "
            "must be beside the weights or in a folder 'tokenizer' there, or be named with tokenizer=FOLDER."
        )
    return found[0]


def _check_fit(where: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, texts: list[TextReader]) -> None:
    """Refuse parts of different models; each loads on its own."""
    unet_config, vae_config = dict(unet.config), dict(vae.config)
    width = sum(reader.encoder.config.width for reader in texts)
    if unet_config["cross_attention_dim"] != width:
        reads = unet_config["cross_attention_dim"]
        raise WeightsError(f"{where}: the UNet reads text states of width {reads}, the text encoder has {width}")
    if unet_config["out_channels"] != vae_config["latent_channels"]:
        sizes = f"{unet_config['out_channels']} and {vae_config['latent_channels']}"
        raise WeightsError(f"{where}: UNet and autoencoder have latents of {sizes} channels: not a pair")
    for reader in texts:
        if reader.tokenizer.vocab_size > reader.encoder.config.vocab_size:
            sizes = f"{reader.tokenizer.vocab_size} tokens, the text encoder only {reader.encoder.config.vocab_size}"
            raise WeightsError(f"{where}: the tokenizer has {sizes}: not a pair")
