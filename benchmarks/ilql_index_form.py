"""An ILQL step in index form against the plain [B, T, V] one: `python benchmarks/ilql_index_form.py`.

Both are the same module with the same weights, batch and losses; they differ in how the heads run.
The plain form is what published implementations do: all four Q heads give a [B, T, V] tensor (the
CQL term a cross-entropy at every position), and the action tokens are picked out of it.

The trunk is small (2 layers, width 128) so that the heads dominate, as with a vocabulary of GPT-2 they do;
V = 50,257; 16 x 120 tokens of which 10 % are actions. Each form runs in a process of its own, and
they take turns, on one thread each. A step is forward and backward; its memory is the peak of the
process above what it held before the step, gradients included.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from algos import models
from algos.batch import PackedBatch, pack
from algos.codec import TextCodec
from algos.ilql import ILQL, ILQLConfig
from algos.models import LanguageModel
from algos.networks import hidden_states
from algos.tokens import ContextRule, TokenEpisodeBuilder
from benchmarks.common import Figure, Timed, arguments, report, speedup, timed

VOCAB = 50_257
ROWS, TURNS, TURN, ACTION = 16, 6, 20, 2
"""16 episodes of 6 turns, each 18 observation tokens and 2 action tokens."""
REPETITIONS = 3
THREADS = 1
"""Threads that wait for each other would measure whatever else the machine does."""


def plain_loss(ilql: ILQL, batch: PackedBatch) -> torch.Tensor:
    """ILQL's loss over [B, T, V] tensors."""
    config, values = ilql.config, ilql.online_values
    assert values.v is not None
    tokens = batch.input_ids.new_zeros(batch.input_ids.numel())
    tokens[batch.state_idx] = batch.action_tok
    hidden = hidden_states(values.trunk, batch.input_ids, batch.mask)
    all_q = [head.all(hidden) for head in values.q]
    with torch.no_grad():
        target_hidden = hidden_states(ilql.target_trunk, batch.input_ids, batch.mask)
        target_rows = torch.stack([head.all(target_hidden) for head in ilql.target_q]).amin(0)
        target_q = target_rows.gather(1, tokens[:, None]).squeeze(1)[batch.state_idx]
    all_v = values.v(hidden)
    v, next_v = all_v[batch.state_idx], all_v[batch.next_state_idx].detach()
    target = batch.reward + config.gamma * batch.continues * next_v
    weight = torch.where(target_q >= v.detach(), config.tau, 1 - config.tau)
    loss = (0.5 * weight * (v - target_q).square()).sum()
    for rows in all_q:
        q = rows.gather(1, tokens[:, None]).squeeze(1)[batch.state_idx]
        loss = loss + (0.5 * (q - target).square()).sum()
        if config.cql_weight:
            cross_entropy = F.cross_entropy(rows, tokens, reduction="none")
            loss = loss + config.cql_weight * cross_entropy[batch.state_idx].sum()
    return loss / batch.denominator


def index_loss(ilql: ILQL, batch: PackedBatch) -> torch.Tensor:
    return ilql(batch).value


FORMS = {"index": index_loss, "plain": plain_loss}


