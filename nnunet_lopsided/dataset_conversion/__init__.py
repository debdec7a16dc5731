"""Datasets in nnU-Net layout: procedural, converted, and with censored labels."""
