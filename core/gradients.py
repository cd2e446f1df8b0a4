"""The backward pass of a step, by micro-batches, of which each process takes its share."""

from collections.abc import Sequence

from core import parallel
from core.batches import Batch
from core.memory.bank import Fetch
from core.model import Model


def add_gradients(model: Model, batch: Batch, fetches: Sequence[Fetch]) -> float:
    """Those of the mean loss over the step's targets, onto what is there; gives that mean."""
    train, processes = model.config.train, parallel.count()
    size = train.batch_size // (train.accumulate * processes)
    total = 0.0
    for start in range(parallel.rank() * size, len(batch.rows_bt), processes * size):
        part = slice(start, start + size)
        rows_bt, segments_bt = batch.rows_bt[part], batch.segments_bt[part]
        loss = model.summed_loss(rows_bt, segments_bt, fetches, part) / batch.targets
        loss.backward()
        total += loss.item()
    return parallel.total(total)
