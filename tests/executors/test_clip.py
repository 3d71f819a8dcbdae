"""The CLIP ranker on folders as transformers writes them: LAION's and PickScore's layout, with exact GELU and all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dalle_flow.errors import WeightsError
from dalle_flow.executors.base import Done, Task
from dalle_flow.executors.clip import ClipRanker
from dalle_flow.models.text.bpe import byte_characters
from dalle_flow.models.text.clip_bpe import END, START
from dalle_flow.weights.files import load_clip

SIZE, LENGTH = 28, 13
TEXTS = ["a cat", "A Purple Elephant, at sunset!", "猫", "x" * 40]
LAION_MEAN, LAION_STD = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]  # of its ViT-L/14, not of its ViT-H/14


def vocabulary() -> dict[str, int]:
    bytes_ = [*byte_characters()]
    return {piece: i for i, piece in enumerate([*bytes_, *(f"{b}</w>" for b in bytes_), START, END])}


def write(folder: Path, act: str = "gelu", **config: Any) -> Any:
    """A CLIP whose towers differ in width and heads, as ViT-H/14's do: 1024 by 64 and 1280 by 80."""
    from transformers.models.clip.configuration_clip import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel

    vocab = vocabulary()
    text = {"vocab_size": len(vocab), "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 3, "max_position_embeddings": LENGTH, "hidden_act": act}
    text |= {"bos_token_id": vocab[START], "eos_token_id": vocab[END], "pad_token_id": vocab[END]}
    vision = {"hidden_size": 40, "intermediate_size": 41, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"image_size": SIZE, "patch_size": 7, "hidden_act": act}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CLIPConfig(text_config=text, vision_config=vision, projection_dim=17)
        model = CLIPModel(made).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm" not in name and "logit" not in name:
                parameter.normal_(std=0.3)  # as trained weights, so that a wrong activation shows
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    if config:
        change(folder / "config.json", **config)
    return model


def change(file: Path, **values: Any) -> None:
    """Change entries of a JSON file, tables entry by entry."""
    known = json.loads(file.read_text())
    for key, value in values.items():
        known[key] = {**known.get(key, {}), **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(known))


def prepare(folder: Path, **values: Any) -> None:
    given = {"do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3, "size": SIZE}
    given |= {"crop_size": {"height": SIZE, "width": SIZE}, "image_mean": LAION_MEAN, "image_std": LAION_STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(given | values))


def images() -> list[Image.Image]:
    """Margins are even: where they are odd, transformers' crop begins a pixel before OpenAI's, which is ours."""
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in [(28, 28), (60, 30), (28, 90)]]


def scores(ranker: ClipRanker, text: str) -> list[float]:
    task = Task(text, ranker.Options(), images=tuple(images()))
    return [done.result for done in ranker.step(ranker.admit(task)) if isinstance(done, Done)]


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("eos", [2, None], ids=["by mistake 2, as published", "right"])
def test_features_are_transformers(tmp_path: Path, act: str, eos: int | None) -> None:
    reference = write(tmp_path, act)
    if eos is not None:
        change(tmp_path / "config.json", text_config={"eos_token_id": eos})
        from transformers.models.clip.modeling_clip import CLIPModel

        reference = CLIPModel.from_pretrained(tmp_path)
    model, vocab = load_clip(tmp_path), vocabulary()
    pixels = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(512, (6, LENGTH), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = vocab[START]
    for row, end in enumerate([2, 5, 7, 9, 11, 12]):
        tokens[row, end:] = vocab[END]  # padded with the end, as transformers does
    with torch.no_grad():
        found = reference(input_ids=tokens, pixel_values=pixels)
        logits = model(pixels, tokens)[0]
    assert torch.allclose(logits, found.logits_per_image, atol=1e-5)
    assert (model.config.activation, model.config.eot_token_id) == (act, None if eos == 2 else vocab[END])


def test_the_ranker_prepares_pictures_and_text_as_transformers(tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    reference = write(tmp_path)
    prepare(tmp_path)
    ranker = ClipRanker.load({"clip": tmp_path}, "cpu")
    pixels = CLIPImageProcessorPil.from_pretrained(tmp_path)(images(), return_tensors="pt")["pixel_values"]
    assert torch.allclose(ranker.preprocess(images()), pixels, atol=1e-6)
    for text in TEXTS:
        tokens = ranker.tokenizer([text], truncate=True)  # of its own, equal to OpenAI's: tests/parity
        with torch.no_grad():
            found = reference(input_ids=tokens, pixel_values=pixels)
        expected = (found.image_embeds @ found.text_embeds.T)[:, 0]
        assert torch.allclose(torch.tensor(scores(ranker, text)), expected, atol=1e-5)


def test_without_a_preprocessor_it_is_openais(tmp_path: Path) -> None:
    write(tmp_path)
    plain = scores(ClipRanker.load({"clip": tmp_path}, "cpu"), "a cat")
    prepare(tmp_path, image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
    assert scores(ClipRanker.load({"clip": tmp_path}, "cpu"), "a cat") == plain
    prepare(tmp_path)
    assert scores(ClipRanker.load({"clip": tmp_path}, "cpu"), "a cat") != plain


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"height": SIZE, "width": SIZE}},
        {"size": 32},
        {"crop_size": 24},
        {"do_center_crop": False},
        {"resample": 2},
    ],
)
def test_other_preparations_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    write(tmp_path)
    prepare(tmp_path, **values)
    with pytest.raises(WeightsError, match="prepares pictures in another way"):
        ClipRanker.load({"clip": tmp_path}, "cpu")


