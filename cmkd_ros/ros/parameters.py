"""The node's parameters: names, defaults, descriptions and ranges in one place, as frozen data.

`Parameters` is the truth; the declarations, the descriptors that `ros2 param describe` shows and
docs/parameters.md are made from it. A change is validated whole, then applied by swapping the
object, so that the worker always sees a consistent set (`parameter_handler`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor

from cmkd_ros.image_pixels import ENCODINGS

CLASS_THRESHOLDS = 'post.class_thresholds'


class _Group(BaseModel):
    # Strict: the word '0.5' is no number; but an integer is, as YAML's 1 for 1.0.
    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False, strict=True)


def _parameter(default: Any, description: str, live: bool = True, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={'live': live}, **limits)


class ModelParameters(_Group):
    """Which model."""

    path: str = _parameter('', 'Model file (*.cmkd), a student that was distilled.', live=False)


class PostParameters(_Group):
    """Which boxes are published."""

    score_threshold: float = _parameter(
        -1.0, "Least score of a published box; negative: the model's own value.", ge=-1.0, le=1.0
    )
    nms_iou: float = _parameter(
        -1.0,
        "Boxes that overlap a better one by more (BEV IoU) are dropped; negative: the model's own "
        'value.',
        ge=-1.0,
        le=1.0,
    )
    # Declared when the model is loaded and its classes are known: post.class_thresholds.Car, ...
    class_thresholds: dict[str, Annotated[float, Field(ge=-1.0, le=1.0)]] = {}


class PoseParameters(_Group):
    """Where the camera sits in the reference frame (x forward, y left, z up)."""

    source: Literal['auto', 'mount', 'transform', 'tf'] = _parameter(
        'auto',
        'mount: camera_height, camera_forward, camera_pitch_rad, camera_roll_rad. transform: the '
        'seven numbers of pose.transform. tf: /tf and /tf_static. auto: tf if it answers within '
        'tf_timeout_s, else mount.',
        live=False,
    )
    camera_height: float = _parameter(
        1.65, "Camera above the ground in metres (KITTI's: 1.65).", ge=0.0, le=100.0
    )
    camera_forward: float = _parameter(
        0.27,
        'Camera in front of the origin of the reference frame in metres (KITTI: 0.27). Boxes are '
        'published in the camera frame, so the default is right for every robot.',
        ge=-10.0,
        le=10.0,
    )
    camera_pitch_rad: float = _parameter(
        0.0, 'Camera tilt in radians, positive looks down.', ge=-1.6, le=1.6
    )
    camera_roll_rad: float = _parameter(
        0.0,
        'Camera roll in radians, positive is clockwise seen from behind the camera.',
        ge=-3.2,
        le=3.2,
    )
    transform: tuple[float, float, float, float, float, float, float] = _parameter(
        (0.27, 0.0, -0.08, -0.5, 0.5, -0.5, 0.5),
        'Pose of the optical camera frame in the reference frame: x, y, z in metres, then the '
        'quaternion x, y, z, w (the arguments of static_transform_publisher).',
    )
    reference_frame: str = _parameter(
        '',
        'TF frame that is the reference frame itself (where the training LiDAR sat, 1.73 m above '
        'the ground for KITTI); empty: derive it from base_frame.',
        live=False,
    )
    base_frame: str = _parameter(
        'base_link',
        'TF frame fixed to the robot, z up; gives the camera its height, pitch and roll when '
        'reference_frame is empty. The camera may look in any direction.',
        live=False,
    )
    base_height: float = _parameter(
        0.0, 'Origin of base_frame above the ground in metres.', ge=-10.0, le=100.0
    )
    tf_timeout_s: float = _parameter(
        2.0, 'With source auto: seconds to wait for TF before mount is used.', ge=0.0, le=3600.0
    )

    @field_validator('transform')
    @classmethod
    def _has_rotation(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if sum(q * q for q in value[3:]) < 1e-12:
            raise ValueError('the quaternion (numbers 4 to 7) must not be zero')
        return value


class HealthParameters(_Group):
    """What /diagnostics complains about."""

    latency_budget_ms: float = _parameter(
        0.0, 'Warn when the median time from stamp to result is above; 0: never.', ge=0.0, le=1e6
    )
    check_pictures: bool = _parameter(
        True, 'Warn of black, over-exposed and frozen images. Simulators may repeat images.'
    )


class Parameters(_Group):
    """All parameters of the node, by group; `live` ones take effect from the next image on."""

    autostart: bool = _parameter(
        True, 'Configure and activate at start; false: wait for lifecycle transitions.', live=False
    )
    model: ModelParameters = ModelParameters()
    device: str = _parameter(
        'auto',
        'Where the network runs: auto, cpu, cuda or cuda:N.',
        False,
        pattern=r'^(auto|cpu|cuda(:\d+)?)$',
    )
    precision: Literal['auto', 'fp32', 'bf16', 'fp16', 'int8'] = _parameter(
        'auto',
        'Arithmetic of the network; auto: bf16 where the device has it, else fp32. int8: with '
        'backend openvino, for a model that was exported so.',
        live=False,
    )
    backend: Literal['auto', 'torch', 'openvino', 'onnxruntime'] = _parameter(
        'auto',
        'What runs the network; auto: openvino, else onnxruntime, where it is installed, has the '
        'graph of this model (`cmkd export`) and is quicker than torch; else torch.',
        live=False,
    )
    image_transport: Literal['raw', 'compressed'] = _parameter(
        'raw',
        'raw: sensor_msgs/Image on image; compressed: CompressedImage on image/compressed.',
        live=False,
    )
    qos: Literal['reliable', 'sensor_data'] = _parameter(
        'reliable',
        'Reliability asked of the image publisher; sensor_data also matches best-effort ones.',
        live=False,
    )
    rectified: Literal['auto', 'true', 'false'] = _parameter(
        'auto',
        'true: the pixels are rectified, P alone describes them. false: they are raw, K and D '
        'describe them. auto: raw if camera_info gives a distortion, but for bags of kitti2bag.',
    )
    use_projection_offset: Literal['auto', 'true', 'false'] = _parameter(
        'auto',
        "true: P's fourth column is part of the projection from the image's frame, as in a stereo "
        "pair with one frame. false: that frame is the camera's own place, the column is left out. "
        'auto: true, but for bags of kitti2bag.',
    )
    assume_encoding: str = _parameter(
        '', "Overrules the encoding that images claim, such as rgb8 for a driver's 8UC3; or empty."
    )
    max_age_s: float = _parameter(
        0.0,
        'Images older than this when their turn comes are dropped; 0: never.',
        ge=0.0,
        le=3600.0,
    )
    camera_info_wait_s: float = _parameter(
        0.1,
        'How long an image waits for the camera_info of its own stamp, as long as images find one.',
        ge=0.0,
        le=60.0,
    )
    target_frame: str = _parameter(
        '',
        "TF frame to publish boxes and markers in, at the image's stamp; empty: the image's own.",
        live=False,
    )
    post: PostParameters = PostParameters()
    pose: PoseParameters = PoseParameters()
    health: HealthParameters = HealthParameters()

    @field_validator('assume_encoding')
    @classmethod
    def _is_an_encoding(cls, value: str) -> str:
        if value and value not in ENCODINGS:
            raise ValueError(f'must be empty or one of {", ".join(ENCODINGS)}')
        return value

    @field_validator('rectified', 'use_projection_offset', mode='before')
    @classmethod
    def _yaml_boolean(cls, value: object) -> object:
        # In YAML and on the command line a bare true is a boolean.
        return str(value).lower() if isinstance(value, bool) else value


@dataclass(frozen=True)
class Declared:
    """One parameter as ROS sees it."""

    name: str
    default: Any
    info: FieldInfo

    @property
    def live(self) -> bool:
        """Whether a change takes effect without configuring anew."""
        return bool(self.info.json_schema_extra['live'])  # type: ignore[index,call-overload]

    @property
    def limits(self) -> tuple[float, float] | None:
        """Least and greatest value, for numbers."""
        found = {
            key: getattr(limit, key)
            for limit in self.info.metadata
            for key in ('ge', 'le')
            if hasattr(limit, key)
        }
        return (found['ge'], found['le']) if len(found) == 2 else None

    @property
    def choices(self) -> tuple[str, ...]:
        """Permitted values of an enumeration, else empty."""
        is_literal = get_origin(self.info.annotation) is Literal
        return get_args(self.info.annotation) if is_literal else ()

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows."""
        descriptor = ParameterDescriptor(name=self.name, description=self.info.description or '')
        effect = 'live' if self.live else 'takes effect when the node is configured'
        rule = f'one of {", ".join(self.choices)}; ' if self.choices else ''
        descriptor.additional_constraints = rule + effect
        descriptor.read_only = self.name == 'autostart'  # it is over before anybody could
        # Types are judged by `Parameters`, which names the parameter and takes YAML's 1 for 1.0
        # and a bare true for the word.
        descriptor.dynamic_typing = True
        if self.limits:
            low, high = self.limits
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        return descriptor


