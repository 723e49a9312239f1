"""Copies of a network that share its tensors where possible, without its hooks."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from ...networks.parts.memory_format import FORMATS

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copy_network(
    network: nn.Module,
    *,
    replace: Callable[[nn.Module], nn.Module | None] = lambda _: None,
    lay_out: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> nn.Module:
    """Return a copy of a network that shares each tensor for which `lay_out` returns its argument.

    Args:
        network: Not changed.
        replace: Returns the replacement for a module and its children, or None to keep it.
        lay_out: Applied to every parameter and buffer of the modules that are kept.
    """
    return _copy_module(network, replace, lay_out, {})


def _copy_module(
    module: nn.Module,
    replace: Callable[[nn.Module], nn.Module | None],
    lay_out: Callable[[Tensor], Tensor],
    done: dict[int, nn.Module],
) -> nn.Module:
    if id(module) in done:
        return done[id(module)]
    result = replace(module)
    if result is None:
        result = copy.copy(module)
        for hooks in _HOOKS:
            setattr(result, hooks, OrderedDict())
        # A shallow copy without its own tables would change those of the network.
        result._parameters = {
            name: value if value is None else nn.Parameter(lay_out(value.detach()), requires_grad=False)
            for name, value in module._parameters.items()
        }
        result._buffers = {
            name: value if value is None else lay_out(value.detach()) for name, value in module._buffers.items()
        }
        result._modules = {
            name: child if child is None else _copy_module(child, replace, lay_out, done)
            for name, child in module._modules.items()
        }
    done[id(module)] = result
    return result


def channels_last_copy(
    network: nn.Module, *, replace: Callable[[nn.Module], nn.Module | None] = lambda _: None
) -> nn.Module:
    """Return a copy with channels-last weights; `replace` as for `copy_network`."""
    return copy_network(network, replace=replace, lay_out=_channels_last)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=FORMATS[tensor.ndim]) if tensor.ndim in FORMATS else tensor


def ask_at_every_layer(network: nn.Module, pulse: Callable[[], None]) -> nn.Module:
    """Let every layer of a copy call `pulse` before it computes; return the copy."""

    def ask(*_: object) -> None:  # a return value would replace the input
        pulse()

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_pre_hook(ask)
    return network
