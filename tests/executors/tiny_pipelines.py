"""Toy pipelines of the real classes, with random weights: one builder per family, and the files that hold them.

Everything is made here, tokenizers too; nothing is fetched. Pictures are 32x32 and take a step in some milliseconds.
"""

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from dalle_flow.executors.pipeline_tiny import tiny_stable_diffusion
from dalle_flow.executors.quiet import quiet
from dalle_flow.models.text.bpe import byte_characters

LETTERS = "▁abcdefghijklmnopqrstuvwxyz0123456789,.-"
WIDTH = 32  # of text states


def clip_tokenizer() -> Any:
    return tiny_stable_diffusion().tokenizer


def clip_text(name: str = "CLIPTextModel") -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=WIDTH, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=WIDTH, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return getattr(transformers, name)(config)


def t5_tokenizer() -> Any:
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((letter, -3.0) for letter in LETTERS)]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=64, d_model=WIDTH, d_kv=8, d_ff=40, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return transformers.T5EncoderModel(config)


def autoencoder(channels: int = 4, **more: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=channels, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **more,
    )  # fmt: skip


def flow_matching(**more: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **more)


def stable_diffusion_xl() -> Any:
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH, transformer_layers_per_block=(1, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + WIDTH,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text("CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        add_watermarker=False,
    )


def stable_diffusion_3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=WIDTH, pooled_projection_dim=2 * WIDTH,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=flow_matching(),
        vae=autoencoder(16, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text("CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text("CLIPTextModelWithProjection"),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=t5_tokenizer(),
    )


def flux() -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=flow_matching(use_dynamic_shifting=True),
        vae=autoencoder(shift_factor=0.1, scaling_factor=0.36, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def qwen_image() -> Any:
    pieces = [*byte_characters(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 1024, "rope_scaling": rope,
            "bos_token_id": 256, "eos_token_id": 256,
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
        vision_start_token_id=290, vision_end_token_id=291, vision_token_id=292,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.9, 1.1, 1.3, 0.7],
    )  # fmt: skip
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    return diffusers.QwenImagePipeline(
        scheduler=flow_matching(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def flux_2_klein() -> Any:
    """Reads a chat template, has latents of its own kind, and takes a picture to start from without a strength."""
    pieces = [*byte_characters(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    config = transformers.Qwen3Config(
        vocab_size=300, hidden_size=8, intermediate_size=16, num_hidden_layers=27, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=True, bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16, guidance_embeds=False,
    )  # fmt: skip
    return diffusers.Flux2KleinPipeline(
        scheduler=flow_matching(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=transformers.Qwen3ForCausalLM(config),
        tokenizer=tokenizer,
        transformer=transformer,
        is_distilled=True,
    )


def pixart_sigma() -> Any:
    """Tells its steps by the callback of older pipelines, and makes one of a list of sizes only."""
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=32, patch_size=2, in_channels=4, out_channels=8, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, cross_attention_dim=32, caption_channels=WIDTH, use_additional_conditions=False,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=2, latent_channels=4, sample_size=256,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return diffusers.PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def stable_diffusion_inpaint() -> Any:
    """With a UNet that sees a mask and a picture, and so can do nothing else."""
    parts = tiny_stable_diffusion().components
    unet = diffusers.UNet2DConditionModel.from_config(parts["unet"].config, in_channels=9)
    return diffusers.StableDiffusionInpaintPipeline(**{**parts, "unet": unet}, requires_safety_checker=False)


def stable_diffusion_checked() -> Any:
    """With a safety checker, as the published folder of version 1.5."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=tower, vision_config={**tower, "image_size": 32, "patch_size": 16}, projection_dim=16
    )
    checker = StableDiffusionSafetyChecker(config)
    for weights in (checker.special_care_embeds_weights, checker.concept_embeds_weights):
        weights.data.fill_(2.0)  # no cosine is above that: nothing is found
    parts = {**tiny_stable_diffusion().components, "safety_checker": checker}
    parts["feature_extractor"] = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return diffusers.StableDiffusionPipeline(**parts)


FAMILIES = {
    "sd15": tiny_stable_diffusion,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "qwen": qwen_image,
    "klein": flux_2_klein,
    "pixart": pixart_sigma,
    "inpaint": stable_diffusion_inpaint,
    "checked": stable_diffusion_checked,
}


def save(family: str, folder: Path) -> Path:
    """A family's folder, as `save_pretrained` writes it."""
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        FAMILIES[family]().save_pretrained(folder)
    return folder


def save_single_file(pipeline: Any, path: Path) -> None:
    """Stable Diffusion 1.5 of two levels as one file with the original names, written by rules of our own."""
    state = {f"model.diffusion_model.{_unet_key(k)}": v for k, v in pipeline.unet.state_dict().items()}
    for key, value in pipeline.vae.state_dict().items():
        name = _vae_key(key)
        is_matrix = "attn_1" in name and value.ndim == 2  # stored as a 1x1 convolution
        state[f"first_stage_model.{name}"] = value[..., None, None] if is_matrix else value
    prefix = "cond_stage_model.transformer.text_model."
    state |= {prefix + k.removeprefix("text_model."): v for k, v in pipeline.text_encoder.state_dict().items()}
    state = {key: value.contiguous() for key, value in state.items()}
    if path.suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 7}, path)
    else:
        save_file(state, path)


PLACES = {  # level and block of diffusers -> number of the block in the original, for two levels of one res block
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RES_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _unet_key(key: str) -> str:
    place = next(place for place in PLACES if key.startswith(place + "."))
    rest = key.removeprefix(place)
    if "resnets" in place:
        rest = next(rest.replace(ours, theirs) for ours, theirs in RES_BLOCK.items() if rest.startswith(f".{ours}."))
    return PLACES[place] + rest


def _vae_key(key: str) -> str:
    for level in (0, 1):
        key = key.replace(f"encoder.down_blocks.{level}.resnets", f"encoder.down.{level}.block")
        key = key.replace(f"encoder.down_blocks.{level}.downsamplers.0", f"encoder.down.{level}.downsample")
        key = key.replace(f"decoder.up_blocks.{level}.resnets", f"decoder.up.{1 - level}.block")
        key = key.replace(f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.up.{1 - level}.upsample")
    for ours, theirs in {
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.resnets.1": "mid.block_2",
        "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
        "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
        "mid_block.attentions.0.to_": "mid.attn_1.",
        "conv_shortcut": "nin_shortcut",
        "conv_norm_out": "norm_out",
    }.items():
        key = key.replace(ours, theirs)
    return key
