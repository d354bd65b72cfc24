"""The gate is itself tested: deployment bugs made on purpose, and correct artefacts (docs/mutants.md)."""
