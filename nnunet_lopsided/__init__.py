"""nnU-Net v2 extension for small lesions whose annotators missed whole lesions."""

__version__ = "0.1.0"
