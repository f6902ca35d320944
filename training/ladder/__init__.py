"""The distillation ladder: what each thing that a student learns from adds to it."""
