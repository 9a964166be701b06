"""How fast batches come from chunks, and from memory: python -m benchmarks.stream <folder of chunks>."""

import sys
import time
from pathlib import Path

from autoencoders.data import ImageStream
from autoencoders.data.pairs import GlobalBatches, Images

BATCH = 128
EPOCHS = 5


def images_per_second(images: Images) -> float:
    """Of the best epoch; the first one also reads from the disk what is not in the system's cache."""
    batches, best = GlobalBatches(images, BATCH, shuffle=True, drop_last=True), 0.0
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch)
        start = time.perf_counter()
        count = sum(len(batch.images) for batch in batches)
        best = max(best, count / (time.perf_counter() - start))
    return best


def main(root: Path) -> None:
    rates = dict[str, float]()
    for mixed in (16, 4, 1):
        data = ImageStream(root, batch_size=BATCH, mixed_chunks=mixed)
        data.setup("fit")
        if not rates:
            rates["in memory"] = images_per_second(Images(data.train.images[:], data.train.labels[:]))
        rates[f"chunks, {mixed} mixed"] = images_per_second(data.train)
    print(f"\n{'x'.join(map(str, data.image_shape))}, batches of {BATCH}")
    for name, rate in rates.items():
        each = 1000 * BATCH / rate
        print(f"{name:18} {rate:10,.0f} images/s  {each:6.2f} ms a batch  {rate / rates['in memory']:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
