"""What nnU-Net's files and folders mean: paths, raw and preprocessed datasets, plans, splits, results."""
