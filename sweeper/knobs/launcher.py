"""What the launcher of a server sets, so that no assignment may: flags, variables, and the key instead.

A knob of such a name would contradict what the sweeper says, be dropped in silence, or let a trial fight
another process for a port. This list is the only one: tests build the real commands and environments, and
fail where something is given that is not listed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from sweeper.knobs.names import is_variable
from sweeper.knobs.refusals import Refusal
from sweeper.records import Scalar

_LOOPBACK = "a server listens on loopback, at a port that was free. Take it out of the knobs."
_PLAIN_HTTP = "servers are asked over plain HTTP on loopback. Take it out of the knobs."
_ONE_NODE = (
    "a trial is one server on one node, with all of its replicas. Say how many by data_parallel_size or "
    "instances."
)
_OWN_PORTS = "vLLM looks for free ports itself, and a fixed one is taken by the trial beside it. Take it out."

GIVEN_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "model": "Choose it by model=NAME, or model.path.",
        "served_model_name": "It is model.name: set that.",
        "revision": "Set model.revision.",
        "host": _LOOPBACK,
        "port": _LOOPBACK,
        "uds": _LOOPBACK,
        "api_key": "Each server gets a random key. Take it out of the knobs.",
        "config": "What a file of flags says stands in no row. Write its flags as knobs.",
        **dict.fromkeys(
            (
                *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers"),
                *("enable_ssl_refresh", "root_path"),
            ),
            _PLAIN_HTTP,
        ),
        **dict.fromkeys(
            (
                *("headless", "nnodes", "node_rank", "master_addr", "data_parallel_address"),
                *("data_parallel_rank", "data_parallel_start_rank", "data_parallel_external_lb"),
                *("data_parallel_hybrid_lb", "data_parallel_multi_port_external_lb"),
            ),
            _ONE_NODE,
        ),
        **dict.fromkeys(
            ("master_port", "data_parallel_rpc_port", "data_parallel_supervisor_port"), _OWN_PORTS
        ),
    }
)
"""Flag of vLLM's server, by knob, to what to do in place of the knob."""

TGI_GIVEN_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "model_id": "Choose it by model=NAME, or model.path.",
        "revision": "Set model.revision.",
        "hostname": _LOOPBACK,
        "port": _LOOPBACK,
        "api_key": "Each server gets a random key. Take it out of the knobs.",
        "shard_uds_path": "Each server has a folder of its own for it. Take it out of the knobs.",
        "master_addr": _ONE_NODE,
        "master_port": _OWN_PORTS,
        "prometheus_port": _OWN_PORTS,
        "huggingface_hub_cache": "Export HF_HOME before the start: server and client then share it.",
    }
)
"""Flag of TGI's launcher, likewise."""

_DEVICES = "the devices of a trial are shown to it by one mask. Choose them by platform.device_ids."
_KEY = "each server gets a random key. Take it out of the knobs."
_FOLDERS = (
    "compiled code is kept by release and partition mode. Export it before the start to move that folder."
)
_INTERPRETER = "the environment of vLLM is that of engine.python. Name its interpreter there."
_QUIET = "nothing of a run is reported to others. Take it out of the knobs."

GIVEN_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("VLLM_API_KEY", "OPENAI_API_KEY", "API_KEY"), _KEY),
        "VLLM_SERVER_DEV_MODE": (
            "it is always 1, since only then a server tells its own configuration. Take it out of the knobs."
        ),
        **dict.fromkeys(
            ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "AITER_ROOT_DIR"), _FOLDERS
        ),
        **dict.fromkeys(("VLLM_HOST_IP", "VLLM_PORT", "MASTER_PORT", "PORT", "HOSTNAME"), _OWN_PORTS),
        **dict.fromkeys(
            (
                *("MASTER_ADDR", "RANK", "LOCAL_RANK", "WORLD_SIZE", "VLLM_DP_SIZE", "VLLM_DP_RANK"),
                *("VLLM_DP_RANK_LOCAL", "VLLM_DP_MASTER_IP", "VLLM_DP_MASTER_PORT"),
            ),
            _ONE_NODE,
        ),
        **dict.fromkeys(("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"), _INTERPRETER),
        "PYTHONUNBUFFERED": "it is always 1, so that a log is read as it is written. Take it out.",
        "NO_PROXY": "no proxy may stand between client and server. Export it before the start.",
        **dict.fromkeys(("VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK"), _QUIET),
        "SHARD_UDS_PATH": "each server has a folder of its own for it. Take it out of the knobs.",
        "MODEL_ID": "Choose it by model=NAME, or model.path.",
        "REVISION": "Set model.revision.",
    }
)
"""Environment variable to what to do in place of the knob; masks and the sweeper's own marks besides."""

# As ``processes.masks`` has it, which imports nothing; a test holds the two together.
_HIDES_DEVICES = re.compile(
    r"^(?!RAY_EXPERIMENTAL_NOSET_).*_VISIBLE_DEVICES$|^GPU_DEVICE_ORDINAL$|^ZE_AFFINITY_MASK$"
)
_MARKS = re.compile(r"^SWEEPER_")


def refuse_given(knob: str, value: Scalar, *, flags: Mapping[str, str] = GIVEN_FLAGS) -> Refusal | None:
    """Refuse a knob that the launcher of the server sets, with the key to use instead."""
    instead = _of_variable(knob) if is_variable(knob) else flags.get(knob)
    if instead is None:
        return None
    reason = f"whoever starts the server gives it: {instead[0].lower()}{instead[1:]}"
    return Refusal(knob=knob, value=value, kind="conflict", reason=reason, is_mistake=True)


def refuse_load_format(value: Scalar, *, is_dummy: bool) -> Refusal | None:
    """Refuse a load format that contradicts what is said of the model's weights: whether they are random.

    A model of random weights is started with ``--load-format dummy``; under the name of a model that has real
    ones, random weights would pass for it.
    """
    if is_dummy == (value == "dummy"):
        return None
    reason = (
        "the model's weights are random (model.is_dummy), and are made and not loaded. Take it out."
        if is_dummy
        else "it makes random weights, and model.is_dummy is false. Set model.is_dummy=true, which does it."
    )
    return Refusal(knob="load_format", value=value, kind="conflict", reason=reason, is_mistake=True)


def refuse_near_path(knob: str, value: Scalar) -> Refusal | None:
    """Refuse a file or folder named from where the study was started, which no engine finds there."""
    if not isinstance(value, str) or "/" not in value or value.startswith("/") or not Path(value).exists():
        return None
    reason = (
        "it is named from the folder in which the study is started, and an engine runs in a folder of its "
        f"trial's. Write {Path(value).absolute()}."
    )
    return Refusal(knob=knob, value=value, kind="conflict", reason=reason, is_mistake=True)


def _of_variable(name: str) -> str | None:
    if _HIDES_DEVICES.search(name):
        return _DEVICES
    if _MARKS.search(name):
        return "it is a mark of the sweeper's own. Take it out of the knobs."
    return GIVEN_VARIABLES.get(name)
