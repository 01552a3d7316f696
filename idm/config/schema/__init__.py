"""The checked settings of a run: frozen sections, and tagged unions where there is a choice.

A choice carries the tag field ``name`` and owns its own fields only, so that a setting that would have no
effect cannot be written. Which settings fit together is checked last.
"""

from idm.config.schema.data import (
    AssetsConfig,
    DataConfig,
    DegradationConfig,
    FactorRange,
    FolderConfig,
    HuggingFaceConfig,
    LengthRange,
    QualityRange,
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
from idm.config.schema.section import PositiveInt, Section, UnitInterval
from idm.config.schema.training import (
    IDMTrainConfig,
    LoRAConfig,
    TrackerName,
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
    "DataConfig",
    "DegradationConfig",
    "DenoiserConfig",
    "ExtrinsicConfig",
    "FactorRange",
    "FeatureLossConfig",
    "FolderConfig",
    "GateConfig",
    "GradualConfig",
    "HuggingFaceConfig",
    "IDMConfig",
    "IDMTrainConfig",
    "LengthRange",
    "LinearConfig",
    "LoRAConfig",
    "LogSigmaConfig",
    "MixedConfig",
    "NoiseLevelsConfig",
    "ObjectiveConfig",
    "PiecewiseUniformConfig",
    "PositiveInt",
    "QualityRange",
    "ReplacementConfig",
    "RunConfig",
    "ScheduleConfig",
    "Section",
    "Source",
    "SourceConfig",
    "StartAndLogUniformConfig",
    "SyntheticConfig",
    "TrackerName",
    "TrainConfig",
    "UnitInterval",
    "ValidationConfig",
    "ValidationMetric",
]
