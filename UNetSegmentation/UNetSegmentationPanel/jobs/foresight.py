"""Whether a run would fit into memory, asked of the worker as soon as it is clear what would run."""

from collections.abc import Callable
from typing import Any

import qt

from UNetSegmentationLib.models.installed import InstalledModel
from UNetSegmentationLib.protocol.foresee import ForeseeRequest, ForeseeResult

from ..background.worker_process import WorkerProcess
from ..choices import channels, wording
from ..choices.parameters import regionNode
from ..scene import scene_exchange

# Whoever tries one model after another, or drags a region, is not to keep the worker busy.
DELAY_MS = 300


def requestFor(parameters: Any, model: InstalledModel) -> ForeseeRequest:
    """Return what to ask about a run of a model."""
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
    """What is to be known of memory before a run that is possible.

    No job: nobody waits for it, and the answer to a former question is not listened to.

    Args:
        worker: Which is asked once it is ready.
        onChanged: Called when there is another doubt.
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
        """Foresee this run; None while none is possible, or one is at work."""
        if request == self._request:
            return
        self._request, self.doubt = request, ""
        self._timer.stop()
        if request is not None:
            self._timer.start()

    def askAgain(self) -> None:
        """Ask anew what was asked: the worker has become ready, or other programs may have taken or freed memory."""
        if self._request is not None:
            self._timer.start()

    def cleanup(self) -> None:
        """Stop for good; a timer that stays connected would keep this object."""
        self.follow(None)
        self._onChanged = None
        self._timer.disconnect("timeout()", self._ask)

    def _ask(self) -> None:
        request = self._request
        if request is not None and self._worker.ready:
            self._worker.request("foresee", request.to_dict(), lambda message: self._onMessage(request, message))

    def _onMessage(self, request: ForeseeRequest, message: dict[str, Any]) -> None:
        # What goes wrong here will be told by the run.
        if message["event"] != "result" or request != self._request or self._onChanged is None:
            return
        doubt = wording.sentence(ForeseeResult.from_dict(message).warning)
        if doubt != self.doubt:
            self.doubt = doubt
            self._onChanged()
