"""Networks that nnU-Net builds from its plans."""
