"""SigLIP from folders that transformers wrote: its features, its pictures, its tokens; and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from dalle_flow.errors import WeightsError
from dalle_flow.executors.base import Done, Task
from dalle_flow.executors.siglip import SiglipRanker, load_siglip
from dalle_flow.models.siglip_preprocess import SiglipPreprocess
from dalle_flow.models.text.siglip_tokens import SiglipTokenizer

SIZE, LENGTH = 35, 11
TEXTS = ["a cat", "A Purple ELEPHANT, at sunset!", "", "猫 и кот", "x" * 40, "two  spaces\tand a tab", "(a.b) 'c'"]
PREPROCESSOR = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "SiglipProcessor",
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": SIZE, "width": SIZE},
}


def write_tokenizer(folder: Path, kind: str = "Siglip2Tokenizer", **config: Any) -> int:
    """A small Gemma-like tokenizer: pieces of words, bytes for what is unknown, <eos> at the end. Its size."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [*"abcdefghijklmnopqrstuvwxyz▁,.!", "ca", "cat", "▁cat", "pu", "rp"]
    pieces = [*special, *(f"<0x{i:02X}>" for i in range(256)), *letters]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("c", "a"), ("ca", "t"), ("▁", "cat"), ("p", "u"), ("r", "p")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    known = {"tokenizer_class": kind, "pad_token": "<pad>", "padding_side": "right", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(known | config))
    return len(vocab)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder as transformers writes it, and its model. Odd sizes; heads that differ between the towers."""
    from transformers.models.siglip.configuration_siglip import SiglipConfig
    from transformers.models.siglip.modeling_siglip import SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    size = write_tokenizer(folder)
    text = {"vocab_size": size, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 3, "max_position_embeddings": LENGTH, "bos_token_id": 2, "eos_token_id": 1}
    vision = {"hidden_size": 24, "intermediate_size": 41, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"image_size": SIZE, "patch_size": 5}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder, model


@pytest.fixture
def folder(written: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    for file in written[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def images() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    sizes = [(SIZE, SIZE), (64, 17), (1, 1), (20, 90), (300, 200)]
    noise = [Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)) for size in sizes]
    return [*noise, noise[1].convert("L"), noise[4].convert("RGBA"), noise[3].convert("P")]


def change(file: Path, **values: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    known = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))


def test_features_are_transformers(written: tuple[Path, Any]) -> None:
    folder, reference = written
    model = load_siglip(folder)
    pixels = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = torch.randint(250, (6, LENGTH), generator=torch.Generator().manual_seed(0))
    ours, theirs = model(input_ids=tokens, pixel_values=pixels), reference(input_ids=tokens, pixel_values=pixels)
    assert torch.allclose(ours.image_embeds, theirs.image_embeds, atol=1e-6)
    assert torch.allclose(ours.text_embeds, theirs.text_embeds, atol=1e-6)
    assert not any(parameter.is_meta for parameter in (*model.parameters(), *model.buffers()))


def test_scores_are_the_cosines_of_transformers_with_its_own_preparation(written: tuple[Path, Any]) -> None:
    """From pictures and text to the score, everything theirs on one side: the processor, the tokenizer, the model."""
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    folder, reference = written
    ranker = SiglipRanker.load({"siglip": folder}, "cpu")
    pictures = [image.convert("RGB") for image in images()]
    pixels = SiglipImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"]
    tokenizer = Siglip2Tokenizer.from_pretrained(folder, padding_side="right")
    options = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "pt"}
    for text in TEXTS:
        tokens = tokenizer([text], **options)["input_ids"]
        found = reference(input_ids=tokens, pixel_values=pixels)
        expected = (found.image_embeds @ found.text_embeds.T)[:, 0]
        task = Task(text, ranker.Options(), images=tuple(pictures))
        scores = [done.result for done in ranker.step(ranker.admit(task)) if isinstance(done, Done)]
        assert torch.allclose(torch.tensor(scores), expected, atol=1e-5)


@pytest.mark.parametrize("resample", [2, 3])
def test_pictures_are_prepared_as_by_transformers(resample: int) -> None:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    ours = SiglipPreprocess(SIZE, {2: "bilinear", 3: "bicubic"}[resample], mean, std)
    theirs = SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, resample=resample, image_mean=list(mean), image_std=list(std)
    )
    for image in images():
        expected = theirs(image, return_tensors="pt")["pixel_values"]
        assert torch.allclose(ours([image]), expected, atol=1e-6), image.mode
    assert ours(images()).shape == (8, 3, SIZE, SIZE)
    assert ours([]).shape == (0, 3, SIZE, SIZE)


def test_tokens_are_transformers(written: tuple[Path, Any]) -> None:
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    theirs = Siglip2Tokenizer.from_pretrained(written[0], padding_side="right")
    ours = SiglipTokenizer.from_folder(written[0], LENGTH)
    options = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "pt"}
    assert torch.equal(ours(TEXTS), theirs(TEXTS, **options)["input_ids"])
    assert ours(["a cat"])[0, -1] == 0, "padded on the right"
    assert ours(["x" * 40])[0, -1] == 1, "the end stays where a text is cut"


def test_the_first_siglip_reads_no_punctuation(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "SiglipTokenizer")
    tokens = SiglipTokenizer.from_folder(tmp_path, LENGTH)
    assert torch.equal(tokens(["A  Cat, (it's.)\n"]), tokens(["a cat its"]))
    write_tokenizer(tmp_path)
    tokens = SiglipTokenizer.from_folder(tmp_path, LENGTH)
    assert not torch.equal(tokens(["a cat."]), tokens(["a cat"]))
    assert torch.equal(tokens(["A CAT."]), tokens(["a cat."]))


def test_padding_on_the_left_where_the_folder_says_so(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, padding_side="left", pad_token={"content": "<pad>", "special": True})
    assert SiglipTokenizer.from_folder(tmp_path, LENGTH)(["cat"])[0].tolist()[:3] == [0, 0, 0]


@pytest.mark.parametrize("shards", [1, 3])
def test_weights_in_one_file_or_several_with_or_without_tables(folder: Path, shards: int) -> None:
    state = load_file(folder / "model.safetensors")
    state["vision_model.embeddings.position_ids"] = torch.arange(49)[None]
    (folder / "model.safetensors").unlink()
    if shards == 1:
        save_file({name: tensor.to(torch.bfloat16) for name, tensor in state.items()}, folder / "model.safetensors")
    else:
        names = sorted(state)
        places = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
        for file in set(places.values()):
            save_file({name: state[name] for name in names if places[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    model = load_siglip(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.allclose(model.vision_model.head.probe, state["vision_model.head.probe"], rtol=0.01)
    assert model.vision_model.embeddings.position_ids.tolist() == [list(range(49))]


def test_weights_that_do_not_fit(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")

    def refused(changed: dict[str, torch.Tensor], message: str) -> None:
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(WeightsError, match=message):
            load_siglip(folder)

    refused({**state, "extra": torch.ones(1)}, "not known: extra")
    refused({name: t for name, t in state.items() if name != "logit_scale"}, "missing: logit_scale")
    refused({**state, "logit_scale": torch.ones(2)}, "of another shape: logit_scale")
    refused({**state, "logit_scale": torch.ones(1, dtype=torch.int64)}, "expected a floating-point type")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "siglip2"}, "is a 'siglip2', not a 'siglip'.*naflex"),
        ({"model_type": "clip"}, "is a 'clip', not a 'siglip'"),
        ({"text_config": {"hidden_size": "x"}}, "no SigLIP can be built of it"),
        ({"text_config": {"hidden_size": 30, "num_attention_heads": 7}}, "no SigLIP can be built of it .*divisible"),
        ({"vision_config": {"hidden_act": "nope"}}, "no SigLIP can be built of it"),
        ({"vision_config": {"vision_use_head": False}}, "without vision head"),
        ({"text_config": {"hidden_size": 48}}, "do not fit"),
    ],
)
def test_configs_that_are_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    change(folder / "config.json", **values)
    with pytest.raises(WeightsError, match=message):
        load_siglip(folder)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("preprocessor_config.json", {"size": {"height": 9, "width": 9}}, "both sides to 9.*wants both sides to be 35"),
        ("preprocessor_config.json", {"size": {"shortest_edge": SIZE}}, "the short one to 35"),
        ("preprocessor_config.json", {"size": {"height": 9, "width": 8}}, "one number of pixels"),
        ("preprocessor_config.json", {"do_center_crop": True}, "crop 35"),
        ("preprocessor_config.json", {"do_resize": False}, "do_resize is False"),
        ("preprocessor_config.json", {"rescale_factor": 1}, "rescale_factor is 1"),
        ("preprocessor_config.json", {"resample": 1}, "resample is 1; known: 2"),
        ("preprocessor_config.json", {"image_mean": [1, 2]}, "image_mean is .* three numbers"),
        ("preprocessor_config.json", {"image_std": None}, "no preprocessor_config.json with size, mean"),
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}, "is of class 'BertTokenizer'.*known classes"),
        ("tokenizer_config.json", {"pad_token": "<none>"}, "no padding token '<none>'"),
        ("tokenizer_config.json", {"pad_token": None}, "cannot be read"),
        ("tokenizer_config.json", {"padding_side": "up"}, "on the 'up'"),
    ],
)
def test_folders_that_are_refused(folder: Path, file: str, values: dict[str, Any], message: str) -> None:
    change(folder / file, **values)
    with pytest.raises(WeightsError, match=message):
        SiglipRanker.load({"siglip": folder}, "cpu")


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_missing_or_damaged_file(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"{")
    with pytest.raises(WeightsError):
        SiglipRanker.load({"siglip": folder}, "cpu")
    (folder / file).unlink()
    with pytest.raises(WeightsError, match=file.split(".")[0]):
        SiglipRanker.load({"siglip": folder}, "cpu")


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    change(folder / "config.json", text_config={**json.loads((folder / "config.json").read_text())["text_config"]})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<more>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(WeightsError, match=r"the tokenizer has \d+ tokens, the model only \d+: not a pair"):
        SiglipRanker.load({"siglip": folder}, "cpu")


def test_a_file_in_place_of_the_folder(folder: Path) -> None:
    with pytest.raises(WeightsError, match="are a folder as transformers has it"):
        SiglipRanker.load({"siglip": folder / "model.safetensors"}, "cpu")
