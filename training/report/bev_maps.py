"""BEV feature maps of student and teacher side by side, and how far apart they are.

Letters: C channels, Y X rows (along y) and columns (along x) of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmkd_ros.training.report.probe import Probe


@dataclass(frozen=True)
class MapDistance:
    """How well the student's maps match the teacher's.

    Attributes:
        relative_error: squared difference over the square of the teacher's map: 0 is equal, 1 is
            what an empty map gets.
        correlation: of all values; 1 is equal up to scale and offset.
        channels: C.
        dead_student, dead_teacher: channels that are zero in all frames.
    """

    relative_error: float
    correlation: float
    channels: int
    dead_student: int
    dead_teacher: int


def compare_maps(probes: Sequence[Probe]) -> MapDistance | None:
    """Compare over all frames; None without teacher."""
    pairs = [(p.student_CYX, p.teacher_CYX) for p in probes if p.teacher_CYX is not None]
    if not pairs:
        return None
    student, teacher = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    energy = float(np.square(teacher).mean())
    spread = float(student.std() * teacher.std())
    product = float(((student - student.mean()) * (teacher - teacher.mean())).mean())
    return MapDistance(
        relative_error=float(np.square(student - teacher).mean()) / max(energy, 1e-12),
        correlation=product / max(spread, 1e-12),
        channels=teacher.shape[1],
        dead_student=int((np.abs(student).max(axis=(0, 2, 3)) < 1e-6).sum()),
        dead_teacher=int((np.abs(teacher).max(axis=(0, 2, 3)) < 1e-6).sum()),
    )


def draw_maps(probe: Probe, range_m: Sequence[float]) -> Any:
    """A figure: mean strength over the channels of teacher and student, their difference, and the
    two channels in which the teacher says most.

    Args:
        probe: one frame.
        range_m: minima of x, y, z, then maxima, that the maps cover.
    """
    from matplotlib.figure import Figure

    student, teacher = probe.student_CYX, probe.teacher_CYX
    panels = [('student, all channels', np.abs(student).mean(0))]
    if teacher is not None:
        panels.insert(0, ('teacher, all channels', np.abs(teacher).mean(0)))
        panels.append(('difference', np.abs(student - teacher).mean(0)))
        for channel in np.argsort(-teacher.std(axis=(1, 2)))[:2]:
            panels.append((f'teacher, channel {channel}', teacher[channel]))
            panels.append((f'student, channel {channel}', student[channel]))
    figure = Figure(figsize=(2.3 * len(panels), 2.9))
    x_min, y_min, _, x_max, y_max, _ = range_m
    top = {
        'all': max(p.max() for title, p in panels if 'channel ' not in title),
    }
    for axes, (title, map_YX) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        # Pairs that are compared share one scale.
        key = title.partition(', ')[2] if 'channel ' in title else 'all'
        top.setdefault(key, map_YX.max())
        axes.imshow(
            map_YX.T[::-1, ::-1],  # x up, y to the left, as in the view from above
            extent=(y_max, y_min, x_min, x_max),
            vmin=0,
            vmax=max(float(top[key]), 1e-6),
            cmap='magma',
        )
        axes.set_title(title, fontsize='small')
        axes.tick_params(labelsize='x-small')
    figure.tight_layout()
    return figure
