"""Training on patches: one loop in the order of its events, resumable at any step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .augmentation import AugmentationConfig, augment_patch, source_size
from .dataset import PreparedCase
from .errors import CancelledError, InputError
from .files import atomic_path
from .losses import DeepSupervisionLoss, build_loss
from .metrics import evaluate_case
from .networks import SegmentationNetwork
from .planning import Plan
from .sliding_window import predict_logits
from .training_record import describe_validation

CHECKPOINT_FILE = "checkpoint.safetensors"
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How long and how to train.

    Attributes:
        steps: Optimiser steps; with `minutes`, the most that are taken.
        minutes: Time budget of the loop; None for none. The learning rate follows whichever budget is nearer its end.
        learning_rate: Of AdamW at the start; it falls to 0 by the power `poly_power` of what is left.
        weight_decay: Of AdamW.
        poly_power: Shape of the fall.
        gradient_clip: Largest norm of the gradient.
        loss: Registered name.
        loss_options: Options of the loss, as JSON.
        foreground_share: Share of the patches that are centred on a labelled voxel.
        ema_decay: Of the moving average of the weights, which is what is kept.
        validate_every: Steps between validations; 0 for none but the last.
        checkpoint_every_s: Seconds between checkpoints.
        precision: "float32", "bfloat16" (mixed) or "auto": whichever a short measurement finds faster.
        has_fixed_statistics: Batch norm keeps the means and variances that it came with, as where few images follow on
            many.
        seed: Of initialisation, patches and augmentation.
    """

    steps: int = 1250
    minutes: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    poly_power: float = 0.9
    gradient_clip: float = 12.0
    loss: str = "dice_cross_entropy"
    loss_options: dict[str, Any] = field(default_factory=dict, hash=False)
    foreground_share: float = 0.5
    ema_decay: float = 0.99
    validate_every: int = 250
    checkpoint_every_s: float = 60.0
    precision: str = "auto"
    has_fixed_statistics: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        requirements = (
            (self.steps >= 1, f"steps is {self.steps}: give at least 1"),
            (self.minutes is None or self.minutes > 0, f"minutes is {self.minutes}: give a time above 0"),
            (self.validate_every >= 0, f"validate_every is {self.validate_every}: give 0 or more"),
            (self.learning_rate > 0, f"learning_rate is {self.learning_rate}: give a rate above 0"),
            (0 <= self.foreground_share <= 1, f"foreground_share is {self.foreground_share}: give 0 to 1"),
            (0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}: give 0 to below 1"),
            (self.precision in PRECISIONS, f"precision is '{self.precision}': choose {', '.join(PRECISIONS)}"),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"training: {message}")


class Patches(Protocol):
    """Where the batches of a training come from."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, ...) and class numbers (B, ...) of a step, always the same for the same step."""

    def close(self) -> None:
        """End whatever runs in the background."""


# A further term of the loss for the network, its input (B, C, ...), its outputs and the class numbers (B, ...).
ExtraLoss = Callable[[SegmentationNetwork, Tensor, Tensor | list[Tensor], Tensor], Tensor]


@dataclass
class LoopState:
    """All that decides how the loop goes on; the checkpoint holds it whole."""

    network: SegmentationNetwork
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    elapsed_s: float = 0.0
    precision: str = "float32"


