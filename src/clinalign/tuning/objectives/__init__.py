"""Policy-optimisation losses, one small file each."""
