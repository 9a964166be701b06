"""A learnt prior of symbols, which are drawn one after another, each given those before."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

WIDTH = 128  # units of the network, and of what stands for a symbol
BATCH = 64  # codes a step of training
STEPS, MOST_SYMBOLS = 600, 2_000_000  # of training: so many steps, or as many as see so many symbols


class Prior(nn.Module):
    """A recurrent network over the places line by line, at each of which it has seen the symbol before and
    the one above (a row LSTM's view, van den Oord et al. 2016, with a GRU); symbols of one place follow each
    other.

    Args:
        shape: (S, h, w) of a code's symbols, or (S,).
        size: how many symbols there are.
    """

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.shape = shape
        self.length = int(torch.Size(shape).numel())
        self.line = shape[0] * shape[-1] if len(shape) > 1 else self.length  # symbols a line of places
        self.before, self.above = (nn.Embedding(size + 1, WIDTH) for _ in range(2))  # the last: none there
        self.place = nn.Embedding(self.length, WIDTH)
        self.recurrent = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, size))
        self.none = size

    def in_line(self, symbols: Tensor) -> Tensor:
        """Symbols (B, S, *places) in the order in which they are drawn, (B, T)."""
        return symbols.movedim(1, -1).flatten(1)

    def at_places(self, line: Tensor) -> Tensor:
        """The inverse of `in_line`."""
        kinds, *places = self.shape
        return line.reshape(-1, *places, kinds).movedim(-1, 1)

    def seen(self, line: Tensor, place: Tensor) -> Tensor:
        """What is put in at each of the places (T,) of symbols (B, length): (B, T, WIDTH)."""
        padded = F.pad(line, (self.line, 0), value=self.none)
        before, above = padded[:, place + self.line - 1], padded[:, place]
        return self.before(before) + self.above(above) + self.place(place)

    def forward(self, line: Tensor) -> Tensor:
        """Logits (B, T, size) of each of the symbols (B, T), given those before it."""
        seen = self.seen(line, torch.arange(self.length))
        return self.head(torch.cat([self.recurrent(seen)[0], seen], -1))

    @torch.inference_mode()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Symbols (count, S, *places)."""
        line = torch.full((count, self.length), self.none)
        state = None
        for place in trange(self.length, desc="sampling the prior", leave=False, disable=None):
            seen = self.seen(line, torch.tensor([place]))
            output, state = self.recurrent(seen, state)
            odds = self.head(torch.cat([output, seen], -1))[:, 0].softmax(-1)
            line[:, place] = torch.multinomial(odds, 1, generator=generator)[:, 0]
        return self.at_places(line)


def learnt(symbols: Tensor, size: int) -> Prior:
    """The prior of symbols (N, S, *places), on the CPU, in a time that is bounded whatever their number."""
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = Prior(tuple(symbols.shape[1:]), size)
    lines = prior.in_line(symbols)
    steps = max(1, min(STEPS, MOST_SYMBOLS // (BATCH * prior.length)))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for _ in trange(steps, desc="learning the prior", leave=False, disable=None):
        some = lines[torch.randint(len(lines), (BATCH,), generator=random)]
        loss = F.cross_entropy(prior(some).flatten(0, 1), some.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return prior.eval()
