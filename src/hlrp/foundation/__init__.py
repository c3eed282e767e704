"""Stage 2: foundation VLAs that predict latent action codes from one frame and an instruction."""
