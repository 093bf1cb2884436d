"""Generators: diffusers pipelines, samplers with log-probabilities, text conditions, adapters, saving and loading."""
