"""An RTPLAN: read, its beams, and its check."""
