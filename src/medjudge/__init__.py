"""Train compact open language models as medical judges, and measure them honestly against the experts."""

__version__ = "0.1.0"
