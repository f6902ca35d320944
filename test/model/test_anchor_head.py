"""Anchors, residuals, direction and the choice of boxes of the anchor head."""

import math

import pytest
import torch

from cmkd_ros.model.anchor_head import AnchorHead, decode_boxes, encode_boxes
from cmkd_ros.model.outputs import AnchorHeadOutput

SIZES = [(3.9, 1.6, 1.56), (0.8, 0.6, 1.73)]
BOTTOMS = [-1.78, -0.6]
RANGE_M = (2.0, -30.08, -3.0, 46.8, 30.08, 1.0)


def make_head(in_channels=4):
    torch.manual_seed(0)
    return AnchorHead(in_channels, 2, SIZES, BOTTOMS, (0.0, 1.57), RANGE_M)


def random_maps(n_y=6, n_x=5, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def maps(channels, scale):
        return scale * torch.randn(batch, n_y, n_x, channels, generator=generator)

    return AnchorHeadOutput(maps(4 * 2, 3.0), maps(4 * 7, 0.3), maps(4 * 2, 1.0))


def test_anchors_reach_from_border_to_border():
    """Quirk of the official code: the first and last anchors lie on the range's borders."""
    anchors = make_head().anchors((188, 140), 'cpu').view(188, 140, 2, 2, 7)

    assert anchors[0, 0, 0, 0].tolist() == pytest.approx([2.0, -30.08, -1.0, 3.9, 1.6, 1.56, 0.0])
    assert anchors[-1, -1, 1, 1].tolist() == pytest.approx(
        [46.8, 30.08, -0.6 + 0.865, 0.8, 0.6, 1.73, 1.57]
    )
    steps = anchors[0, :, 0, 0, 0].double().diff()
    assert torch.allclose(steps, torch.full_like(steps, 44.8 / 139), atol=1e-5)


def test_a_residual_is_in_units_of_the_anchor():
    anchor = torch.tensor([[10.0, 2.0, -1.0, 4.0, 3.0, 2.0, 1.57]])
    delta = torch.tensor([[0.5, -1.0, 0.25, math.log(2), 0.0, math.log(0.5), 0.1]])

    expected = torch.tensor([[12.5, -3.0, -0.5, 8.0, 3.0, 1.0, 1.67]])
    assert torch.allclose(decode_boxes(delta, anchor), expected)
    assert torch.allclose(encode_boxes(expected, anchor), delta, atol=1e-6)


def test_encoding_inverts_decoding():
    generator = torch.Generator().manual_seed(1)
    anchors = torch.rand(200, 7, generator=generator, dtype=torch.float64) + 0.5
    boxes = torch.rand(200, 7, generator=generator, dtype=torch.float64) * 5 + 0.1

    assert torch.allclose(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, atol=1e-12)


def test_direction_bins_and_residual_give_the_yaw_back():
    """A yaw known up to half a turn, and its bin: whole again, modulo a turn."""
    head = make_head()
    yaw = torch.linspace(-7, 7, 1001, dtype=torch.float64)
    logits = torch.nn.functional.one_hot(head.direction_bins(yaw), 2)
    half_turns = torch.arange(1001, dtype=torch.float64) % 5 - 2

    found = head.resolve_yaw(yaw + half_turns * math.pi, logits)
    assert (torch.sin((found - yaw) / 2).abs() < 1e-9).all()


def test_maps_are_channels_last_in_anchor_order():
    head = make_head().eval()
    bev = torch.randn(2, 4, 3, 5)
    output = head(bev)

    assert output.cls_logits.shape == (2, 3, 5, 4 * 2)
    assert output.box_deltas.shape == (2, 3, 5, 4 * 7)
    assert output.dir_logits.shape == (2, 3, 5, 4 * 2)
    assert torch.allclose(output.cls_logits[1, 2, 3], head.cls(bev)[1, :, 2, 3], atol=1e-6)
    assert torch.allclose(output.cls_logits.mean(), torch.tensor(-math.log(99)), atol=0.5)


def test_decode_takes_the_best_class_of_every_anchor_above_the_threshold():
    """Against a loop over all anchors."""
    head, output = make_head(), random_maps()
    expected = []
    anchors = head.anchors((6, 5), 'cpu')
    for index in range(len(anchors)):
        cell, anchor = divmod(index, 4)
        y, x = divmod(cell, 5)
        scores = output.cls_logits[1, y, x, 2 * anchor : 2 * anchor + 2].sigmoid()
        if scores.max() < 0.3:
            continue
        delta = output.box_deltas[1, y, x, 7 * anchor : 7 * anchor + 7]
        box = decode_boxes(delta[None], anchors[index][None])[0]
        turned = box[6] - 0.78539
        turned = turned - torch.floor(turned / math.pi) * math.pi
        direction = output.dir_logits[1, y, x, 2 * anchor : 2 * anchor + 2].argmax()
        box[6] = turned + 0.78539 + math.pi * direction
        expected.append((scores.max().item(), int(scores.argmax()), box))
    expected.sort(key=lambda item: -item[0])

    found = head.decode(output, 1, 0.3, 1000)
    assert 0 < len(found) == len(expected) < len(anchors)
    assert found.scores_K.tolist() == pytest.approx([item[0] for item in expected])
    assert found.labels_K.tolist() == [item[1] for item in expected]
    assert torch.allclose(found.boxes_K7, torch.stack([item[2] for item in expected]), atol=1e-5)
    assert torch.equal(head.decode(output, 1, 0.3, 7).boxes_K7, found.boxes_K7[:7])


def test_the_threshold_itself_passes():
    output = random_maps()
    output.cls_logits.fill_(-9.0)
    output.cls_logits[0, 1, 2, 3] = 0.0

    assert make_head().decode(output, 0, 0.5, 10).scores_K.tolist() == [0.5]


def test_classes_and_anchors_must_match():
    with pytest.raises(ValueError, match='3 classes need as many anchors, found 2 sizes'):
        AnchorHead(4, 3, SIZES, BOTTOMS, (0.0,), RANGE_M)
