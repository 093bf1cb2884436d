"""Free-text radiology reports: sections, sentences, prompts, finding labels, and hard negatives."""
