"""Loading models, and the proof of which weights came from which."""
