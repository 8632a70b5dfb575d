import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from tiny_encoders import write_encoders
from torch import Tensor

import dreamwalk
from dreamwalk.clip import Clip
from dreamwalk.commands.play import clip_app
from dreamwalk.conditions.hunyuan import CROP, TEMPLATE, HunyuanTextConfig, PairedTextModel
from dreamwalk.conditions.moviegen import JointProjection, MovieGenTextConfig
from dreamwalk.conditions.multi import MultiTextModel
from dreamwalk.conditions.pretrained import (
    ClipTextConfig,
    DecoderTextConfig,
    EmbeddingDims,
    PretrainedTextModel,
    QuotedTextConfig,
    T5TextConfig,
    TextModelConfig,
    padded,
    quoted,
)
from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.serve.clip_queue import parse_clip_request
from dreamwalk.systems.moviegen import Moviegen, MoviegenConfig, tiny
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

TEXTS = ["walk", "turn left right left", "", "a brick hall"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoders(tmp_path_factory.mktemp("encoders"))


def clip(folder: Path) -> ClipTextConfig:
    return ClipTextConfig(str(folder), max_length=12, model="text_encoder_2", tokenizer="tokenizer_2")


def llama(folder: Path, template: str = "describe a video: {}<|eot_id|>") -> DecoderTextConfig:
    return DecoderTextConfig(str(folder), template=template, model="text_encoder", tokenizer="tokenizer")


def opened(config: TextModelConfig) -> PretrainedTextModel:
    return PretrainedTextModel(config, dtype=torch.float32)


def present(words: TextEmbedding) -> list[int]:
    rows, columns = words.tokens.shape[:2]
    return words.mask.sum(1).tolist() if words.mask is not None else [columns] * rows


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "lengths"),
    [(clip, [3, 6, 2, 5]), (llama, [2, 5, 1, 4]), *[(name, [3, 6, 2, 5]) for name in ("t5", "umt5")]],
)
def test_a_text_means_the_same_in_any_batch(folder: Path, config: object, lengths: list[int]) -> None:
    """Whatever is read along with it, and in whichever order; nothing is longer than the longest text."""
    made = T5TextConfig(str(folder / config)) if isinstance(config, str) else config(folder)
    encoder = opened(made)
    together = encoder.encode(TEXTS)
    assert present(together) == lengths
    assert together.tokens.shape == (4, max(lengths), encoder.dims.tokens)
    for row, text in enumerate(TEXTS):
        alone = encoder.encode([text])
        assert alone.mask is None
        close(together.tokens[row, : lengths[row]], alone.tokens[0])
        if encoder.dims.pooled:
            close(together.pooled[row], alone.pooled[0])
    assert not together.tokens.requires_grad


def test_more_texts_than_are_read_at_once(folder: Path) -> None:
    encoder = opened(T5TextConfig(str(folder / "t5")))
    texts = ["walk " * (k % 7) for k in range(40)]
    words = encoder.encode(texts)
    assert present(words) == [k % 7 + 2 for k in range(40)]
    close(words.tokens[33, :7], encoder.encode([texts[33]]).tokens[0])


