"""`tumorseg demo`: a bundle segments phantoms and is verified, broken copies are refused. Torch-free."""
