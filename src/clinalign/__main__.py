"""``python -m clinalign``, and so ``accelerate launch -m clinalign``: the same program as ``clinalign``."""

from clinalign.cli.app import main

if __name__ == "__main__":  # a spawned worker imports this file again
    main()
