"""How fast is a whole training step of the dense model, beside nanoGPT and x-transformers?

    python benchmarks/dense.py --out benchmarks/dense.csv

Forward, backward, clipping and AdamW on random tokens: same layers, width, heads, context, batch,
vocabulary and (fused) optimiser, one thread. Each side has a process of its own; sides take turns.
`ours` is the trainer as sweeps run it, on the paths that they measure to be the fastest here and
with their allocator settings, and `ours compiled` the same with its layers compiled, as long runs
may have them; nanoGPT and x-transformers run in float32 with the allocator as it is, and with our
settings under bf16 autocast, or in float32 where that is the faster here. nanoGPT is the checkout
in NANOGPT_DIR, or its architecture in `peers.py`; x-transformers is left out where it is not
installed. `ratio` is a side's CPU time over ours, median and quartiles over rounds; `share` is the
part of the machine's product rate in our precision, measured on one large product, that the step's
FLOP (6 N a token, head and the causal half of attention included) reach.
"""

import argparse
import importlib.util
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from peers import PeerStep, Shape, nanogpt, x_transformers
from sides import Make, Side, Step, machine, product_rate, ratios, take_turns

from core.accounting import count_parameters, training_flops_per_token
from core.calibrate import measure_paths, random_text
from core.config import Paths, RunConfig, Runtime, parse_config
from core.trainer import Trainer
from sweeps.ray_session import WORKERS

SIZES = {"0.2M": (4, 64), "1M": (5, 128), "3M": (7, 192), "10M": (8, 320)}  # layers, width
HEAD_DIM, CONTEXT, VOCABULARY, BATCH = 32, 128, 4096, 16
PEERS = {"nanogpt": nanogpt, "x-transformers": x_transformers}
ROUNDS, BLOCK_SECONDS = 9, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    usual = measure_paths(run_config(*SIZES["0.2M"]), "cpu").model_copy(update={"trunk": "eager"})
    rate = product_rate(torch.bfloat16 if usual.precision == "bf16" else torch.float32)
    print(f"{machine()}; {usual}; products {rate / 1e9:.0f} GFLOP/s")
    tables: list[pd.DataFrame] = []
    for size in SIZES:
        tables.append(measure(size, usual, rate))
        pd.concat(tables).to_csv(given.out, index=False, float_format="%.4g")


def measure(size: str, usual: Paths, rate: float) -> pd.DataFrame:
    """One row a side."""
    config = run_config(*SIZES[size])
    entries = contest(config, usual).items()
    sides = {name: Side(make, variables) for name, (make, variables) in entries}
    table = ratios(take_turns(sides, ROUNDS, BLOCK_SECONDS), "ours").reset_index()
    for side in sides.values():
        side.close()
    tokens_a_second = BATCH * CONTEXT / table["cpu_ms"] * 1e3
    table.insert(0, "parameters", count_parameters(config).anchor)
    table.insert(3, "tokens_a_second", tokens_a_second)
    table["share"] = tokens_a_second * training_flops_per_token(config) / rate
    print(table.to_string(index=False, float_format="%.3g"), flush=True)
    return table


def contest(config: RunConfig, usual: Paths) -> dict[str, tuple[Make, dict[str, str]]]:
    """What builds each side, and the environment of its process."""
    compiled = usual.model_copy(update={"trunk": "compiled"})
    sides: dict[str, tuple[Make, dict[str, str]]] = {
        "ours": (partial(our_step, config, usual), WORKERS),
        "ours compiled": (partial(our_step, config, compiled), WORKERS),
    }
    bf16 = usual.precision == "bf16"
    if bf16:
        fp32 = usual.model_copy(update={"precision": "fp32"})
        sides["ours fp32"] = partial(our_step, config, fp32), WORKERS
    with_ours = "bf16" if bf16 else "fp32, our allocator"
    for peer in PEERS:
        if peer == "nanogpt" or importlib.util.find_spec("x_transformers"):
            sides[f"{peer} fp32"] = partial(peer_step, peer, config, False), {}
            sides[f"{peer} {with_ours}"] = partial(peer_step, peer, config, bf16), WORKERS
    return sides


def our_step(config: RunConfig, paths: Paths) -> Step:
    folder = Path(tempfile.gettempdir())  # nothing is written before the first checkpoint
    text = random_text(config, 64)
    own = Trainer(config, Runtime(paths=paths), folder, text, lambda _: None)
    return lambda: own.train_step(config.steps)


def peer_step(peer: str, config: RunConfig, bf16: bool) -> Step:
    anchor = config.anchor
    model, loss = PEERS[peer](
        Shape(anchor.layers, anchor.d_model, anchor.heads, CONTEXT, VOCABULARY)
    )
    step = PeerStep(model, loss, config.train.lr, bf16)
    rows_bt = torch.randint(1, VOCABULARY, (BATCH, CONTEXT + 1))
    return lambda: step(rows_bt[:, :-1], rows_bt[:, 1:])


def run_config(layers: int, width: int) -> RunConfig:
    """SwiGLU of 8/3 of the width: as many parameters as an MLP of four times the width."""
    anchor = {
        "layers": layers,
        "d_model": width,
        "heads": width // HEAD_DIM,
        "head_dim": HEAD_DIM,
        "ffn": round(8 * width / 3 / 8) * 8,
    }
    data = {"vocab_size": VOCABULARY, "seq_len": CONTEXT}
    train = {"batch_size": BATCH, "tokens": 10**7}
    return parse_config({"anchor": anchor, "data": data, "train": train}, "benchmark")


if __name__ == "__main__":
    main()
