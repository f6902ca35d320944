"""A small trained-like model, and a bench on which the real node runs against real DDS."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

WIDTH, HEIGHT, FX = 320, 96, 190.0


@pytest.fixture(scope='session')
def small_P_px_34() -> np.ndarray:
    """Projection of a small camera with a fourth column, as KITTI's has."""
    return np.array([[FX, 0, 158.0, 11.0], [0, FX, 44.0, 0.05], [0, 0, 1, 0.003]])


@pytest.fixture(scope='session')
def small_model(tmp_path_factory):
    """Bundle of a tiny student with random weights whose boxes depend strongly on the image."""
    import torch

    from cmkd_ros.checkpoint import Bundle, save_bundle
    from cmkd_ros.model.spec import NetworkSpec, load_spec, parse_model
    from cmkd_ros.model.student import build_student

    spec = load_spec('r18').model_dump(mode='json')
    spec |= {'name': 'tiny', 'bev_channels': 16, 'adaptation_blocks': 0}
    spec['grid'] = {
        'range_m': [2.0, -20.48, -3.0, 43.0 - 0.04, 20.48, 1.0],
        'voxel_m': [1.28, 1.28, 0.8],
    }
    spec['image'] |= {'layer4_channels': 32, 'depth_channels': 16, 'reduce_channels': 8}
    spec['depth'] |= {'bins': 24}
    spec['bev'] = {
        'layers': [1],
        'strides': [1],
        'filters': [16],
        'up_strides': [1],
        'up_filters': [16],
    }
    spec['post'] |= {'score_threshold': 0.3, 'nms_max_out': 20}
    torch.manual_seed(0)
    network = build_student(parse_model(NetworkSpec, spec, 'tiny')).eval()
    weights = network.state_dict()
    weights['head.cls.weight'].mul_(6000.0)
    weights['head.box.weight'].mul_(30.0)
    path = tmp_path_factory.mktemp('model') / 'tiny.cmkd'
    return save_bundle(path, Bundle('student', spec, weights, True, train_fx_px=FX))


@pytest.fixture(scope='session')
def picture():
    """Function from a seed to a (H, W, 3) uint8 RGB picture with structure in it."""

    def make(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width])

    return make