def test_states_are_those_of_the_models(folder: Path) -> None:
    symbols = torch.tensor([[1, 4, 5, 6, 13]])
    theirs = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder_2")(symbols)
    ours = opened(clip(folder)).encode(["a brick hall"])
    close(ours.tokens, theirs.last_hidden_state)
    close(ours.pooled, theirs.pooler_output)
    for name, kind in (("t5", transformers.T5EncoderModel), ("umt5", transformers.UMT5EncoderModel)):
        theirs = kind.from_pretrained(folder / name)(symbols)
        close(
            opened(T5TextConfig(str(folder / name))).encode(["a brick hall"]).tokens, theirs.last_hidden_state
        )


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_the_layer_and_the_crop(folder: Path, skip: int) -> None:
    """`describe a video :` and the mark of the beginning are cropped, and `<|eot_id|>` stays."""
    model = transformers.LlamaModel.from_pretrained(folder / "text_encoder")
    states = model(torch.tensor([[1, 11, 4, 12, 2, 7, 9, 3]]), output_hidden_states=True).hidden_states
    encoder = opened(replace(llama(folder), skip=skip, crop=5))
    close(encoder.encode(["walk left"]).tokens, states[-1 - skip][:, 5:])
    assert len(encoder.model.layers) == 4 - skip
    with pytest.raises(ValueError, match="makes 5 tokens of the template where its authors have 95"):
        opened(replace(llama(folder), crop=95)).encode(["walk"])
    with pytest.raises(ValueError, match="has 4 layers: skip fewer than 4"):
        opened(replace(llama(folder), skip=4)).encode(["walk"])


def test_long_texts_are_cut_where_their_authors_cut_them(folder: Path) -> None:
    words = opened(clip(folder)).encode(["walk " * 30])
    assert words.tokens.shape[1] == 12
    close(words.pooled, words.tokens[:, -1])
    assert opened(replace(llama(folder), max_length=6)).encode(["walk " * 30]).tokens.shape[1] == 6
    with pytest.raises(ValueError, match="reads 12 tokens, not 77: ask for 12"):
        opened(replace(clip(folder), max_length=77)).encode(["walk"])


def test_a_prompt_that_would_be_cut_is_refused_in_tokens(folder: Path) -> None:
    """Bytes do not count, and what the template adds after the text does."""
    language = opened(replace(llama(folder), max_length=6))
    encoder = HunyuanTextConfig(str(folder)).build()
    encoder.__dict__["model"] = PairedTextModel(language, opened(clip(folder)))
    long = f"walk {'a' * 400} brick hall"
    encoder.check(long)
    assert encoder([long]).tokens.shape[1] == 5
    for read in (encoder.check, lambda text: encoder([text])):
        with pytest.raises(UserError, match="a text has 31 tokens and 6 are read: shorten 'walk"):
            read("walk " * 30)
    letters = opened(QuotedTextConfig(str(folder / "byt5"), max_length=4))
    letters.check("a long text without letters to be shown")
    with pytest.raises(UserError, match="a text has 7 tokens and 4 are read"):
        MultiTextModel([language, letters]).check('a "STOP!!"')


def test_the_page_counts_as_the_encoder_does(folder: Path) -> None:
    config = replace(tiny(), text_encoder=HunyuanTextConfig(str(folder)))
    config = replace(config, backbone=replace(config.backbone, text_dim=32, pooled_dim=16))
    system = Moviegen(config).eval()
    system.text_encoder.__dict__["model"] = PairedTextModel(
        opened(replace(llama(folder), max_length=6)), opened(clip(folder))
    )
    clips = clip_app("published", system).clips
    assert clips is not None and clips.longest is None
    long = {"prompt": f"walk {'a' * 400} brick hall", "steps": 1}
    made = list(clips.make(parse_clip_request(json.dumps(long).encode(), clips)))
    assert made[-1].frames is not None and len(made[-1].frames) == 5
    for key in ("prompt", "negative"):
        with pytest.raises(UserError, match=f"{key}: a text has 31 tokens and 6 are read"):
            parse_clip_request(json.dumps(long | {key: "walk " * 30}).encode(), clips)


def test_letters_are_those_in_quotes(folder: Path) -> None:
    assert quoted('a sign "OPEN" over “24 h” and „Brot“') == "OPEN 24 h Brot"
    assert quoted("it's a 'walk', 5\" wide") == quoted('""') == ""
    encoder = opened(QuotedTextConfig(str(folder / "byt5"), max_length=4))
    words = encoder.encode(['say "hé"', "walk", 'say "a long thing"'])
    assert present(words) == [4, 0, 4]
    symbols = torch.tensor([[byte + 3 for byte in "hé".encode()] + [1]])
    close(words.tokens[:1], encoder.model(input_ids=symbols).last_hidden_state)
    none = encoder.encode(["walk", "left"])
    assert none.tokens.shape == (2, 0, 24)
    assert none.mask is None


