"""What every layer shares: errors, files, seeds, images, config, the run folder, checkpoints."""
