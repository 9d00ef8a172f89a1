"""What a method is: a strategy that turns losses into an update of the network.

A method sees the network only through a :class:`Update`: it asks for forwards through the closure it is given, sends
gradients back, and applies optimizer steps. The trainer does not know which method runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.clock import BACKWARD, OPTIMIZER, PhaseClock
from trainables.cuts import Cut
from trainables.kernels import Kernels
from trainables.registry import Registry
from trainables.settings import Settings
from trainables.together import Share, Together

Losses = Callable[[], Mapping[str, Tensor]]
"""One forward of the current batch: the unweighted loss of every task, each a scalar, in the order of ``Update.tasks``.
Call it under ``torch.no_grad()`` for a forward that only measures."""


class MethodConfig(Settings):
    """The fields of a method. ``name`` is what the method is registered as."""

    name: str


@dataclass
class StepLog:
    """What one iteration did.

    Attributes:
        losses: (K,) float, detached: the task losses at the iteration's start, in task order, on the network's device.
        groups: the groups in the order they were stepped, as task indices; ``None`` for a method without groups.
        affinity: (K, K) float64 on the CPU, ``affinity[i, k]`` from source i to target k; ``None`` for a method
        without one.
        scalars: anything else worth a curve, by name.
    """

    losses: Tensor
    groups: tuple[tuple[int, ...], ...] | None = None
    affinity: Tensor | None = None
    scalars: dict[str, float] = field(default_factory=dict)


@dataclass
class Counters:
    """Work done so far, over the whole trial."""

    iterations: int = 0
    optimizer_steps: int = 0
    forward_passes: int = 0
    """Forward passes through the trunk in training, those that only measure included."""
    backward_passes: int = 0
    """Backward passes through the trunk."""
    samples: int = 0

    @property
    def trunk_passes(self) -> int:
        """Forward and backward passes together."""
        return self.forward_passes + self.backward_passes


class Update:
    """The network as a method may change it.

    Args:
        tasks: task names, in the order that gives them their indices.
        shared: parameters of the trunk.
        heads: parameters of each task's decoder, by task.
        optimizer: over all of them.
        counters: where steps and backward passes are counted; forwards are counted by the closure's owner.
        clip_norm: largest gradient norm over all parameters with a gradient, or ``None``.
        iterations_per_epoch: batches the training split makes, for methods that look back on epochs.
        clock: what the time of backward passes and steps is charged to.
        together: the processes that train this network, each on its share of the batch; those this one has met where
            none are given.
        kernels: what multiplies matrices on a CPU.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        shared: Iterable[nn.Parameter],
        heads: Mapping[str, Iterable[nn.Parameter]],
        optimizer: torch.optim.Optimizer,
        counters: Counters | None = None,
        clip_norm: float | None = None,
        iterations_per_epoch: int = 1,
        clock: PhaseClock | None = None,
        together: Together | None = None,
        kernels: Kernels = "torch",
    ) -> None:
        self.tasks = tuple(tasks)
        self.shared = tuple(shared)
        self.heads = {task: tuple(heads[task]) for task in self.tasks}
        self.optimizer = optimizer
        self.counters = counters if counters is not None else Counters()
        self.clip_norm = clip_norm
        self.iterations_per_epoch = iterations_per_epoch
        self.clock = clock if clock is not None else PhaseClock()
        self.representation: Tensor | None = None
        """What all decoders read and the trunk alone has made, of the last forward, with its graph; ``None`` where the
        forward does not tell. Whoever owns the closure sets it in every call."""
        self.cuts: tuple[Cut, ...] = ()
        """Where the trunk's graph was cut in the last forward; it then ends, from ``representation`` back, at the last
        of them. Set as ``representation`` is."""
        self.together = together if together is not None else Together.here()
        self.kernels = kernels
        self.share: Share | None = None
        """This process's part of the batch, where it has a part alone. Whoever owns the closure sets it."""

    def forget(self) -> None:
        """Let go of the last forward's graph: nothing reads it any more, and it would live until the next one."""
        self.representation, self.cuts = None, ()

    def zero_grad(self, *, to_none: bool = True) -> None:
        """Forget gradients. ``to_none=False`` leaves zeros, so that Adam goes on moving such parameters by momentum."""
        self.optimizer.zero_grad(set_to_none=to_none)

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Add the gradient of the scalar ``loss`` to ``.grad`` of all parameters, averaged over the processes; counts
        one backward pass."""
        with self.clock(BACKWARD):
            if self.together.alone:
                loss.backward(retain_graph=retain_graph)
            else:
                self._backward_together(loss, retain_graph=retain_graph)
        self.counters.backward_passes += 1

    def _backward_together(self, loss: Tensor, *, retain_graph: bool) -> None:
        parameters = [p for p in self.parameters() if p.requires_grad]
        before = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        loss.backward(retain_graph=retain_graph)
        self.average([p.grad for p in parameters if p.grad is not None])
        for parameter, old in zip(parameters, before, strict=True):
            if old is not None:
                parameter.grad = old if parameter.grad is None else old.add_(parameter.grad)

    def gradients(
        self,
        output: Tensor,
        inputs: Sequence[Tensor],
        at_output: Tensor | None = None,
        *,
        retain_graph: bool = False,
    ) -> list[Tensor | None]:
        """The gradient of ``inputs``, ``.grad`` left alone; counts one backward pass.

        Args:
            output: a scalar, or with ``at_output``, of its shape, any tensor.
            inputs: parameters of the trunk.
            at_output: the gradient of the loss at ``output``.
            retain_graph: keep the graph for one more call.
        """
        with self.clock(BACKWARD):
            found = torch.autograd.grad(output, inputs, at_output, retain_graph=retain_graph, allow_unused=True)
        self.counters.backward_passes += 1
        return list(found)

    @property
    def processes(self) -> int:
        """Processes that train this network together, each on its share of the batch."""
        return self.together.size

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its mean over the processes; nothing to do in one alone.

        Whatever is not linear in gradients, a Gramian above all, has to be made of their averages.
        """
        self.together.average(tensors)

    def step(self) -> None:
        """One optimizer step from the gradients in ``.grad``, clipped if asked for; parameters whose gradient is None
        stay."""
        with self.clock(OPTIMIZER):
            if self.clip_norm is not None:
                moved = [p for p in self.parameters() if p.grad is not None]
                norm = torch.nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None])
                torch.nn.utils.clip_grads_with_norm_(moved, self.clip_norm, norm)
            self.optimizer.step()
        self.counters.optimizer_steps += 1

    def parameters(self) -> Iterable[nn.Parameter]:
        """All parameters: the trunk's, then each decoder's in task order."""
        yield from self.shared
        for task in self.tasks:
            yield from self.heads[task]


