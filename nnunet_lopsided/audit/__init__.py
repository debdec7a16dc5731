"""Which lesions did the annotators miss? Candidates of a cross-validation that no annotated lesion explains, ranked."""
