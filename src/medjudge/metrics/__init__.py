"""Statistics: numpy in, numbers out."""
