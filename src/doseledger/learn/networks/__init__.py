"""Networks and what stands around them."""
