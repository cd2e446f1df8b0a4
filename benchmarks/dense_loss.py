"""Does the dense model learn as fast per token as nanoGPT's?

    python benchmarks/dense_loss.py --results results --out benchmarks/dense_loss.csv

Both at 0.2M parameters on the default text: same rows in the same order, same batch, schedule and
AdamW, the same peak rates, bf16 (nanoGPT under autocast). Test loss in nats per token over whole
windows, the same for both, five times in a run, to the table and to a figure beside it. nanoGPT
sees all that is packed in a row, as it always does, and is tested on windows that stand alone; its
padding is not trained on.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from dense import SIZES, run_config
from peers import Loss, PeerStep, Shape, nanogpt
from torch import Tensor

from analysis.drawing import label
from analysis.style import Plot, canvas, look
from core.batches import Batches
from core.config import RunConfig, Runtime
from core.dataset import PADDING, Dataset
from core.evaluate import sample, token_losses
from core.model import predicted
from core.prepare import prepare
from core.schedule import rate
from core.trainer import Trainer

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
TOKENS, POINTS, WINDOWS = 1_000_000, 5, 256
Score = Callable[[], float]  # test loss as it stands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runtime = Runtime(results=given.results)
    config = run_config(*SIZES["0.2M"])
    dataset = prepare(config.data, config.tree, runtime.cache)
    rows: list[dict[str, float | str]] = []
    for lr in RATES:
        changed = config.train.model_copy(update={"lr": lr, "tokens": TOKENS})
        tuned = config.model_copy(update={"train": changed})
        for side, train in (("ours", train_ours), ("nanogpt", train_nanogpt)):
            curve = train(tuned, dataset)
            rows += [{"side": side, "lr": lr, "tokens": n, "loss": loss} for n, loss in curve]
    table = pd.DataFrame(rows)
    table.to_csv(given.out, index=False, float_format="%.5g")
    given.out.with_suffix(".svg").write_text(draw(table).svg)
    wide = table.pivot_table(index="tokens", columns=["side", "lr"], values="loss")
    print(wide.to_string(float_format="%.3f"))


def draw(table: pd.DataFrame) -> Plot:
    """A line a side and rate; each side's best rate as full markers."""
    with canvas(width=6.0, height=4.0) as (figure, (axis,)):
        for i, (side, own) in enumerate(table.groupby("side", sort=False)):
            best = own.loc[own["loss"].idxmin(), "lr"]
            for lr, points in own.groupby("lr"):
                style = look(i) | ({} if lr == best else {"alpha": 0.35, "mfc": "none"})
                words = f"{side}, rate {lr:g}" if lr == best else None
                axis.plot(points["tokens"], points["loss"], label=words, **style)
        label(axis, "training tokens", "test loss (nats/token)", legend=True)
    return Plot("dense_loss", "Loss at equal tokens", "", figure, table)


def train_ours(config: RunConfig, dataset: Dataset) -> list[tuple[int, float]]:
    """Test loss after so many tokens."""
    with tempfile.TemporaryDirectory() as folder:
        own = Trainer(config, Runtime(), Path(folder), dataset, lambda _: None)
        tokens_bt, segments_bt = test_windows(dataset)

        @torch.no_grad()
        def score() -> float:
            losses_bt = token_losses(own.model, tokens_bt, segments_bt, None)
            return float(losses_bt[segments_bt[:, 1:] != PADDING].mean())

        return curve(config, lambda step: own.train_step(config.steps), score)


def train_nanogpt(config: RunConfig, dataset: Dataset) -> list[tuple[int, float]]:
    """Test loss after so many tokens."""
    torch.manual_seed(config.seed)
    anchor, data = config.anchor, config.data
    model, loss = nanogpt(
        Shape(anchor.layers, anchor.d_model, anchor.heads, data.seq_len, data.vocab_size)
    )
    peer = PeerStep(model, loss, config.train.lr, bf16=True)
    batches = Batches(config, dataset.train, "cpu")

    def step(number: int) -> None:
        for group in peer.optimizer.param_groups:
            group["lr"] = config.train.lr * rate(number, config.steps, config.train)
        batch = batches.at(number)
        peer(batch.rows_bt[:, :-1], targets(batch.rows_bt, predicted(batch.segments_bt)))

    return curve(config, step, lambda: test_loss(loss, dataset))


def curve(config: RunConfig, step: Callable[[int], None], score: Score) -> list[tuple[int, float]]:
    every = math.ceil(config.steps / POINTS)
    a_step = config.train.batch_size * config.data.seq_len
    points = []
    for number in range(config.steps):
        step(number)
        if (number + 1) % every == 0 or number + 1 == config.steps:
            points.append((a_step * (number + 1), score()))
    return points


@torch.no_grad()
def test_loss(loss: Loss, dataset: Dataset) -> float:
    tokens_bt, segments_bt = test_windows(dataset)
    return float(loss(tokens_bt[:, :-1], targets(tokens_bt, segments_bt[:, 1:] != PADDING)))


def test_windows(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Tokens and segments of the scored windows, one a row."""
    windows = sample(dataset.test, WINDOWS)
    tokens_bt = torch.from_numpy(windows.tokens_nt.astype("int64"))
    real_bt = torch.arange(tokens_bt.shape[1]) < torch.from_numpy(windows.length_n)[:, None]
    return tokens_bt, torch.where(real_bt, 0, PADDING).to(torch.uint8)


def targets(tokens_bt: Tensor, scored_bt: Tensor) -> Tensor:
    """The next tokens, -1 where they do not count."""
    return tokens_bt[:, 1:].where(scored_bt, -1)


if __name__ == "__main__":
    main()
