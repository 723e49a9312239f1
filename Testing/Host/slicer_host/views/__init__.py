"""Slice and 3D views: genuine displayable managers drawn offscreen, painted by Qt widgets."""
