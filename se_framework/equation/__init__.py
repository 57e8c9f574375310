"""The equation: the scalar, what f_phi is, how the minimum over q is taken, and which choices are legal."""
