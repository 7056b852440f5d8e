"""What the variants share: layers, networks, data, training, metrics and the command line."""
