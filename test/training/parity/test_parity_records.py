"""Comparisons of the parity table: what passes, and what does not."""

import math

import numpy as np
import pytest
import torch

from cmkd_ros.training.parity.records import (
    Row,
    array_row,
    boxes_row,
    exact_row,
    map_row,
    number_row,
    sampled,
)


@pytest.fixture
def tensor():
    return torch.randn(3, 40, 50, 2, generator=torch.Generator().manual_seed(0))


def record_of(tensor, n=4096):
    """What the recorder keeps of a tensor (cmkd-spec K2)."""
    flat = tensor.numpy().ravel()
    index = [(i * 2654435761) % flat.size for i in range(n)] if flat.size > n else slice(None)
    wide = flat.astype(np.float64)
    return {
        'map.shape': np.array(tensor.shape),
        'map.samp': flat[index],
        'map.stats': np.array(
            [wide.sum(), np.abs(wide).sum(), (wide**2).sum(), wide.min(), wide.max()]
        ),
    }


def test_the_elements_of_a_record_are_found_again(tensor):
    assert np.array_equal(sampled(tensor.numpy()), record_of(tensor)['map.samp'])
    few = np.arange(7.0).reshape(7, 1)
    assert np.array_equal(sampled(few), few.ravel())


def test_an_equal_map_deviates_by_nothing(tensor):
    row = map_row('map', tensor, record_of(tensor))
    assert row.passed
    assert row.deviation < 1e-12
    assert row.golden == row.ours


def test_a_map_deviates_by_its_relative_root_mean_square(tensor):
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    row = map_row('map', tensor + 1e-3 * noise, record_of(tensor))
    assert row.deviation == pytest.approx(1e-3, rel=0.05)
    assert not row.passed
    assert map_row('map', tensor, record_of(2 * tensor)).deviation == pytest.approx(0.5)


def test_a_difference_beside_the_sample_shows_in_the_magnitude(tensor):
    record = record_of(tensor)
    changed = tensor.clone().flatten()
    chosen = {int(i * 2654435761 % changed.numel()) for i in range(4096)}
    others = [i for i in range(changed.numel()) if i not in chosen]
    changed[others] *= 1.01
    assert not map_row('map', changed.view_as(tensor), record).passed


def test_another_shape_never_passes(tensor):
    row = map_row('map', tensor.flatten(), record_of(tensor))
    assert (row.deviation, row.passed) == (math.inf, False)
    assert row.golden == 'shape (3, 40, 50, 2)'
    for make in (array_row, exact_row):
        assert not make('values', np.zeros(3), np.zeros(4)).passed


def test_a_number_that_is_not_a_number_never_passes(tensor):
    assert not number_row('loss', math.nan, 1.0).passed
    assert not map_row('map', tensor * math.nan, record_of(tensor)).passed


def test_numbers_deviate_relatively_and_exact_values_by_count():
    assert number_row('loss', 2.00001, 2.0).deviation == pytest.approx(5e-6)
    assert number_row('loss', 2.00001, 2.0).passed
    assert number_row('rate', 1e-9, 0.0).deviation == pytest.approx(1e-9)
    assert exact_row('count', 7, 7) == Row('count', '7', '7', 0.0, 0.0)
    row = exact_row('cells', np.array([1, 2, 3]), np.array([1, 5, 4]))
    assert (row.deviation, row.passed) == (2.0, False)


def test_boxes_are_compared_with_the_nearest_in_any_order():
    golden = np.array([[1.0, 2, 0, 4, 2, 1.5, 3.1], [9, -3, 0, 4, 2, 1.5, 0.2]])
    ours = golden[::-1].copy()
    ours[1, 6] += 2 * math.pi - 1e-4
    ours[0, 0] += 2e-4
    row = boxes_row('boxes', ours, golden)
    assert row.deviation == pytest.approx(2e-4)
    assert row.passed
    ours[0, 1] += 0.01
    assert not boxes_row('boxes', ours, golden).passed


def test_a_box_may_stand_for_one_recorded_box_only():
    golden = np.array([[1.0, 2, 0, 4, 2, 1.5, 0], [1.0004, 2, 0, 4, 2, 1.5, 0]])
    ours = golden.copy()
    ours[1, 0] = 30
    assert not boxes_row('boxes', ours, golden).passed
    assert not boxes_row('boxes', ours[:1], golden).passed
