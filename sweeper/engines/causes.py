"""Known causes of an engine's end, and the class of each: what happened, not which exception reported it.

A class decides what is done next: the run repeats what the machine or another process did, a search avoids
settings that need as much memory as one that ran out of it, and everything else waits for a person. So the
tables here are ordered by how surely a line names the cause of the others, not by how often it is seen.

Source: messages of vLLM 0.4.3 to 0.33.0, of torch 2.3 to 2.13 on HIP and CUDA, ROCr and HIP (rocdevice.cpp),
RCCL, glibc, the kernel and its drivers, text-generation-launcher, as their sources and public reports have
them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sweeper.records import FailureClass

NEIGHBOUR_GIB = 4.0
"""More than this of a device's memory held by others is a neighbour's doing.

A start waits until less than 2 GiB of a device are in use (``engine.free_timeout_s``), and an engine's own
contexts and libraries take about as much before it looks; what is missing beyond both is somebody else's.
"""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A kind of cause.

    Attributes:
        failure: The class.
        pattern: What its lines have in common.
        begins: With what matches, the runtime began to speak: what stands before it in a line is a prefix.
    """

    failure: FailureClass
    pattern: re.Pattern[str]
    begins: bool = False


def classified(line: str, causes: tuple[Cause, ...]) -> Cause | None:
    """Find the first of some causes that a line names."""
    return next((cause for cause in causes if cause.pattern.search(line)), None)


def memory_shortage(line: str) -> FailureClass | None:
    """Return what used up a device's memory, by the numbers in the line; None without any.

    An engine that finds a device nearly full before it has taken anything shares it with another process. One
    that is refused 99 % of a nearly free device asked for too much.
    """
    found = _FREE_AT_START.search(line)
    if found:
        free, total = float(found["free"]), float(found["total"])
        is_own_limit = total - free <= min(NEIGHBOUR_GIB, total / 5)
        return FailureClass.OUT_OF_MEMORY if is_own_limit else FailureClass.INFRASTRUCTURE
    total_gib, free_gib, own_gib = (_gib(pattern.search(line)) for pattern in (_TOTAL, _FREE, _OWN))
    if total_gib is not None and free_gib is not None and own_gib is not None:
        is_neighbours = total_gib - free_gib - own_gib > NEIGHBOUR_GIB
        return FailureClass.INFRASTRUCTURE if is_neighbours else FailureClass.OUT_OF_MEMORY
    if (left := _LEFT_MB.search(line)) is not None:
        # ROCr says so of queues, signals and scratch alike; only without memory it is memory.
        return FailureClass.OUT_OF_MEMORY if float(left[1]) < _SCARCE_MB else FailureClass.CRASH
    return None


_FREE_AT_START = re.compile(
    r"(?:Free|Available) memory on (?:device|node)\b.{0,40}?"
    r"\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup"
)
_SIZE = r"([\d.]+) ([KMGT]i?B)"
_TOTAL = re.compile(rf"total capacity of {_SIZE}|{_SIZE} total capacity")
_FREE = re.compile(rf"of which {_SIZE} is free|; {_SIZE} free")
_OWN = re.compile(rf"this process has {_SIZE} memory in use|{_SIZE} already allocated")
_LEFT_MB = re.compile(r"HSA_STATUS_ERROR_OUT_OF_RESOURCES.*Available Free mem : (\d+) MB", re.IGNORECASE)
_SCARCE_MB = 1024.0
_GIB = {"K": 2.0**-20, "M": 2.0**-10, "G": 1.0, "T": 2.0**10}


def _gib(match: re.Match[str] | None) -> float | None:
    if match is None:
        return None
    number, unit = (group for group in match.groups() if group is not None)
    return float(number) * _GIB[unit[0]]


def _cause(failure: FailureClass, *patterns: str, begins: bool = False) -> Cause:
    pattern = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    return Cause(failure=failure, pattern=pattern, begins=begins)


_HUB = r"huggingface|hf\.co|modelscope"
_OUT_OF_REACH = r"Max retries|[Tt]imed? ?out|Connection ?(?:Error|refused|reset)|50[0234] |429 "

