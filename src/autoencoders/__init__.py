"""An autoencoder laboratory: one image from disk to loss, and every variant a few lines."""
