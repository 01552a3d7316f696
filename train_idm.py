"""Train IDM: ``accelerate launch train_idm.py --config configs/quickstart.yaml [section.key=value ...]``."""

from idm.config.schema import IDMConfig
from idm.training.launch import Fittable, launch


def build(config: IDMConfig) -> Fittable:
    """The run of a configuration, or its rounds; PyTorch is imported only then."""
    if config.extrinsic is not None:
        from idm.config.assembly.extrinsic import build_rounds

        return build_rounds(config)
    from idm.config.assembly.intrinsic import build_intrinsic

    return build_intrinsic(config)


if __name__ == "__main__":
    launch("Train IDM; start it again with the same output_dir to resume.", IDMConfig, build)