class Method:
    """Base of the methods.

    A subclass names its config class as ``Config`` and defines :meth:`step`. Whatever it remembers between steps goes
    through ``state_dict``: tensors, numbers, text, lists and dicts of these only, so that a checkpoint loads with
    ``weights_only``.

    Args:
        config: the method's own config.
        update: the network it trains.
        seed: of every random draw the method makes.
    """

    Config: ClassVar[type[MethodConfig]]
    result_version: ClassVar[int] = 1
    """Raised whenever the same config would give other bits; part of the trial key."""
    needs_representation: ClassVar[bool] = False
    """Whether it makes use of ``Update.representation``: the trunk is then kept apart from the decoders."""

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        self.config = config
        self.update = update
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in index order."""
        return self.update.tasks

    def step(self, losses: Losses) -> StepLog:
        """One iteration on one batch; calls ``losses`` once or more."""
        raise NotImplementedError

    def stack(self, losses: Mapping[str, Tensor]) -> Tensor:
        """(K,) the losses in task order, with their graph."""
        return torch.stack([losses[task] for task in self.tasks])

    def state_dict(self) -> dict[str, Any]:
        """All the method remembers."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.generator.set_state(state["generator"])

    @classmethod
    def cuts_trunk(cls, config: Any) -> bool:
        """Whether it passes the trunk back stage by stage, through ``Update.cuts``."""
        return False

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`trainables.errors.ConfigError` where ``config`` does not fit these tasks. Called before
        anything runs."""

    @classmethod
    def components(cls, config: Any) -> Mapping[str, tuple[Registry[Any], str]]:
        """What else ``config`` chooses by name, by field: the registry and the name. It counts in the trial key."""
        return {}

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """Forward passes, backward passes and optimizer steps of one iteration, as far as they are known beforehand.

        For estimates of cost only; what was done is counted.
        """
        return 1.0, 1.0, 1.0
