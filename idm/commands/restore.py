"""``idm restore``."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from idm.commands.model import USER_ERRORS, load
from idm.data.images import ImageError
from idm.restore import restore_files


def restore_command(arguments: argparse.Namespace) -> int:
    """``idm restore``: 0 if every file was restored."""
    try:
        restorer = load(arguments).restorer
        bar = tqdm(unit="face", disable=not sys.stderr.isatty())

        def on_file(path: Path, error: ImageError | None) -> None:
            bar.update()
            if error is not None:
                tqdm.write(f"error: {error}", file=sys.stderr)

        report = restore_files(
            restorer,
            arguments.input,
            arguments.output,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            output_size=arguments.output_size,
            skip_existing=arguments.skip_existing,
            on_file=on_file,
        )
        bar.close()
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    skipped = f", {len(report.skipped)} already there" if report.skipped else ""
    size = "their own size" if arguments.output_size == "input" else f"{restorer.image_size} px"
    print(f"{len(report.written)} restored at {size}{skipped}, {len(report.failed)} failed -> {arguments.output}")
    return 1 if report.failed else 0
