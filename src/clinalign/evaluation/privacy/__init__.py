"""Does a generator give away whom it was trained on? Kernels on features, without a network of their own."""
