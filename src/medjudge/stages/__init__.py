"""The stages of a run, a short story each; they meet through files."""