class Bench:
    """The node under test and a peer that talks to it over DDS, each spun by its own thread."""

    def __init__(self, namespace: str, parameters: dict) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter
        from sensor_msgs.msg import CameraInfo, Image
        from vision_msgs.msg import Detection3DArray

        from cmkd_ros.ros.detector_node import DetectorNode

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = DetectorNode(
            context=self.context,
            namespace=namespace,
            parameter_overrides=[Parameter(name, value=v) for name, v in parameters.items()],
        )
        self.peer = rclpy.create_node('peer', namespace=namespace, context=self.context)
        self.images = self.peer.create_publisher(Image, 'image', 10)
        self.infos = self.peer.create_publisher(CameraInfo, 'camera_info', 10)
        self.arrays: list[Detection3DArray] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.subscription = None
        self._clients: dict = {}
        self.peer.create_subscription(DiagnosticArray, '/diagnostics', self.diagnostics.append, 10)
        self._threads = []
        for node in (self.node, self.peer):
            executor = SingleThreadedExecutor(context=self.context)
            executor.add_node(node)
            thread = threading.Thread(target=self._spin, args=(executor,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _spin(self, executor) -> None:
        from rclpy.executors import ExternalShutdownException

        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    def subscribe(self) -> None:
        from vision_msgs.msg import Detection3DArray

        self.subscription = self.peer.create_subscription(
            Detection3DArray, 'detections', self.arrays.append, 10
        )

    def connected(self) -> bool:
        return bool(self.images.get_subscription_count() and self.infos.get_subscription_count())

    def call(self, kind, name: str, request, timeout_s: float = 30.0):
        if name not in self._clients:
            self._clients[name] = self.peer.create_client(kind, f'detector/{name}')
        assert self._clients[name].wait_for_service(timeout_s), name
        future = self._clients[name].call_async(request)
        self.wait(future.done, timeout_s)
        return future.result()

    def change_state(self, transition: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        return self.call(
            ChangeState,
            'change_state',
            ChangeState.Request(transition=Transition(label=transition)),
        ).success

    def set_parameters(self, **values):
        """One result per parameter; `__` in a name stands for a dot."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(
            parameters=[
                Parameter(name.replace('__', '.'), value=v).to_parameter_msg()
                for name, v in values.items()
            ]
        )
        return self.call(SetParameters, 'set_parameters', request).results

    def wait(self, condition, timeout_s: float = 20.0):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f'not within {timeout_s} s'
            time.sleep(0.005)

    def answers(self, stamp) -> list:
        return [array for array in list(self.arrays) if array.header.stamp == stamp]

    def ask(self, messages, image, **info):
        """Send one image with its camera_info and return the one answer."""
        stamp = image.header.stamp
        self.infos.publish(messages.info(stamp.sec * 10**9 + stamp.nanosec, **info))
        self.images.publish(image)
        self.wait(lambda: self.answers(stamp))
        (answer,) = self.answers(stamp)
        return answer

    def status_with(self, condition):
        """The first diagnostic status of the node from now on that meets a condition."""
        name = f'{self.node.get_fully_qualified_name()}: detections'
        start = len(self.diagnostics)

        def found():
            statuses = [message.status[0] for message in self.diagnostics[start:]]
            return next((s for s in statuses if s.name == name and condition(s)), None)

        self.wait(found)
        return found()

    def recovers(self, messages, pixels) -> None:
        """Send sound images until the diagnostics are content."""
        start, base = len(self.diagnostics), time.time_ns()
        name = f'{self.node.get_fully_qualified_name()}: detections'
        for count in range(200):
            self.ask(messages, messages.image(pixels + np.uint8(count % 2), base + count))
            for message in self.diagnostics[start:]:
                if message.status[0].name == name and message.status[0].level == b'\x00':
                    return
            time.sleep(0.1)
        raise AssertionError(self.diagnostics[-1])

    def close(self) -> None:
        self.node.close()
        self.context.try_shutdown()
        for thread in self._threads:
            thread.join(5.0)
        self.peer.destroy_node()


@pytest.fixture(scope='module')
def make_bench():
    """Function from parameters to a running `Bench`; all are closed after the module."""
    benches = []

    def make(namespace='', **parameters) -> Bench:
        given = {name.replace('__', '.'): value for name, value in parameters.items()}
        benches.append(Bench(namespace or f'/bench_{len(benches)}', given))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture(scope='module')
def make_active(make_bench, small_model):
    """Function from parameters to an active node that somebody listens to."""

    def make(**parameters) -> Bench:
        given = {'model__path': str(small_model), 'device': 'cpu', 'pose__source': 'mount'}
        bench = make_bench(**given | parameters)
        assert bench.change_state('configure')
        assert bench.change_state('activate')
        bench.subscribe()
        bench.wait(bench.connected)
        return bench

    return make


@pytest.fixture(scope='module')
def active(make_active):
    """An active node that somebody listens to."""
    return make_active()


@pytest.fixture(scope='session')
def detector(small_model):
    """The model of `active`, without a node."""
    from cmkd_ros import Detector

    return Detector.from_file(small_model, precision='auto')


@pytest.fixture(scope='session')
def messages(small_P_px_34):
    """Builders of camera messages."""
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CameraInfo, Image

    class Messages:
        def header(self, message, stamp_ns: int, frame: str):
            message.header.frame_id = frame
            message.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
            return message

        def image(self, pixels, stamp_ns=10**9, encoding='rgb8', frame='camera', padding=0):
            message = self.header(Image(), stamp_ns, frame)
            rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
            rows = np.hstack([rows, np.full((len(rows), padding), 77, np.uint8)])
            message.height, message.width = pixels.shape[:2]
            message.encoding, message.step = encoding, rows.shape[1]
            message.data = rows.tobytes()
            return message

        def info(self, stamp_ns=10**9, frame='camera', size=(WIDTH, HEIGHT), P=small_P_px_34):
            message = self.header(CameraInfo(), stamp_ns, frame)
            message.width, message.height = size
            message.distortion_model = 'plumb_bob'
            message.d = [0.0] * 5
            message.p = [float(v) for v in np.reshape(P, -1)]
            message.k = [float(v) for v in np.asarray(P)[:, :3].reshape(-1)]
            message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            return message

    return Messages()
