"""A run as a folder: stages, manifests, resume."""