def test_the_older_table_of_a_tower_counts(tmp_path: Path) -> None:
    """LAION's config.json has `text_config_dict` beside `text_config`; transformers takes the first, and so do we."""
    from transformers.models.clip.modeling_clip import CLIPModel

    write(tmp_path, "quick_gelu")
    known = json.loads((tmp_path / "config.json").read_text())
    for tower in ("text", "vision"):
        change(tmp_path / "config.json", **{f"{tower}_config_dict": {**known[f"{tower}_config"], "hidden_act": "gelu"}})
    reference, model = CLIPModel.from_pretrained(tmp_path), load_clip(tmp_path)
    assert model.config.activation == "gelu"
    pixels = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference.get_image_features(pixel_values=pixels).pooler_output
    assert torch.allclose(model.encode_image(pixels), expected, atol=1e-5)
    change(tmp_path / "config.json", text_config_dict=None, vision_config_dict=None)
    assert load_clip(tmp_path).config.activation == "quick_gelu"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps is 1e-06; a CLIP has 1e-05"),
        ({"text_config": {"eos_token_id": [1, 2]}}, r"eos_token_id is \[1, 2\]"),
        ({"vision_config": {"hidden_act": "quick_gelu"}}, "hidden_act is .*gelu.*quick_gelu"),
        ({"text_config_dict": {"hidden_act": "relu"}}, "hidden_act is .*relu"),
    ],
)
def test_configs_of_another_network_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    write(tmp_path, **values)
    with pytest.raises(WeightsError, match=message):
        load_clip(tmp_path)


def split(folder: Path) -> dict[str, str]:
    """The weights in two files, as those of ViT-bigG/14 are."""
    state = load_file(folder / "model.safetensors")
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(state))}
    for file in set(places.values()):
        save_file({name: tensor for name, tensor in state.items() if places[name] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_weights_in_several_files(tmp_path: Path) -> None:
    write(tmp_path)
    whole = load_clip(tmp_path)
    places = split(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(load_clip(tmp_path).parameters(), whole.parameters(), strict=True))
    index = tmp_path / "model.safetensors.index.json"
    for wrong, message in [
        ({name: file for name, file in places.items() if name != "logit_scale"}, "does not hold what"),
        ({**places, "more": places["logit_scale"]}, "does not hold what"),
        ({**places, "more": "../x.safetensors"}, "no 'weight_map' of tensors to files beside it"),
        ({**places, "more": "absent.safetensors"}, "absent"),
        ([], "no 'weight_map'"),
    ]:
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(WeightsError, match=message):
            load_clip(tmp_path)
