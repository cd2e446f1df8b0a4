"""The speed of this machine, measured once a kind of run and kept in the cache."""

import json
import platform
from pathlib import Path

from core.config import RunConfig, Runtime
from core.writing import write_text
from sweeps.names import anchor_name
from sweeps.pace import work
from sweeps.status import OVER, Standing
from sweeps.store import Store


def kept_rate(found: list[Standing], store: Store) -> float | None:
    """FLOP per second that a calibration of this grid's middle run has left, none before it."""
    config = _middle(found)
    return _read(_path(store)).get(_kind(config)) if config else None


def calibrate(found: list[Standing], store: Store, bank: str) -> None:
    """Train the middle run for some seconds, if no run of its kind was; keep the speed.

    Its `bank` lies where the runs have theirs: it may be larger than memory.
    """
    config, path = _middle(found), _path(store)
    if config is None or _kind(config) in (rates := _read(path)):
        return
    from core.calibrate import measure_rate  # torch: seconds

    runtime = Runtime.model_validate({"results": store.results, "bank": bank})
    rates[_kind(config)] = measure_rate(config, runtime)
    write_text(path, json.dumps(rates))


def _middle(found: list[Standing]) -> RunConfig | None:
    """The run to do of median work: small ones are slow for their FLOP, large ones fast."""
    pending = [s.trial.config for s in found if s.state not in OVER]
    return sorted(pending, key=work)[len(pending) // 2] if pending else None


def _kind(config: RunConfig) -> str:
    shape = f"{config.train.batch_size}x{config.data.seq_len}"
    return f"{platform.node()} {anchor_name(config.anchor)} {config.memory.type} {shape}"


def _path(store: Store) -> Path:
    return Runtime(results=store.results).cache / "calibration.json"


def _read(path: Path) -> dict[str, float]:
    rates: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return rates
