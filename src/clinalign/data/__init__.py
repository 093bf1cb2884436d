"""Cases: sources, prompts, phantoms, splits, and the prepared dataset that everything else reads."""
