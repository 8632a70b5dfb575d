"""Pictures of a class, scale after scale: cached and whole, seeds and classes, and training."""

from dataclasses import replace

import pytest
import torch
from learning import fallen, learn

from dreamwalk.backbones.scaleformer import ScaleFormerConfig
from dreamwalk.backbones.token_heads import TokenSampling
from dreamwalk.clip import Clip
from dreamwalk.codecs.quantizers import FSQConfig
from dreamwalk.codecs.tokens import TokenCodecConfig, tokens_tiny
from dreamwalk.codecs.vqgan import VQGANConfig
from dreamwalk.errors import UserError
from dreamwalk.systems.nextscale import NextScale, NextScaleConfig, tiny


def made() -> NextScale:
    """With weights that make everything matter."""
    torch.manual_seed(0)
    system = tiny().build().eval()
    for parameter in system.backbone.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.2)
    return system


@torch.no_grad()
def test_scales_behind_a_cache_are_those_of_one_pass() -> None:
    system = made().double()
    model = system.backbone
    tokens, classes = torch.randint(32, (2, 31)), torch.tensor([0, 3])
    told = system.told_all(tokens)
    whole, cache, start = model(told, classes), model.cache(batch=2), 0
    for k, end in enumerate(model.ends):
        own = told[:, max(start - 1, 0) : end - 1]
        past = cache if k else None
        logits, fresh = model.predict(own, classes, range(k, k + 1), past)
        torch.testing.assert_close(logits, whole[:, start:end], atol=1e-12, rtol=0)
        if end < model.ends[-1]:
            cache.write({k: end - start}, fresh, lambda scale: True)
        start = end


@torch.no_grad()
def test_no_scale_sees_its_own_tokens() -> None:
    system, tokens = made().double(), torch.randint(32, (1, 31))
    classes, other = torch.tensor([1]), tokens.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 32
    same = system.backbone(system.told_all(other), classes)
    assert torch.equal(same, system.backbone(system.told_all(tokens), classes))
    other[:, 6] = (other[:, 6] + 1) % 32
    changed = system.backbone(system.told_all(other), classes)
    assert torch.equal(changed[:, :7], same[:, :7]) and not torch.equal(changed[:, 7:], same[:, 7:])


def test_a_picture_depends_on_its_class_and_its_seed_alone() -> None:
    system = made()
    sampling = TokenSampling(guidance=2.0)
    many = system.draw([0, 1, 1], seeds=[5, 6, 7], sampling=sampling)
    assert torch.equal(system.draw([1], seeds=[6], sampling=sampling), many[1:2])
    assert not torch.equal(many[1], many[2])
    assert system.sample([0], seeds=[5]).shape == (1, 3, 8, 12)


def test_it_learns_a_picture_by_heart() -> None:
    torch.manual_seed(0)
    system = tiny().build()
    clip = Clip(video=torch.randint(0, 256, (1, 1, 3, 8, 12), dtype=torch.uint8))
    told = learn(system, clip, steps=60, lr=1e-2)
    assert fallen(told) < 0.1 and told[-1]["right"] == 1
    greedy = system.draw([3], seeds=[0], sampling=TokenSampling(temperature=0))
    assert torch.equal(greedy, system.codec.tokens(clip.video / 127.5 - 1)[:, 0])
    assert not any(parameter.requires_grad for parameter in system.codec.parameters())
    assert system.preview(clip).shape == clip.video.shape


def test_what_does_not_fit_is_said() -> None:
    config, system = tiny(), made()
    with pytest.raises(UserError, match="another scales"):
        NextScaleConfig(config.codec, replace(config.backbone, scales=((1, 1), (4, 6))))
    with pytest.raises(UserError, match="another vocabulary, 32 and 33"):
        NextScaleConfig(config.codec, replace(config.backbone, vocabulary=33))
    for codec in (tokens_tiny(), TokenCodecConfig(VQGANConfig(4, 16, (1, 2), 1), FSQConfig((4, 4, 4, 4)))):
        with pytest.raises(UserError, match="one of frames with a multi-scale quantizer"):
            NextScaleConfig(codec, config.backbone)
    with pytest.raises(UserError, match="a width that its heads divide"):
        ScaleFormerConfig(((1, 1),), 10, heads=3)
    with pytest.raises(UserError, match="there is no class 4: they are 0 to 2, and 3 stands for none"):
        system.draw([4], seeds=[0])
    with pytest.raises(UserError, match="2 classes need as many seeds"):
        system.draw([0, 1], seeds=[0])
    with pytest.raises(UserError, match="behind the 3 scales that there are comes none"):
        system.quantizer.told(torch.zeros(1, 31, dtype=torch.long))
    with pytest.raises(UserError, match=r"need values \(pictures, tokens, channels\) of \(1, 30, 4\)"):
        system.backbone(torch.zeros(1, 29, 4), torch.tensor([0]))
