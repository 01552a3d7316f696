"""Train IDM: ``accelerate launch train_idm.py --config configs/quickstart.yaml [section.key=value ...]``."""

from typing import TYPE_CHECKING

from idm.config.schema import IDMConfig
from idm.launch import launch

if TYPE_CHECKING:
    from idm.training.loop import Run


def build(config: IDMConfig) -> "Run":
    from idm.build.intrinsic import build_intrinsic

    return build_intrinsic(config)


if __name__ == "__main__":
    launch("Train IDM; started again in the same output_dir, it goes on.", IDMConfig, build)
