"""Networks, losses and the training that ties them to cases."""
