"""Reference cases of the KITTI evaluator."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cmkd_ros.kitti_files import KittiObjects, read_labels, read_results

DATA = Path(__file__).parent / 'data'


@dataclass(frozen=True)
class ReferenceCase:
    """Labels and results of some frames, and what the official evaluator says about them."""

    folder: Path
    labels: list[KittiObjects]
    results: list[KittiObjects]
    expected: dict[str, Any]


@pytest.fixture(scope='session')
def reference_case(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], ReferenceCase]:
    """Load a case by name: from an archive here, else from the folder of real data."""
    loaded: dict[str, ReferenceCase] = {}

    def load(name: str) -> ReferenceCase:
        if name not in loaded:
            archive = DATA / f'{name}.zip'
            if archive.is_file():
                folder = tmp_path_factory.mktemp(name)
                zipfile.ZipFile(archive).extractall(folder)
            else:
                folder = request.getfixturevalue('shared_dir') / 'kitti_eval_cases' / name
            files = sorted(path.name for path in (folder / 'label_2').iterdir())
            loaded[name] = ReferenceCase(
                folder,
                [read_labels(folder / 'label_2' / file) for file in files],
                [read_results(folder / 'results' / file) for file in files],
                json.loads((folder / 'expected.json').read_text()),
            )
        return loaded[name]

    return load
