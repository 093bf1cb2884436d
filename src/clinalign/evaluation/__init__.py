"""Measures images: fidelity, alignment, diversity, each with its interval. Start at :mod:`.suite`."""
