"""A JupyterHub that grades courses by itself: configuration, installation and demonstration."""
