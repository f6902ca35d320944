"""The measurement of reading speed runs on any KITTI folder and names what is missing."""

from cmkd_ros.training.data.reading_speed import main


def test_every_step_is_measured(made_kitti, capsys):
    assert main([str(made_kitti.root), '--seconds', '0.05', '--workers', '0', '1']) == 0
    out = capsys.readouterr().out
    steps = (
        'decode the PNG', 'read the scan', 'read the calibration', 'read the labels',
        'read a decoded picture', 'student, 1 workers', 'teacher, 0 workers', 'in memory',
    )  # fmt: skip
    rows = {step: line for step in steps for line in out.splitlines() if step in line}
    assert set(rows) == set(steps)
    assert all(int(line.split('│')[2]) > 0 for line in rows.values())


def test_missing_files_are_named(made_kitti, tmp_path, caplog):
    assert main([str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere/image_2: no *.png images there' in caplog.text
    (made_kitti.root / 'training/velodyne/000002.bin').unlink()
    assert main([str(made_kitti.root), '--seconds', '0.01']) == 2
    assert '000002.bin: no such file' in caplog.text
