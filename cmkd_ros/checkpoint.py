"""The bundle (`*.cmkd`): one self-describing model file, strict and without executable code.

A bundle is a safetensors file whose header carries one JSON document: format version, network
spec, training focal length, height of the reference frame, provenance, and a SHA-256 digest over
that document and every tensor. Whatever does not add up is an error that names the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cmkd_ros.atomic_write import write_bytes_atomically
from cmkd_ros.model.spec import NetworkSpec, StrictModel, parse_model
from cmkd_ros.model.student import Student, build_student

FORMAT_VERSION = 1
_HEADER_KEY = 'cmkd'


class _Header(StrictModel):
    """The JSON document in the safetensors header."""

    version: int
    kind: Literal['student', 'teacher']
    with_head: bool
    spec: dict[str, Any]
    train_fx_px: float
    reference_height_m: float
    provenance: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class Bundle:
    """A trained network with everything that is needed to use it.

    Attributes:
        kind: 'student' (camera network) or 'teacher' (LiDAR network, used in training only).
        spec: the network spec as plain data; `network_spec` parses it for students.
        tensors: parameters and buffers by name, float tensors as float32.
        with_head: False for a stage-1 student, which has BEV features but cannot detect.
        train_fx_px: horizontal focal length of the training camera, pixels; 0 for teachers.
        reference_height_m: height of the reference frame's origin above the ground, metres.
        provenance: recipe, data, metrics, date, revision: whatever the training recorded.
    """

    kind: Literal['student', 'teacher']
    spec: dict[str, Any]
    tensors: Mapping[str, torch.Tensor]
    with_head: bool = True
    train_fx_px: float = 0.0
    reference_height_m: float = 1.73
    provenance: dict[str, Any] = field(default_factory=dict)
    source: str = '(in memory)'

    @property
    def network_spec(self) -> NetworkSpec:
        """The student's spec.

        Raises:
            ValueError: this is a teacher, or the spec does not validate.
        """
        if self.kind != 'student':
            raise ValueError(
                f'{self.source}: holds a LiDAR teacher, which needs points; a camera student is '
                'made from it with `cmkd distill`'
            )
        return parse_model(NetworkSpec, self.spec, f'{self.source} (spec)')

    def build(self) -> Student:
        """The student in eval mode with the bundle's weights.

        Raises:
            ValueError: not a student, or keys or shapes differ from what the spec says.
        """
        network = build_student(self.network_spec, with_head=self.with_head)
        load_strictly(network, self.tensors, self.source)
        return network.eval()


def load_strictly(
    network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: str
) -> None:
    """Copy `tensors` into `network`; every key must be there, none more, all of equal shape.

    Raises:
        ValueError: names the source and the first missing, unexpected or differing keys.
    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in tensors]
    unexpected = [key for key in tensors if key not in wanted]
    differing = [
        f'{key}: expected {tuple(wanted[key].shape)}, found {tuple(tensors[key].shape)}'
        for key in wanted
        if key in tensors and wanted[key].shape != tensors[key].shape
    ]
    faults = [
        f'{len(keys)} {word} ({", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""})'
        for word, keys in (
            ('missing keys', missing),
            ('unexpected keys', unexpected),
            ('tensors of another shape', differing),
        )
        if keys
    ]
    if faults:
        raise ValueError(f'{source}: weights do not fit the network spec: {"; ".join(faults)}')
    network.load_state_dict(dict(tensors))


def parameter_count(tensors: Mapping[str, torch.Tensor]) -> int:
    """Numbers that are learned: running statistics of batch norms and counters do not count."""
    return sum(
        tensor.numel()
        for key, tensor in tensors.items()
        if tensor.is_floating_point() and not key.endswith(('.running_mean', '.running_var'))
    )


def save_bundle(
    path: str | Path, bundle: Bundle, storage: Literal['fp32', 'fp16'] = 'fp32'
) -> Path:
    """Write `bundle` to `path`, completely or not at all.

    Args:
        path: ends in .cmkd; its folder must exist.
        storage: 'fp16' halves the file; weights are read back as float32.

    Raises:
        ValueError: the path does not end in .cmkd, or a weight is not finite.
    """
    path = Path(path)
    if path.suffix != '.cmkd':
        raise ValueError(f'{path}: a bundle is named *.cmkd')
    stored = {}
    for key, tensor in bundle.tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16 if storage == 'fp16' else torch.float32)
            if not torch.isfinite(tensor).all():
                raise ValueError(f'{path}: not written, {key} holds NaN or infinity')
        stored[key] = tensor.clone()
    document = {
        'version': FORMAT_VERSION,
        'kind': bundle.kind,
        'with_head': bundle.with_head,
        'spec': bundle.spec,
        'train_fx_px': bundle.train_fx_px,
        'reference_height_m': bundle.reference_height_m,
        'provenance': bundle.provenance,
    }
    # One round trip, so that the digest is taken over what a reader will see.
    document = json.loads(json.dumps(document, allow_nan=False))
    document['digest'] = _digest(document, stored)
    write_bytes_atomically(path, save(stored, {_HEADER_KEY: json.dumps(document)}))
    return path


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle and verify it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a bundle, another format version, a damaged byte; names file and reason.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such model file')
    header, tensors = _read(path)
    document = header.model_dump()
    digest = document.pop('digest')
    if _digest(document, tensors) != digest:
        raise ValueError(f'{path}: damaged, its content does not match its checksum; copy it again')
    return Bundle(
        kind=header.kind,
        spec=header.spec,
        tensors={k: t.float() if t.is_floating_point() else t for k, t in tensors.items()},
        with_head=header.with_head,
        train_fx_px=header.train_fx_px,
        reference_height_m=header.reference_height_m,
        provenance=header.provenance,
        source=str(path),
    )


def _read(path: Path) -> tuple[_Header, dict[str, torch.Tensor]]:
    try:
        with safe_open(str(path), framework='pt') as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        with path.open('rb') as file:
            magic = file.read(4)
        if magic[:2] == b'PK' or magic[:1] == b'\x80':
            raise ValueError(
                f'{path}: a PyTorch checkpoint, not a bundle; official CMKD weights are converted '
                'with `cmkd import-official`'
            ) from None
        raise ValueError(f'{path}: not a bundle, or cut short ({error})') from None
    if _HEADER_KEY not in metadata:
        raise ValueError(f'{path}: a safetensors file without the cmkd header, not a bundle')
    try:
        document = json.loads(metadata[_HEADER_KEY])
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}: damaged header ({error})') from None
    version = document.get('version') if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f'{path}: bundle format version {version}, this release reads {FORMAT_VERSION}'
        )
    return parse_model(_Header, document, f'{path} (header)'), tensors


def _digest(document: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f'{key} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
