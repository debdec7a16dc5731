"""Lesion-wise evaluation."""
