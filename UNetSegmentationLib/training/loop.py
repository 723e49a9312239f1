"""Training on patches: one loop in the order of its events, resumable at any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from ..augmentation import AugmentationConfig
from ..backends.parts.devices import computes_in_bfloat16
from ..core.errors import CancelledError, InputError
from ..core.task import UNWATCHED, Event, Task
from ..evaluation.metrics import evaluate_case
from ..evaluation.validation import describe_validation
from ..losses import DeepSupervisionLoss, build_loss
from ..networks import SegmentationNetwork
from ..networks.parts.memory_format import FORMATS, to_channels_first, to_channels_last
from ..planning.plan import Plan
from .checkpoint import CHECKPOINT_FILE, LoopState, load_state, save_state
from .options import TrainingOptions
from .patches import Patches, PatchSource
from .prepared_case import PreparedCase, predict_case
from .processes.processes import ALONE, Processes

# An additional loss term for the network, its input (B, C, ...), its outputs and the class numbers (B, ...).
ExtraLoss = Callable[[SegmentationNetwork, Tensor, Tensor | list[Tensor], Tensor], Tensor]
# Offset between the random draws of processes, so that they differ.
_RANK_STEP = 1_000_000_007
# Images per thread that a CPU trains on at a time: fewer would leave it idle, more take memory.
_VOXELS_PER_THREAD = 32_768


def train(  # noqa: PLR0913  # the hooks come in addition to what every training needs
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
    processes: Processes = ALONE,
    task: Task = UNWATCHED,
) -> tuple[int, float]:
    """Train `network` in place and leave the averaged weights in it.

    Every patch is drawn from a generator seeded by (seed, step, index), so that a resumed training sees the same
    patches as an uninterrupted one, and several processes the same as one.

    Args:
        network: On the CPU; freshly built, or with initial weights.
        cases: Prepared cases to draw patches from.
        validation_cases: Prepared cases of other subjects.
        plan: Patch and batch size; with several processes this is the batch size of each.
        options: Duration and hyperparameters.
        augmentation: Augmentation of the patches.
        folder: Folder of the checkpoint; an existing one is resumed.
        device: Device to compute on.
        patches: Source of the batches; drawn from `cases` by default.
        extra_loss: Added to the loss; in one process only.
        processes: Processes that train together: each draws its part of every batch; the first decides, validates
            and writes the checkpoint, and all report its events.
        task: Told events as core.event_log lists them; validation figures are by class number, 1 for the first label.
            Checked for cancellation at every step, in every process; the checkpoint is written before the loop ends.

    Returns:
        Steps and seconds of the training, including those before it was resumed.

    Raises:
        CancelledError: The task was cancelled; training can be resumed from the checkpoint.
        InputError: No case contains a labelled voxel, the checkpoint belongs to another network, the loss is not
            finite, or several processes do not support this training.
    """
    _check_use(cases, processes, is_special=patches is not None or extra_loss is not None)
    processes.join(network.to(device), has_fixed_statistics=options.has_fixed_statistics)
    _set_training(network, options)
    if device.type == "cpu":
        to_channels_last(network)
    loss_function = _loss_of(network, options)
    state = LoopState(network, _copy_of(network), _optimizer_of(network, options), plan.batch_size * processes.count)
    is_resumed = load_state(folder / CHECKPOINT_FILE, state, processes)
    part = processes.part_of(state.batch_size)
    patches = patches or PatchSource(cases, plan, options, augmentation, part=part)
    if not is_resumed:
        state.precision = _choose_precision(state, patches, loss_function, options, device, processes)
    saved_at = began = perf_counter()
    already_s = state.elapsed_s
    try:
        task.report({"event": "start", "step": state.step, "is_resumed": is_resumed, "precision": state.precision})
        left = processes.agreed(_share_left(state, options))
        while left > 0:
            if processes.any(task.is_cancelled):
                raise CancelledError("cancelled")
            image, labels = patches.batch(state.step)
            rate = options.learning_rate * left**options.poly_power
            batch = (_laid_out(image.to(device)), labels.to(device))
            loss = _take_step(state, batch, loss_function, extra_loss, processes, rate=rate, options=options)
            state.step += 1
            state.elapsed_s = already_s + perf_counter() - began
            left = processes.agreed(_share_left(state, options))
            task.report({"event": "step", "step": state.step, "elapsed_s": state.elapsed_s, "loss": loss,
                         "learning_rate": rate, "share_left": left})  # fmt: skip
            if options.validate_every and state.step % options.validate_every == 0 and left > 0:
                task.report(processes.share(lambda: _validation_event(state, validation_cases, plan, options, task)))
            if processes.is_first and perf_counter() - saved_at > options.checkpoint_every_s:
                save_state(folder / CHECKPOINT_FILE, state)
                saved_at = perf_counter()
        processes.share(lambda: save_state(folder / CHECKPOINT_FILE, state))
        if validation_cases:
            task.report(processes.share(lambda: _validation_event(state, validation_cases, plan, options, task)))
    except CancelledError as error:
        processes.share(lambda: save_state(folder / CHECKPOINT_FILE, state))
        raise CancelledError("cancelled; continue from the checkpoint with --resume") from error
    finally:
        patches.close()
    network.load_state_dict(state.average)
    to_channels_first(network.cpu().eval())
    task.report({"event": "end", "step": state.step, "elapsed_s": state.elapsed_s})
    return state.step, state.elapsed_s


def _check_use(cases: Sequence[PreparedCase], processes: Processes, *, is_special: bool) -> None:
    if not any(len(case.foreground) for case in cases):
        raise InputError("no training case contains a labelled voxel: check the labels of the data set")
    if processes.count > 1 and is_special:
        raise InputError("custom batches and losses need a single process: start the training without torchrun")


def _take_step(
    state: LoopState,
    batch: tuple[Tensor, Tensor],
    loss_function: DeepSupervisionLoss,
    extra_loss: ExtraLoss | None,
    processes: Processes,
    *,
    rate: float,
    options: TrainingOptions,
) -> float:
    """Take one optimiser step and return the loss.

    Raises:
        InputError: The loss is not finite; the step is skipped, as it would make every weight NaN.
    """
    image, labels = batch
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    devices = [image.device] if image.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # dropout uses torch's global generator: seed it by the step as well
        torch.manual_seed(options.seed * 1_000_003 + state.step + processes.rank * _RANK_STEP)
        is_special = processes.count > 1 or extra_loss is not None
        parts = [slice(None)] if is_special else _parts_of(labels, state.network, loss_function)
        mean = 0.0
        for part in parts:
            with _autocast(state.precision, image.device):
                outputs = state.network(image[part])
            outputs, expected = processes.gather(outputs, labels[part])
            loss: Tensor = loss_function(outputs, expected)
            auxiliary_loss = state.network.auxiliary_loss(outputs, expected)
            loss = loss if auxiliary_loss is None else loss + auxiliary_loss
            if extra_loss is not None:
                loss = loss + extra_loss(state.network, image, outputs, expected)
            if not loss.isfinite():
                raise InputError(
                    f"the loss of step {state.step + 1} is {float(loss.detach())}: check the images, lower "
                    "learning_rate, or train in precision float32; the last checkpoint is unaffected"
                )
            share = len(labels[part]) / len(labels)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            mean += float(loss.detach()) * share
    processes.sum_gradients(state.network)
    nn.utils.clip_grad_norm_(state.network.parameters(), options.gradient_clip)
    state.optimizer.step()
    # An early average would be dominated by the first weights: let it follow faster at the start.
    decay = min(options.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, value in state.network.state_dict().items():
            if value.is_floating_point():
                state.average[name].lerp_(value, 1 - decay)
            else:
                state.average[name].copy_(value)
    return mean


def _parts_of(labels: Tensor, network: SegmentationNetwork, loss_function: DeepSupervisionLoss) -> list[slice]:
    """Return parts of a batch whose gradients are computed one by one, so that only one part's features are in memory.

    Dropout draws different features for parts than for the whole batch.
    """
    whole = [slice(None)]
    size = max(1, _VOXELS_PER_THREAD * torch.get_num_threads() // labels[0].numel())
    if labels.device.type != "cpu" or size >= len(labels) or not loss_function.loss.splits(labels):
        return whole
    if network.has_auxiliary_loss or any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in network.modules()
    ):
        return whole
    return [slice(first, first + size) for first in range(0, len(labels), size)]


def _loss_of(network: SegmentationNetwork, options: TrainingOptions) -> DeepSupervisionLoss:
    return DeepSupervisionLoss(build_loss(options.loss, options.loss_options), alignment=network.alignment)


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _choose_precision(
    state: LoopState,
    patches: Patches,
    loss_function: DeepSupervisionLoss,
    options: TrainingOptions,
    device: torch.device,
    processes: Processes,
) -> str:
    """Return the requested precision; for "auto", time forward and backward in both and choose the faster."""
    if options.precision != "auto":
        return options.precision
    # The first process decides, as all must agree: batch norm waits for every one of them.
    if not processes.agreed(float(computes_in_bfloat16(device))):
        return "float32"
    # One image: in float32 a batch would take more memory than the whole training in bfloat16.
    count = 1 if device.type == "cpu" else None
    image, labels = (tensor[:count].to(device) for tensor in patches.batch(0))
    ratio = _ratio(state, _laid_out(image), labels, loss_function)
    return "bfloat16" if processes.agreed(ratio) < 1 else "float32"


def _ratio(state: LoopState, image: Tensor, labels: Tensor, loss_function: DeepSupervisionLoss) -> float:
    """Return the time of forward and backward in bfloat16 relative to float32."""
    device = image.device
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
    return seconds["bfloat16"] / seconds["float32"]


def _laid_out(image: Tensor) -> Tensor:
    """Return an image (B, C, ...) in the memory format that is faster on its device."""
    return image.contiguous(memory_format=FORMATS[image.ndim]) if image.device.type == "cpu" else image


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
    task: Task,
) -> Event:
    """Return the figures of the averaged weights per case and class, on the network's grid."""
    current = {name: value.clone() for name, value in state.network.state_dict().items()}
    state.network.load_state_dict(state.average)
    state.network.eval()
    spacing_mm = [step or 1.0 for step in plan.spacing_mm]
    figures = {}
    try:
        for case in cases:
            logits = predict_case(
                state.network, case, plan, task=task.observed_by(None)
            )  # reported by the training itself
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
