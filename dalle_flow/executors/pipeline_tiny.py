"""Stable Diffusion at toy size, of diffusers' and transformers' own classes, with random weights and no files."""

from typing import Any

from ..models.text.bpe import byte_characters
from ..models.text.clip_bpe import END, START, WORD_END

WIDTH = 32  # of the text states
TEXT_LENGTH = 77


def tiny_stable_diffusion() -> Any:
    """A StableDiffusionPipeline of 32x32 pictures, 110,000 parameters; its weights come from torch's random state."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    library: Any = diffusers
    bytes_ = byte_characters()
    pieces = [*bytes_, *(byte + WORD_END for byte in bytes_), START, END]
    tokenizer = CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], model_max_length=TEXT_LENGTH
    )
    start, end = len(pieces) - 2, len(pieces) - 1
    text = CLIPTextConfig(
        vocab_size=len(pieces), hidden_size=WIDTH, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH, bos_token_id=start, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    unet = library.UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
    )  # fmt: skip
    vae = library.AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = library.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipeline = library.StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for network in (unet, vae, pipeline.text_encoder):
        network.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