SURROUNDINGS = (
    # What another process did.
    _cause(
        FailureClass.INFRASTRUCTURE,
        r"Error in memory profiling",
        r"[Dd]evice\(?s?\)? (?:is/are|is|are) (?:all )?busy",
        r"busy or unavailable",
        r"(?:hip|cuda)ErrorDevicesUnavailable",
        r"[Dd]evice or resource busy",
        r"DUE TO (?:TIME LIMIT|PREEMPTION)|CANCELLED AT|\bEvicted\b",
    ),
    # What the machine lacks, or refuses.
    _cause(
        FailureClass.INFRASTRUCTURE,
        r"No space left on device",
        r"Disk quota exceeded",
        r"Too many open files",
        r"can't start new thread",
        r"pthread_create failed",
        r"while (?:creating|attaching to) shared memory segment",
        r"out of shared memory",
        r"[Nn]ot enough shared memory|insufficient shared memory",
        r"\bBus error\b|\bSIGBUS\b",
    ),
    # Devices that are not there, or are broken.
    _cause(
        FailureClass.INFRASTRUCTURE,
        r"[Uu]nable to open /dev/(?:kfd|dri)|(?:open|access)\w* (?:of )?/dev/(?:kfd|dri)\S* failed",
        r"/dev/(?:kfd|dri)\S*.{0,40}(?:[Nn]o such file|not (?:found|present|accessible|a member))",
        r"Unexpected error from (?:hip|cuda)GetDeviceCount|AMDSMI_STATUS_(?:NO_PERM|DRIVER_NOT_LOADED)",
        r"could not select device driver|[Cc]annot connect to the [Dd]ocker daemon",
        r"permission denied while trying to connect to the [Dd]ocker",
        r"No (?:HIP|CUDA|ROCm|AMD) GPUs? (?:is|are|was|were)? ?(?:available|found|detected)",
        r"no (?:ROCm|CUDA|HIP)-capable device is detected",
        r"(?:hip|cuda)Error(?:NoDevice|ECCNotCorrectable|InvalidDevice\b|DeviceUninitialized)",
        r"invalid device ordinal",
        r"Found no NVIDIA driver",
        r"(?:HIP|CUDA|amdgpu|NVIDIA) driver (?:initialization failed|is not loaded)",
        r"driver not loaded|ROCk module is NOT loaded",
        r"Failed to infer device type",
        r"[Uu]ncorrectable (?:ECC|hardware|memory|RAS|NVLink)",
        r"ECC error|fallen off the bus",
        r"Xid \(.*?\): (?:48|63|64|74|79|94|95)\b",
    ),
)
"""The machine, its devices and the other processes on them: nothing is wrong with the setting."""

STATED_OF_SURROUNDINGS = (
    _cause(
        FailureClass.INFRASTRUCTURE,
        r"Resource temporarily unavailable",
        r"Read-only file system",
        r"Stale (?:NFS )?file handle",
        r"\[Errno 5\]|Input/output error",
        r"Transport endpoint is not connected",
        r"PermissionError|Permission denied",
        # Where AITER merges the tables of tuned kernels before it reads them, for all who share the machine.
        r"(?:Error|[Ee]rror|[Ff]ailed|[Cc]annot|[Cc]ould not|[Nn]o such file)\b.*/tmp/aiter_configs\b",
        r"cannot open shared object file",
        r"No such file or directory: '(?:\S*/)?(?:ninja|hipcc|nvcc|gcc|g\+\+|c\+\+|clang|amd-smi)'",
    ),
    # The hub, or the way to it.
    _cause(
        FailureClass.INFRASTRUCTURE,
        rf"(?:{_HUB}).{{0,200}}(?:{_OUT_OF_REACH})",
        rf"(?:{_OUT_OF_REACH}).{{0,200}}(?:{_HUB})",
        r"[Cc]ouldn't connect to ['\"]?https?://|CAS service error",
        r"Temporary failure in name resolution",
    ),
)
"""Likewise, but often met and got over: they count where they ended the engine."""

