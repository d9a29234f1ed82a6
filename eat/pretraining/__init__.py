"""What EAT adds to the network: masks, teacher, objective, and the model of them."""
