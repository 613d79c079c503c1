"""Every check of an audit: what is expected, why, the command that changes it, and who says so.

Where AMD's guides do not name a value, the source says that, and whose reason it is instead.
"""

from __future__ import annotations

from sweeper.audit.findings import Check, Scope
from sweeper.topology.modes import MI300X_GPUS

GUIDE = "AMD Instinct MI300X system optimization (ROCm/amdgpu-docs, docs/system-optimization/mi300x.rst)"
ACCEPTANCE = "AMD system acceptance, MI300X (ROCm/system-acceptance-docs, docs/gpus/mi300x.md)"
BOOT = (
    "AMD system acceptance, kernel parameters (ROCm/system-acceptance-docs, docs/common/kernel-parameters.md)"
)
BIOS = "AMD system acceptance, BIOS settings (ROCm/system-acceptance-docs, docs/common/bios-settings.md)"
AMD_SMI = "AMD SMI command line tool (ROCm/amdsmi, docs/how-to/amdsmi-cli-tool.md)"

PCIE_SPEED = "32.0 GT/s"
PCIE_WIDTH = 16
POWER_W = 750
CLOCKS_MHZ = (1900, 2100)
OPEN_FILES = 65535
SHARED_MEMORY_GIB = 16
MODES = (("SPX", "NPS1"), ("CPX", "NPS4"))

_APPEND = "append {} to GRUB_CMDLINE_LINUX in /etc/default/grub; sudo update-grub (or grub2-mkconfig); reboot"

