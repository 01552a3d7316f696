"""The checked settings of a run: frozen sections, and tagged unions where there is a choice.

A choice carries the tag field ``name`` and owns its own fields only, so that a setting that would have no
effect cannot be written. Which settings fit together is checked last.
"""

from idm.config.schema.data import (
    AssetsConfig,
    DataConfig,
    DegradationConfig,
    Factor,
    FolderConfig,
    HuggingFaceConfig,
    Length,
    Quality,
    Source,
    SourceConfig,
    SyntheticConfig,
)
from idm.config.schema.extrinsic import (
    AtOnceConfig,
    CleaningConfig,
    ExtrinsicConfig,
    GateConfig,
    GradualConfig,
    MixedConfig,
    ReplacementConfig,
)
from idm.config.schema.method import (
    AdversarialConfig,
    ChainConfig,
    CosineConfig,
    DenoiserConfig,
    FeatureLossConfig,
    LinearConfig,
    LogSigmaConfig,
    NoiseLevelsConfig,
    ObjectiveConfig,
    PiecewiseUniformConfig,
    ScheduleConfig,
    StartAndLogUniformConfig,
)
from idm.config.schema.run import IDMConfig, RunConfig
from idm.config.schema.section import Count, Section, Share
from idm.config.schema.training import (
    IDMTrainConfig,
    LoRAConfig,
    Tracker,
    TrainConfig,
    ValidationConfig,
    ValidationMetric,
)

__all__ = [
    "AdversarialConfig",
    "AssetsConfig",
    "AtOnceConfig",
    "ChainConfig",
    "CleaningConfig",
    "CosineConfig",
    "Count",
    "DataConfig",
    "DegradationConfig",
    "DenoiserConfig",
    "ExtrinsicConfig",
    "Factor",
    "FeatureLossConfig",
    "FolderConfig",
    "GateConfig",
    "GradualConfig",
    "HuggingFaceConfig",
    "IDMConfig",
    "IDMTrainConfig",
    "Length",
    "LinearConfig",
    "LoRAConfig",
    "LogSigmaConfig",
    "MixedConfig",
    "NoiseLevelsConfig",
    "ObjectiveConfig",
    "PiecewiseUniformConfig",
    "Quality",
    "ReplacementConfig",
    "RunConfig",
    "ScheduleConfig",
    "Section",
    "Share",
    "Source",
    "SourceConfig",
    "StartAndLogUniformConfig",
    "SyntheticConfig",
    "Tracker",
    "TrainConfig",
    "ValidationConfig",
    "ValidationMetric",
]
