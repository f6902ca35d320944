"""The form for GPUs against the plain modules, on a CPU: all of it but the graph.

What needs a GPU (graph, pinned upload, fused convolutions) is at the end.
"""

import copy
import logging
from itertools import chain

import numpy as np
import pytest
import torch
from exported_students import tiny_student
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cmkd_ros.model import cuda_choice
from cmkd_ros.model.cuda_choice import LIMITS, for_cuda, form_deviation, post_fault
from cmkd_ros.model.cuda_conv import CudnnConv, cuda_arithmetic, cuda_kernel
from cmkd_ros.model.cuda_form import CudaForm
from cmkd_ros.model.cuda_runner import CudaStudent
from cmkd_ros.model.deploy import fast_form
from cmkd_ros.model.fast_conv import FoldedConv
from cmkd_ros.model.fixed_lift import GridTaps, lift_whole_grid
from cmkd_ros.model.fixed_post import FixedPost
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.precision import map_deviation
from cmkd_ros.model.spec import PostSpec

CPU = torch.device('cpu')
FP32_LIMIT = 1e-5
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')


@pytest.fixture(scope='module', params=['anchor', 'center'])
def student(request):
    return tiny_student(request.param)


@pytest.fixture(autouse=True)
def small_table(monkeypatch):
    """Pairs of candidates take their time on a CPU."""
    monkeypatch.setattr(FixedPost.__init__, '__defaults__', (120,))


def picture(hw, seed=0):
    """Bytes of a random image, smooth enough for a network to see something."""
    coarse = np.random.default_rng(seed).integers(0, 256, (hw[0] // 8 + 1, hw[1] // 8 + 1, 3))
    fine = np.kron(coarse, np.ones((8, 8, 1)))[: hw[0], : hw[1]]
    return np.ascontiguousarray(fine.astype(np.uint8))


def camera(hw, height_m=0.08, focal=0.58):
    """(cam_to_img_34, ref_to_cam_44) of a level camera."""
    rows, columns = hw
    focal_px = focal * columns
    return (
        torch.tensor([[focal_px, 0, columns / 2, 0], [0, focal_px, rows / 2, 0], [0, 0, 1.0, 0]]),
        torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, -height_m], [1, 0, 0, -0.27], [0, 0, 0, 1]]),
    )


def plain_maps(student, image_HW3, matrices):
    """Head maps of the plain modules, and the device they are on."""
    device = next(chain(student.parameters(), student.buffers())).device
    image_13HW = torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode(), cuda_arithmetic():
        return student(
            image_13HW.to(device), *(matrix[None].to(device) for matrix in matrices)
        ).head


CASES = [
    ((96, 320), {}),
    ((96, 320), {'height_m': 0.5, 'focal': 0.9}),  # another camera of the same canvas
    ((75, 201), {}),  # another canvas, of odd size
    ((96, 320), {}),  # and back
]


def assert_maps_are_those_of(student, runner, limit):
    """On frames of two cameras and two sizes; the same runner sees them all."""
    for seed, (hw, how) in enumerate(CASES):
        image, matrices = picture(hw, seed), camera(hw, **how)
        canvas, _ = runner.run(image, *matrices, PostSpec())
        assert map_deviation(canvas.head, plain_maps(student, image, matrices)) <= limit


def test_fp32_maps_are_those_of_the_plain_modules(student):
    runner = CudaStudent(CudaForm(student, 'fp32'))
    assert_maps_are_those_of(student, runner, FP32_LIMIT)
    assert len(runner._canvases) == 2


def test_bf16_deviates_no_more_than_the_form_for_cpus(student):
    hw, matrices = (96, 320), camera((96, 320))
    image = picture(hw)
    expected = plain_maps(student, image, matrices)
    canvas, _ = CudaStudent(CudaForm(student, 'bf16')).run(image, *matrices, PostSpec())
    for_cpus = plain_maps(fast_form(student, 'bf16', packed=False), image, matrices)
    allowed = 1.5 * map_deviation(for_cpus, expected)
    assert FP32_LIMIT < map_deviation(canvas.head, expected) < allowed


def test_boxes_are_those_of_plain_post_processing(student):
    runner = CudaStudent(CudaForm(student, 'fp32'))
    for post, thresholds in ((PostSpec(score_threshold=0.3), None), (PostSpec(), [0.3, 0.4, 0.5])):
        for hw in ((96, 320), (75, 201)):
            image, matrices = picture(hw), camera(hw)
            found = runner.find(image, *matrices, post, thresholds)
            canvas, _ = runner.run(image, *matrices, post, thresholds)
            expected = find_boxes(student.head, canvas.head, post, thresholds)[0]
            assert len(found) == len(expected)
            torch.testing.assert_close(found.scores_K, expected.scores_K, rtol=1e-6, atol=0)


