"""Fluence of fixed fields: their dose, its adjoint, and the maps made of them."""
