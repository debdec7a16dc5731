"""Candidates of an audit for other viewers, and what readers did there back as decisions."""
