"""Images on disk and in space: geometry, labels, and reading and writing of volumes."""
