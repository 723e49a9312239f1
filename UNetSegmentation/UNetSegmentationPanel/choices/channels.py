"""Assignment of volumes to the channels of a model."""

import html
import re
from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.models.description import ModelDescription

from ..scene import scene_exchange
from . import parameters as stored


def inputChannel(description: ModelDescription, volumeName: str, chosen: str) -> str:
    """Return the channel of the input volume: the chosen one, the one suggested by its name, or the first.

    Args:
        description: The model.
        volumeName: Name of the input volume.
        chosen: Name of a channel of this or another model, or empty.
    """
    names = [channel.name for channel in description.channels]
    if chosen in names:
        return chosen
    matching = [name for index, name in enumerate(names) if _suits(name, index, volumeName)]
    # "T1 contrast" is more specific than "T1".
    return max(matching, key=lambda name: len(_words(name)), default=names[0])


def volumesByChannel(parameters: Any, description: ModelDescription) -> dict[str, Any]:
    """Return the volume of each channel, or None, in the model's order."""
    volume = parameters.inputVolume
    own = inputChannel(description, volume.GetName() if volume is not None else "", parameters.inputChannel)
    return {
        channel.name: volume if channel.name == own else stored.channelVolume(parameters, channel.name)
        for channel in description.channels
    }


def suggest(description: ModelDescription, own: str, inputVolume: Any, candidates: Sequence[Any]) -> dict[str, Any]:
    """Return the volumes whose names match a channel, by channel.

    Args:
        description: The model.
        own: Channel of the input volume.
        inputVolume: The input volume.
        candidates: Volumes in the scene.
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
    """Return why the volumes of the channels cannot be used, in one sentence of rich text; empty if they can."""
    volumes = volumesByChannel(parameters, description)
    missing = [
        channel.name for channel in description.channels if volumes[channel.name] is None and not channel.is_optional
    ]
    if missing:
        message = (
            _("The model also needs {names}: choose its volume above.")
            if len(missing) == 1
            else _("The model also needs {names}: choose their volumes above.")
        )
        return message.format(names=html.escape(", ".join(missing)))
    seen: dict[str, str] = {}
    for name, node in volumes.items():
        if node is None:
            continue
        if node.GetID() in seen:
            message = _("{volume} is used for both {first} and {second}: choose another volume for one of them.")
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
