"""Tiny students whose graphs are quick to export, and boxes depend on the image."""

from __future__ import annotations

from pathlib import Path

import torch

from cmkd_ros.export import random_frame
from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import Student, build_student


def tiny_spec(head: str) -> NetworkSpec:
    """A spec with the head of 'r18' (anchor) or of 'ctp_r50' (center)."""
    data = load_spec('r18').model_dump()
    if head == 'center':
        data['head'] = load_spec('ctp_r50').head.model_dump()
    data |= {'name': f'tiny_{head}', 'bev_channels': 16}
    data['grid'] = {'range_m': (2, -20.48, -3, 42.96, 20.48, 1), 'voxel_m': (1.28, 1.28, 0.8)}
    data['depth'] |= {'bins': 24}
    data['image'] |= {'backbone': 'resnet10', 'stem_channels': 16, 'layer4_channels': 32}
    data['image'] |= {'depth_channels': 16, 'reduce_channels': 8}
    data['bev'] = {
        'layers': (1,), 'strides': (1,), 'filters': (16,), 'up_strides': (1,), 'up_filters': (16,),
    }  # fmt: skip
    return NetworkSpec.model_validate(data)


def tiny_student(head: str) -> Student:
    """The student of `tiny_spec` in eval mode: random weights, statistics of what it sees."""
    torch.manual_seed(0)
    student = build_student(tiny_spec(head))
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    if isinstance(student.head, AnchorHead):
        for conv in (student.head.cls, student.head.box, student.head.direction):
            torch.nn.init.normal_(conv.weight, std=0.15)
    frames = zip(*(random_frame(student, (320, 96), seed) for seed in (0, 1)), strict=True)
    images_213HW, *cameras = (torch.stack(parts) for parts in frames)
    with torch.no_grad():
        student.train()(images_213HW[:, 0], *cameras)
    fresh = build_student(tiny_spec(head))
    fresh.load_state_dict(student.state_dict())
    return fresh.eval()


def with_unknown_operator(file: Path, out: Path) -> Path:
    """The graph with an operator on its image that no engine has."""
    import onnx

    model = onnx.load(file)
    for node in model.graph.node:
        for position, given in enumerate(node.input):
            node.input[position] = 'odd' if given == 'image' else given
    model.graph.node.insert(0, onnx.helper.make_node('Odd', ['image'], ['odd'], domain='nowhere'))
    model.opset_import.append(onnx.helper.make_opsetid('nowhere', 1))
    onnx.save(model, out)
    return out
