"""The small base model that this project pretrains."""