def train(  # noqa: PLR0913  # the two hooks come on top of what every training needs
    network: SegmentationNetwork,
    cases: Sequence[PreparedCase],
    validation_cases: Sequence[PreparedCase],
    plan: Plan,
    *,
    options: TrainingOptions,
    augmentation: AugmentationConfig,
    folder: Path,
    device: torch.device,
    patches: Patches | None = None,
    extra_loss: ExtraLoss | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Train `network` in place and leave the averaged weights in it.

    Every patch is drawn from a generator seeded by (seed, step), so that a resumed training sees the same patches as
    an uninterrupted one.

    Args:
        network: On the CPU; freshly built, or with the weights to go on from.
        cases: Prepared cases to draw patches from.
        validation_cases: Prepared cases of other subjects.
        plan: Patch and batch size.
        options: How long and how.
        augmentation: What may be done to a patch.
        folder: Where the checkpoint lies; one that is there is resumed.
        device: Where to compute.
        patches: Where the batches come from; drawn from `cases` by default.
        extra_loss: Added to the loss.
        is_cancelled: Asked at every step; the checkpoint is written before the loop ends.

    Yields:
        Events as training_record lists them; figures of a validation stand by class number, 1 for the first label.

    Raises:
        CancelledError: `is_cancelled` said so; the checkpoint allows to go on.
        InputError: No case holds a labelled voxel, the checkpoint is another network's, or the loss is not finite.
    """
    if not any(len(case.foreground) for case in cases):
        raise InputError("no training case holds a labelled voxel: check the labels of the data set")
    _set_training(network.to(device), options)
    loss_function = DeepSupervisionLoss(build_loss(options.loss, options.loss_options), alignment=network.alignment)
    state = LoopState(network, _copy_of(network), _optimizer_of(network, options))
    is_resumed = _load_checkpoint(folder / CHECKPOINT_FILE, state)
    patches = patches or PatchSource(cases, plan, options, augmentation)
    if not is_resumed:
        state.precision = _choose_precision(state, patches, loss_function, options, device)
    saved_at = began = perf_counter()
    already_s = state.elapsed_s
    yield {"event": "start", "step": state.step, "is_resumed": is_resumed, "precision": state.precision}
    try:
        while (left := _share_left(state, options)) > 0:
            if is_cancelled():
                raise CancelledError("cancelled; the checkpoint allows to go on with --resume")
            image, labels = patches.batch(state.step)
            rate = options.learning_rate * left**options.poly_power
            batch = (image.to(device), labels.to(device))
            loss = _take_step(state, batch, loss_function, extra_loss, rate=rate, options=options)
            state.step += 1
            state.elapsed_s = already_s + perf_counter() - began
            yield {"event": "step", "step": state.step, "elapsed_s": state.elapsed_s, "loss": loss,
                   "learning_rate": rate, "share_left": _share_left(state, options)}  # fmt: skip
            if options.validate_every and state.step % options.validate_every == 0 and _share_left(state, options) > 0:
                yield _validation_event(state, validation_cases, plan, options, is_cancelled)
            if perf_counter() - saved_at > options.checkpoint_every_s:
                _save_checkpoint(folder / CHECKPOINT_FILE, state)
                saved_at = perf_counter()
        _save_checkpoint(folder / CHECKPOINT_FILE, state)
        if validation_cases:
            yield _validation_event(state, validation_cases, plan, options, is_cancelled)
    except CancelledError:
        _save_checkpoint(folder / CHECKPOINT_FILE, state)
        raise
    finally:
        patches.close()
    network.load_state_dict(state.average)
    network.cpu().eval()
    yield {"event": "end", "step": state.step, "elapsed_s": state.elapsed_s}


class PatchSource:
    """Draws augmented batches; the next one is made in the background while the network learns from the last.

    Args:
        cases: Prepared cases.
        plan: Patch and batch size.
        options: Seed and share of patches on labelled voxels.
        augmentation: What may be done to a patch.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], plan: Plan, options: TrainingOptions, augmentation: AugmentationConfig
    ) -> None:
        self._cases = cases
        self._plan = plan
        self._options = options
        self._augmentation = augmentation
        self._source_size = source_size(plan.patch_size, augmentation)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="patches")
        self._ahead: dict[int, Future[tuple[Tensor, Tensor]]] = {}

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, D, H, W) and class numbers (B, D, H, W) of a step; without D for a 2D plan."""
        future = self._ahead.pop(step, None) or self._pool.submit(self._draw, step)
        self._ahead = {step + 1: self._pool.submit(self._draw, step + 1)}
        return future.result()

    def close(self) -> None:
        """End the background thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self._options.seed * 1_000_003 + step)
        drawn = [self._patch(generator) for _ in range(self._plan.batch_size)]
        images, labels = torch.stack([image for image, _ in drawn]), torch.stack([label for _, label in drawn])
        if self._plan.dimensions == 2:
            images, labels = images[:, :, 0], labels[:, 0]
        return images, labels.long()

    def _patch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        case = self._cases[_random_below(len(self._cases), generator)]
        size, shape = self._source_size, case.labels.shape
        if len(case.foreground) and torch.rand((), generator=generator) < self._options.foreground_share:
            centre = case.foreground[_random_below(len(case.foreground), generator)].tolist()
        else:
            centre = [_random_below(extent, generator) for extent in shape]
        start = _window_start(centre, shape, self._plan.patch_size)
        margin = [(outer - inner) // 2 for outer, inner in zip(size, self._plan.patch_size, strict=True)]
        first = [position - extra for position, extra in zip(start, margin, strict=True)]
        image = crop_or_pad(case.image, first, size, padding=case.padding)
        labels = crop_or_pad(case.labels[None], first, size)[0]
        return augment_patch(
            image, labels, output_size=self._plan.patch_size, config=self._augmentation, generator=generator
        )


def crop_or_pad(array: Tensor, first: Sequence[int], size: Sequence[int], *, padding: Tensor | None = None) -> Tensor:
    """Return the window (C, *size) that begins at voxel `first` of (C, D, H, W).

    Outside the array it holds `padding` (C,), 0 by default.
    """
    window = array.new_zeros((len(array), *size))
    if padding is not None:
        window += padding[:, None, None, None]
    source, target = [slice(None)], [slice(None)]
    for position, extent, limit in zip(first, size, array.shape[1:], strict=True):
        begin, end = max(0, position), min(limit, position + extent)
        if begin >= end:
            return window
        source.append(slice(begin, end))
        target.append(slice(begin - position, end - position))
    window[tuple(target)] = array[tuple(source)]
    return window


def _window_start(centre: Sequence[int], shape: Sequence[int], patch: Sequence[int]) -> list[int]:
    """Return where a patch round `centre` begins: inside the image where it fits, else with the image in its middle."""
    start = []
    for position, size, extent in zip(centre, shape, patch, strict=True):
        low, high = (0, size - extent) if size >= extent else (-((extent - size) // 2),) * 2
        start.append(min(max(position - extent // 2, low), high))
    return start


def _random_below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


def _take_step(
    state: LoopState,
    batch: tuple[Tensor, Tensor],
    loss_function: nn.Module,
    extra_loss: ExtraLoss | None,
    *,
    rate: float,
    options: TrainingOptions,
) -> float:
    """Take one optimiser step and return the loss.

    Raises:
        InputError: The loss is not finite; the step is not taken, as it would make every weight NaN.
    """
    image, labels = batch
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    devices = [image.device] if image.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # dropout draws from torch's own generator: seed it by the step as well
        torch.manual_seed(options.seed * 1_000_003 + state.step)
        with _autocast(state.precision, image.device):
            outputs = state.network(image)
        loss: Tensor = loss_function(outputs, labels)
        own_loss = state.network.own_loss(outputs, labels)
        loss = loss if own_loss is None else loss + own_loss
        if extra_loss is not None:
            loss = loss + extra_loss(state.network, image, outputs, labels)
        if not loss.isfinite():
            raise InputError(
                f"the loss of step {state.step + 1} is {float(loss.detach())}: check the images, lower learning_rate, "
                "or train in precision float32; the last checkpoint is as it was"
            )
        loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), options.gradient_clip)
    state.optimizer.step()
    # A young average would be full of the first weights: let it follow faster at the start.
    decay = min(options.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, value in state.network.state_dict().items():
            if value.is_floating_point():
                state.average[name].lerp_(value, 1 - decay)
            else:
                state.average[name].copy_(value)
    return float(loss.detach())


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _choose_precision(
    state: LoopState, patches: Patches, loss_function: nn.Module, options: TrainingOptions, device: torch.device
) -> str:
    """Return the asked-for precision; for "auto" time forward and backward in both and take the faster."""
    if options.precision != "auto":
        return options.precision
    image, labels = (tensor.to(device) for tensor in patches.batch(0))
    seconds = {}
    for precision in ("float32", "bfloat16"):
        times = []
        for _ in range(3):
            began = perf_counter()
            with torch.random.fork_rng([device] if device.type == "cuda" else []), _autocast(precision, device):
                outputs = state.network(image)
            loss_function(outputs, labels).backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(perf_counter() - began)
        seconds[precision] = min(times)
        state.optimizer.zero_grad(set_to_none=True)
    return min(seconds, key=lambda name: seconds[name])


def _share_left(state: LoopState, options: TrainingOptions) -> float:
    """Return the share of the budget that is left, 1 at the start and 0 at the end."""
    done = state.step / options.steps
    if options.minutes is not None:
        done = max(done, state.elapsed_s / (60 * options.minutes))
    return max(0.0, 1.0 - done)


def _validation_event(
    state: LoopState,
    cases: Sequence[PreparedCase],
    plan: Plan,
    options: TrainingOptions,
    is_cancelled: Callable[[], bool],
) -> dict[str, Any]:
    """Return the figures of the averaged weights per case and class, on the network's grid."""
    current = {name: value.clone() for name, value in state.network.state_dict().items()}
    device = next(state.network.parameters()).device
    state.network.load_state_dict(state.average)
    state.network.eval()
    spacing_mm = [step or 1.0 for step in plan.spacing_mm]
    figures = {}
    try:
        for case in cases:
            logits = predict_logits(
                state.network,
                case.image.to(device),
                patch_size=plan.patch_size,
                dimensions=plan.dimensions,
                padding=case.padding,
                conventions=plan.conventions,
                is_cancelled=is_cancelled,
            )
            found = logits.argmax(dim=0).to(torch.int16).cpu().numpy()
            figures[case.id] = evaluate_case(found, case.labels.numpy(), range(1, len(logits)), spacing_mm)
    finally:
        state.network.load_state_dict(current)
        _set_training(state.network, options)
    return {
        "event": "validation",
        "step": state.step,
        "elapsed_s": state.elapsed_s,
        **describe_validation(figures),
    }


def _set_training(network: nn.Module, options: TrainingOptions) -> None:
    network.train()
    if options.has_fixed_statistics:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _optimizer_of(network: nn.Module, options: TrainingOptions) -> torch.optim.AdamW:
    return torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)


def _save_checkpoint(path: Path, state: LoopState) -> None:
    """Write the loop's state: tensors in safetensors, numbers in its metadata; nothing is pickled."""
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for index, entries in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    numbers = {"step": state.step, "elapsed_s": state.elapsed_s, "precision": state.precision}
    with atomic_path(path) as temporary:
        contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(contiguous, temporary, metadata={"loop": json.dumps(numbers)})


def _load_checkpoint(path: Path, state: LoopState) -> bool:
    """Restore the loop's state from a checkpoint, where there is one."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()["loop"])
        tensors = load_file(path)
        state.network.load_state_dict(_below(tensors, "network."))
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"checkpoint {path} is damaged or another network's: remove it to start anew") from error
    device = next(state.network.parameters()).device
    state.average = {name: value.to(device) for name, value in _below(tensors, "average.").items()}
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    state.step, state.elapsed_s = int(numbers["step"]), float(numbers["elapsed_s"])
    state.precision = str(numbers["precision"])
    return True


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def options_as_record(options: TrainingOptions) -> dict[str, Any]:
    """Return the options as they stand in a model's training record."""
    return asdict(options)
