"""Losses of a batch of KITTI frames, their gradients and one optimiser step, beside recorded ones.

Losses, weights and optimiser are those of the official recipes. Source: cmkd-spec K3.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import Student, build_student
from cmkd_ros.official import STUDENT_RULES, official_key
from cmkd_ros.training.data.collate import make_batch
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.engine.activation_memory import recompute_activations
from cmkd_ros.training.engine.distill_module import distillation_terms
from cmkd_ros.training.engine.optimise import make_optimiser
from cmkd_ros.training.engine.recipe import DistillRecipe, load_recipe
from cmkd_ros.training.parity.frames import golden_frames
from cmkd_ros.training.parity.records import GRADIENT_LIMIT, Row, array_row, number_row, sampled
from cmkd_ros.training.parity.rule import fill_by_rule
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.lidar_teacher import TeacherOutput
from cmkd_ros.training.teacher.official_names import official_rules
from cmkd_ros.training.teacher.spec import load_teacher_spec

OFFICIAL_TERMS = {
    'bev': 'bev_loss', 'depth': 'loss_depth', 'cls': 'rpn_loss_cls', 'box': 'rpn_loss_loc',
    'dir': 'rpn_loss_dir',
}  # fmt: skip
RATE_LIMIT = 1e-12
MEANINGFUL_GRADIENT = 1e-7  # ten times AdamW's epsilon
SCHEDULE_STEPS = 1000  # of the recorded schedules; the first step does not depend on it


@dataclass(frozen=True)
class LossGolden:
    """A recorded loss: name in losses.json, recipe with its weights, mode of the batch norms."""

    key: str
    recipe: str
    train_mode: bool = False

    @property
    def title(self) -> str:
        """For the table."""
        mode = 'train' if self.train_mode else 'eval'
        return f'{self.recipe}, batch norm in {mode} mode'


LOSS_GOLDENS = (
    LossGolden('scd_R50_bev|bn_eval|as-config', 'student_scd_kitti_stage1'),
    LossGolden('scd_R50_bev|bn_train|as-config', 'student_scd_kitti_stage1', train_mode=True),
    LossGolden('scd_R50_V2|bn_eval|as-config', 'student_scd_kitti_stage2'),
    LossGolden('pp_R50_bev|bn_eval|as-config', 'student_pp_kitti_stage1'),
    LossGolden('ctp_R50_bev|bn_eval|as-config', 'student_ctp_kitti_stage1'),
)


def loss_rows(goldens: Path, golden: LossGolden, gradients: bool) -> list[Row]:
    """Losses of the three frames on one canvas, unflipped, without dropout.

    Args:
        goldens: folder of recorded values.
        golden: which of them.
        gradients: also run backward, and one step where one was recorded (5 GB of memory).

    Raises:
        ImportError: a sparse teacher without spconv.
    """
    recorded = json.loads((goldens / 'losses.json').read_text())[golden.key]
    recipe = load_recipe(golden.recipe)
    if not isinstance(recipe, DistillRecipe):
        raise ValueError(f'{golden.recipe}: expected a recipe of a student')
    spec = load_spec(recipe.student)
    frames = golden_frames(goldens, spec.grid.range_m, with_depth=True)
    batch = make_batch([frames[i] for i in range(len(frames))])
    teacher = _teacher_output(recipe, batch)
    student = _student(spec, recipe.stage == 2, golden.train_mode)
    if recipe.optimiser.checkpoint_activations:
        recompute_activations(student)
    with torch.set_grad_enabled(gradients):
        output = student(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
        terms = distillation_terms(output, teacher, batch, spec, recipe.weights)
        total = torch.stack(list(terms.values())).sum()
    rows = [
        number_row(OFFICIAL_TERMS[name], term.item(), recorded[OFFICIAL_TERMS[name]])
        for name, term in terms.items()
    ]
    rows.append(number_row('total', total.item(), recorded['total']))
    if gradients:
        total.backward()
        rows += _gradient_rows(student, recorded)
        record = dict(np.load(goldens / f'loss_{"_".join(golden.key.split("|")[:2])}.npz'))
        if 'lr_first' in recorded:
            rows += _step_rows(student, recipe, recorded, record)
    return rows


def schedule_rows(goldens: Path) -> list[Row]:
    """Rate and beta1 of every iteration of runs of a thousand."""
    record = dict(np.load(goldens / 'schedule_onecycle_1000.npz'))
    rows = []
    for name, recipe_name in (
        ('stage1', 'student_scd_kitti_stage1'),
        ('stage2_scd', 'student_scd_kitti_stage2'),
        ('stage2_other', 'student_pp_kitti_stage2'),
    ):
        recipe = load_recipe(recipe_name)
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimiser, schedule = make_optimiser([parameter], recipe.optimiser, SCHEDULE_STEPS)
        rates, betas = [], []
        for step in range(SCHEDULE_STEPS):
            group = optimiser.param_groups[0]
            rates.append(group['lr'])
            betas.append(group['betas'][0])
            optimiser.step()
            if step > 0:  # see make_optimiser
                schedule.step()
        rows.append(array_row(f'{name}.lr', rates, record[f'{name}.lr'], RATE_LIMIT))
        rows.append(array_row(f'{name}.beta1', betas, record[f'{name}.beta1'], RATE_LIMIT))
    return rows


def _teacher_output(recipe: DistillRecipe, batch: Batch) -> TeacherOutput:
    if recipe.teacher_spec is None or batch.points is None:
        raise ValueError(f'{recipe.name}: names no teacher_spec')
    spec = load_teacher_spec(recipe.teacher_spec)
    teacher = build_teacher(spec, with_head=recipe.stage == 2).eval()
    fill_by_rule(teacher, official_rules(spec))
    with torch.inference_mode(), torch.no_grad():
        output = teacher(batch.points)
    # Out of inference mode: the losses may need gradients beside it.
    head = output.head
    if head is not None:
        head = type(head)(*(value.clone() for value in vars(head).values()))
    return TeacherOutput(output.bev_BCYX.clone(), head)


def _student(spec: NetworkSpec, with_head: bool, train_mode: bool) -> Student:
    student = build_student(spec, with_head)
    fill_by_rule(student, STUDENT_RULES)
    student.train(train_mode)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    return student


def _gradient_rows(student: Student, recorded: dict[str, Any]) -> list[Row]:
    """Norms of the gradients by official module."""
    squares = {
        official_key(name): float(parameter.grad.double().square().sum())
        for name, parameter in student.named_parameters()
        if parameter.grad is not None
    }
    rows = []
    for part, norm in recorded['grad_norm'].items():
        ours = math.sqrt(sum(v for key, v in squares.items() if key.startswith(f'{part}.')))
        rows.append(number_row(f'gradient norm of {part}', ours, norm, GRADIENT_LIMIT))
    ours = math.sqrt(sum(squares.values()))
    rows.append(
        number_row('gradient norm of all', ours, recorded['grad_norm_total'], GRADIENT_LIMIT)
    )
    return rows


def _step_rows(
    student: Student, recipe: DistillRecipe, recorded: dict[str, Any], record: dict[str, Any]
) -> list[Row]:
    """Clipped gradients and the first step of AdamW, of the parameters that were recorded."""
    parameters = {official_key(name): p for name, p in student.named_parameters()}
    chosen = [key[len('grad.') : -len('.samp')] for key in record if _is_grad(key)]
    norm = torch.nn.utils.clip_grad_norm_(student.parameters(), recipe.optimiser.clip_norm).item()
    optimiser, _ = make_optimiser(student.parameters(), recipe.optimiser, SCHEDULE_STEPS)
    group = optimiser.param_groups[0]
    before = {key: _sample(parameters[key].detach(), record, key).copy() for key in chosen}
    rows = [
        number_row('norm before clipping', norm, recorded['clip_returned_norm'], GRADIENT_LIMIT),
        number_row('first learning rate', group['lr'], recorded['lr_first'], RATE_LIMIT),
        number_row('first beta1', group['betas'][0], recorded['betas_first'][0], RATE_LIMIT),
    ]
    optimiser.step()
    for key in chosen:
        gradient = parameters[key].grad
        if gradient is None:
            raise ValueError(f'{key}: no gradient')
        golden, step = record[f'grad.{key}.samp'], record[f'delta.{key}.samp']
        ours = _sample(parameters[key].detach(), record, key) - before[key]
        # AdamW's first step is the sign of the gradient, except where that is of the size of
        # its epsilon: there it is a quotient of rounding errors.
        told = np.abs(golden) > MEANINGFUL_GRADIENT
        rows += [
            array_row(f'grad.{key}', _sample(gradient, record, key), golden, GRADIENT_LIMIT),
            array_row(f'delta.{key}', ours[told], step[told], GRADIENT_LIMIT),
        ]
    return rows


def _is_grad(key: str) -> bool:
    return key.startswith('grad.') and key.endswith('.samp')


def _sample(tensor: torch.Tensor, record: dict[str, Any], key: str) -> np.ndarray:
    return sampled(tensor.numpy(), len(record[f'grad.{key}.samp']))
