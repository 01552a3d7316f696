"""Train on a folder of aligned faces: ``python examples/train_on_a_folder.py my/faces -o runs/mine``.

The program does what ``accelerate launch train_idm.py`` does: it reads a configuration with overrides, builds the run
and fits it. Started again with the same arguments, it resumes. At the end it restores one face with the trained model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from idm import IDMPipeline
from idm.config.assembly.intrinsic import build_intrinsic
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.io.find import find_images

CONFIG = Path(__file__).parents[1] / "configs" / "faces64.yaml"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder of aligned, square faces")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="as for train_idm.py")
    parsed = parser.parse_intermixed_args(arguments)

    overrides = [
        f"output_dir={parsed.output}",
        f"data.source={{name: folder, path: {parsed.faces}}}",
        "data.val_source=null",  # the last faces of the folder are held out for validation
        *parsed.settings,
    ]
    run = build_intrinsic(load_config(parsed.config, IDMConfig, overrides))
    run.fit()
    run.report()

    pipeline = IDMPipeline.from_pretrained(parsed.output)  # the best checkpoint of the run
    size = pipeline.image_size
    face = Image.open(find_images([parsed.faces])[0]).convert("RGB").resize((size, size))
    pipeline(face).images[0].save(parsed.output / "example.png")
    print(parsed.output / "example.png")


if __name__ == "__main__":
    main()
