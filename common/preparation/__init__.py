"""What the scripts in `dataset_preprocess` share: options, archives, workers, interruption."""
