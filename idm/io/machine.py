"""Settings and properties of the machine."""

import ctypes
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    *("idm-face-restoration", "torch", "diffusers", "accelerate", "numpy", "opencv-python-headless", "pillow"),
    *("scikit-image", "lpips", "pyiqa", "facexlib", "timm"),
)


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning them to the kernel.

    Without it every large tensor causes page faults, which made element-wise work on a CPU up to eight times slower.
    Does nothing without glibc.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def share_cores(num_processes: int) -> None:
    """Give each of this machine's processes its part of the available cores.

    ``accelerate launch`` sets one thread for a process on a CPU, which leaves all other cores idle.
    """
    torch.set_num_threads(max(1, num_usable_cores() // num_processes))


def set_gpu_arithmetic(*, tf32: bool, cudnn_benchmark: bool) -> None:
    """Whether float32 products may be TensorFloat-32, and whether cuDNN tries its algorithms; nothing on a CPU."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = cudnn_benchmark


def num_usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quieten_libraries() -> None:
    """Silence what other packages print on import about features that are not used here, and on every video."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("SVT_LOG", "1")  # errors only, of SVT-AV1


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device. The copy to a GPU does not make this process wait for the GPU's earlier work."""
    asynchronous = device.type == "cuda" and values.device.type == "cpu"
    return values.contiguous().pin_memory().to(device, non_blocking=True) if asynchronous else values.to(device)


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """A context after which no thread of this process has real-time priority; they get the former one of the caller.

    SVT-AV1, opened by root, gives its threads and the calling one the highest real-time priority: all other processes
    starve, and processes that are started later inherit it.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for task in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended
                if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                    os.sched_setscheduler(int(task.name), policy, parameters)


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 arithmetic, not just storage."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        flags = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the device computes in it, else float32."""
    return torch.bfloat16 if computes_in_bf16(device) else torch.float32


def best_device() -> torch.device:
    """CUDA, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def provenance() -> dict[str, object]:
    """Commit, machine and versions, for result files."""
    return {
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _commit() -> str:
    """The checkout's commit, with "+changes" if tracked files differ; "unknown" outside a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
