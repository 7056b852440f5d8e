"""Many jobs over many devices. Nothing here but `worker` and `hosts` imports TensorFlow."""
