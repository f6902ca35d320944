"""How long a student takes in several forms that take turns, and each of its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from cmkd_ros.ceilings import synchronise
from cmkd_ros.model.post import Head, find_boxes
from cmkd_ros.model.precision import HasHead, Network
from cmkd_ros.model.spec import PostSpec
from cmkd_ros.model.student import Student
from cmkd_ros.stage_work import stage_hooks

Times = dict[str, list[float]]  # milliseconds of every run, by stage, 'boxes' and 'whole'
Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Form:
    """One way to run a network.

    Attributes:
        name: for people.
        network: a student, whose stages are timed, or anything that is called like one.
        precision: that it computes in.
        device: where its inputs lie.
        arithmetic: gives the context that it computes in, as of its detector.
    """

    name: str
    network: Network
    precision: str
    device: torch.device
    arithmetic: Callable[[], AbstractContextManager[object]] = nullcontext

    def run(self, inputs: Inputs) -> HasHead:
        """Its output."""
        with self.arithmetic():
            image_B3HW, cam_to_img_B34, ref_to_cam_B44 = inputs
            return self.network(image_B3HW, cam_to_img_B34, ref_to_cam_B44)


@torch.inference_mode()
def time_forms(
    forms: Sequence[Form],
    head: Head,
    post: PostSpec,
    inputs: Inputs,
    repeats: int,
    progress: Callable[[int, int], None],
    also: Callable[[], object] | None = None,
) -> list[Times]:
    """Run each form in turn, so often.

    Args:
        forms: warm.
        head: decodes what they put out.
        post: threshold and suppression.
        inputs: as of `Student.forward`, on their device.
        repeats: runs of each.
        progress: called with (runs done, of how many).
        also: other work that takes its turn.

    Returns:
        Times of each form; of `also` at the end, its 'whole' only.
    """
    times: list[Times] = [{} for _ in forms]
    other: Times = {'whole': []}
    for done in range(repeats):
        for form, found in zip(forms, times, strict=True):
            for stage, ms in _timed(form, head, post, inputs).items():
                found.setdefault(stage, []).append(ms)
        if also:
            begun = time.perf_counter()
            also()
            other['whole'].append(1e3 * (time.perf_counter() - begun))
        progress(done + 1, repeats)
    return [*times, other] if also else times


def _timed(form: Form, head: Head, post: PostSpec, inputs: Inputs) -> dict[str, float]:
    """Milliseconds of every stage of one run."""
    begun: dict[str, Any] = {}
    ended: dict[str, Any] = {}
    student = form.network if isinstance(form.network, Student) else None
    with stage_hooks(
        student,
        lambda name, _: begun.__setitem__(name, _now(form.device)),
        lambda name, *_: ended.__setitem__(name, _now(form.device)),
    ):
        synchronise(form.device)
        begun['whole'] = _now(form.device)
        output = form.run(inputs)
        begun['boxes'] = _now(form.device)
        find_boxes(head, output.head, post)
        ended['boxes'] = ended['whole'] = _now(form.device)
        synchronise(form.device)
    return {name: _between_ms(begun[name], ended[name]) for name in begun}


def _now(device: torch.device) -> Any:
    """A point in time; on a GPU, whose work runs behind, a mark in the row of its work."""
    if device.type != 'cuda':
        return time.perf_counter()
    mark = torch.cuda.Event(enable_timing=True)
    mark.record(torch.cuda.current_stream(device))
    return mark


def _between_ms(begin: Any, end: Any) -> float:
    return begin.elapsed_time(end) if isinstance(begin, torch.cuda.Event) else 1e3 * (end - begin)
