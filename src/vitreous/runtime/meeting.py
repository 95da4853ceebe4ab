"""Where the ranks of a run meet: a small store of keys and values that all of them reach over the network.

The first rank keeps it (or torchrun's agent does); each rank talks to it through connections of its own.
"""

from __future__ import annotations

import os
import pickle
from datetime import timedelta
from typing import Any

import torch.distributed as dist

_CONNECT_S = 300.0


class Meeting:
    """One connection to the store. Values are any that can be pickled; a key is set once or overwritten."""

    def __init__(self, *, keeps: bool = False, timeout_s: float = _CONNECT_S) -> None:
        tcp = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=keeps and not _agent_keeps(),
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout_s),
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store: Any = dist.PrefixStore(f"vitreous/{attempt}", tcp)  # type: ignore[attr-defined]

    def put(self, key: str, value: Any) -> None:
        """Leave a value for the others."""
        self.store.set(key, pickle.dumps(value))

    def has(self, key: str) -> bool:
        """Whether a value is there."""
        return bool(self.store.check([key]))

    def get(self, key: str) -> Any:
        """A value; waits for it (up to the timeout: DistStoreError, a RuntimeError)."""
        return pickle.loads(self.store.get(key))

    def take(self, key: str) -> Any:
        """A value, which nobody will ask for again."""
        value = self.get(key)
        self.store.delete_key(key)
        return value

    def ticket(self, name: str, *, peek: bool = False) -> int:
        """0, 1, 2... : each number is given out once over all ranks. peek: the next one, without taking it."""
        return int(self.store.add(name, 0)) if peek else int(self.store.add(name, 1)) - 1


def _agent_keeps() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
