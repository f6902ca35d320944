"""The arguments of every command of `cmkd`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cmkd_ros.official_kind import STUDENT_CONFIGS, TEACHER_CONFIGS

Add = Callable[[str, str], argparse.ArgumentParser]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; wrong arguments end the process with code 2 and a message on stderr.

    Args:
        arguments: without the program's name; None takes the process's.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    overrides = getattr(options, 'overrides', None)
    if rest and overrides is not None and all('=' in word and word[0] != '-' for word in rest):
        overrides.extend(rest)  # key=value behind an option, which argparse does not see
    elif rest:
        parser.error(f'unrecognized arguments: {" ".join(rest)}')
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='cmkd', description='3D detection with one camera, learned from LiDAR (CMKD).'
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    def add(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help)

    _add_runtime_commands(add)
    _add_training_commands(add)
    _add_evaluation_commands(add)
    return parser


def _add_runtime_commands(add: Add) -> None:
    demo = add('demo', 'synthetic drive -> bag -> node with the model in the box -> AP, pictures')
    demo.add_argument('--out', type=Path, default=Path('demo_output'), help='default: %(default)s')
    demo.add_argument('--train', action='store_true', help='train teacher and student here instead')
    demo.add_argument('--kitti', type=Path, help='train on this KITTI folder and evaluate there')
    demo.add_argument('--quick', action='store_true', help='little of everything: shows the wires')

    info = add('info', 'what a bundle or an official checkpoint is')
    info.add_argument('file', type=Path)

    official = add('import-official', 'official CMKD checkpoint -> bundle')
    official.add_argument('checkpoint', type=Path, metavar='CKPT', help='official *.pth')
    official.add_argument('--config', required=True, choices=(*STUDENT_CONFIGS, *TEACHER_CONFIGS))
    official.add_argument('--out', type=Path, required=True, help='bundle to write (*.cmkd)')

    detect = add('detect', 'one picture -> boxes')
    detect.add_argument('--model', type=Path, required=True, help='student bundle (*.cmkd)')
    detect.add_argument('--image', type=Path, required=True)
    detect.add_argument('--calib', type=Path, required=True, help='KITTI calibration file')
    detect.add_argument('--out', type=Path, help='folder for an overlay and a BEV picture')
    detect.add_argument('--json', type=Path, help='write the boxes there')
    detect.add_argument('--score', type=float, help="score threshold; default: the bundle's")
    _add_precision(detect)
    _add_backend(detect)
    _add_device(detect)

    bench = add('benchmark', 'time, operations and memory of a student; or latency of the node')
    which = bench.add_mutually_exclusive_group()
    which.add_argument('--model', type=Path, help='student bundle (*.cmkd)')
    which.add_argument('--student', metavar='NAME', help='r18, scd_r50, ... with random weights')
    bench.add_argument(
        '--size', type=_count, nargs=2, metavar=('W', 'H'),
        help='of the image; default: 1242 375, with --node 1920 1080 too',
    )  # fmt: skip
    bench.add_argument('--repeats', type=int, default=10, help='default: %(default)s')
    bench.add_argument('--json', type=Path, help='write every number there')
    bench.add_argument('--chart', type=Path, help='PNG to draw of the stages; not with --node')
    bench.add_argument(
        '--precision', default='auto', choices=('auto', 'fp32', 'bf16', 'fp16', 'int8'),
        help='of the network; auto: bf16 where the device has it; default: %(default)s',
    )  # fmt: skip
    bench.add_argument(
        '--backend', default='torch', choices=('torch', 'openvino', 'onnxruntime'),
        help='measure all of the network in that engine too; default: %(default)s',
    )  # fmt: skip
    bench.add_argument(
        '--batch', type=_count, default=1, metavar='N', help='images at once; default: %(default)s'
    )
    _add_device(bench)
    node = bench.add_argument_group('the node, over ROS, instead of the network alone')
    node.add_argument('--node', action='store_true', help='latency from image to boxes')
    node.add_argument(
        '--network-ms', type=float, default=0.0, metavar='MS',
        help='of a stand-in for the network, where no --model is given; default: %(default)g',
    )  # fmt: skip
    node.add_argument(
        '--rate', type=float, action='append', default=[], metavar='HZ',
        help='of the camera; may be given again; default: 10, 30 and 60',
    )  # fmt: skip
    node.add_argument(
        '--seconds', type=float, default=10.0, help='of each run; default: %(default)g'
    )

    export = add('export', 'student -> ONNX file, compared in the engines that are installed')
    export.add_argument('--model', type=Path, required=True, help='student bundle (*.cmkd)')
    export.add_argument(
        '--onnx', type=Path,
        help='file to write; default: where the node looks for the graph of this model',
    )  # fmt: skip
    export.add_argument(
        '--precision', choices=('fp32', 'fp16', 'int8'), default='fp32',
        help='of the stored weights; int8: of products too, for --backend openvino; needs --data',
    )  # fmt: skip
    export.add_argument(
        '--external-data', action='store_true', help='weights in a file of their own, FILE.data'
    )
    export.add_argument(
        '--size', type=_count, nargs=2, default=(1242, 375), metavar=('W', 'H'),
        help='of the compared images; the graph takes any; default: 1242 375',
    )  # fmt: skip
    export.add_argument(
        '--frames', type=_count, metavar='N', help='compared; default: 5; int8: evaluated, 300'
    )
    int8 = export.add_argument_group('int8')
    int8.add_argument('--data', type=Path, help='KITTI folder with labels')
    int8.add_argument('--split', type=Path, help='frame list; default: every image')
    int8.add_argument(
        '--calibration', type=int, default=200, metavar='N',
        help='frames, at most half, that give the scales; default: %(default)s',
    )  # fmt: skip
    _add_allow_leak(int8)

    pack = add('pack', 'bundle -> half the size, with its evaluations inside, without local paths')
    pack.add_argument('model', type=Path, help='bundle (*.cmkd)')
    pack.add_argument('--out', type=Path, required=True, help='bundle to write (*.cmkd)')
    pack.add_argument(
        '--ap', action='append', default=[], metavar='NAME=FILE', type=_named_file,
        help='report of `cmkd evaluate --json`; may be given again',
    )  # fmt: skip

    synth = add('synth', 'a synthetic drive in KITTI layout')
    synth.add_argument('--out', type=Path, required=True)
    synth.add_argument('--frames', type=int, required=True)
    synth.add_argument('--seed', type=int, default=0)
    synth.add_argument('--width', type=int, default=1242)
    synth.add_argument('--height', type=int, default=375)
    synth.add_argument('--frames-per-drive', type=int, default=20, help='default: %(default)s')
    synth.add_argument('--rig', type=Path, help='YAML file with focal length and sensor heights')
    synth.add_argument('--density', type=float, default=1.0, help='amount of traffic; default: 1')
    synth.add_argument('--workers', type=int, default=2, help='processes; default: %(default)s')


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found '{text}'")
    return int(text)


def _named_file(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition('=')
    if not separator or not name or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, found '{text}'")
    return name, Path(path)


def _named_value(text: str) -> tuple[str, Any]:
    import yaml

    name, separator, value = text.partition('=')
    if not separator or not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found '{text}'")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"'{text}': the value is no YAML") from None


def _add_training_commands(add: Add) -> None:
    prepare = add('prepare-kitti', 'check a KITTI tree and write its index')
    prepare.add_argument('root', type=Path, help='folder of training/, testing/, ImageSets/')
    prepare.add_argument(
        '--list', type=Path, action='append', default=[], metavar='FILE',
        help='frame list beside those of ROOT/ImageSets; may be given again',
    )  # fmt: skip
    prepare.add_argument(
        '--mapping', type=Path, metavar='DIR',
        help="folder of KITTI's train_mapping.txt and train_rand.txt, if not below ROOT",
    )  # fmt: skip
    prepare.add_argument('--index', type=Path, help='default: ROOT/cmkd_index.safetensors')
    prepare.add_argument('--workers', type=int, help='threads; default: one a processor')

    for name, text in (
        ('train-teacher', 'train a LiDAR teacher on labelled frames'),
        ('distill', 'distil a teacher into a camera student'),
    ):
        command = add(name, text)
        command.add_argument('recipe', help='a YAML file, or the name of a recipe of the package')
        command.add_argument('overrides', nargs='*', metavar='key=value', help='recipe overrides')
        command.add_argument('--out', type=Path, required=True, help='folder of the run')
        command.add_argument('--resume', action='store_true', help='go on with the run in --out')
        _add_allow_leak(command)
        if name == 'distill':
            command.add_argument(
                '--no-report', dest='report', action='store_false',
                help='leave out report.html, which `cmkd report` can draw later',
            )  # fmt: skip

    ladder = add('ladder', 'what distillation adds to labels, step by step, over several seeds')
    ladder.add_argument('recipe', help='ladder_tiny, ladder_curve, ladder_full, or a file')
    ladder.add_argument('overrides', nargs='*', metavar='key=value', help='recipe overrides')
    ladder.add_argument('--out', type=Path, required=True, help='folder; goes on with what it has')
    ladder.add_argument(
        '--seed', type=int, action='append', default=[], metavar='N',
        help="only this seed of the recipe's; may be given again",
    )  # fmt: skip

    report = add('report', 'an HTML page on a run: maps, depth, boxes, losses, beside the teacher')
    report.add_argument('run', type=Path, help='folder of a finished `cmkd distill`')
    report.add_argument('--evaluation', type=Path, help='folder of `cmkd evaluate --out`')
    report.add_argument('--data', type=Path, help='KITTI folder to take frames from')
    report.add_argument('--split', type=Path, help='frame list; default: every image')
    report.add_argument('--frames', type=int, default=4, help='to show; default: %(default)s')


def _add_evaluation_commands(add: Add) -> None:
    evaluate = add('evaluate', 'network -> KITTI results -> AP')
    evaluate.add_argument('--model', type=Path, required=True, help='student or teacher bundle')
    evaluate.add_argument('--data', type=Path, required=True, help='KITTI folder')
    evaluate.add_argument('--split', type=Path, help='frame list; default: every image')
    _add_precision(evaluate)
    _add_backend(evaluate)
    evaluate.add_argument('--out', type=Path, help='folder for results and pictures')
    evaluate.add_argument(
        '--pictures', type=int, default=4, metavar='N',
        help='draw the N best, N worst and N random frames into --out; default: %(default)s',
    )  # fmt: skip
    _add_allow_leak(evaluate)
    _add_device(evaluate)

    eval_kitti = add('eval-kitti', 'KITTI AP of result files')
    eval_kitti.add_argument('--labels', type=Path, required=True)
    eval_kitti.add_argument('--results', type=Path, required=True)
    eval_kitti.add_argument('--frames', type=Path, help='frame list; default: every result file')
    eval_kitti.add_argument('--plots', type=Path, help='folder for precision-recall pictures')

    make_bag = add('make-bag', 'KITTI layout -> rosbag2')
    make_bag.add_argument('kitti', type=Path)
    make_bag.add_argument('--out', type=Path, required=True)
    make_bag.add_argument('--frames', type=Path, help='frame list; default: every image')

    _add_extract_bag(add)

    eval_bag = add('eval-bag', 'bag -> node -> AP, latency, drops')
    eval_bag.add_argument('--model', type=Path, required=True)
    eval_bag.add_argument('--bag', type=Path, required=True)
    eval_bag.add_argument('--labels', type=Path, required=True)
    eval_bag.add_argument('--out', type=Path, help='folder for results and the detection bag')
    eval_bag.add_argument('--image', default='', metavar='TOPIC', help='where there are several')
    eval_bag.add_argument('--camera-info', default='', metavar='TOPIC')
    eval_bag.add_argument(
        '--param', action='append', default=[], metavar='NAME=VALUE', type=_named_value,
        help='parameter of the node, such as pose.camera_height=1.2; may be given again',
    )  # fmt: skip
    _add_precision(eval_bag)
    _add_backend(eval_bag)
    _add_device(eval_bag)

    for command in (evaluate, eval_kitti, eval_bag):
        command.add_argument('--recall', type=int, choices=(40, 11), default=40)
        command.add_argument('--json', type=Path, help='write every number there')
        command.add_argument(
            '--compare', type=Path, metavar='FILE',
            help='JSON of an earlier evaluation of the same frames: show the differences',
        )  # fmt: skip


def _add_extract_bag(add: Add) -> None:
    extract = add('extract-bag', 'bags with camera and LiDAR -> unlabelled frames in KITTI layout')
    extract.add_argument('bags', type=Path, nargs='+', metavar='BAG', help='each is one drive')
    extract.add_argument('--out', type=Path, required=True, help='folder; goes on with what it has')
    topics = extract.add_argument_group('topics, where several fit')
    topics.add_argument('--image', default='', metavar='TOPIC', help='Image or CompressedImage')
    topics.add_argument('--camera-info', default='', metavar='TOPIC')
    topics.add_argument('--points', default='', metavar='TOPIC', help='PointCloud2')
    frames = extract.add_argument_group('which frames')
    frames.add_argument(
        '--max-gap', type=float, default=50.0, metavar='MS',
        help='between a scan and its image; default: %(default)s',
    )  # fmt: skip
    frames.add_argument('--every', type=int, default=1, metavar='N', help='keep every N-th pair')
    frames.add_argument('--rate', type=float, default=0.0, metavar='HZ', help='at most so many')
    frames.add_argument(
        '--min-change', type=float, default=0.0, metavar='GREY',
        help='leave out images that differ by less from the last one kept, as when the robot '
        'stands still; 2 is a start',
    )  # fmt: skip
    poses = extract.add_argument_group('where things are, where transforms do not tell')
    poses.add_argument(
        '--camera-pose', type=float, nargs=7, metavar=('X', 'Y', 'Z', 'QX', 'QY', 'QZ', 'QW'),
        help="optical camera frame in the LiDAR's frame",
    )  # fmt: skip
    reference = poses.add_mutually_exclusive_group()
    for name, metavar, kind, text in (
        ('--lidar-height', 'M', float, 'of a level LiDAR above the ground'),
        ('--base-frame', 'FRAME', str, 'robot frame that knows the ground; default: base_link'),
        ('--reference-frame', 'FRAME', str, 'frame that is the reference frame itself'),
    ):
        reference.add_argument(name, metavar=metavar, type=kind, help=text)
    poses.add_argument(
        '--base-height', type=float, default=0.0, metavar='M', help='of its origin; default: 0'
    )
    reading = extract.add_argument_group('how messages are read')
    for name, text in (
        ('--rectified', 'whether the images are'),
        ('--use-projection-offset', "whether P's fourth column counts"),
    ):
        reading.add_argument(
            name, choices=('auto', 'true', 'false'), default='auto', help=f'{text}, as in the node'
        )
    reading.add_argument(
        '--width', type=int, default=0, metavar='PX', help='of the images written; default: theirs'
    )
    reading.add_argument(
        '--intensity-max', type=float, metavar='VALUE', help='of a point; default: found'
    )
    reading.add_argument(
        '--name', default='recordings', help="of the robot's data, for leak checks: %(default)s"
    )


def _add_allow_leak(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        '--allow-leak',
        action='store_true',
        help='evaluation frames that were learned from: go on, and record it',
    )


def _add_precision(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--precision',
        default='fp32',
        choices=('auto', 'fp32', 'bf16', 'fp16', 'int8'),
        help='of the network; auto: bf16 where the device has it; int8: with --backend openvino; '
        'default: %(default)s',
    )


def _add_backend(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--backend',
        default='torch',
        choices=('auto', 'torch', 'openvino', 'onnxruntime'),
        help='what runs the network; auto: an engine if ready and quicker; default: %(default)s',
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:N')
