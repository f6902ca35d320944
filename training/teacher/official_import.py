"""Official checkpoints of LiDAR teachers become teacher bundles; see `cmkd_ros.official_import`."""

from __future__ import annotations

import torch

from cmkd_ros.checkpoint import Bundle
from cmkd_ros.official_file import OfficialFile
from cmkd_ros.official_import import (
    KITTI_LIDAR_HEIGHT_M,
    Imported,
    describe_source,
    match_tensors,
    refuse_other_contents,
)
from cmkd_ros.official_kind import identify
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.kernel_layout import kernel_layout, to_current_layout
from cmkd_ros.training.teacher.official_names import official_rules
from cmkd_ros.training.teacher.spec import load_teacher_spec

# Official name -> name in config/teachers: the range that the teacher is trained and evaluated in.
TEACHER_SPECS = {
    'second': 'second',
    'centerpoint': 'centerpoint',
    'pointpillar': 'pointpillars',
}


def import_teacher(file: OfficialFile, config: str) -> Imported:
    """Turn the checkpoint of an official LiDAR teacher into a bundle.

    Args:
        file: the checkpoint, its sparse kernels in the layout of any version of spconv.
        config: 'second', 'centerpoint' or 'pointpillar'.

    Raises:
        ImportError: a sparse teacher without spconv.
        ValueError: it holds something else, or tensors are missing, unexpected or of another
            shape; says which, and which configuration would fit.
    """
    refuse_other_contents(file, identify(file.shapes), 'teacher', config)
    spec = load_teacher_spec(TEACHER_SPECS[config])
    try:
        layout = kernel_layout(file.shapes)
    except ValueError as error:
        raise ValueError(f'{file.path}: {error}') from None
    with torch.device('meta'):
        network = build_teacher(spec)
    tensors, ignored = match_tensors(
        file,
        to_current_layout(file.tensors, layout),
        network.state_dict(),
        official_rules(spec),
        config,
    )
    provenance = describe_source(file, config, ignored)
    if layout is not None:
        provenance['official']['kernel_layout'] = layout
    bundle = Bundle(
        kind='teacher',
        spec=spec.model_dump(mode='json'),
        tensors=tensors,
        reference_height_m=KITTI_LIDAR_HEIGHT_M,
        provenance=provenance,
        source=str(file.path),
    )
    return Imported(bundle, config, ignored)
