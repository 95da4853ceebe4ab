"""What a machine is busy with, looked at each second: cores, memory, disks, and NVIDIA GPUs where there are any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psutil

QUANTITIES = {
    "cpu_percent": "CPU (% of all cores)",
    "memory_gb": "memory in use (GB)",
    "disk_read_mb_s": "disk, read (MB/s)",
    "disk_write_mb_s": "disk, written (MB/s)",
    "gpu_percent": "GPU (%)",
    "gpu_memory_gb": "GPU memory in use (GB)",
    "gpu_power_w": "GPU power (W)",
    "pcie_to_gpu_mb_s": "PCIe, to the GPU (MB/s)",
    "pcie_from_gpu_mb_s": "PCIe, from the GPU (MB/s)",
}


class Usage:
    """Looks at the machine from a thread for as long as the block lasts; `samples` are by name, "second" is the time.

    GPUs are those of NVML (nvidia-ml-py, not needed where there is none), added up; percentages are their mean.
    """

    def __init__(self, every_s: float = 1.0) -> None:
        self.samples: list[dict[str, float]] = []
        self._every = every_s
        self._gpus = _open_gpus()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="usage", daemon=True)

    def __enter__(self) -> Usage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _go_on(self) -> None:
        start = before = time.monotonic()
        psutil.cpu_percent()  # the first call (of a thread) only starts the count
        disk = psutil.disk_io_counters()
        while not self._end.wait(self._every):
            now = time.monotonic()
            sample = {"second": round(now - start, 2), "cpu_percent": psutil.cpu_percent()}
            sample["memory_gb"] = psutil.virtual_memory().used / 1e9
            disk_now = psutil.disk_io_counters()
            if disk is not None and disk_now is not None:  # containers may hide their disks
                sample["disk_read_mb_s"] = (disk_now.read_bytes - disk.read_bytes) / (now - before) / 1e6
                sample["disk_write_mb_s"] = (disk_now.write_bytes - disk.write_bytes) / (now - before) / 1e6
            sample |= _of_gpus(self._gpus)
            self.samples.append(sample)
            before, disk = now, disk_now


def busy_seconds() -> float:
    """CPU seconds that all programs of this machine have used."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _open_gpus() -> list[Any]:
    """NVML's handles; none where there is no such library, driver or GPU."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _of_gpus(gpus: list[Any]) -> dict[str, float]:
    """What the GPUs say; a quantity that one of them cannot tell is left out."""
    if not gpus:
        return {}
    import pynvml

    to_gpu, from_gpu = pynvml.NVML_PCIE_UTIL_RX_BYTES, pynvml.NVML_PCIE_UTIL_TX_BYTES
    asked: dict[str, Callable[[Any], Any]] = {
        "gpu_percent": lambda one: pynvml.nvmlDeviceGetUtilizationRates(one).gpu / len(gpus),
        "gpu_memory_gb": lambda one: pynvml.nvmlDeviceGetMemoryInfo(one).used / 1e9,
        "gpu_power_w": lambda one: pynvml.nvmlDeviceGetPowerUsage(one) / 1e3,
        "pcie_to_gpu_mb_s": lambda one: pynvml.nvmlDeviceGetPcieThroughput(one, to_gpu) / 1e3,  # it counts in kB
        "pcie_from_gpu_mb_s": lambda one: pynvml.nvmlDeviceGetPcieThroughput(one, from_gpu) / 1e3,
    }
    told: dict[str, float] = {}
    for name, ask in asked.items():
        try:
            told[name] = float(sum(ask(one) for one in gpus))
        except pynvml.NVMLError:
            continue
    return told
