"""Which volume is which channel of a model."""

import html
import re
from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.models.description import ModelDescription

from ..scene import scene_exchange
from . import parameters as stored


def inputChannel(description: ModelDescription, volumeName: str, chosen: str) -> str:
    """Return the name of the channel that the input volume is: the chosen one, what its name tells, or the first.

    Args:
        description: The model.
        volumeName: Name of the input volume.
        chosen: Name of a channel, of this model or another one, or empty.
    """
    names = [channel.name for channel in description.channels]
    if chosen in names:
        return chosen
    told = [name for index, name in enumerate(names) if _suits(name, index, volumeName)]
    # "T1 contrast" tells more than "T1".
    return max(told, key=lambda name: len(_words(name)), default=names[0])


def volumesByChannel(parameters: Any, description: ModelDescription) -> dict[str, Any]:
    """Return the volume, or None, of every channel, in the model's order."""
    volume = parameters.inputVolume
    own = inputChannel(description, volume.GetName() if volume is not None else "", parameters.inputChannel)
    return {
        channel.name: volume if channel.name == own else stored.channelVolume(parameters, channel.name)
        for channel in description.channels
    }


def suggest(description: ModelDescription, own: str, inputVolume: Any, candidates: Sequence[Any]) -> dict[str, Any]:
    """Return the volumes whose names tell that they are a channel, by channel.

    Args:
        description: The model.
        own: Name of the channel that the input volume is.
        inputVolume: The input volume.
        candidates: Volumes of the scene.
    """
    order = sorted(enumerate(description.channels), key=lambda entry: -len(_words(entry[1].name)))
    free = [node for node in candidates if node is not inputVolume]
    found = {}
    for index, channel in order:
        suitable = [node for node in free if _suits(channel.name, index, node.GetName())]
        if channel.name != own and suitable:
            found[channel.name] = min(suitable, key=lambda node: len(_words(node.GetName())))
            free.remove(found[channel.name])
    return found


def whyUnusable(parameters: Any, description: ModelDescription) -> str:
    """Return why the volumes of the channels cannot be segmented, in a sentence of rich text; empty when they can."""
    volumes = volumesByChannel(parameters, description)
    missing = [
        channel.name for channel in description.channels if volumes[channel.name] is None and not channel.is_optional
    ]
    if missing:
        message = (
            _("The model needs {names} as well: choose its volume above.")
            if len(missing) == 1
            else _("The model needs {names} as well: choose their volumes above.")
        )
        return message.format(names=html.escape(", ".join(missing)))
    seen: dict[str, str] = {}
    for name, node in volumes.items():
        if node is None:
            continue
        if node.GetID() in seen:
            message = _("{volume} is chosen for {first} and for {second}: choose another volume for one of them.")
            return html.escape(message.format(volume=node.GetName(), first=seen[node.GetID()], second=name))
        seen[node.GetID()] = name
        reason = scene_exchange.whyUnusable(node)
        if reason and node is not parameters.inputVolume:
            return f"{html.escape(name)}: {reason}"
    return ""


def _suits(channel: str, index: int, volumeName: str) -> bool:
    # nnU-Net numbers the channels of a case: case_0000, case_0001.
    words = _words(volumeName)
    return set(_words(channel)) <= set(words) or words[-1:] == [f"{index:04d}"]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.casefold())
