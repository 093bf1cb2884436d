"""Phantoms: drawn cases with known truth."""
