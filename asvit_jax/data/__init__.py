"""Images: sources, transforms and batches."""