def test_hunyuans_pair_gives_what_its_pipeline_gives(folder: Path) -> None:
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video as theirs

    assert theirs.DEFAULT_PROMPT_TEMPLATE == {"template": TEMPLATE, "crop_start": CROP}
    pair = HunyuanTextConfig(str(folder)).open(torch.device("cpu"), torch.float32)
    with pytest.raises(ValueError, match="where its authors have 95: it belongs to another model"):
        pair.encode(TEXTS)
    pair.tokens = opened(replace(pair.tokens.config, crop=None))
    pair.pooled = opened(replace(pair.pooled.config, max_length=12))
    parts = SimpleNamespace(
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=transformers.AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder=transformers.LlamaModel.from_pretrained(folder / "text_encoder"),
        text_encoder_2=transformers.CLIPTextModel.from_pretrained(folder / "text_encoder_2"),
    )
    template = {"template": TEMPLATE, "crop_start": pair.tokens.crop}
    pipeline, at = theirs.HunyuanVideoPipeline, {"device": torch.device("cpu")}
    states, mask = pipeline._get_llama_prompt_embeds(parts, TEXTS, template, max_sequence_length=8, **at)
    pooled = pipeline._get_clip_prompt_embeds(parts, TEXTS, max_sequence_length=12, **at)
    words = pair.encode(TEXTS)
    assert present(words) == mask.sum(1).tolist() == [2, 5, 1, 4]
    close(words.tokens[words.mask], states[mask.bool()])
    close(words.pooled, pooled)
    assert pair.dims == EmbeddingDims(32, 16)


def movie_gen(folder: Path, **changes: object) -> MovieGenTextConfig:
    """Its three at tiny size; MetaCLIP lies in one folder with its tokenizer, as published."""
    metaclip = folder / "metaclip"
    if not metaclip.exists():
        shutil.copytree(folder / "tokenizer_2", metaclip)
        shutil.copytree(folder / "text_encoder_2", metaclip, dirs_exist_ok=True)
    names = {"source": str(folder / "t5"), "byt5": str(folder / "byt5"), "metaclip": str(metaclip)}
    sizes = {"width": 20, "pooled_dim": 7, "widths": (24, 24, 16), "lengths": (512, 100, 12)}
    return MovieGenTextConfig(**{**names, **sizes, **changes})  # type: ignore[arg-type]


def test_the_three_of_movie_gen(folder: Path) -> None:
    """Joined, a text's tokens are the same whichever texts it comes with."""
    published = MovieGenTextConfig("ul2", byt5="byt5", metaclip="metaclip", pooled_dim=7)
    assert published.lengths == (512, 100, 256) and published.max_length == 868
    joined = movie_gen(folder).build()
    joined.__dict__["model"] = joined.config.open(torch.device("cpu"), torch.float32)
    texts = ['turn left "hi"', "walk"]
    words = joined(texts)
    assert words.tokens.shape == (2, 7 + 3 + 7, 20)
    assert present(words) == [17, 6]
    assert words.pooled.shape == (2, 7)
    alone = joined(texts[1:])
    assert alone.tokens.shape == (1, 6, 20)
    close(words.tokens[1, words.mask[1]], alone.tokens[0])
    close(words.pooled[1:], alone.pooled)
    with pytest.raises(UserError, match="is 24 wide, and this system is for one of 32"):
        movie_gen(folder, widths=(32, 24, 16)).build()(texts)


