"""The equivalences of the theory, by topic: values and gradients in float64, limits by their rates."""
