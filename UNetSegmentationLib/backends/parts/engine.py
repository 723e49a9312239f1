"""A network on this machine: tiles use the fastest validated backend known so far, without waiting for measurements.

Tile shapes that were never measured use the default backend. A separate process measures them (see timing_process)
while the worker is idle, or in the middle of a run that lasts much longer than the measurement.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep

import torch
from torch import Tensor, nn

from ...core.errors import CancelledError, InputError
from ...core.task import UNWATCHED, Event, Task
from ..contract import BACKENDS, Computation, Forward
from .devices import is_out_of_memory
from .store import Store
from .timing import default_backend, fastest, is_complete, known_results, obstacle
from .timing_process import start_measuring

BACKEND_VARIABLE = "UNETSEG_BACKEND"
# Cost of measuring: a process with torch, a conversion, and some tiles on every backend.
MEASURING_S, MEASURING_TILES = 20.0, 20
# A run is interrupted only if its remaining time is this many times longer.
MUCH_LONGER = 3
MOST_ATTEMPTS = 3
POLL_S = 0.05


@dataclass
class _Route:
    """How tiles of one shape are computed.

    Attributes:
        name: Backend in use.
        forward: Its forward function.
        better: A faster backend that is not loaded yet, or "".
        loading_s: Time to load it.
        spent_s: Time spent on tiles so far.
        tile_s: Time of the last tile.
        attempts: Number of measurements started.
    """

    name: str
    forward: Forward
    better: str = ""
    loading_s: float = 0.0
    spent_s: float = 0.0
    tile_s: float = 0.0
    attempts: int = 0


@dataclass
class _Run:
    """Progress of the current run."""

    began: float = field(default_factory=perf_counter)
    fraction: float = 0.0

    @property
    def remaining_s(self) -> float:
        """The remaining time; 0 if unknown."""
        spent = perf_counter() - self.began
        return spent * (1 - self.fraction) / self.fraction if self.fraction else 0.0


class Engine(nn.Module):
    """Maps batches of tiles to float32 logits, in place of its network.

    Attributes:
        forced_backend: The only backend it may use; "" for any.

    Args:
        network: In evaluation mode, float32, on the device.
        device: Device of the network.
        folder: Its model folder, from which a measuring process loads it; None disables measuring.
        identity: Identifies network and weights in the store; empty disables measuring.
        backend: The only backend to use; by default that of the environment variable UNETSEG_BACKEND, or the fastest.
        store: Where measurements are kept.

    Raises:
        InputError: The backend is unknown or cannot be used here.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        folder: Path | None = None,
        identity: str = "",
        backend: str | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        # A layer, so that hooks that check every layer for cancellation also run for backends without layers.
        self.pulse = nn.Identity()
        self.eval()
        self.device = device
        self.computed_on = device
        self.used: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self._folder = folder if identity else None
        self._identity = identity
        self._store = store or Store()
        self.forced_backend = backend or os.environ.get(BACKEND_VARIABLE) or ""
        self._routes: dict[tuple[int, ...], _Route] = {}
        self._run = _Run()
        if self.forced_backend and (reason := obstacle(self.forced_backend, network, device)):
            raise InputError(
                f"backend '{self.forced_backend}' cannot be used here: {reason}; choose another or leave it out"
            )

    def begin_run(self, task: Task = UNWATCHED) -> Task:
        """Note the start of a run of many tiles; return its task, whose progress is tracked."""
        self.used = {}
        self.computed_on = self.device
        self._run = run = _Run()

        def note(event: Event) -> None:
            if event["event"] == "progress":
                run.fraction = event["fraction"]
            task.report(event)

        return task.observed_by(note)

    def forward(self, batch: Tensor) -> Tensor:
        """Map a batch (B, C, ...) to logits (B, K, ...)."""
        route = self._route(tuple(batch.shape))
        if not self.forced_backend:
            self._improve_within_run(route, batch)
        began = perf_counter()
        logits = self._computed(route, batch)
        route.tile_s = perf_counter() - began
        route.spent_s += route.tile_s
        self.used[route.name] = BACKENDS[route.name].precision
        return logits

    def improvements(self) -> Iterator[None]:
        """Measure and load the best backends for the tile shapes seen, for as long as the caller iterates.

        Yields many times a second; closing it stops the work.
        """
        if self.forced_backend:
            return
        for shape, route in list(self._routes.items()):
            yield from self._measuring(shape, route)
            self._look_up(shape, route)
            yield
            self._load_better(shape, route)

    def _route(self, shape: tuple[int, ...]) -> _Route:
        if shape not in self._routes:
            name = self.forced_backend or default_backend(self.device)
            if self.forced_backend:
                self._routes[shape] = _Route(name, self._build(name, shape))
            else:
                self._routes[shape] = self._default_route(shape)
                self._look_up(shape, self._routes[shape])
        return self._routes[shape]

    def _default_route(self, shape: tuple[int, ...]) -> _Route:
        name = default_backend(self.device)
        if name not in ("eager", *self.refused) and (forward := self._build_or_refuse(name, shape)):
            return _Route(name, forward)
        return _Route("eager", self._build("eager", shape))

    def _improve_within_run(self, route: _Route, batch: Tensor) -> None:
        """Measure if the run lasts much longer than that, and load a faster backend once it pays off."""
        shape = tuple(batch.shape)
        cost_s = MEASURING_S + MEASURING_TILES * route.tile_s
        if not route.attempts and route.spent_s and self._run.remaining_s > MUCH_LONGER * cost_s:
            with closing(self._measuring(shape, route)) as measuring:
                for _ in measuring:
                    self._ask()
            self._look_up(shape, route)
        if route.better and route.spent_s >= route.loading_s:
            self._load_better(shape, route)

    def _computed(self, route: _Route, batch: Tensor) -> Tensor:
        try:
            return route.forward(batch)
        except CancelledError:
            raise
        except (RuntimeError, AttributeError, TypeError) as error:
            # Errors of eager concern the input; those of others may be the backend's fault.
            if is_out_of_memory(error) or self.forced_backend or route.name == "eager":
                raise
            self._refuse(route.name, error)
        fallback = self._default_route(tuple(batch.shape))
        route.name, route.forward, route.better = fallback.name, fallback.forward, ""
        return self._computed(route, batch)

    def _measuring(self, shape: tuple[int, ...], route: _Route) -> Generator[None]:
        computation = self._computation(shape)
        if (
            self._folder is None
            or route.attempts >= MOST_ATTEMPTS
            or is_complete(known_results(computation), computation)
        ):
            return
        route.attempts += 1
        try:
            with start_measuring(self._folder, self.device, shape, self._store.folder) as process:
                while process.poll() is None:
                    yield
                    sleep(POLL_S)
        except GeneratorExit:
            # Interrupted: results so far are kept, and the next measurement continues from there.
            route.attempts -= 1
            raise

    def _look_up(self, shape: tuple[int, ...], route: _Route) -> None:
        results = {
            name: result
            for name, result in known_results(self._computation(shape)).items()
            if name in BACKENDS and name not in self.refused and not obstacle(name, self.network, self.device)
        }
        best = fastest(results, default_backend(self.device))
        route.better = best if best != route.name and best in results else ""
        route.loading_s = results[best].build_s if route.better else 0.0

    def _load_better(self, shape: tuple[int, ...], route: _Route) -> None:
        if not route.better:
            return
        name, route.better = route.better, ""
        if forward := self._build_or_refuse(name, shape):
            route.forward, route.name = forward, name

    def _build_or_refuse(self, name: str, shape: tuple[int, ...]) -> Forward | None:
        """Return a backend's forward function, or None if it cannot be built, even if only for lack of memory."""
        try:
            return self._build(name, shape)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001
            self._refuse(name, error)
        return None

    def _refuse(self, name: str, error: Exception) -> None:
        self.refused[name] = f"{type(error).__name__}: {error}"

    def _build(self, name: str, shape: tuple[int, ...]) -> Forward:
        return BACKENDS[name]().build(self._computation(shape))

    def _computation(self, shape: tuple[int, ...]) -> Computation:
        return Computation(
            network=self.network,
            shape=shape,
            device=self.device,
            pulse=self._ask,
            store=self._store,
            identity=self._identity,
        )

    def _ask(self) -> None:
        self.pulse(torch.empty(0))