CATALOGUE: tuple[Check, ...] = (
    Check(
        name="numa_balancing",
        scope=Scope.ANY_HOST,
        expected="0 (off)",
        why="the kernel scans memory and moves pages while the engine runs: time that varies from run to run",
        command="sudo sysctl kernel.numa_balancing=0",
        source=f"{GUIDE}, Disable NUMA auto-balancing",
    ),
    Check(
        name="cpu_governor",
        scope=Scope.ANY_HOST,
        expected="performance on all processors",
        why="the engine's scheduler runs in short bursts, for which other governors raise the clock late",
        command="sudo cpupower frequency-set --governor performance",
        source=f"{BIOS}: power management at maximum performance; the governor is not named there, see "
        "Linux, admin-guide/pm/cpufreq.rst",
    ),
    Check(
        name="cpu_boost",
        scope=Scope.ANY_HOST,
        expected="1 (on)",
        why="the scheduler and the tokenizer are bound to one thread each, whose clock is then lower",
        command="echo 1 | sudo tee /sys/devices/system/cpu/cpufreq/boost",
        source=f"{BIOS}: power management at maximum performance; boost is not named there, see Linux, "
        "admin-guide/pm/cpufreq.rst",
    ),
    Check(
        name="cpu_idle_c2",
        scope=Scope.MI300X_HOST,
        expected="C2 switched off on all processors",
        why="waking a processor from C2 takes long beside a step of the engine",
        command="sudo cpupower idle-set -d 2",
        source=f"{GUIDE}, CPU core states",
    ),
    Check(
        name="transparent_hugepages",
        scope=Scope.ANY_HOST,
        expected="always",
        why="large pages make the allocation of weights and of buffers for copies faster",
        command="echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        source=f"{BOOT}: optional",
    ),
    Check(
        name="iommu",
        scope=Scope.MI300X_HOST,
        expected="iommu=pt among the kernel's parameters, with intel_iommu=on on processors of Intel",
        why="without pass-through each transfer between GPUs or from the host is translated",
        command=_APPEND.format("iommu=pt (with intel_iommu=on on processors of Intel)"),
        source=f"{GUIDE}, GRUB settings",
    ),
    Check(
        name="pci_realloc",
        scope=Scope.MI300X_HOST,
        expected="pci=realloc=off among the kernel's parameters",
        why="a kernel that reallocates PCI resources may not find all GPUs",
        command=_APPEND.format("pci=realloc=off"),
        source=f"{GUIDE}, GRUB settings",
    ),
    Check(
        name="numa_nodes",
        scope=Scope.MI300X_HOST,
        expected="one NUMA node per socket (NPS1)",
        why="more nodes per socket put the engine's memory farther from some of its GPUs",
        command="set NUMA nodes per socket to Auto (NPS1) in the BIOS; reboot",
        source=f"{GUIDE}, System BIOS settings",
    ),
    Check(
        name="open_files",
        scope=Scope.ANY_HOST,
        expected=f"at least {OPEN_FILES}, or a hard limit that allows it",
        why="each connection of the load is an open file on both sides: a high concurrency fails or waits",
        command=f"ulimit -n {OPEN_FILES} (in a container: --ulimit nofile={OPEN_FILES})",
        source="vLLM 0.32.0, vllm/utils/system_utils.py, set_ulimit, which raises the soft limit up to that",
    ),
    Check(
        name="locked_memory",
        scope=Scope.MI300X_HOST,
        expected="unlimited",
        why="memory registered for transfers between nodes counts against it; on one node it rarely matters",
        command="ulimit -l unlimited (in a container: --ulimit memlock=-1)",
        source="getrlimit(2), RLIMIT_MEMLOCK, and ibv_reg_mr(3); AMD's system guide does not name it",
    ),
    Check(
        name="shared_memory",
        scope=Scope.ANY_HOST,
        expected=f"at least {SHARED_MEMORY_GIB} GiB at /dev/shm",
        why="the processes of tensor parallelism and RCCL exchange through it; Docker gives 64 MB",
        command=f"start the container with --ipc=host, or --shm-size {SHARED_MEMORY_GIB}G",
        source="ROCm documentation, vLLM inference performance testing: the line that starts the container",
    ),
    Check(
        name="gpu_count",
        scope=Scope.MI300X_GPUS,
        expected=f"{MI300X_GPUS} MI300X on the PCI bus",
        why="a GPU that fell off the bus changes what the others share",
        command=f"{_APPEND.format('pci=realloc=off')}; then ask the manufacturer",
        source=f"{ACCEPTANCE}, Check GPU presence",
    ),
    Check(
        name="pcie_link",
        scope=Scope.MI300X_GPUS,
        expected=f"{PCIE_SPEED} x{PCIE_WIDTH} on each GPU",
        why="weights, prompts and answers pass this link; a degraded one slows starts and offloading",
        command="reseat or report: ask the manufacturer; sudo lspci -d 1002:74a1 -vvv | grep LnkSta shows it",
        source=f"{ACCEPTANCE}, Check GPU link speed and width",
    ),
    Check(
        name="xgmi_links",
        scope=Scope.MI300X_GPUS,
        expected="XGMI with one hop between all GPUs",
        why="all-reduce of tensor parallelism runs over these links; over PCIe it is several times slower",
        command="ask the manufacturer; amd-smi topology shows it",
        source=f"{GUIDE}, Hardware verification with ROCm",
    ),
    Check(
        name="power_cap",
        scope=Scope.MI300X_GPUS,
        expected=f"{POWER_W} W on each GPU, its maximum",
        why="below it the clock falls under load, most in prefill",
        command="sudo amd-smi reset --power-cap",
        source=f"AMD Instinct MI300X data sheet: {POWER_W} W; {AMD_SMI}, reset",
    ),
    Check(
        name="clocks",
        scope=Scope.MI300X_GPUS,
        expected="performance level auto with 2100 MHz at most, or determinism with 1900 MHz at most",
        why="a limited clock is another device; AMD's 1900 MHz is for firmware that throttles at 2100",
        command="sudo amd-smi reset --clocks",
        source=f"{GUIDE}, Deterministic clock; {AMD_SMI}, reset",
    ),
    Check(
        name="partition_mode",
        scope=Scope.MI300X_GPUS,
        expected="SPX with NPS1 or CPX with NPS4, the same on all GPUs",
        why="AMD has validated these two pairs; the mode decides what a device is",
        command="python -m sweeper partitions lists the commands of each mode",
        source="AMD, Quick Start Guide to Partitioning MI300X GPUs (September 2025)",
    ),
    Check(
        name="driver_and_rocm",
        scope=Scope.MI300X_GPUS,
        expected="a driver that AMD supports with this ROCm",
        why="an unsupported pair may miss features or run slower code without a word",
        command="install the driver of the table that the source names",
        source="ROCm installation, User and AMD GPU Driver support matrix (2025-09-17); for driver 30.30 "
        "ROCm/amdgpu-docs, docs/compatibility/compatibility-matrix.rst",
    ),
    Check(
        name="ecc_errors",
        scope=Scope.MI300X_GPUS,
        expected="no uncorrectable and no deferred error",
        why="memory that fails is retired or poisons an answer; its GPU may be reset under a load",
        command="sudo amd-smi bad-pages; reset the GPU when it is idle; ask the manufacturer",
        source=f"{AMD_SMI}, metric --ecc",
        is_setting=False,
    ),
    Check(
        name="throttling",
        scope=Scope.MI300X_GPUS,
        expected="no thermal throttling since the driver was loaded, and none of any kind now",
        why="a hot GPU is slower in a way that no knob explains",
        command="check the fans and the air; amd-smi metric --throttle shows the counters",
        source=f"{AMD_SMI}, metric --throttle",
        is_setting=False,
    ),
    Check(
        name="other_processes",
        scope=Scope.MI300X_GPUS,
        expected="no process holds memory on a GPU",
        why="another process takes memory from the KV cache and time from every step",
        command="end them, or leave their GPUs out of the study; amd-smi process lists them",
        source=f"{AMD_SMI}, process",
        is_setting=False,
    ),
)
"""All checks, in the order in which they are shown."""
