"""Reading PyTorch checkpoint files of others: weights only, never code.

Official CMKD and OpenPCDet checkpoints are dictionaries with `model_state`, `epoch`, `it`,
`version` and the optimiser's state; torchvision's files are the bare state dict. Whatever cannot be
read is an error of one sentence that names the file and what to do.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

_SCALAR = np.float64(0).__reduce__()[0]
# The trainer of the official teachers leaves NumPy numbers in its optimiser state; they may be read
# as what they are. The first two are the names that NumPy 1 and NumPy 2 give to one function.
_NUMPY_NUMBERS: list[Any] = [
    (_SCALAR, 'numpy.core.multiarray.scalar'),
    (_SCALAR, 'numpy._core.multiarray.scalar'),
    (np.dtype, 'numpy.dtype'),
    *(type(np.dtype(name)) for name in ('float64', 'float32', 'int64', 'int32', 'bool')),
]
# What torch raises for files that are cut short or overwritten, by where the damage lies.
_DAMAGES = (
    RuntimeError, ValueError, LookupError, AttributeError, TypeError, EOFError, OverflowError,
    AssertionError, MemoryError, OSError, struct.error,
)  # fmt: skip
_FOREIGN = re.compile(r'GLOBAL (?P<name>[\w.]+)')


@dataclass(frozen=True)
class OfficialFile:
    """The weights in a checkpoint file, under the names they have there.

    Attributes:
        path: the file.
        tensors: parameters and buffers by official key.
        sha256: of the whole file.
        trainer: `epoch`, `it` (iterations) and `version`, those of them that the file records.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    sha256: str
    trainer: Mapping[str, int | str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by key."""
        return {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}


def is_pytorch_file(path: str | Path) -> bool:
    """Whether a file begins as those of `torch.save` do, in either of its two formats."""
    return _is_pytorch(_start_of(Path(path))) if Path(path).is_file() else False


def read_official(path: str | Path) -> OfficialFile:
    """Read the weights of a `.pth` file, onto the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, cut short, or with pickled code; names the file and what to
            do.
    """
    path = Path(path)
    _refuse_other_files(path)
    content = _load(path)
    state = content.get('model_state', content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not _is_state_dict(state):
        raise ValueError(
            f"{path}: expected a dictionary with 'model_state', or one of tensors by name; found "
            f'{_outline(content)}'
        )
    trainer = {}
    if state is not content:
        for key, kind in (('epoch', int), ('it', int), ('version', str)):
            if isinstance(content.get(key), kind):
                trainer[key] = content[key]
    return OfficialFile(path, dict(state), _sha256(path), trainer)


def _refuse_other_files(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file (an official checkpoint, *.pth)')
    start = _start_of(path)
    if _is_pytorch(start):
        return
    if not start:
        found = 'an empty file; download it again'
    elif start.lstrip()[:1] == b'<':
        found = 'a web page, not a checkpoint; open the download link in a browser'
    elif start.startswith(b'version https://git-lfs'):
        found = 'a Git LFS pointer, not the checkpoint itself; fetch it with `git lfs pull`'
    elif b'{"' in start[8:16]:
        found = 'a safetensors file; a bundle (*.cmkd) needs no import, see `cmkd info`'
    else:
        found = 'not a file written by torch.save; download it again'
    raise ValueError(f'{path}: {found}')


def _start_of(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(64)


def _is_pytorch(start: bytes) -> bool:
    return start[:4] == b'PK\x03\x04' or (start[:1] == b'\x80' and start[1:2] < b'\x06')


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = _FOREIGN.search(str(error))
        if foreign is None:
            raise ValueError(f'{path}: damaged or cut short; download it again') from None
        raise ValueError(
            f'{path}: refused, because besides weights it holds code or objects to run '
            f"({foreign['name']}); take a file with nothing but 'model_state' from a source you "
            'trust'
        ) from None
    except _DAMAGES as error:
        if 'TorchScript' in str(error):
            raise ValueError(
                f'{path}: a TorchScript program, not weights; take the checkpoint that the '
                'training wrote'
            ) from None
        raise ValueError(f'{path}: damaged or cut short; download it again') from None


def _is_state_dict(state: Mapping[Any, Any]) -> bool:
    return bool(state) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )


def _outline(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    keys = [str(key) for key in content]
    return f'one of {", ".join(keys[:5])}{", ..." if len(keys) > 5 else ""}' if keys else 'nothing'


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
