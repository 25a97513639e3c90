"""One frozen pydantic object per section of a recipe."""
