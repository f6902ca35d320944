"""What is read from Linux's list of CPU flags."""

import pytest

from cmkd_ros.model.cpu_features import cpu_flags, cpu_has_tiles, cpu_multiplies_bf16


@pytest.mark.parametrize(
    ('text', 'bf16', 'tiles'),
    [
        ('processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n', True, False),
        ('flags : fpu amx_tile amx_bf16\n', True, True),
        ('Features\t: fp asimd bf16 i8mm\n', True, False),
        ('flags : fpu avx2 avx512f avx512_vnni\n', False, False),
        ('model name : a CPU with bf16 in its name\n', False, False),
    ],
)
def test_the_flags_of_the_cpu_tell(tmp_path, text, bf16, tiles):
    path = tmp_path / 'cpuinfo'
    path.write_text(text)
    assert cpu_multiplies_bf16(path) is bf16
    assert cpu_has_tiles(path) is tiles


def test_a_system_without_that_file_has_no_flags(tmp_path):
    assert cpu_flags(tmp_path / 'absent') == frozenset()
