"""Variants of a dataset: the same images with other labels."""
