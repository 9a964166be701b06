"""What a training step costs as the work grows: more images than memory, larger images, longer codes."""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from autoencoders import config, training
from autoencoders.data.pairs import GlobalBatches, Images
from benchmarks.measuring import Row, in_turns
from benchmarks.step import WARM, bare_loop

BATCH, SIDES = 128, (28, 64, 128)


def mapped(path: Path, count: int) -> Images:
    """So many images of MNIST's size in a file that is mapped, not read."""
    noise, size = torch.randint(0, 256, (10_000, 784), dtype=torch.uint8).numpy(), 0
    with path.open("wb") as file:
        while size < count:
            file.write(noise.tobytes())
            size += len(noise)
    pixels = torch.from_file(str(path), shared=True, size=count * 784, dtype=torch.uint8)
    return Images(pixels.view(count, 1, 28, 28), torch.zeros(count, dtype=torch.long))


def step_seconds(images: Images, steps: int, *overrides: str) -> float:
    """Seconds a step on batches of these images, picked at random, as the data module picks them."""
    cfg = config.compose_conf(["logger=csv", f"data.size={images.images.shape[-1]}", *overrides])
    data, batches = training.build_data(cfg), GlobalBatches(images, BATCH, shuffle=True, drop_last=True)
    return bare_loop(
        training.build_model(cfg, data),
        (data.pair(raw, training=True) for raw in islice(batches, WARM + steps)),
    )


def own_memory() -> float:
    """The memory of this process in MiB without the files that it has mapped."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
    return int(line.split()[1]) / 1024


def synthetic(side: int) -> Images:
    count = BATCH * (WARM + 100)  # as many as a measurement takes
    pixels = torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8)
    return Images(pixels, torch.zeros(count, dtype=torch.long))


def rows(quick: bool) -> Iterator[Row]:
    repeats, steps = (1, 20) if quick else (5, 100)
    with tempfile.TemporaryDirectory() as folder:
        files = {n: mapped(Path(folder) / f"{n}x", n * (1_000 if quick else 60_000)) for n in (1, 10, 100)}
        took = in_turns(repeats, **{f"{n}x": partial(step_seconds, files[n], steps) for n in files})
        before = own_memory()
        step_seconds(files[100], steps)
        grown = own_memory() - before
    yield Row(
        "a step with 100x MNIST, memory-mapped (4.7 GB)",
        f"{1e3 * took['100x']:.2f} ms",
        f"1x: {1e3 * took['1x']:.2f} ms, 10x: {1e3 * took['10x']:.2f} ms",
        took["100x"] / took["1x"],
        ("≤", 1.15),
        note=f"the process grew by {grown:.0f} MiB; the order of 6 million images takes 46 MiB",
    )
    took = in_turns(repeats, **{f"{side}": partial(step_seconds, synthetic(side), steps) for side in SIDES})
    pixel = {side: took[f"{side}"] / side**2 for side in SIDES}
    yield Row(
        f"a step with images of {SIDES[-1]} x {SIDES[-1]} pixels, per pixel",
        f"{1e9 * pixel[128] / BATCH:.1f} ns ({1e3 * took['128']:.1f} ms)",
        ", ".join(f"{side}: {1e9 * pixel[side] / BATCH:.1f} ns" for side in SIDES[:-1]),
        pixel[128] / pixel[28],
        ("≤", 1.15),
    )
    dims, images = (2, 32, 512), synthetic(28)
    took = in_turns(
        repeats, **{f"{dim}": partial(step_seconds, images, steps, f"model.code_dim={dim}") for dim in dims}
    )
    yield Row(
        "a step with a code of 512",
        f"{1e3 * took['512']:.2f} ms",
        f"a code of 2: {1e3 * took['2']:.2f} ms, of 32: {1e3 * took['32']:.2f} ms",
        took["512"] / took["2"],
        ("≤", 1.15),
        note="what grows: the affine maps of 784 x 512 beside the network, and their optimizer's state",
    )
