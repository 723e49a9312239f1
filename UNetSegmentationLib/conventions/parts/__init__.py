"""Code shared by the conventions: axes, intensities, resampling, tiles, and the arithmetic of other tools."""
