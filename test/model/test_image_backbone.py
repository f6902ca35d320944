"""Normalisation, padding and geometry of the image backbone."""

import pytest
import torch

from cmkd_ros.model.image_backbone import ImageBackbone

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_backbone(resnet='resnet18', layer4_channels=64, downscale=1):
    torch.manual_seed(0)
    return ImageBackbone(resnet, layer4_channels, MEAN, STD, downscale).eval()


def test_padding_is_the_mean_colour():
    backbone = make_backbone()
    image = torch.rand(1, 3, 40, 60)
    padded = torch.full((1, 3, 48, 64), torch.nan)
    padded[:, :, :40, :60] = image
    mean_colour = torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 48, 64).clone()
    mean_colour[:, :, :40, :60] = image

    assert torch.allclose(backbone.normalise(padded), backbone.normalise(mean_colour), atol=1e-6)
    assert torch.equal(backbone.normalise(padded)[0, :, 41], torch.zeros(3, 64))
    assert backbone(padded).deep_BCHW.isfinite().all()


def test_normalisation_is_that_of_the_colour_channels():
    image = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    found = make_backbone().normalise(image)[0, :, 0, 0]

    assert torch.allclose(
        found, torch.tensor([(0.2 - 0.485) / 0.229, 0.044 / 0.224, 0.494 / 0.225])
    )


def test_halving_averages_pixels_and_ignores_what_lies_beyond_the_edge():
    image = torch.rand(1, 3, 35, 33)
    small = make_backbone(downscale=2).normalise(image)
    white = make_backbone().normalise(image)

    assert small.shape == (1, 3, 18, 17)
    assert torch.allclose(small[0, :, 0, 0], white[0, :, :2, :2].mean((1, 2)), atol=1e-6)
    assert torch.allclose(small[0, :, 17, 16], white[0, :, 34, 32], atol=1e-6)
    assert torch.allclose(small[0, :, 17, 0], white[0, :, 34, :2].mean(1), atol=1e-6)


@pytest.mark.parametrize('resnet', ['resnet10', 'resnet18', 'resnet50'])
@pytest.mark.parametrize('downscale', [1, 2])
def test_features_have_an_eighth_of_the_size_rounded_up(resnet, downscale):
    backbone = make_backbone(resnet, downscale=downscale)
    features, deep = backbone(torch.rand(2, 3, 70, 130))
    stride = 8 * downscale

    size = (-(-70 // stride), -(-130 // stride))
    assert features.shape == (2, backbone.feature_channels, *size)
    assert deep.shape == (2, 64, *size)


@pytest.mark.parametrize(
    ('resnet', 'layer3', 'layer4'),
    [
        ('resnet18', [1, 1, 2, 2], [2, 2, 4, 4]),
        ('resnet50', [1, 2, 2, 2, 2, 2], [2, 4, 4]),
    ],
)
def test_dilation_replaces_the_strides_of_the_last_layers(resnet, layer3, layer4):
    backbone = make_backbone(resnet)
    for layer, expected in ((backbone.layer3, layer3), (backbone.layer4, layer4)):
        convs = [m for m in layer.modules() if getattr(m, 'kernel_size', 0) == (3, 3)]
        assert [conv.dilation[0] for conv in convs] == expected
        assert {conv.stride for conv in convs} == {(1, 1)}


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match='resnet34.*expected one of resnet10, resnet18, resnet50'):
        make_backbone('resnet34')
    with pytest.raises(ValueError, match='layer4_channels = 130: must be a multiple of 4'):
        make_backbone('resnet50', layer4_channels=130)
