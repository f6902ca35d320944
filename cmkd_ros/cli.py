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
from typing import TYPE_CHECKING, Any

from cmkd_ros.cli_arguments import parse_arguments
from cmkd_ros.cli_benchmark import run_benchmark
from cmkd_ros.errors import FailedError, memory_shortage
from cmkd_ros.official_kind import STUDENT_CONFIGS
from cmkd_ros.progress import show_progress

if TYPE_CHECKING:
    from cmkd_ros.official_file import OfficialFile
    from cmkd_ros.official_import import Imported

_TRAINING_NEEDS_LESS = (
    'less is needed with a smaller optimiser.batch_size, or optimiser.checkpoint_activations=true'
)
_NEEDS_LESS = {
    'train-teacher': _TRAINING_NEEDS_LESS,
    'distill': _TRAINING_NEEDS_LESS,
    'ladder': _TRAINING_NEEDS_LESS,
    'benchmark': 'less is needed with a smaller --size or --batch',
    'export': 'less is needed with a smaller --size',
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `cmkd` with `arguments` (default: the process's) and return its exit code."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr)
    try:
        _check_written_files(options)
        _COMMANDS[options.command](options)
    except KeyboardInterrupt:
        print('cmkd: interrupted', file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        sys.stderr.close()
        return 1
    except (FailedError, TimeoutError) as error:
        print(f'cmkd: {error}', file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f'cmkd: {error}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(
            f"cmkd: {options.command} needs '{error.name}', which is not installed here; "
            'see the README (Install)',
            file=sys.stderr,
        )
        return 2
    except ImportError as error:  # installed, but made for another Python, numpy or system
        print(f'cmkd: {options.command} cannot load what it needs: {error}', file=sys.stderr)
        return 2
    except Exception as error:  # torch, numpy and OpenCV each have an error of their own
        shortage = memory_shortage(error)
        if shortage is None:
            raise
        hint = _NEEDS_LESS.get(options.command)
        text = f'{options.command} ran {shortage}' + (f'; {hint}' if hint else '')
        print(f'cmkd: {text}', file=sys.stderr)
        return 1
    return 0


def _check_written_files(options: argparse.Namespace) -> None:
    """Refuse a file that cannot be written before the work for it is done, not after."""
    for name in ('json', 'chart'):
        file = getattr(options, name, None)
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise FileNotFoundError(f'--{name} {file}: expected a file in a folder that exists')


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
        options.model,
        options.image,
        options.calib,
        options.out,
        options.device,
        options.score,
        options.precision,
        options.backend,
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


def _export(options: argparse.Namespace) -> None:
    if options.precision == 'int8':
        return _export_int8(options)
    from cmkd_ros.engine_parity import export_compared

    frames = options.frames or 5
    with show_progress('comparing', frames) as step:
        made = export_compared(
            options.model, options.onnx, options.precision, options.external_data,
            tuple(options.size), frames, step,
        )  # fmt: skip
    print('\n'.join(made.lines()))
    made.check()


def _export_int8(options: argparse.Namespace) -> None:
    from cmkd_ros.evaluation.report import print_table
    from cmkd_ros.training.int8 import export_int8

    if options.data is None or options.onnx is not None or options.external_data:
        raise ValueError('int8 needs --data KITTI_FOLDER, and has no --onnx or --external-data')
    counts = (options.calibration, options.frames or 300)
    made = export_int8(options.model, options.data, options.split, *counts, options.allow_leak)
    print_table(made.int8, earlier=made.fp32)
    print(f'{made.file}: {made.cost}')


def _pack(options: argparse.Namespace) -> None:
    from cmkd_ros.pack_bundle import pack_bundle

    print(pack_bundle(options.model, options.out, dict(options.ap)))


def _synth(options: argparse.Namespace) -> None:
    from cmkd_ros.training.data.synthetic import generate_drive, load_rig

    rig = load_rig(options.rig) if options.rig else None
    with show_progress('rendering', options.frames) as step:
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

    with show_progress('checking frames') as step:
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
    from cmkd_ros.training.report.after_run import report_after_run

    print(
        distill(
            options.recipe,
            tuple(options.overrides),
            options.out,
            options.resume,
            options.allow_leak,
        )
    )
    if options.report and (report := report_after_run(options.out)):
        print(report)


def _ladder(options: argparse.Namespace) -> None:
    from cmkd_ros.training.ladder.recipe import load_ladder
    from cmkd_ros.training.ladder.run import climb
    from cmkd_ros.training.ladder.summary import print_ladder
    from cmkd_ros.training.report.run_report import write_report

    overrides = tuple(options.overrides)
    path = climb(options.recipe, overrides, options.out, tuple(options.seed), write_report)
    print_ladder(load_ladder(options.recipe, overrides), options.out)
    print(path)


def _report(options: argparse.Namespace) -> None:
    from cmkd_ros.training.report.run_report import write_report

    print(
        write_report(options.run, options.evaluation, options.data, options.split, options.frames)
    )


def _evaluate(options: argparse.Namespace) -> None:
    from cmkd_ros.training.evaluate import evaluate_bundle

    earlier = _earlier_report(options)
    with show_progress('evaluating') as step:
        report = evaluate_bundle(
            options.model,
            options.data,
            options.split,
            out=options.out,
            device=options.device,
            precision=options.precision,
            backend=options.backend,
            pictures=options.pictures,
            allow_leak=options.allow_leak,
            progress=step,
        )
    _show_report(report, options, earlier)


def _eval_kitti(options: argparse.Namespace) -> None:
    from cmkd_ros.evaluation.report import evaluate_folders, write_plots

    earlier = _earlier_report(options)
    report = evaluate_folders(options.labels, options.results, options.frames)
    _show_report(report, options, earlier)
    if options.plots:
        write_plots(report, options.plots)


def _earlier_report(options: argparse.Namespace) -> Any:
    """What to compare with; read first, so that a wrong file does not cost an evaluation."""
    from cmkd_ros.evaluation.report import read_report

    return read_report(options.compare) if options.compare else None


def _show_report(report: Any, options: argparse.Namespace, earlier: Any) -> None:
    from cmkd_ros.evaluation.report import print_table, write_json

    if options.json:  # before the table: whoever reads that may stop reading early
        write_json(report, options.json)
    print_table(report, options.recall, earlier=earlier)
    if options.json:
        print(options.json)


def _make_bag(options: argparse.Namespace) -> None:
    from cmkd_ros.training.data.bag import make_bag

    with show_progress('writing') as step:
        print(make_bag(options.kitti, options.out, frames=options.frames, progress=step))


def _extract_bag(options: argparse.Namespace) -> None:
    from cmkd_ros.training.data.extract import extract_frames
    from cmkd_ros.training.data.extract_folder import check_claim
    from cmkd_ros.training.data.extract_options import options_from_arguments
    from cmkd_ros.training.data.extract_plan import plan_extraction

    check_claim(options.out)
    wanted = options_from_arguments(options)
    with show_progress('looking through') as step:
        plan = plan_extraction(options.bags, wanted, step)
    with show_progress('extracting') as step:
        report = extract_frames(plan, options.out, step)
    print('\n'.join([*report.lines(), str(report.out)]))


def _eval_bag(options: argparse.Namespace) -> None:
    from cmkd_ros.ros.eval_bag import evaluate_bag

    earlier = _earlier_report(options)
    with show_progress('replaying') as step:
        result = evaluate_bag(
            options.bag,
            options.model,
            options.labels,
            out=options.out,
            device=options.device,
            precision=options.precision,
            backend=options.backend,
            parameters=dict(options.param),
            image_topic=options.image,
            info_topic=options.camera_info,
            progress=step,
        )
    _show_report(result, options, earlier)


def _demo(options: argparse.Namespace) -> None:
    from cmkd_ros.ros.eval_bag import evaluate_bag
    from cmkd_ros.training.demo import run_demo

    run_demo(
        options.out,
        evaluate_bag=evaluate_bag,
        kitti=options.kitti,
        train=options.train,
        quick=options.quick,
    )


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    'demo': _demo,
    'info': _info,
    'import-official': _import_official,
    'detect': _detect,
    'benchmark': run_benchmark,
    'export': _export,
    'pack': _pack,
    'synth': _synth,
    'prepare-kitti': _prepare_kitti,
    'train-teacher': _train_teacher,
    'distill': _distill,
    'ladder': _ladder,
    'report': _report,
    'evaluate': _evaluate,
    'eval-kitti': _eval_kitti,
    'make-bag': _make_bag,
    'extract-bag': _extract_bag,
    'eval-bag': _eval_bag,
}

if __name__ == '__main__':
    sys.exit(main())
