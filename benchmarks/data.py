"""A batch: reading it, and corrupting it, against the step that it is for and the noise alone."""

from collections.abc import Iterator
from itertools import chain, repeat

import torch

from autoencoders import config
from benchmarks.measuring import Row, in_turns, seconds
from benchmarks.step import by_hand, training_data

BATCH = 128


def rows(quick: bool) -> Iterator[Row]:
    cfgs = {
        kind: config.compose_conf([f"model={kind}", f"data.batch_size={BATCH}", "logger=csv"])
        for kind in ("autoencoder", "denoising")
    }
    datas = {kind: training_data(cfg) for kind, cfg in cfgs.items()}
    batches = {kind: chain.from_iterable(repeat(data.train_dataloader())) for kind, data in datas.items()}
    shape, drawn = (BATCH, *datas["denoising"].input_shape), torch.Generator().manual_seed(0)
    times, steps = (100, 20) if quick else (400, 100)
    took = in_turns(
        3 if quick else 9,
        data=lambda: seconds(
            lambda: datas["autoencoder"].pair(next(batches["autoencoder"]), training=True), times
        ),
        noisy=lambda: seconds(
            lambda: datas["denoising"].pair(next(batches["denoising"]), training=True), times
        ),
        noise=lambda: seconds(lambda: torch.randn(shape, generator=drawn), times),
        step=lambda: by_hand(cfgs["autoencoder"], datas["autoencoder"], steps),
    )
    milliseconds = {name: 1e3 * value for name, value in took.items()}
    yield Row(
        f"data: {BATCH} images of MNIST",
        f"{milliseconds['data']:.3f} ms",
        "",
        milliseconds["data"],
        ("≤", 0.25),
    )
    yield Row(
        "data: share of the step",
        f"{milliseconds['data']:.3f} ms",
        f"the bare step: {milliseconds['step']:.2f} ms",
        took["data"] / took["step"],
        ("≤", 0.03),
    )
    yield Row(
        "data with Gaussian noise",
        f"{milliseconds['noisy']:.3f} ms",
        f"`torch.randn` of as many numbers: {milliseconds['noise']:.3f} ms",
        took["noisy"] / took["noise"],
        ("≤", 1.3),
        note="besides drawing: reading, bytes to floats, seeding, adding, clipping (benchmarks/README.md)",
    )
