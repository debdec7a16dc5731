"""From a dataset to the 2.5d configuration in its plans."""
