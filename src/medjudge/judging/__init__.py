"""The one place that asks a judge."""
