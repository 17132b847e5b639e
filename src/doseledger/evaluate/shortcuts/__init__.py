"""A model beside trivial models, and with its inputs spoiled."""
