"""Train IDM: ``accelerate launch train_idm.py --config configs/quickstart.yaml [section.key=value ...]``."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description="Train IDM; started again in the same output_dir, it goes on.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change")
    arguments = parser.parse_intermixed_args()

    from idm.config.load import ConfigError, load_config

    try:
        config = load_config(arguments.config, arguments.overrides)

        from idm.runtime import quieten_libraries

        quieten_libraries()

        from idm.build import build_run
        from idm.data.images import ImageError
        from idm.training.checkpoint import CheckpointError
        from idm.training.loop import TrainingError
    except ConfigError as error:
        sys.exit(f"error: {error}")
    try:
        run = build_run(config)
        run.fit()
    except (ConfigError, ImageError, CheckpointError, TrainingError) as error:
        sys.exit(f"error: {error}")
    run.report()


if __name__ == "__main__":
    main()
