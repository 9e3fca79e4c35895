"""The training loop: from a job to a log and a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from planner._version import __version__
from planner.errors import OutputError
from planner.render.about import settings_of
from planner.train import checkpoint
from planner.train.config import Job, data_folder
from planner.train.data import Order, TokenData, check_fits, open_data
from planner.train.errors import TrainError, memory_errors
from planner.train.log import LOG, Log
from planner.train.model import Transformer
from planner.train.optimizer import make_optimizer, set_rate, table_values
from planner.train.parallel import (
    Workers,
    agree,
    local,
    spread,
    synchronized,
    total,
    whole,
    workers,
)
from planner.train.schedule import rate_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from planner.plan.model import Run

# Where neither plan nor user says how many sequences go at once: about this many tokens.
MICRO_BATCH_TOKENS = 16_384

Status = Literal["finished", "stopped", "interrupted", "diverged"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start of a run ended.

    Attributes:
        status: ``finished``; ``stopped`` after the steps that were asked for; ``interrupted`` by a
            signal, with a checkpoint; ``diverged``: the loss or a gradient was not finite.
        step: Updates done.
        loss: Training loss of the last step, nats a token; None if this start did none.
        signal: Name of the signal that interrupted it.
        epochs: How often the whole run sees each sequence of its data.
    """

    status: Status
    step: int
    loss: float | None
    signal: str | None = None
    epochs: float = 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """How a step's sequences are made up: ``micro * processes * accumulation``."""

    micro: int
    accumulation: int


def train(
    job: Job, out: Path, progress: Callable[[int, int, float], None] | None = None
) -> Outcome:
    """Train a run, or go on with it from its newest checkpoint.

    Args:
        job: What to train, and how.
        out: Folder for ``log.jsonl`` and ``checkpoints/``; made if missing.
        progress: Called after each step with updates done, all updates, and the loss.

    Raises:
        PlannerError: If the run, its data, its checkpoint or this machine do not fit.
    """
    precision = job.precision  # refuses before anything is touched
    data = open_data(data_folder(job.settings))
    check_fits(data, job.run)
    if job.settings.threads is not None:
        torch.set_num_threads(job.settings.threads)
    with workers(job.settings) as who:
        advice = "try a smaller --micro-batch, or more processes with --parallel fsdp"
        with memory_errors(f"run {job.run.name}", advice):
            training = _Training(job, out, data, who, precision)
            return replace(training.go(progress), epochs=training.epochs)


