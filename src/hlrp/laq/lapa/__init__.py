"""LAPA's latent action quantizer (arXiv:2410.11758), so that its released weights can label data in this library."""
