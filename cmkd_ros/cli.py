"""The command `cmkd`: parses arguments, calls one function, prints what came of it.

Exit codes: 0 done, 1 interrupted or failed while running, 2 bad input (one sentence on stderr).
Everything heavy is imported inside the commands, so that `cmkd --help` is quick and each command
needs only its own dependencies.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmkd_ros.official_kind import STUDENT_CONFIGS, TEACHER_CONFIGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmkd_ros.official_file import OfficialFile
    from cmkd_ros.official_import import Imported


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `cmkd` with `arguments` (default: the process's) and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print('cmkd: interrupted', file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        sys.stderr.close()
        return 1
    except (ValueError, OSError) as error:
        print(f'cmkd: {error}', file=sys.stderr)
        return 2
    except ImportError as error:
        print(
            f"cmkd: {options.command} needs '{error.name}', which is not installed here; "
            'see the README (Install)',
            file=sys.stderr,
        )
        return 2
    return 0


def _info(options: argparse.Namespace) -> None:
    from cmkd_ros.bundle_info import describe_bundle
    from cmkd_ros.official_file import is_pytorch_file

    if is_pytorch_file(options.file) or options.file.suffix in ('.pth', '.pt'):
        from cmkd_ros.official_info import describe_official

        description = describe_official(options.file, _import)
    else:
        description = describe_bundle(options.file)
    print(json.dumps(description, indent=2))


def _import_official(options: argparse.Namespace) -> None:
    from cmkd_ros.checkpoint import save_bundle
    from cmkd_ros.official_file import read_official

    imported = _import(read_official(options.checkpoint), options.config)
    print(f'{save_bundle(options.out, imported.bundle)}: {imported.summary()}')


def _import(file: OfficialFile, config: str) -> Imported:
    """Import a student, or a teacher, whose networks belong to the training."""
    from cmkd_ros.official_import import import_student

    if config in STUDENT_CONFIGS:
        return import_student(file, config)
    from cmkd_ros.training.teacher.official_import import import_teacher

    return import_teacher(file, config)


def _detect(options: argparse.Namespace) -> None:
    from cmkd_ros.detect_image import detect_image

    rows = detect_image(
        options.model, options.image, options.calib, options.out, options.device, options.score
    )
    text = json.dumps(rows, indent=1)
    if options.json:
        options.json.write_text(text + '\n')
    for row in rows:
        x, y, z, length, width, height, yaw = row['box']
        print(
            f'{row["class"]:<12} {row["score"]:.2f}  at ({x:6.2f}, {y:6.2f}, {z:5.2f}) m  '
            f'{length:.2f} x {width:.2f} x {height:.2f} m  yaw {yaw:5.2f} rad'
        )
    print(f'{len(rows)} objects' + (f'; pictures in {options.out}' if options.out else ''))


def _synth(options: argparse.Namespace) -> None:
    from cmkd_ros.training.data.synthetic import generate_drive, load_rig

    rig = load_rig(options.rig) if options.rig else None
    with _progress('rendering', options.frames) as step:
        root = generate_drive(
            options.out,
            options.frames,
            options.seed,
            width=options.width,
            height=options.height,
            frames_per_drive=options.frames_per_drive,
            workers=options.workers,
            progress=step,
            rig=rig,
            density=options.density,
        )
    print(root)


def _prepare_kitti(options: argparse.Namespace) -> None:
    from cmkd_ros.training.data.kitti_findings import finding_lines
    from cmkd_ros.training.data.kitti_prepare import prepare_kitti

    with _progress('checking frames') as step:
        prepared = prepare_kitti(
            options.root,
            index_path=options.index,
            lists=options.list,
            mapping=options.mapping,
            workers=options.workers,
            progress=step,
        )
    print('\n'.join(finding_lines(prepared)))
    if prepared.faults:
        raise ValueError(
            f'{options.root}: {len(prepared.faults)} broken files, listed above; their frames are '
            'left out of the index'
        )


def _train_teacher(options: argparse.Namespace) -> None:
    from cmkd_ros.training.engine.train import train_teacher

    print(
        train_teacher(
            options.recipe,
            tuple(options.overrides),
            options.out,
            options.resume,
            options.allow_leak,
        )
    )


def _distill(options: argparse.Namespace) -> None:
    from cmkd_ros.training.engine.train import distill

    print(
        distill(
            options.recipe,
            tuple(options.overrides),
            options.out,
            options.resume,
            options.allow_leak,
        )
    )


def _run_arguments(options: argparse.Namespace) -> dict[str, Any]:
    return {
        'recipe_name': options.recipe,
        'overrides': tuple(options.overrides),
        'out': options.out,
        'resume': options.resume,
        'allow_leak': options.allow_leak,
    }


def _evaluate(options: argparse.Namespace) -> None:
    from cmkd_ros.training.evaluate import evaluate_bundle

    with _progress('evaluating') as step:
        report = evaluate_bundle(
            options.model,
            options.data,
            options.split,
            out=options.out,
            device=options.device,
            precision=options.precision,
            pictures=options.pictures,
            allow_leak=options.allow_leak,
            progress=step,
        )
    _show_report(report, options)


def _eval_kitti(options: argparse.Namespace) -> None:
    from cmkd_ros.evaluation.report import evaluate_folders, write_plots

    report = evaluate_folders(options.labels, options.results, options.frames)
    _show_report(report, options)
    if options.plots:
        write_plots(report, options.plots)


def _show_report(report: Any, options: argparse.Namespace) -> None:
    from cmkd_ros.evaluation.report import print_table, write_json

    if options.json:  # first: whoever reads the table may stop reading early
        write_json(report, options.json)
    print_table(report, recall=options.recall)
    if options.json:
        print(options.json)


def _make_bag(options: argparse.Namespace) -> None:
    from cmkd_ros.training.data.bag import make_bag

    with _progress('writing') as step:
        print(make_bag(options.kitti, options.out, frames=options.frames, progress=step))


def _eval_bag(options: argparse.Namespace) -> None:
    from cmkd_ros.ros.eval_bag import evaluate_bag

    with _progress('replaying') as step:
        result = evaluate_bag(
            options.bag,
            options.model,
            options.labels,
            out=options.out,
            device=options.device,
            progress=step,
        )
    _show_report(result, options)


def _demo(options: argparse.Namespace) -> None:
    from cmkd_ros.ros.eval_bag import evaluate_bag
    from cmkd_ros.training.demo import run_demo

    run_demo(options.out, kitti=options.kitti, quick=options.quick, evaluate_bag=evaluate_bag)


@contextmanager
def _progress(what: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; yields a function to call with (done, of how many)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    silent = not console.is_terminal  # or it would end a log with an empty line
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='cmkd', description='3D detection with one camera, learned from LiDAR (CMKD).'
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    def add(
        name: str, run: Callable[[argparse.Namespace], None], help: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        return command

    _add_runtime_commands(add)
    _add_training_commands(add)
    _add_evaluation_commands(add)
    return parser


def _add_runtime_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    demo = add('demo', _demo, 'synthetic drive -> teacher -> student -> bag -> node -> pictures')
    demo.add_argument('--out', type=Path, default=Path('demo_output'), help='default: %(default)s')
    demo.add_argument('--kitti', type=Path, help='a KITTI folder instead of the synthetic drive')
    demo.add_argument('--quick', action='store_true', help='a minute of training: shows the wires')

    info = add('info', _info, 'what a bundle or an official checkpoint is')
    info.add_argument('file', type=Path)

    official = add('import-official', _import_official, 'official CMKD checkpoint -> bundle')
    official.add_argument('checkpoint', type=Path, metavar='CKPT', help='official *.pth')
    official.add_argument('--config', required=True, choices=(*STUDENT_CONFIGS, *TEACHER_CONFIGS))
    official.add_argument('--out', type=Path, required=True, help='bundle to write (*.cmkd)')

    detect = add('detect', _detect, 'one picture -> boxes')
    detect.add_argument('--model', type=Path, required=True, help='student bundle (*.cmkd)')
    detect.add_argument('--image', type=Path, required=True)
    detect.add_argument('--calib', type=Path, required=True, help='KITTI calibration file')
    detect.add_argument('--out', type=Path, help='folder for an overlay and a BEV picture')
    detect.add_argument('--json', type=Path, help='write the boxes there')
    detect.add_argument('--score', type=float, help="score threshold; default: the bundle's")
    _add_device(detect)

    synth = add('synth', _synth, 'a synthetic drive in KITTI layout')
    synth.add_argument('--out', type=Path, required=True)
    synth.add_argument('--frames', type=int, required=True)
    synth.add_argument('--seed', type=int, default=0)
    synth.add_argument('--width', type=int, default=1242)
    synth.add_argument('--height', type=int, default=375)
    synth.add_argument('--frames-per-drive', type=int, default=20, help='default: %(default)s')
    synth.add_argument('--rig', type=Path, help='YAML file with focal length and sensor heights')
    synth.add_argument('--density', type=float, default=1.0, help='amount of traffic; default: 1')
    synth.add_argument('--workers', type=int, default=2, help='processes; default: %(default)s')


def _add_training_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    prepare = add('prepare-kitti', _prepare_kitti, 'check a KITTI tree and write its index')
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

    for name, run, text in (
        ('train-teacher', _train_teacher, 'train a LiDAR teacher on labelled frames'),
        ('distill', _distill, 'distil a teacher into a camera student'),
    ):
        command = add(name, run, text)
        command.add_argument('recipe', help='a YAML file, or the name of a recipe of the package')
        command.add_argument('overrides', nargs='*', metavar='key=value', help='recipe overrides')
        command.add_argument('--out', type=Path, required=True, help='folder of the run')
        command.add_argument('--resume', action='store_true', help='go on with the run in --out')
        _add_allow_leak(command)


def _add_evaluation_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    evaluate = add('evaluate', _evaluate, 'network -> KITTI results -> AP')
    evaluate.add_argument('--model', type=Path, required=True, help='student or teacher bundle')
    evaluate.add_argument('--data', type=Path, required=True, help='KITTI folder')
    evaluate.add_argument('--split', type=Path, help='frame list; default: every image')
    evaluate.add_argument('--precision', default='fp32')
    evaluate.add_argument('--out', type=Path, help='folder for results and pictures')
    evaluate.add_argument(
        '--pictures', type=int, default=4, metavar='N',
        help='draw the N best, N worst and N random frames into --out; default: %(default)s',
    )  # fmt: skip
    _add_allow_leak(evaluate)
    _add_device(evaluate)

    eval_kitti = add('eval-kitti', _eval_kitti, 'KITTI AP of result files')
    eval_kitti.add_argument('--labels', type=Path, required=True)
    eval_kitti.add_argument('--results', type=Path, required=True)
    eval_kitti.add_argument('--frames', type=Path, help='frame list; default: every result file')
    eval_kitti.add_argument('--plots', type=Path, help='folder for precision-recall pictures')

    make_bag = add('make-bag', _make_bag, 'KITTI layout -> rosbag2')
    make_bag.add_argument('kitti', type=Path)
    make_bag.add_argument('--out', type=Path, required=True)
    make_bag.add_argument('--frames', type=Path, help='frame list; default: every image')

    eval_bag = add('eval-bag', _eval_bag, 'bag -> node -> AP, latency, drops')
    eval_bag.add_argument('--model', type=Path, required=True)
    eval_bag.add_argument('--bag', type=Path, required=True)
    eval_bag.add_argument('--labels', type=Path, required=True)
    eval_bag.add_argument('--out', type=Path, help='folder for results and the detection bag')
    _add_device(eval_bag)

    for command in (evaluate, eval_kitti, eval_bag):
        command.add_argument('--recall', type=int, choices=(40, 11), default=40)
        command.add_argument('--json', type=Path, help='write every number there')


def _add_allow_leak(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--allow-leak',
        action='store_true',
        help='evaluation frames that were learned from: go on, and record it',
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:N')


if __name__ == '__main__':
    sys.exit(main())
