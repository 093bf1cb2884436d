"""Filling rare cells of a training set with generated images: cells, plan, filter, batches, classifier."""
