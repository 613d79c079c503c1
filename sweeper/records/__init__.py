"""The frozen data that crosses module borders.

Words are those of docs/architecture.md: an *assignment* gives every knob a value, a *trial* is one
assignment on one *placement*, a *measurement* is one client run at one *load point*.
Missing is ``None``; zero, -1 and empty text are values.
"""

from __future__ import annotations

from sweeper.errors import FailureClass
from sweeper.records.accuracy import ACCURACY_COLUMNS, Questions
from sweeper.records.derived import QUANTITY_NAMES
from sweeper.records.goal import (
    Constraint,
    Objective,
    StopRule,
)
from sweeper.records.kinds import (
    GPU,
    HOST_PREFIX,
    IMAGE,
    INSTANCES,
    INSTANCES_BY,
    MASK_VARIABLES,
    PARTITIONS_PER_GPU,
    Assignment,
    GivenArgument,
    Platform,
    Provenance,
    Scalar,
    TrialState,
    argument_flag,
    content_key,
)
from sweeper.records.load import (
    GOODPUT_BOUNDS,
    LOAD_COLUMNS,
    MEASURED_ITERATIONS,
    SAMPLING,
    LoadPoint,
    Ramp,
    RequestForm,
    users_of,
    users_text,
)
from sweeper.records.load_search import RateSearch, UserSearch
from sweeper.records.metrics import (
    MAX_RATE,
    MAX_USERS,
    METRIC_NAMES,
    SEARCH_SLOS,
)
from sweeper.records.model import (
    Model,
    ModelShape,
    Quantization,
)
from sweeper.records.result import (
    LIVE_COLUMNS,
    PHASES,
    Measurement,
    TrialResult,
)
from sweeper.records.trial import (
    ClientSpec,
    ContainerSpec,
    EngineSpec,
    Placement,
    TrialSpec,
    gpus_of_row,
    gpus_used,
)

__all__ = [
    "ACCURACY_COLUMNS",
    "GOODPUT_BOUNDS",
    "GPU",
    "HOST_PREFIX",
    "IMAGE",
    "INSTANCES",
    "INSTANCES_BY",
    "LIVE_COLUMNS",
    "LOAD_COLUMNS",
    "MASK_VARIABLES",
    "MAX_RATE",
    "MAX_USERS",
    "MEASURED_ITERATIONS",
    "METRIC_NAMES",
    "PARTITIONS_PER_GPU",
    "PHASES",
    "QUANTITY_NAMES",
    "SAMPLING",
    "SEARCH_SLOS",
    "Assignment",
    "ClientSpec",
    "Constraint",
    "ContainerSpec",
    "EngineSpec",
    "FailureClass",
    "GivenArgument",
    "LoadPoint",
    "Measurement",
    "Model",
    "ModelShape",
    "Objective",
    "Placement",
    "Platform",
    "Provenance",
    "Quantization",
    "Questions",
    "Ramp",
    "RateSearch",
    "RequestForm",
    "Scalar",
    "StopRule",
    "TrialResult",
    "TrialSpec",
    "TrialState",
    "UserSearch",
    "argument_flag",
    "content_key",
    "gpus_of_row",
    "gpus_used",
    "users_of",
    "users_text",
]