OUT_OF_MEMORY = (
    _cause(
        FailureClass.OUT_OF_MEMORY,
        r"OutOfMemoryError|OutOfMemory\b",
        r"(?i:\bout of memory\b)",
        r"No available memory for the cache blocks",
        r"larger than the maximum number of tokens that can be stored in KV cache",
        r"larger than the available KV cache memory",
        r"is less than desired (?:GPU|CPU) memory utilization",
        r"Cannot allocate memory|\bMemoryError\b|std::bad_alloc",
        r"[Nn]ot enough (?:GPU |CPU |host |device |available )?memory",
        r"exceeds? (?:the )?available (?:\w+ )?(?:memory|cache blocks)",
        r"(?:hip|cuda)ErrorMemoryAllocation|BLAS_STATUS_ALLOC_FAILED",
        r"OOMKilled|oom[-_]kill|oom_reaper|by the (?:OS |kernel'?s? )?OOM[- ]killer",
        r"running low on memory",
        r"[Ff]ailed to allocate .{0,60}(?:memory|bytes|[KMG]i?B)",
    ),
)

PORT = (
    _cause(
        FailureClass.PORT,
        r"(?i:address already in use|EADDRINUSE)",
        r"port \d+ is already (?:in use|allocated)",
    ),
)

OWN_TIME_LIMITS = (
    _cause(
        FailureClass.START_TIMEOUT,
        r"Timed out waiting for engine",
        r"VLLM_ENGINE_READY_TIMEOUT_S",
        r"(?:[Ee]ngine|[Cc]ore|[Ww]orker|[Ss]erver|[Ss]hard)\b.{0,80}"
        r"(?:failed to|did not) (?:complete startup|become ready|start(?:ed)?|get ready)\b.{0,20}"
        r"(?:within|in time|in \d|after \d|before)",
        r"Timed out after \d+ seconds waiting for clients|client socket has timed out",
        r"Cannot provide a placement group of",
        r"wait timeout after \d+ ?ms, keys",
    ),
)
"""Limits that the engine itself puts on its start."""

NOT_FOR_THIS_DEVICE = (
    _cause(
        FailureClass.UNSUPPORTED,
        r"invalid device function|no kernel image is available",
        r"(?:hip|cuda)Error(?:NoBinaryForGpu|InvalidDeviceFunction)",
        r"Unable to find code object|TensileLibrary|[Ii]llegal seek for GPU arch",
        r"HSA_STATUS_ERROR_(?:INVALID_ISA|INVALID_CODE_OBJECT|INCOMPATIBLE_ARGUMENTS)\w*",
        r"out of resource: (?:shared memory|threads)|OutOfResources: ",
        r"BLAS_STATUS_(?:NOT_SUPPORTED|ARCH_MISMATCH)",
    ),
)
"""Code that was not built for the device, or asks for more of it than it has."""

ABORTS = (
    # What the device reported: whatever else is said of it follows.
    _cause(
        FailureClass.CRASH,
        r"Memory access fault by GPU",
        r"HW Exception by GPU",
        r"(?i:\bGPU hang\b)",
        begins=True,
    ),
    _cause(FailureClass.CRASH, r"HSA_STATUS_ERROR\w*", r"callbackQueue aborting"),
    _cause(
        FailureClass.CRASH,
        r"(?:amdgpu|drm).{0,80}(?:ring \S+ timeout|GPU reset|page fault|wedged|MES failed)",
        r"ring \S+ timeout, signaled",
        r"amdgpu_job_timedout|qcm fence wait loop timeout|unsuccessful queues preemption",
        r"NVRM: Xid|Xid \(",
    ),
    _cause(
        FailureClass.CRASH,
        r"\b(?:HIP|CUDA|hip|cuda) error: ",
        r"(?:hip|cuda)Error[A-Z]\w+|Triton Error \[",
        r"(?:hip|cu|roc)BLAS_STATUS_\w+|(?:HIPBLAS|CUBLAS|ROCBLAS)_STATUS_\w+",
        r"rocBLAS error|MIOpen(?:\(HIP\))? ?:? ?Error|miopenStatus\w+",
        r"[Ii]llegal memory access|unspecified launch failure|[Dd]evice-side assert",
    ),
)
"""Aborts that begin below Python, on the device or in its runtime."""

