"""What conventions share: axes, intensities, resampling, tiles, and the arithmetic of other tools."""
