"""Cases on disk: data sets of images with their labelmaps."""