WEAK_ABORTS = (
    _cause(
        FailureClass.CRASH,
        r"double free or corruption|corrupted (?:size|double-linked|unsorted)|free\(\): |malloc\(\): ",
        r"munmap_chunk",
        r"stack smashing detected|terminate called after throwing|LLVM ERROR|Assertion [`'].*' failed",
    ),
    _cause(
        FailureClass.CRASH,
        r"Fatal Python error: (?!Aborted|Segmentation|Bus)",
        r"Segmentation fault|\bSIGSEGV\b|Segfault encountered|segfault at",
        r"general protection fault",
        r"Illegal instruction|\bSIGILL\b|Floating point exception|trap divide error",
        r"thread '.*' panicked at",
    ),
    _cause(
        FailureClass.CRASH,
        r"[Ww]atchdog caught collective operation timeout",
        r"watchdog thread (?:got stuck|terminated)",
        r"\bR?NCCL (?:error|operation)|nccl(?:System|Internal|Remote|InvalidUsage|UnhandledCuda)\w*",
    ),
    _cause(
        FailureClass.CRASH,
        r"Fatal Python error",
        r"\bSIGABRT\b|\bAborted\b",
        r"\bSIGKILL\b|signal (?:4|6|9|11)\b",
    ),
)
"""Ends of a process that are a cause where nothing before them is one, and an effect elsewhere."""

STATED = (
    # Defects of a program, whatever type they come as.
    _cause(
        FailureClass.CRASH,
        r"(?:too many|not enough) values to unpack|cannot reshape|could not broadcast|shapes? mismatch",
        r"mat1 and mat2|must match the (?:existing )?size",
    ),
    # A model, a file of it, or the right to it, that is not there.
    _cause(
        FailureClass.BAD_ARGUMENT,
        r"is not a local folder|RepositoryNotFound|RevisionNotFound|EntryNotFound|HFValidationError",
        r"Repo id must be",
        r"GatedRepo|gated repo|restricted and you are not|40[134] Client Error|Invalid user token",
        r"Unauthorized|403 Forbidden|Cannot access (?:gated|content)|pull access denied",
        r"does not appear to have a file named|Cannot find any model weights|[Nn]o such file or directory",
        r"FileNotFoundError|NotADirectoryError|LocalEntryNotFound|OfflineModeIsEnabled",
        r"(?:Safetensor|HeaderToo)\w*",
        r"[Uu]nrecognized (?:model|configuration)|outgoing traffic has been disabled",
        r"Can't load (?:the|tokenizer)",
    ),
    _cause(
        FailureClass.UNSUPPORTED,
        r"NotImplementedError",
        r"(?i:\b(?:not|isn't|aren't|unsupported|only|no longer|never)\b.{0,40}\bsupport(?:s|ed)?\b)",
        r"(?i:\bunsupported\b|not implemented|does(?: not|n't) support|\bno support for\b)",
        r"(?i:unknown (?:quantization|model|attention|speculative)|not recognize this architecture)",
        r"(?i:cannot find (?:the )?(?:model module|kernel)|no valid attention backend)",
        r"(?i:has no vLLM implementation|not available on)",
        r"(?i:requires (?:compute capability|a gpu with|gfx|rocm|cuda|torch|triton|transformers))",
        r"ModuleNotFoundError|ImportError|\bis not installed\b",
    ),
    _cause(
        FailureClass.BAD_ARGUMENT,
        # argparse, and clap.
        r": error: (?:argument|unrecognized|the following|one of the|ambiguous|invalid|expected|not allowed)",
        r"^error: (?:invalid value|unexpected|unrecognized|the argument|a value is required|the following)",
        r"Value error, |ValueError|ValidationError|ArgumentError|ArgumentValidation|Input should be",
        r"TypeError: .*(?:argument|keyword|expected|takes)|AssertionError: \S|Extra inputs are not permitted",
        r"Field required|JSONDecodeError|validation errors? for",
    ),
)
"""What an exception says of the start that it ended; one that ends an engine at work says less."""
