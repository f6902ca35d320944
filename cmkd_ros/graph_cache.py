"""Where exported graphs are kept, so that a student is exported once and not at every start."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path

from cmkd_ros.export import OPSET, export_onnx
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.export')
GRAPH_VERSION = 1  # to be raised when `ExportForm` computes or names anything differently
_PLAIN = (bool, int, float, str, tuple)


def cache_folder() -> Path:
    """$CMKD_CACHE, else cmkd_ros in the user's folder for caches ($XDG_CACHE_HOME, ~/.cache).

    Raises:
        FileNotFoundError: the user has no home; name a folder in CMKD_CACHE.
    """
    if named := os.environ.get('CMKD_CACHE'):
        return Path(named)
    try:
        base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    except RuntimeError:
        raise FileNotFoundError(
            'no folder for graphs: this user has no home; name one in the variable CMKD_CACHE'
        ) from None
    return Path(base) / 'cmkd_ros'


def cached_graph(student: Student) -> Path:
    """The file that holds, or is to hold, the graph of this very student."""
    return cache_folder() / f'{graph_digest(student)}.onnx'


def int8_graph(student: Student) -> Path:
    """The file that holds, or is to hold, the graph of this very student in int8."""
    return cache_folder() / f'{graph_digest(student)}_int8.zip'


def graph_of(student: Student) -> Path:
    """The graph of a student, exported now if it is not in the cache.

    Raises:
        ValueError: a student without head.
        ImportError: it is not in the cache, and no onnx or onnxscript.
        OSError: the cache cannot be written.
        FailedError: torch cannot export it.
    """
    file = cached_graph(student)
    if not file.is_file():
        LOG.info('exporting the graph to %s, once for this model', file)
        begin = time.perf_counter()
        try:
            export_onnx(student, file)
        except OSError as error:
            raise OSError(
                f'{file.parent}: no graph can be kept here ({error.strerror or error}); name '
                'another folder in the variable CMKD_CACHE'
            ) from error
        LOG.info('exported in %.0f s', time.perf_counter() - begin)
    return file


def graph_digest(student: Student) -> str:
    """Sixteen letters that differ when anything that the graph computes does.

    That is every weight and every public number or word of a module (strides, ranges, ...).
    """
    digest = hashlib.sha256(f'{GRAPH_VERSION} {OPSET}'.encode())
    for name, module in student.named_modules():
        plain = {
            key: value
            for key, value in sorted(vars(module).items())
            if isinstance(value, _PLAIN) and not key.startswith('_')
        }
        digest.update(f'{name} {type(module).__name__} {plain}'.encode())
    for name, tensor in (*student.named_parameters(), *student.named_buffers()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
