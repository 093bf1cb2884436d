"""clinalign: aligns medical text-to-image diffusion models with their prompts by reinforcement learning."""

__version__ = "0.1.0"
