"""Checks with the worker, before a run, whether it would fit into memory."""

from collections.abc import Callable
from typing import Any

import qt

from UNetSegmentationLib.models.installed import InstalledModel
from UNetSegmentationLib.protocol.foresee import ForeseeRequest, ForeseeResult

from ..background.worker_process import WorkerProcess
from ..choices import channels, wording
from ..choices.parameters import regionNode
from ..scene import scene_exchange

# Trying several models or dragging a region should not keep the worker busy.
DELAY_MS = 300


def requestFor(parameters: Any, model: InstalledModel) -> ForeseeRequest:
    """Return the request for a run of a model."""
    volume = parameters.inputVolume
    width, height, depth = volume.GetImageData().GetDimensions()
    region = regionNode(parameters)
    return ForeseeRequest(
        model=str(model.folder),
        shape=(len(channels.volumesByChannel(parameters, model.description)), depth, height, width),
        affine_ras=scene_exchange.worldAffine(volume),
        device=parameters.device,
        tta=parameters.mirror,
        with_probabilities=parameters.uncertainty or parameters.probabilities,
        region_to_ras=scene_exchange.regionToWorld(region) if region is not None else None,
    )


class Foresight:
    """Memory check for a possible run.

    Not a job: nothing waits for it, and answers to outdated requests are ignored.

    Args:
        worker: The worker, which is asked once it is ready.
        onChanged: Called when the warning has changed.
    """

    def __init__(self, worker: WorkerProcess, *, onChanged: Callable[[], None]) -> None:
        self.doubt = ""
        self._worker = worker
        self._onChanged: Callable[[], None] | None = onChanged
        self._request: ForeseeRequest | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.connect("timeout()", self._ask)

    def follow(self, request: ForeseeRequest | None) -> None:
        """Check this run; None if no run is possible or one is running."""
        if request == self._request:
            return
        self._request, self.doubt = request, ""
        self._timer.stop()
        if request is not None:
            self._timer.start()

    def askAgain(self) -> None:
        """Repeat the check, since the worker is now ready or free memory may have changed."""
        if self._request is not None:
            self._timer.start()

    def cleanup(self) -> None:
        """Stop and disconnect the timer, which would keep this object alive."""
        self.follow(None)
        self._onChanged = None
        self._timer.disconnect("timeout()", self._ask)

    def _ask(self) -> None:
        request = self._request
        if request is not None and self._worker.ready:
            self._worker.request("foresee", request.to_dict(), lambda message: self._onMessage(request, message))

    def _onMessage(self, request: ForeseeRequest, message: dict[str, Any]) -> None:
        # The run itself will report any error.
        if message["event"] != "result" or request != self._request or self._onChanged is None:
            return
        doubt = wording.sentence(ForeseeResult.from_dict(message).warning)
        if doubt != self.doubt:
            self.doubt = doubt
            self._onChanged()
