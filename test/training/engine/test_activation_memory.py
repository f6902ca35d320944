"""Recomputed activations against kept ones: same values, same gradients, less memory."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from cmkd_ros.model.bev import BevBackbone, SelfCalibratedBlock
from cmkd_ros.model.image_backbone import ImageBackbone
from cmkd_ros.training.engine.activation_memory import recompute_activations
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.recipe import OptimiserSpec


class SmallNetwork(nn.Module):
    """One of every kind of block that is recomputed, and dropout between them."""

    def __init__(self, resnet):
        super().__init__()
        self.image = ImageBackbone(resnet, 64, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), downscale=2)
        self.reduce = nn.Sequential(nn.Conv2d(64, 8, 1), nn.Dropout(0.3))
        self.adaptation = SelfCalibratedBlock(8)
        self.bev = BevBackbone(8, [1, 1], [1, 2], [8, 8], [1, 2], [8, 8])

    def forward(self, image):
        deep = self.image(image).deep_BCHW
        return self.bev(self.adaptation(self.reduce(deep)))


def make_pair(resnet):
    torch.manual_seed(0)
    plain = SmallNetwork(resnet).train()
    thrifty = copy.deepcopy(plain)
    assert recompute_activations(thrifty) == (8 if resnet == 'resnet18' else 16) + 1 + 2
    return plain, thrifty


@pytest.fixture(scope='module', params=['resnet18', 'resnet50'])
def stepped(request):
    """Both networks after one forward and backward of the same images and dropout."""
    results = []
    for network in make_pair(request.param):
        torch.manual_seed(1)
        output = network(torch.rand(2, 3, 96, 128))
        output.square().mean().backward()
        results.append((network, output))
    return results


def test_outputs_and_gradients_are_those_of_the_plain_network(stepped):
    (plain, expected), (thrifty, found) = stepped
    assert torch.equal(found, expected)
    wanted = dict(plain.named_parameters())
    for name, parameter in thrifty.named_parameters():
        assert wanted[name].grad.abs().max() > 0
        error = (parameter.grad - wanted[name].grad).norm() / wanted[name].grad.norm()
        assert error < 1e-5, name


def test_running_statistics_count_a_batch_once(stepped):
    (plain, _), (thrifty, _) = stepped
    wanted = plain.state_dict()
    found = thrifty.state_dict()
    assert list(found) == list(wanted)
    counters = [name for name in wanted if name.endswith('num_batches_tracked')]
    assert len(counters) > 20
    assert all(found[name].item() == 1 for name in counters)
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name


@pytest.mark.parametrize('by_recipe', [False, True], ids=['called', 'by the recipe'])
def test_few_activations_are_kept(by_recipe):
    kept = []
    pair = make_pair('resnet18')
    if by_recipe:
        pair = (SmallNetwork('resnet18'), SmallNetwork('resnet18'))
        for network, thrifty in zip(pair, (False, True), strict=True):
            TrainingModule(network, OptimiserSpec(epochs=1, checkpoint_activations=thrifty))
    for network in pair:
        sizes = {}

        def remember(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with saved_tensors_hooks(remember, lambda tensor: tensor):
            network(torch.rand(2, 3, 96, 128)).sum()
        weights = {p.data_ptr() for p in network.parameters()}
        kept.append(sum(size for pointer, size in sizes.items() if pointer not in weights))
    plain, thrifty = kept
    assert thrifty < 0.5 * plain


def test_without_gradients_nothing_changes():
    plain, thrifty = make_pair('resnet18')
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(thrifty.eval()(image), plain.eval()(image))
