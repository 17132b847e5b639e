"""A DVC-versioned data-and-model registry for radiotherapy dose prediction."""
