"""A JupyterHub on which the course runs by itself: its configuration, and a demonstration."""