def make_ilql(cql_weight: float) -> ILQL:
    """ILQL on a small trunk with GPT-2's vocabulary; heads as if trained (at the start they are zero)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=256,
        n_embd=128,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    codec = TextCodec(models.train_tokenizer(["a"], 300), VOCAB)
    ilql = ILQL(ILQLConfig(cql_weight=cql_weight), LanguageModel(GPT2LMHeadModel(config), codec))
    with torch.no_grad():
        for head in [*ilql.online_values.q, *ilql.target_q]:
            head.weight.normal_(std=0.1)
    return ilql


def make_batch(rows: int) -> PackedBatch:
    rng = np.random.default_rng(0)
    episodes = []
    for i in range(rows):
        builder = TokenEpisodeBuilder(ContextRule(window=None, max_tokens=256, reserve=ACTION))
        for _ in range(TURNS):
            builder.add_observation(rng.integers(VOCAB, size=TURN - ACTION))
            builder.add_action(rng.integers(VOCAB, size=ACTION), np.zeros(ACTION), rng.normal(), valid=True)
        episodes.append(builder.build(terminated=i % 2 == 0))
    (batch,) = pack(episodes, max_tokens=2 * rows * TURNS * TURN)
    return batch


def serve(form: str, cql_weight: float, gradients: str, pipe: Connection) -> None:
    """A process that makes a step whenever it is asked to, and says its time, memory and loss."""
    torch.set_num_threads(THREADS)
    ilql, batch, small = make_ilql(cql_weight), make_batch(ROWS), make_batch(1)
    FORMS[form](ilql, small).backward()  # loads the libraries
    pipe.send((batch.num_actions, batch.input_ids.numel()))
    while pipe.recv():
        ilql.zero_grad(set_to_none=True)
        before = _reset_peak()
        time, loss = timed(lambda: _step(form, ilql, batch))
        pipe.send((time, _memory("VmHWM") - before, loss))
    torch.save({n: p.grad for n, p in ilql.named_parameters() if p.requires_grad}, gradients)


def _step(form: str, ilql: ILQL, batch: PackedBatch) -> float:
    loss = FORMS[form](ilql, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _reset_peak() -> int:
    """Begin a new peak of this process's resident memory (Linux, glibc); returns what is resident now.

    What the process has freed is given back first: reused, it would not count as the step's.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


class Form:
    """One formulation in a process of its own."""

    def __init__(self, form: str, cql_weight: float, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._gradients = folder / f"{form}.pt"
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(form, cql_weight, str(self._gradients), other))
        self._process.start()
        other.close()
        self.actions, self.tokens = self._pipe.recv()
        self.times: list[Timed] = []
        self.memory: list[int] = []
        self.loss = float("nan")

    def step(self) -> None:
        self._pipe.send(True)
        time, memory, self.loss = self._pipe.recv()
        self.times.append(time)
        self.memory.append(memory)

    def finish(self) -> dict[str, Any]:
        """End the process; returns the last gradients."""
        self._pipe.send(False)
        self._process.join()
        gradients: dict[str, Any] = torch.load(self._gradients)
        return gradients


def compare(cql_weight: float) -> list[Figure]:
    """Time and memory of both forms; AssertionError when they do not compute the same."""
    with tempfile.TemporaryDirectory() as name:
        ours, baseline = (Form(form, cql_weight, Path(name)) for form in FORMS)
        for _ in range(REPETITIONS):
            ours.step()
            baseline.step()
        torch.testing.assert_close(ours.loss, baseline.loss, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.finish(), baseline.finish(), rtol=1e-3, atol=1e-6)
    cpu = speedup([t.cpu for t in ours.times], [t.cpu for t in baseline.times])
    setting = f"V = {VOCAB}, {ours.actions} of {ours.tokens} tokens are actions, cql_weight {cql_weight:g}"
    memory = [statistics.median(f.memory) for f in (ours, baseline)]
    return [
        Figure(
            f"ILQL step, index form against [B, T, V], {setting}",
            f"{statistics.median(t.wall for t in ours.times):.3f} s",
            f"{statistics.median(t.wall for t in baseline.times):.3f} s",
            speedup([t.wall for t in ours.times], [t.wall for t in baseline.times]),
            claim=5,
            note=f"by CPU time {cpu:.2f}x; same loss and gradients",
        ),
        Figure(
            f"ILQL step, extra memory, cql_weight {cql_weight:g}",
            f"{memory[0] / 2**20:,.0f} MiB",
            f"{memory[1] / 2**20:,.0f} MiB",
            memory[1] / memory[0],
            claim=5,
        ),
    ]


def main(argv: list[str]) -> int:
    check = arguments(__doc__).parse_args(argv).check
    return max([report(compare(weight), check) for weight in (0.0, 0.25)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
