"""What EAT adds to the network: masks, targets, objective, teacher, student."""
