"""Built-in data sets, drawn by seed from the fact base and the imaging table."""
