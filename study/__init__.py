"""A study: spec -> cells -> runs."""
