"""The training loop: batches -> method step -> evaluation. Its whole state saves and loads, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import deterministic

from trainables.allocator import keep_freed
from trainables.clock import FORWARD, MANIPULATION, PhaseClock
from trainables.config import TrialConfig, data_set_of, method_of, tasks_of, trial_key
from trainables.data.base import Split
from trainables.data.loader import Batch, Loader, Order, sample_seeds, usable_cores, workers_for
from trainables.data.ondisk import FileSplit, decoded
from trainables.errors import CheckpointError, Diverged
from trainables.evaluation import Metrics, evaluate, merged, values
from trainables.history import History
from trainables.kernels import check_compiles, check_kernels, install
from trainables.methods import Counters, Method, StepLog, Update
from trainables.models.forward import Passed, forward_of
from trainables.models.network import MultiTaskNetwork, build_network
from trainables.seeding import derive, random_of
from trainables.together import Share, Together, check_shares


class Trainer:
    """One trial, from its config to its final metrics.

    :meth:`advance` trains up to some number of iterations, evaluating on the validation split when due; after the
    last iteration it evaluates the final iterate on the validation split and, this once, on the test split. Nothing
    is ever chosen by the test split.

    Args:
        config: what to train.
        data_root: folder the data set was prepared in.
        device: ``cpu`` or ``cuda``. Bits are reproducible on a CPU.
        cores: of this machine that decoding may use; ``None`` for all.
        together: the processes that train it, each on its share of every batch; this one alone where none are given.
            Each has a trainer of its own, and what all of them do, they do in step: :meth:`advance` stops, evaluates
            and diverges in all of them at once, as the first of them says.

    Raises:
        DataError: the data set is missing or damaged.
        ConfigError: the network or the batch cannot be shared out, or ``train.kernels`` are not part of this torch.
    """

    def __init__(
        self,
        config: TrialConfig,
        data_root: Path,
        device: str = "cpu",
        cores: int | None = None,
        together: Together | None = None,
    ) -> None:
        self.config = config
        self.together = together if together is not None else Together()
        self.key = trial_key(config)
        self.device = torch.device(device)
        if self.device.type == "cpu":
            check_kernels(config.train.kernels)
            torch.set_num_threads(config.train.threads)
            keep_freed()
        if config.train.compile:
            check_compiles("train.compile", self.device)
        self.tasks = tasks_of(config)
        self._labels = tuple(dict.fromkeys(task.label for task in self.tasks))
        self._data_root = data_root
        self._cores = cores
        self._splits: dict[str, Split] = {}
        self._train_batches: Loader | None = None
        data_set = data_set_of(config)
        self.network: MultiTaskNetwork = build_network(
            config.model,
            {task.name: task.channels for task in self.tasks},
            data_set.image_shape(config.data),
            seed=derive(config.seed, "network"),
        ).to(self.device)
        if self.device.type == "cpu" and config.train.kernels == "onednn":
            install(self.network)
        check_shares(self.together, config.train.batch_size, self.network)
        self._forward = forward_of(
            self.network,
            compiled=config.train.compile,
            needs_representation=method_of(config).needs_representation,
            cut=method_of(config).cuts_trunk(config.method),
        )
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.counters = Counters()
        self.optimizer = self._make_optimizer()
        self._base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.update = Update(
            tasks=[task.name for task in self.tasks],
            shared=self.network.shared_parameters(),
            heads={task.name: self.network.task_parameters(task.name) for task in self.tasks},
            optimizer=self.optimizer,
            counters=self.counters,
            clip_norm=config.optim.clip_norm,
            clock=PhaseClock(self.device, exact=config.record.phases),
            iterations_per_epoch=data_set.sizes(config.data)["train"] // config.train.batch_size,
            together=self.together,
            kernels=config.train.kernels,
        )
        self.method: Method = method_of(config)(config.method, self.update, derive(config.seed, "method"))
        self.random = random_of(config.seed, self.device, self.together.rank)
        stride = max(1, math.ceil(config.train.budget.amount / config.record.points))
        self.history = History([task.name for task in self.tasks], stride)
        self.seconds = 0.0
        """Training time so far, evaluation excluded."""
        self.method_seconds = 0.0
        """Of it, inside the method's steps."""
        self.done = False
        self._order: tuple[int, np.ndarray] | None = None

    # ---- progress --------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.counters.iterations

    @property
    def progress(self) -> float:
        """Share of the budget spent, at most 1."""
        budget = self.config.train.budget
        spent: int = getattr(self.counters, budget.unit)
        return min(1.0, spent / budget.amount)

    def costs(self) -> dict[str, float]:
        """Work done so far, by the names of :data:`trainables.methods.Counters`, and seconds; of a trial with groups
        that is done, their mean number, too."""
        counters = self.counters
        return {
            "iterations": counters.iterations,
            "optimizer_steps": counters.optimizer_steps,
            "forward_passes": counters.forward_passes,
            "backward_passes": counters.backward_passes,
            "trunk_passes": counters.trunk_passes,
            "samples": counters.samples,
            "seconds": self.seconds,
            **{f"seconds_{phase}": value for phase, value in self._phases().items()},
            **self._memory(),
            **self._groups(),
        }

    def _phases(self) -> dict[str, float]:
        """Seconds by phase; gradient manipulation is what a step takes beside the phases that are timed."""
        timed = self.update.clock.seconds
        return {**timed, MANIPULATION: max(0.0, self.method_seconds - sum(timed.values()))}

    def _memory(self) -> dict[str, float]:
        """The most device memory the trial held at once, in bytes. Nothing on a CPU, whose allocator does not tell."""
        if self.device.type != "cuda":
            return {}
        return {"peak_memory_bytes": float(torch.cuda.max_memory_allocated(self.device))}

    def _groups(self) -> dict[str, float]:
        """What the passes of a method with groups come from, known when the trial is done."""
        mean = self.history.mean_groups() if self.done else None
        return {} if mean is None else {"mean_groups": mean}

    # ---- training --------------------------------------------------------------------------------

    def advance(
        self, iterations: int | None = None, seconds: float | None = None, *, to_evaluation: bool = False
    ) -> None:
        """Train until ``iterations`` more are done, ``seconds`` have passed (after at least one iteration), an
        evaluation was made (with ``to_evaluation``), or the trial is done, whichever is first.

        Where it stops changes no result.

        Raises:
            Diverged: a loss, a parameter or a prediction is not finite, or a loss above ``train.loss_limit``.
        """
        started, first = time.monotonic(), self.iteration
        with self.random.active(), self._deterministic():
            while not self.done:
                if iterations is not None and self.iteration - first >= iterations:
                    return
                late = seconds is not None and self.iteration > first and time.monotonic() - started >= seconds
                if self.together.agreed(late):
                    return
                self._iterate()
                if self.progress >= 1.0:
                    self._finish()
                elif self.config.record.eval_every and self.iteration % self.config.record.eval_every == 0:
                    self._evaluate_into_history("val")
                    if to_evaluation:
                        return

    def _iterate(self) -> None:
        started = time.perf_counter()
        self._set_learning_rate()
        if self._train_batches is None:
            self._train_batches = self._loader("train", self._train_order)
        images, targets = self._to_device(self._train_batches[self.iteration])
        share = self.update.share = Share(self.together, len(images))

        def losses() -> dict[str, Tensor]:
            self.counters.forward_passes += 1
            with self.update.clock(FORWARD):
                outputs, self.update.representation, self.update.cuts = self._predict(images)
                own = [share.loss(task.loss, outputs[task.name], targets[task.label]) for task in self.tasks]
                return dict(zip((task.name for task in self.tasks), share.whole(own), strict=True))

        self.network.train()
        begun = time.perf_counter()
        log: StepLog = self.method.step(losses)
        self.method_seconds += time.perf_counter() - begun
        self.update.forget()
        self.counters.iterations += 1
        self.counters.samples += share.total
        window = self.history.add(self.iteration, log)
        if window is None and self.progress >= 1.0:
            window = self.history.close_window(self.iteration, log)
        self._check_losses(log.losses, window)
        self.seconds += time.perf_counter() - started

    def _check_losses(self, losses: Tensor, window: Tensor | None) -> None:
        """Raise :class:`Diverged` where a loss is not finite, or above the limit."""
        limit = self.config.train.loss_limit
        # Reading a loss waits for the device, so on a GPU only the windows' means are looked at; but how long a window
        # is must not decide which trial is within its limit.
        seen = losses if self.device.type == "cpu" or limit is not None else window
        if seen is None:
            return
        values = {task.name: value for task, value in zip(self.tasks, seen.tolist(), strict=True)}
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            raise Diverged(f"the loss of {', '.join(bad)}", self.iteration - 1)
        if limit is not None and (high := [name for name, value in values.items() if value > limit]):
            raise Diverged(
                f"the loss of {', '.join(high)}", self.iteration - 1, f"is above train.loss_limit ({limit:g})"
            )

    def _finish(self) -> None:
        for name, parameter in self.network.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise Diverged(f"parameter {name}", self.iteration - 1)
        if self._train_batches is not None:
            self._train_batches.close()
            self._train_batches = None
        for split in ("val", "test") if self.config.record.test else ("val",):
            self._evaluate_into_history(split)
        self.done = True

    def _predict(self, images: Tensor) -> Passed:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"):
            passed = self._forward(images)
        return passed._replace(predictions={name: output.float() for name, output in passed.predictions.items()})

    def _set_learning_rate(self) -> None:
        optim = self.config.optim
        factor = (1.0 - self.progress) ** optim.power if optim.schedule == "polynomial" else 1.0
        reached = [step for iteration, step in optim.lr_steps if iteration <= self.iteration]
        factor *= reached[-1] if reached else 1.0
        for group, base in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base * factor

    def _make_optimizer(self) -> torch.optim.Optimizer:
        optim = self.config.optim
        scale = float(len(self.tasks)) if optim.head_lr_scale == "tasks" else float(optim.head_lr_scale)
        heads = [p for task in self.tasks for p in self.network.task_parameters(task.name)]
        groups = [
            {"params": list(self.network.shared_parameters()), "lr": optim.lr},
            {"params": heads, "lr": optim.lr * scale},
        ]
        # One kernel for all parameters: the optimizer step is a visible part of a selective iteration, which makes M
        # of them.
        return torch.optim.Adam(groups, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)

    @contextmanager
    def _deterministic(self) -> Iterator[None]:
        before = torch.are_deterministic_algorithms_enabled()
        memory: Any = deterministic  # Its property is the module's class's, which type checkers do not see.
        filled = memory.fill_uninitialized_memory
        if self.device.type == "cpu":
            torch.use_deterministic_algorithms(True)
            # Else torch writes NaN into every new tensor first: for whoever reads what was never written, at 2 % of
            # the time of a step.
            memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            memory.fill_uninitialized_memory = filled

    # ---- data ------------------------------------------------------------------------------------

    def _split(self, name: str) -> Split:
        if name not in self._splits:
            data_set, data = data_set_of(self.config), self.config.data
            split = data_set.open(data, self._data_root, name)
            if self.config.loading.cache and isinstance(split, FileSplit):
                fingerprint = data_set.fingerprint(data)
                split = decoded(split, self._data_root, data.name, name, fingerprint, self._workers)
            self._splits[name] = split
        return self._splits[name]

    def _loader(self, split: str, order: Callable[[int], Order | None]) -> Loader:
        return Loader(self._split(split), self._labels, order, self._workers, self.config.loading.prefetch)

    @property
    def _workers(self) -> int:
        """Threads that decode samples."""
        return workers_for(self.config.loading, decodes=data_set_of(self.config).decodes, cores=self._cores)

    def _to_device(self, batch: Batch) -> Batch:
        images, targets = batch
        return images.to(self.device), {name: target.to(self.device) for name, target in targets.items()}

    def _train_order(self, iteration: int) -> Order:
        """The samples of one iteration and their augmentation: a function of seed and iteration alone, so that nothing
        has to be saved."""
        size, batch = len(self._split("train")), self.config.train.batch_size
        per_epoch = size // batch
        epoch, position = divmod(iteration, per_epoch)
        if self._order is None or self._order[0] != epoch:
            seed = self.config.seed if self.config.train.data_order == "seed" else 0
            generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
            self._order = (epoch, torch.randperm(size, generator=generator).numpy())
        indices = self._order[1][position * batch : (position + 1) * batch]
        indices = indices[self.together.part(len(indices))]
        return Order(indices, sample_seeds(self.config.seed, epoch, indices))

    # ---- evaluation ------------------------------------------------------------------------------

    def evaluate(self, split: str) -> dict[str, float]:
        """Every task's metrics over a whole split, by ``task/metric``; NaN where the split has no valid pixel for one.

        Draws no random number and changes no state.

        Raises:
            Diverged: a prediction is not finite.
        """
        count, size = len(self._split(split)), self.config.record.eval_batch_size
        self.network.eval()
        orders = [Order(np.arange(start, min(start + size, count))) for start in range(0, count, size)]
        orders = orders[self.together.rank :: self.together.size]

        def measure() -> Metrics:
            with closing(self._loader(split, dict(enumerate(orders)).get)) as batches:
                return evaluate(
                    lambda images: self._predict(images).predictions,
                    map(self._to_device, batches),
                    self.tasks,
                    samples=count,
                    name=split,
                    iteration=self.iteration - 1,
                    cores=self._cores or usable_cores(),
                )

        return values(merged(self.together, self.tasks, measure))

    def _evaluate_into_history(self, split: str) -> None:
        for name, value in self.evaluate(split).items():
            self.history.record(f"{split}/{name}", self.iteration, value)

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The whole trial: tensors, numbers, text, lists and dicts only, loadable with ``weights_only``.

        It may be taken up by another number of processes: the random states of the others are there beside the first
        one's, and those it lacks start anew.
        """
        others = self.together.gathered(self.random.state_dict())[1:]
        return {
            **({} if self.together.alone else {"others_random": others}),
            "key": self.key,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "random": self.random.state_dict(),
            "counters": dict(vars(self.counters)),
            "history": self.history.state_dict(),
            "seconds": self.seconds,
            "method_seconds": self.method_seconds,
            "phase_seconds": dict(self.update.clock.seconds),
            "done": self.done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            CheckpointError: the state is of another trial.
        """
        if state.get("key") != self.key:
            raise CheckpointError(
                f"the checkpoint is of trial {str(state.get('key'))[:12]}, this config is trial {self.key[:12]}"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        saved = [state["random"], *state.get("others_random", [])]
        self.random = random_of(
            self.config.seed, self.device, self.together.rank, saved, state["counters"]["iterations"]
        )
        for name, value in state["counters"].items():
            setattr(self.counters, name, value)
        self.history.load_state_dict(state["history"])
        self.seconds = float(state["seconds"])
        self.method_seconds = float(state["method_seconds"])
        self.update.clock.seconds.update(state["phase_seconds"])
        self.done = bool(state["done"])
