"""Smooth fields from few numbers: a uniform cubic B-spline as separable matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def bspline_field(control: Tensor, size: Sequence[int]) -> Tensor:
    """Return the field (C, D, H, W) of control points (C, d, h, w).

    Of n > 1 control points along an axis, n - 2 span the size, ends included, and one lies beyond each end;
    along an axis with one control point the field is constant.
    """
    # Matrix products of the coarse grid are several times faster than interpolating the fine one.
    field = torch.einsum("cdhw,xd->cxhw", control, _basis(size[0], control.shape[1], control.device))
    field = torch.einsum("cxhw,yh->cxyw", field, _basis(size[1], control.shape[2], control.device))
    return torch.einsum("cxyw,zw->cxyz", field, _basis(size[2], control.shape[3], control.device))


def _basis(extent: int, points: int, device: torch.device) -> Tensor:
    if points == 1:
        return torch.ones(extent, 1, device=device)
    places = torch.linspace(1, points - 2, extent, device=device)[:, None]
    distance = (places - torch.arange(points, device=device)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)
