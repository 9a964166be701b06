"""A trained model on one's own pictures: python -m autoencoders.apply run=<run> images=<folder>."""
