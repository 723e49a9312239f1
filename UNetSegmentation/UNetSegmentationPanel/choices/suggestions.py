"""Suggestions for choices that the user has not made: the modality, and volumes for channels."""

from collections.abc import Callable, Sequence
from typing import Any

from UNetSegmentationLib.models.installed import InstalledModel

from ..scene import scene_exchange
from . import channels
from .choices import Choices, declaredNetworks, findChoices
from .modality import Look, Watch
from .parameters import channelVolume, setChannelVolume


class Suggestions:
    """Writes suggestions into a parameter node.

    Args:
        onVolumeModified: Called when the chosen volume was modified.
    """

    def __init__(self, *, onVolumeModified: Callable[[], None]) -> None:
        self._networkTitles = declaredNetworks()
        self._watch = Watch(onVolumeModified)
        # The suggested preset; None before the first suggestion, "" if the user chose the modality.
        self._guessed: str | None = None
        self._channelsFor: tuple[Any, ...] = ()
        self._isFollowing = False

    @property
    def look(self) -> Look | None:
        """Properties of the chosen volume; None if no volume can be segmented."""
        return self._watch.look

    def follow(self, parameters: Any) -> None:
        """Use another parameter node, or update the current one; None while there is none."""
        if parameters is None:
            self._watch.follow(None)
            self._channelsFor = ()
            self._isFollowing = False
            return
        if not self._isFollowing:
            self._isFollowing = True
            self._guessed = "" if parameters.preset else None
        self._watch.follow(parameters.inputVolume)

    def followVolume(self, volumeNode: Any) -> None:
        """Restart the suggestions for another volume."""
        self._guessed = None
        self._watch.follow(volumeNode)

    def complete(self, parameters: Any, models: Sequence[InstalledModel]) -> Choices:
        """Apply suggestions and return the resolved choices."""
        self._suggestPreset(parameters)
        found = findChoices(
            models,
            preset=parameters.preset,
            network=parameters.network,
            model=parameters.model,
            networkTitles=self._networkTitles,
        )
        self._suggestChannels(parameters, found.model)
        return found

    def _suggestPreset(self, parameters: Any) -> None:
        """Suggest a modality, and update it when the volume changes until the user chooses another one."""
        if self.look is None or self._guessed not in (None, parameters.preset):
            return
        self._guessed = self.look.guess()
        if parameters.preset != self._guessed:
            parameters.preset = self._guessed

    def _suggestChannels(self, parameters: Any, model: InstalledModel | None) -> None:
        """Suggest volumes for channels by name, once for each combination of model, input and available volumes."""
        volume = parameters.inputVolume
        if model is None or volume is None or len(model.description.channels) == 1:
            return
        candidates = scene_exchange.inputVolumes()
        key = (model.description.id, volume.GetID(), tuple(node.GetID() for node in candidates))
        if key == self._channelsFor:
            return
        self._channelsFor = key
        own = channels.inputChannel(model.description, volume.GetName(), parameters.inputChannel)
        for name, node in channels.suggest(model.description, own, volume, candidates).items():
            if channelVolume(parameters, name) is None:
                setChannelVolume(parameters, name, node)