def test_more_candidates_than_places_go_through_find_boxes():
    """All anchors pass; the table says so and the maps are read instead."""
    student, hw = tiny_student('anchor'), (96, 320)
    runner = CudaStudent(CudaForm(student, 'fp32'))
    image, matrices, post = picture(hw), camera(hw), PostSpec(score_threshold=0.0)
    canvas, table = runner.run(image, *matrices, post)
    assert canvas.post.boxes(table, 500) is None
    expected = find_boxes(student.head, canvas.head, post)[0]
    found = runner.find(image, *matrices, post)
    assert torch.equal(found.boxes_K7, expected.boxes_K7)
    assert torch.equal(found.scores_K, expected.scores_K)


def test_autocast_around_it_changes_nothing():
    student, hw = tiny_student('anchor'), (96, 320)
    image, matrices = picture(hw), camera(hw)
    expected = plain_maps(student, image, matrices)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        runner = CudaStudent(CudaForm(student, 'fp32'))
        assert form_deviation(runner, student) <= FP32_LIMIT
        canvas, _ = runner.run(image, *matrices, PostSpec())
    assert map_deviation(canvas.head, expected) <= FP32_LIMIT


class OnOneDevice(TorchDispatchMode):
    """Refuses operations between devices; counts all."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)]
        devices = {t.device.type for t in tensors}
        assert devices <= {'meta'}, f'{func} reads or writes {devices}'
        self.count += 1
        return found


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_nothing_waits_for_the_device_or_is_sent_to_it(student, precision):
    """What a graph cannot record. On the device 'meta' no tensor has numbers: whoever asks for one,
    or for a size that depends on one, fails."""
    form = CudaForm(copy.deepcopy(student).to('meta'), precision)
    post = FixedPost(form.plain_head, 4096)
    inputs = form.inputs((75, 201), PostSpec())
    form(inputs, post)  # makes anchors and pairs
    with OnOneDevice() as operations:
        _, table = form(inputs, post)
    assert operations.count > 300
    assert table.device.type == 'meta'


def test_images_of_any_memory_layout():
    student, hw = tiny_student('anchor'), (96, 320)
    runner = CudaStudent(CudaForm(student, 'fp32'))
    image, matrices = picture(hw), camera(hw)
    expected = runner.find(image, *matrices, PostSpec())
    mirrored = image[:, ::-1].copy()[:, ::-1]
    mirrored.setflags(write=False)
    assert torch.equal(runner.find(mirrored, *matrices, PostSpec()).scores_K, expected.scores_K)


def test_the_least_recent_canvas_is_forgotten():
    runner = CudaStudent(CudaForm(tiny_student('anchor'), 'fp32'), kept_graphs=2)
    sizes = [(64, 200), (72, 200), (80, 200)]
    for hw in (sizes[0], sizes[1], sizes[0], sizes[2]):
        runner.run(picture(hw), *camera(hw), PostSpec())
    assert [key[:2] for key in runner._canvases] == [sizes[0], sizes[2]]


def test_it_is_called_like_a_student(student):
    hw, matrices = (96, 320), camera((96, 320))
    image = picture(hw)
    found = plain_maps(CudaStudent(CudaForm(student, 'fp32')).form.fast, image, matrices)
    assert map_deviation(found, plain_maps(student, image, matrices)) < FP32_LIMIT


def test_a_lift_of_all_cells_is_that_of_the_cells_seen():
    student, hw = tiny_student('anchor'), (96, 320)
    fast = fast_form(student, packed=False)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 8, 6, 20, generator=generator)
    logits = torch.randn(1, 25, 6, 20, generator=generator)
    taps = GridTaps.empty(fast.lift.cells_xyz, CPU)
    for how in ({}, {'height_m': 0.5, 'focal': 1.5}, {'height_m': 500.0}):  # the last sees nothing
        matrices = camera(hw, **how)
        batch = [matrix[None] for matrix in matrices]
        expected = fast.collapse(fast.lift(features, logits, *batch, hw))
        like = features.new_empty((0, 6, 20))
        taps.fill(fast.lift.indices(*matrices, hw, like), fast.lift.cells_xyz)
        found = lift_whole_grid(features[0], logits[0], taps, fast.collapse)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_no_form_is_made_of():
    student = tiny_student('anchor')
    with pytest.raises(ValueError, match="precision 'int4': expected one of fp32, bf16, fp16"):
        CudaForm(student, 'int4')
    runner = CudaStudent(CudaForm(student, 'fp32'))
    with pytest.raises(ValueError, match='need an image of 32x32 pixels at least, found 100x20'):
        runner.find(picture((20, 100)), *camera((20, 100)), PostSpec())
    student.head = None
    with pytest.raises(ValueError, match='a stage-1 student has no head'):
        CudaForm(student, 'fp32')


class TestChoice:
    """What runs, decided by the check of one frame. The form runs on a CPU here."""

    @pytest.fixture
    def student(self):
        return tiny_student('anchor')

    def test_a_form_that_passes(self, student):
        network, precision = for_cuda(student, CPU, 'fp32')
        assert isinstance(network, CudaStudent)
        assert precision == 'fp32'
        assert form_deviation(network, student) <= LIMITS['fp32']
        assert post_fault(network) == ''

    def test_a_precision_that_changes_too_much_gives_way_to_fp32(
        self, student, monkeypatch, caplog
    ):
        monkeypatch.setitem(LIMITS, 'bf16', 1e-4)
        with caplog.at_level(logging.INFO, logger='cmkd.model'):
            network, precision = for_cuda(student, CPU, 'auto')
        assert isinstance(network, CudaStudent)
        assert (precision, network.form.precision) == ('fp32', 'fp32')
        (line,) = [r.getMessage() for r in caplog.records]
        assert line.startswith('precision auto on cpu: not in bf16, which changes a head map by')

    def test_a_form_that_computes_something_else_does_not_run(self, student, monkeypatch, caplog):
        monkeypatch.setitem(LIMITS, 'fp32', 1e-12)
        with caplog.at_level(logging.WARNING, logger='cmkd.model'):
            assert for_cuda(student, CPU, 'fp32') == (student, 'fp32')
        assert 'plain modules run in fp32 on cpu' in caplog.text

    def test_other_boxes_are_found_out(self, student, monkeypatch, caplog):
        monkeypatch.setattr(cuda_choice, '_CHECKED_BOXES', 50)  # of a table of 120
        monkeypatch.setattr(cuda_choice, 'choose', lambda overlaps, passes: [0])
        with caplog.at_level(logging.WARNING, logger='cmkd.model'):
            assert for_cuda(student, CPU, 'fp32') == (student, 'fp32')
        assert 'because its suppression keeps other boxes than the plain one' in caplog.text

    def test_too_little_memory_is_one_line(self, student, monkeypatch, caplog):
        def refuse(*_):
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB\nmore')

        monkeypatch.setattr(CudaForm, 'inputs', refuse)
        with caplog.at_level(logging.WARNING, logger='cmkd.model'):
            assert for_cuda(student, CPU, 'bf16') == (student, 'bf16')
        (line,) = [r.getMessage() for r in caplog.records]
        assert line.startswith('plain modules run in bf16 on cpu, because the form for GPUs does')
        assert line.endswith('OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB')

    def test_a_precision_that_does_not_exist_is_refused(self, student):
        with pytest.raises(ValueError, match="precision 'int4'"):
            for_cuda(student, CPU, 'int4')


def test_convolutions_are_folded_ones_without_a_gpu():
    assert cuda_kernel(torch.float32, CPU) is FoldedConv
    modules = list(CudaForm(tiny_student('anchor'), 'fp32').fast.modules())
    assert any(type(module) is FoldedConv for module in modules)


@on_gpu
class TestOnGpu:
    """The whole, graph included."""

    @pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
    def test_maps_of_two_cameras_and_two_sizes(self, student, precision):
        plain = student.cuda()
        runner = CudaStudent(CudaForm(plain, precision))
        limit = {'fp32': 1e-4}.get(precision, 0.1)  # tiny random networks deviate more than real
        assert_maps_are_those_of(plain, runner, limit)
        assert len(runner._canvases) == 2
        assert all(canvas._graph is not None for canvas in runner._canvases.values())
        assert post_fault(runner) == ''
        student.cpu()

    def test_boxes_are_those_of_the_cpu(self, student):
        hw, matrices = (96, 320), camera((96, 320))
        image, post = picture(hw), PostSpec(score_threshold=0.3)
        expected = CudaStudent(CudaForm(student, 'fp32')).find(image, *matrices, post)
        runner = CudaStudent(CudaForm(student.cuda(), 'fp32'))
        found = runner.find(image, *matrices, post)
        student.cpu()
        assert abs(len(found) - len(expected)) <= 1 + 0.02 * len(expected)
        torch.testing.assert_close(found.scores_K[:5], expected.scores_K[:5], rtol=1e-3, atol=1e-3)

    def test_a_replay_answers_to_new_bytes_and_thresholds(self):
        runner = CudaStudent(CudaForm(tiny_student('anchor').cuda(), 'bf16'))
        hw, matrices = (96, 320), camera((96, 320))
        first = runner.find(picture(hw, 1), *matrices, PostSpec())
        second = runner.find(picture(hw, 2), *matrices, PostSpec())
        again = runner.find(picture(hw, 1), *matrices, PostSpec())
        few = runner.find(picture(hw, 1), *matrices, PostSpec(score_threshold=0.5))
        assert torch.equal(first.boxes_K7, again.boxes_K7)
        assert not torch.equal(first.scores_K, second.scores_K)
        assert (few.scores_K >= 0.5).all()
        assert len(few) < len(first)

    def test_fused_convolutions_run_and_row_products_give_the_same(self):
        student = tiny_student('anchor').cuda()
        form = CudaForm(student, 'bf16')
        assert any(isinstance(module, CudnnConv) for module in form.modules())
        folded = CudaStudent(CudaForm(student, 'fp32', kernel=FoldedConv, row_products=True))
        assert form_deviation(folded, student) <= LIMITS['fp32']

    def test_a_form_that_passes_its_check_is_chosen(self, student):
        network, precision = for_cuda(student.cuda(), torch.device('cuda'), 'fp32')
        student.cpu()
        assert isinstance(network, CudaStudent)
        assert precision == 'fp32'