def declared_parameters(
    model: type[BaseModel] = Parameters, prefix: str = ''
) -> Iterator[Declared]:
    """Yield every parameter with its dotted name, in the order of the classes above."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from declared_parameters(info.annotation, f'{prefix}{name}.')
        elif info.description:
            default = list(info.default) if isinstance(info.default, tuple) else info.default
            yield Declared(prefix + name, default, info)


def class_threshold(class_name: str) -> Declared:
    """The score threshold of one class, a parameter that exists once a model is loaded."""
    description = (
        f'Least score of a published {class_name}; negative: that of all classes. A box below it '
        'does not suppress others.'
    )
    info = _parameter(-1.0, description, ge=-1.0, le=1.0)
    return Declared(f'{CLASS_THRESHOLDS}.{class_name}', -1.0, info)


def parse_parameters(values: Mapping[str, Any]) -> Parameters:
    """Validate values by dotted name; what is not named keeps its default.

    Raises:
        ValueError: one sentence per fault, naming parameter, value and rule.
    """
    tree: dict[str, Any] = {}
    for name, value in values.items():
        branch = tree
        of_class = name.startswith(f'{CLASS_THRESHOLDS}.')  # a class name may have dots
        *groups, leaf = name.split('.', 2 if of_class else -1)
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = tuple(value) if isinstance(value, list) else value
    try:
        return Parameters.model_validate(tree)
    except ValidationError as error:
        faults = [
            f'parameter {".".join(str(p) for p in fault["loc"])} = {fault["input"]!r}: '
            f'{fault["msg"]}'
            for fault in error.errors()
        ]
        raise ValueError('; '.join(faults)) from None
