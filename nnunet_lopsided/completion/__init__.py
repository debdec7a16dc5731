"""Completing labels without a reader: what networks out of fold call becomes a soft target."""
