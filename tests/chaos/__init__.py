"""What must hold when the store fails: a matrix of faults, a model, a soak."""