def test_movie_gens_encoders_in_a_system(folder: Path, tmp_path: Path) -> None:
    """The projection is trained and stored, the models are neither; training reads each text once, and what
    is opened from a file writes nowhere."""
    config = replace(tiny(), text_encoder=movie_gen(folder, cache=str(tmp_path / "cache")))
    config = replace(config, backbone=replace(config.backbone, text_dim=20, pooled_dim=7))
    system = Moviegen(config)
    for parameter in system.backbone.parameters():  # no layer at zero
        parameter.data += 0.05
    assert {name.split(".")[1] for name in system.state_dict() if name.startswith("text_encoder")} == {
        "projection"
    }
    clip = Clip(torch.randint(0, 255, (2, 5, 3, 32, 32)).byte(), caption=["walk", 'a "hall"'])
    losses = []
    for _ in range(2):
        loss = system.loss(clip, KeyedGenerator([(0, 1, 0), (0, 1, 1)]))["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        for model in system.text_encoder.model.model.models:
            model.__dict__["model"] = None
    assert losses[0] == losses[1], "from the cache: the models are gone"
    assert system.text_encoder.projection.tokens[0][0].weight.grad.abs().sum() > 0
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2
    files.save(tmp_path / "m.safetensors", system.state_dict(), metadata=about(config))
    opened_again = dreamwalk.load(tmp_path / "m.safetensors")
    assert opened_again.sample("turn right", frames=5).shape == (1, 5, 32, 32, 3)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2


def about(config: MoviegenConfig) -> dict[str, object]:
    return {"system": "moviegen", "config": to_json(config)}


def test_pooled_vectors_side_by_side() -> None:
    dims = [EmbeddingDims(4, 3), EmbeddingDims(6, None), EmbeddingDims(2, 5)]
    words = [
        TextEmbedding(torch.randn(2, n + 1, w.tokens), pooled=w.pooled and torch.randn(2, w.pooled))
        for n, w in enumerate(dims)
    ]
    joined = JointProjection(dims, width=8)
    given = joined(words)
    assert joined.dims == EmbeddingDims(8, 8)
    assert given.mask is None
    close(given.pooled, torch.cat([words[0].pooled, words[2].pooled], -1))
    close(given.tokens.mean(-1), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="none of these text encoders gives a pooled vector"):
        JointProjection([EmbeddingDims(6, None)], width=8, pooled=4)


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    """In one sentence, and nothing is looked for elsewhere."""
    with pytest.raises(ValueError, match=r"no text encoder at '/nowhere/t5': put its folder there, or name"):
        PretrainedTextModel(T5TextConfig("/nowhere/t5")).encode(["walk"])
    (tmp_path / "empty").mkdir()
    for config in (T5TextConfig(str(tmp_path / "empty")), ClipTextConfig(str(tmp_path / "empty"))):
        with pytest.raises(ValueError, match=re.escape(f"opened from '{tmp_path / 'empty'}'")):
            PretrainedTextModel(config).encode(["walk"])
    bare = shutil.copytree(folder / "t5", tmp_path / "bare")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no T5EncoderModel can be opened from"):
        PretrainedTextModel(T5TextConfig(str(bare))).encode(["walk"])
    with pytest.raises(ValueError, match="it holds no T5EncoderModel, or not all"):
        PretrainedTextModel(
            T5TextConfig(str(folder), model="text_encoder_2", tokenizer="tokenizer_2")
        ).encode(["walk"])


def test_weights_are_opened_when_needed_and_closed_when_asked(folder: Path) -> None:
    encoder = PretrainedTextModel(T5TextConfig(str(folder / "t5")))
    assert encoder.dims == EmbeddingDims(24, None)
    assert "model" not in vars(encoder)
    words = encoder.encode(["walk"])
    assert words.tokens.dtype == torch.bfloat16
    assert not encoder.model.training
    encoder.close()
    assert "model" not in vars(encoder)
    assert torch.equal(encoder.encode(["walk"]).tokens, words.tokens)


def test_padding_is_told_apart() -> None:
    words = padded([torch.ones(2, 3), torch.ones(0, 3)], None)
    assert words.mask.tolist() == [[True, True], [False, False]]
    assert words.pooled is None
