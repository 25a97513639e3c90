"""What watches a training, and what proves before it that the rewards can be earned."""
