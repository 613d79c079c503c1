"""What an engine, a client, a dataset and a search method say of themselves: the only lists of them.

Each is declared by a frozen record: what it can do and where its code is, as ``module:name``, which is
imported when it is first used. Everything else asks the record and never compares a name. The declarations
lie below the records, since a trial's identity, the knobs, the space and the schedule ask them, too.
"""

from sweeper.kinds.clients import CLIENTS, DEFAULT_CLIENT, LM_EVAL, ClientKind, ClientPackage
from sweeper.kinds.datasets import DATASETS, DatasetKind, DatasetOption
from sweeper.kinds.engines import (
    DEFAULT_ENGINE,
    ENGINES,
    MODEL_OF_ENGINE,
    VLLM_ENVIRONMENT,
    EngineKind,
    PythonEnvironment,
)
from sweeper.kinds.registry import Registry, opened
from sweeper.kinds.search_methods import SEARCH_METHODS, SearchMethod

__all__ = [
    "CLIENTS",
    "DATASETS",
    "DEFAULT_CLIENT",
    "DEFAULT_ENGINE",
    "ENGINES",
    "LM_EVAL",
    "MODEL_OF_ENGINE",
    "SEARCH_METHODS",
    "VLLM_ENVIRONMENT",
    "ClientKind",
    "ClientPackage",
    "DatasetKind",
    "DatasetOption",
    "EngineKind",
    "PythonEnvironment",
    "Registry",
    "SearchMethod",
    "opened",
]