def split_batch(run: Run, processes: int, micro: int | None = None) -> Split:
    """Return how a step's sequences are divided.

    Args:
        run: Its global batch is kept exactly.
        processes: Data-parallel processes.
        micro: Sequences of a process at a time; None takes the plan's if it divides, else the most
            that divide and stay within `MICRO_BATCH_TOKENS`.

    Raises:
        TrainError: If the parts do not divide the batch.
    """
    share, rest = divmod(run.batch.sequences, processes)
    if rest:
        raise TrainError(
            f"run {run.name} has {run.batch.sequences} sequences a step, which {processes} "
            "processes do not divide"
        )
    if micro is None:
        micro = run.batch.micro
        if micro is None or share % micro:
            most = max(1, MICRO_BATCH_TOKENS // run.model.seq_len)
            micro = max(n for n in range(1, min(share, most) + 1) if share % n == 0)
    if share % micro:
        raise TrainError(
            f"a micro batch of {micro} does not divide the {share} sequences of a process",
            field="--micro-batch",
        )
    return Split(micro, share // micro)


class _Training:
    """One start of a run in one process."""

    def __init__(self, job: Job, out: Path, data: TokenData, who: Workers, precision: str) -> None:
        self.job, self.run, self.out, self.data, self.who = job, job.run, out, data, who
        self.precision = precision
        run = job.run
        self.split = split_batch(run, who.count, job.settings.micro_batch)
        self.order = Order(data.windows(run.model.seq_len), job.data_seed)
        if job.settings.eval_steps and not self._held_out():
            raise TrainError(
                "got 0 held-out sequences, wanted one or more (--validation of `planner prepare`, "
                "--eval-sequences)",
                field="--eval-steps",
            )
        self.identity = {
            "run_digest": run.digest,
            "seed": job.seed,
            "data_seed": job.data_seed,
            "data_digest": data.about.digest,
        }
        if run.model.experts is not None:
            self.identity["balance_loss"] = job.settings.balance_loss
        model = Transformer(run, job.seed)
        values = table_values(model, run)
        model.to(device=who.device, dtype=torch.float64 if precision == "fp64" else None)
        self.called: nn.Module = spread(model, who)
        model.fault = job.settings.fault
        self.model = model
        # Taken once: while FSDP holds whole weights, the modules show those and not its shards.
        self.tensors = list(model.tensors())
        self.optimizer = make_optimizer(self.tensors, values, run.optimizer.betas)
        agree("data", data.about.digest, who)
        newest = checkpoint.latest(out)
        agree("newest checkpoint", None if newest is None else newest.name, who)
        self.step = 0
        if newest is not None:
            self.step = checkpoint.restore(newest, self.tensors, self.optimizer, self.identity)
        self.forward: Any = torch.compile(self.called) if job.settings.compile else self.called

    @property
    def epochs(self) -> float:
        """How often the whole run sees each sequence."""
        return self.run.steps * self.run.batch.sequences / self.order.windows

    def go(self, progress: Callable[[int, int, float], None] | None) -> Outcome:
        """Train to the end, or until something stops it."""
        run, settings = self.run, self.job.settings
        if self.step >= run.steps:
            return Outcome("finished", self.step, None)
        end = min(run.steps, self.step + (settings.stop_after or run.steps))
        every = settings.checkpoint_steps or max(1, run.steps // 10)
        loss: float | None = None
        with self._log() as log, _stop_signals() as stop:
            began = time.monotonic()
            while self.step < end:
                loss, values = self._update()
                stopping = self._agree(stop)
                finite = np.isfinite(loss) and np.isfinite(values["grad_norm"])
                last = not finite or stopping is not None or self.step == end
                if settings.eval_steps and (
                    self.step % settings.eval_steps == 0 or self.step == end
                ):
                    values |= self._evaluate()
                if log is not None and (last or self.step % settings.log_steps == 0):
                    values["time"] = round(time.monotonic() - began, 3)
                    log.line(self.step, self.step * run.batch.tokens, values)
                if progress is not None and self.who.first:
                    progress(self.step, run.steps, loss)
                if not finite:
                    # its weights are lost; the last good checkpoint stays
                    return Outcome("diverged", self.step, loss)
                if last or self.step % every == 0:
                    if log is not None:
                        log.sync()
                    self._save()
                if stopping is not None and self.step < end:
                    return Outcome("interrupted", self.step, loss, stopping)
        return Outcome("finished" if self.step == run.steps else "stopped", self.step, loss)

    def _update(self) -> tuple[float, dict[str, float]]:
        """Do one update; return the mean loss of its batch and what else is logged."""
        run, settings = self.run, self.job.settings
        factor = rate_factor(run, self.step)
        set_rate(self.optimizer, factor)
        parts = self.split.accumulation
        loss_sum = torch.zeros((), device=self.who.device, dtype=torch.float64)
        for part in range(parts):
            inputs, targets = self._batch(part)
            with synchronized(self.called, self.who, last=part == parts - 1):
                with self._autocast():
                    loss, balance = self.forward(inputs, targets)
                objective = loss
                if balance is not None:
                    objective = loss + settings.balance_loss * balance
                (objective if parts == 1 else objective / parts).backward()
            loss_sum += loss.detach()
        norm = self._clipped()
        before = self._copies() if settings.update_norms else {}
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        mean = float(total(loss_sum, self.who)) / (parts * self.who.count)
        values = {
            "loss": mean,
            "lr": run.optimizer.base_peak_lr * factor,
            "grad_norm": float(whole(norm)),
        }
        if settings.update_norms:
            values |= self._norms(before)
        return mean, values

    def _clipped(self) -> Tensor:
        """Clip the gradients as the plan says; return their norm before that."""
        parameters = [parameter for _, _, parameter in self.tensors]
        limit = self.run.optimizer.grad_clip
        if limit is not None:
            return torch.nn.utils.clip_grad_norm_(parameters, limit)
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(found)

    def _batch(self, part: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, (micro, S), of this process's part of the step."""
        micro = self.split.micro
        per_process = micro * self.split.accumulation
        first = self.step * self.run.batch.sequences + self.who.rank * per_process + part * micro
        return self._tensors(self.order.numbers(first, micro), validation=False)

    def _tensors(self, numbers: Any, *, validation: bool) -> tuple[Tensor, Tensor]:
        rows = self.data.sequences(numbers, self.run.model.seq_len, validation=validation)
        tokens = torch.from_numpy(rows)
        if self.who.device.type == "cuda":
            tokens = tokens.pin_memory().to(self.who.device, non_blocking=True)
        return tokens[:, :-1], tokens[:, 1:]

    def _autocast(self) -> Any:
        return torch.autocast(
            self.who.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Return the mean loss over held-out sequences that are evenly spaced."""
        there, count = self.data.windows(self.run.model.seq_len, validation=True), self._held_out()
        numbers = np.arange(count, dtype=np.int64) * there // count
        ours = numbers[self.who.rank :: self.who.count]
        loss_sum = torch.zeros((), device=self.who.device, dtype=torch.float64)
        # not through DDP: nothing is exchanged here
        forward = self.model if self.who.parallel == "ddp" else self.forward
        for start in range(0, -(-count // self.who.count), self.split.micro):
            part = ours[start : start + self.split.micro]
            with self._autocast():
                # sharded weights are gathered by all, also for those that have none left
                some = part if part.size else numbers[:1]
                loss, _ = forward(*self._tensors(some, validation=True))
            if part.size:
                loss_sum += loss * part.size
        if self.who.parallel == "fsdp":
            self.called.reshard()
        return {"eval/loss": float(total(loss_sum, self.who)) / count}

    def _held_out(self) -> int:
        """Return how many held-out sequences there are, of those that are asked for."""
        there = self.data.windows(self.run.model.seq_len, validation=True)
        return min(there, self.job.settings.eval_sequences)

    def _copies(self) -> dict[str, Tensor]:
        return {name: local(parameter.detach()).clone() for name, _, parameter in self.tensors}

    @torch.no_grad()
    def _norms(self, before: dict[str, Tensor]) -> dict[str, float]:
        """Return the Euclidean norms of each class's update and of its weights after it."""
        squares: dict[str, Tensor] = {}
        for name, tensor_class, parameter in self.tensors:
            now = local(parameter.detach())
            pair = torch.stack([(now - before[name]).square().sum(), now.square().sum()]).double()
            squares[tensor_class] = squares.get(tensor_class, 0) + pair
        values = {}
        for tensor_class, pair in squares.items():
            if self.who.parallel == "fsdp":
                pair = total(pair, self.who)
            update, weight = pair.sqrt().tolist()
            values[f"update_norm/{tensor_class}"] = update
            values[f"weight_norm/{tensor_class}"] = weight
        return values

    def _agree(self, stop: _Stop) -> str | None:
        """Return the signal that any process has seen, so that all stop after the same step."""
        if self.who.count == 1:
            return stop.name
        number = torch.tensor(float(stop.number), device=self.who.device)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        return signal.Signals(int(number)).name if number > 0 else None

    def _save(self) -> None:
        checkpoint.save(
            self.out,
            self.step,
            self.tensors,
            self.optimizer,
            self.identity,
            self.who,
            self.job.settings.keep,
        )

    @contextlib.contextmanager
    def _log(self) -> Iterator[Log | None]:
        if not self.who.first:
            yield None
            return
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot be made: {error.strerror}", file=str(self.out)) from None
        log = Log(self.out / LOG, self.identity)
        try:
            log.start(self._about(), self.step)
            yield log
        finally:
            log.close()

    def _about(self) -> dict[str, Any]:
        """Return what the log says of this start; names are those that readers of logs know."""
        run, job, about = self.run, self.job, self.data.about
        return {
            "family": job.family,
            "run": run.name,
            "size": run.size,
            "plan": job.plan_digest,
            "run_digest": run.digest,
            "seed": job.seed,
            "data_seed": job.data_seed,
            **settings_of(run),
            "tokenizer": about.tokenizer,
            "data": about.source,
            "data_digest": about.digest,
            "epochs": round(self.epochs, 4),
            "micro_batch": self.split.micro,
            "accumulation": self.split.accumulation,
            "processes": self.who.count,
            "parallel": self.who.parallel,
            "precision": self.precision,
            "device": self.who.device.type,
            "compile": job.settings.compile,
            "fault": None if job.settings.fault is None else job.settings.fault.model_dump(),
            "balance_loss": None if run.model.experts is None else job.settings.balance_loss,
            "planner": __version__,
            "torch": str(torch.__version__),
        }


class _Stop:
    """The first signal that asked to stop; 0 while none has."""

    number = 0

    @property
    def name(self) -> str | None:
        return signal.Signals(self.number).name if self.number else None


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Note SIGTERM and SIGINT instead of dying; a second one does what it did before."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.getsignal(name) for name in names}

    def put_back() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    def note(number: int, _: object) -> None:
        stop.number = number
        put_back()

    for name in names:
        signal.signal(name, note)
    try:
        yield stop
    finally:
        put_back()
